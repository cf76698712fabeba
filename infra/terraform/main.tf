# The always-on reader as a Fargate service: what template.yaml has for SAM, for functions that something else deploys.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  environment = {
    PGBRIDGE_CONFIG       = "/run/pgbridge/pgbridge.yaml"
    PGBRIDGE_YAML         = var.configuration
    PGBRIDGE_SOURCE_DSN   = "secretsmanager:${var.database_secret_arn}" # a reference: a rotation needs no restart
    PGBRIDGE_ADMIN_LISTEN = var.admin_token_secret_arn == null ? "127.0.0.1:8765" : "0.0.0.0:8765"
  }
}

resource "aws_ecs_cluster" "this" {
  name = var.name
  tags = var.tags

  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_cloudwatch_log_group" "reader" {
  name              = "/pgbridge/${var.name}"
  retention_in_days = var.log_retention_in_days
  tags              = var.tags
}

resource "aws_security_group" "reader" {
  name        = "${var.name}-reader"
  description = "pgbridge reader; to the database, the AWS APIs and webhooks, and nothing comes in"
  vpc_id      = var.vpc_id
  tags        = var.tags

  egress {
    description = "PostgreSQL"
    from_port   = var.database_port
    to_port     = var.database_port
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }

  egress {
    description = "AWS APIs and webhooks"
    from_port   = 443
    to_port     = 443
    protocol    = "tcp"
    cidr_blocks = ["0.0.0.0/0"]
  }
}

data "aws_iam_policy_document" "assumed_by_tasks" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [data.aws_caller_identity.current.account_id]
    }
  }
}

# What ECS itself needs to start the container.
resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_tasks.json
  tags               = var.tags
}

resource "aws_iam_role_policy_attachment" "execution" {
  role       = aws_iam_role.execution.name
  policy_arn = "arn:${data.aws_partition.current.partition}:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}

data "aws_iam_policy_document" "admin_token" {
  count = var.admin_token_secret_arn == null ? 0 : 1

  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.admin_token_secret_arn]
  }
}

resource "aws_iam_role_policy" "admin_token" {
  count = var.admin_token_secret_arn == null ? 0 : 1

  name   = "admin-token"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.admin_token[0].json
}

# What the reader may do: invoke just these functions, read just its secret.
resource "aws_iam_role" "task" {
  name               = "${var.name}-task"
  assume_role_policy = data.aws_iam_policy_document.assumed_by_tasks.json
  tags               = var.tags
}

data "aws_iam_policy_document" "task" {
  statement {
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [var.database_secret_arn]
  }

  dynamic "statement" {
    for_each = length(var.function_arns) > 0 ? [var.function_arns] : []

    content {
      # The configuration tells how long a call may take; without the right to read it calls wait as long as any may.
      actions   = ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration"]
      resources = flatten([for arn in statement.value : [arn, "${arn}:*"]])
    }
  }
}

resource "aws_iam_role_policy" "task" {
  name   = "invoke-functions-and-read-secret"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}

resource "aws_ecs_task_definition" "reader" {
  family                   = "${var.name}-reader"
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  tags                     = var.tags

  runtime_platform {
    cpu_architecture        = var.cpu_architecture
    operating_system_family = "LINUX"
  }

  volume {
    name = "run" # the only place that can be written to; the image gives it to the reader's user
  }

  container_definitions = jsonencode([
    {
      name                   = "reader"
      image                  = var.image_uri
      essential              = true
      user                   = "10001:10001"
      readonlyRootFilesystem = true
      linuxParameters        = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
      mountPoints            = [{ sourceVolume = "run", containerPath = "/run/pgbridge", readOnly = false }]
      # `exec`, so that SIGTERM reaches the reader.
      entryPoint  = ["sh", "-ec"]
      command     = ["printf '%s' \"$PGBRIDGE_YAML\" > \"$PGBRIDGE_CONFIG\" && exec pgbridge run"]
      environment = [for name, value in local.environment : { name = name, value = value }]
      secrets = var.admin_token_secret_arn == null ? [] : [
        { name = "PGBRIDGE_ADMIN_TOKEN", valueFrom = var.admin_token_secret_arn }
      ]
      portMappings = [{ containerPort = 8765, hostPort = 8765, protocol = "tcp" }]
      healthCheck = {
        command     = ["CMD", "python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8765/healthz', timeout=4)"]
        interval    = 30
        timeout     = 5
        retries     = 3
        startPeriod = 60
      }
      stopTimeout = 120 # calls in flight get 25 seconds to end; then it saves, which may take as long as the store takes
      logConfiguration = {
        logDriver = "awslogs"
        options = {
          awslogs-group         = aws_cloudwatch_log_group.reader.name
          awslogs-region        = data.aws_region.current.region
          awslogs-stream-prefix = "reader"
        }
      }
    }
  ])
}

resource "aws_ecs_service" "reader" {
  name            = "reader"
  cluster         = aws_ecs_cluster.this.id
  task_definition = aws_ecs_task_definition.reader.arn
  launch_type     = "FARGATE"
  propagate_tags  = "SERVICE"
  tags            = var.tags

  # One process reads a slot at a time: the old task goes before the new one comes.
  desired_count                      = 1
  deployment_minimum_healthy_percent = 0
  deployment_maximum_percent         = 100

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }

  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.reader.id]
    assign_public_ip = var.assign_public_ip
  }

  # Otherwise the first task starts, and fails, before it may read the secret.
  depends_on = [aws_iam_role_policy.task, aws_iam_role_policy.admin_token, aws_iam_role_policy_attachment.execution]
}

resource "aws_cloudwatch_log_metric_filter" "dead_letters" {
  name           = "${var.name}-dead-letters"
  log_group_name = aws_cloudwatch_log_group.reader.name
  pattern        = "{ $.event = \"dead letter\" }" # one JSON line per dead letter: bridge/observe/log.py, DEAD_LETTER

  metric_transformation {
    namespace     = "pgbridge"
    name          = "${var.name}-dead-letters"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "dead_letters" {
  alarm_name          = "${var.name}-dead-letters"
  alarm_description   = "pgbridge set changes aside. See why with pgbridge dlq list, and replay them once that is mended."
  namespace           = "pgbridge"
  metric_name         = aws_cloudwatch_log_metric_filter.dead_letters.metric_transformation[0].name
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_log_metric_filter" "triggers_in_trouble" {
  name           = "${var.name}-triggers-in-trouble"
  log_group_name = aws_cloudwatch_log_group.reader.name
  pattern        = "{ ($.event = \"trigger paused\") || ($.event = \"trigger to backlog\") }" # bridge/observe/log.py

  metric_transformation {
    namespace     = "pgbridge"
    name          = "${var.name}-triggers-in-trouble"
    value         = "1"
    default_value = "0"
  }
}

resource "aws_cloudwatch_metric_alarm" "triggers_in_trouble" {
  alarm_name          = "${var.name}-triggers-in-trouble"
  alarm_description   = "A trigger of pgbridge was paused, or its changes went to the backlog table since its target is down or too slow. Nothing is lost; pgbridge status says which, and why."
  namespace           = "pgbridge"
  metric_name         = aws_cloudwatch_log_metric_filter.triggers_in_trouble.metric_transformation[0].name
  statistic           = "Sum"
  period              = 60
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arns
  tags                = var.tags
}

# While nobody reads the slot, the database keeps its WAL, until its disk is full.
resource "aws_cloudwatch_metric_alarm" "reader_down" {
  alarm_name          = "${var.name}-reader-down"
  alarm_description   = "No task of pgbridge runs, and the database keeps WAL for it. The reader's log says why it ended."
  namespace           = "ECS/ContainerInsights"
  metric_name         = "RunningTaskCount"
  dimensions          = { ClusterName = aws_ecs_cluster.this.name, ServiceName = aws_ecs_service.reader.name }
  statistic           = "Maximum"
  period              = 60
  evaluation_periods  = 10 # five of ten: longer than a deployment takes, and a task that starts and ends again counts
  datapoints_to_alarm = 5
  threshold           = 1
  comparison_operator = "LessThanThreshold"
  treat_missing_data  = "breaching"
  alarm_actions       = var.alarm_topic_arns
  ok_actions          = var.alarm_topic_arns
  tags                = var.tags
}
