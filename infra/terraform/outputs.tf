output "security_group_id" {
  description = "Let the database's security group accept connections from this one."
  value       = aws_security_group.reader.id
}

output "task_role_arn" {
  description = "Role of the reader, for more permissions: a secret in a webhook's settings, a function in another account."
  value       = aws_iam_role.task.arn
}

output "task_role_name" {
  description = "The same role by its name, for aws_iam_role_policy."
  value       = aws_iam_role.task.name
}

output "cluster_name" {
  description = "ECS cluster that the reader runs in."
  value       = aws_ecs_cluster.this.name
}

output "service_name" {
  description = "ECS service of the reader."
  value       = aws_ecs_service.reader.name
}

output "log_group_name" {
  description = "What the reader logs, as JSON lines."
  value       = aws_cloudwatch_log_group.reader.name
}

output "reader_down_alarm_arn" {
  description = "Alarm that goes off when no task runs, so that the database keeps WAL."
  value       = aws_cloudwatch_metric_alarm.reader_down.arn
}

output "triggers_in_trouble_alarm_arn" {
  description = "Alarm that goes off when a trigger is paused or its changes go to the backlog table."
  value       = aws_cloudwatch_metric_alarm.triggers_in_trouble.arn
}

output "dead_letter_alarm_arn" {
  description = "Alarm that goes off when a change is set aside."
  value       = aws_cloudwatch_metric_alarm.dead_letters.arn
}
