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

output "dead_letter_alarm_arn" {
  description = "Alarm that goes off when a change is set aside."
  value       = aws_cloudwatch_metric_alarm.dead_letters.arn
}
