variable "name" {
  description = "Name of everything that the module makes; unique within the account and region."
  type        = string
  default     = "pgbridge"

  validation {
    condition     = can(regex("^[A-Za-z][A-Za-z0-9-]{0,31}$", var.name))
    error_message = "name must be 1 to 32 letters, digits and hyphens, and begin with a letter."
  }
}

variable "image_uri" {
  description = "Image of the reader, built from infra/docker/Dockerfile, with tag or digest."
  type        = string

  validation {
    condition     = can(regex("[:@][^/]+$", var.image_uri))
    error_message = "image_uri must end in a tag or a digest, so that a restart runs the same version."
  }
}

variable "configuration" {
  description = "Text of pgbridge.yaml. Leave source.dsn and the admin section out: the module sets them."
  type        = string

  validation {
    condition     = can(length(yamldecode(var.configuration).triggers) > 0)
    error_message = "configuration must be YAML with at least one trigger under triggers."
  }
}

variable "function_arns" {
  description = "Unqualified ARNs of the Lambda functions that the triggers invoke; the reader may invoke these, and their versions and aliases, and no others."
  type        = list(string)
  default     = []

  validation {
    condition = alltrue([
      for arn in var.function_arns :
      can(regex("^arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:[0-9]{12}:function:[A-Za-z0-9_-]+$", arn))
    ])
    error_message = "function_arns must be ARNs of functions, without a version or an alias at the end."
  }
}

variable "database_secret_arn" {
  description = "ARN of the secret that holds the libpq connection string of the database. Read anew after a refused login, so that a rotation needs no restart."
  type        = string

  validation {
    condition     = can(regex("^arn:aws[a-zA-Z-]*:secretsmanager:[a-z0-9-]+:[0-9]{12}:secret:.+$", var.database_secret_arn))
    error_message = "database_secret_arn must be the ARN of a secret in Secrets Manager."
  }
}

variable "database_port" {
  description = "Where the database listens."
  type        = number
  default     = 5432

  validation {
    condition     = var.database_port >= 1 && var.database_port <= 65535
    error_message = "database_port must be between 1 and 65535."
  }
}

variable "admin_token_secret_arn" {
  description = "ARN of the secret that holds the bearer token of the admin port (health, metrics, console). null: that port is open inside the task only."
  type        = string
  default     = null

  validation {
    condition     = var.admin_token_secret_arn == null || can(regex("^arn:aws[a-zA-Z-]*:secretsmanager:", var.admin_token_secret_arn))
    error_message = "admin_token_secret_arn must be the ARN of a secret in Secrets Manager, or null."
  }
}

variable "vpc_id" {
  description = "The VPC of the database."
  type        = string

  validation {
    condition     = can(regex("^vpc-[0-9a-f]+$", var.vpc_id))
    error_message = "vpc_id must look like vpc-0123456789abcdef0."
  }
}

variable "subnet_ids" {
  description = "Subnets with a route to the database, to the AWS APIs (NAT or endpoints) and to webhooks if there are any."
  type        = list(string)

  validation {
    condition     = length(var.subnet_ids) > 0 && alltrue([for id in var.subnet_ids : can(regex("^subnet-[0-9a-f]+$", id))])
    error_message = "subnet_ids must be at least one id such as subnet-0123456789abcdef0."
  }
}

variable "assign_public_ip" {
  description = "true in public subnets without NAT."
  type        = bool
  default     = false
}

variable "cpu_architecture" {
  description = "Processor that the image was built for: ARM64 or X86_64."
  type        = string
  default     = "ARM64"

  validation {
    condition     = contains(["ARM64", "X86_64"], var.cpu_architecture)
    error_message = "cpu_architecture must be ARM64 or X86_64."
  }
}

variable "cpu" {
  description = "CPU units of the task; 1024 are one core. The reader uses one core at most."
  type        = number
  default     = 512

  validation {
    condition     = contains([256, 512, 1024, 2048], var.cpu)
    error_message = "cpu must be 256, 512, 1024 or 2048."
  }
}

variable "memory" {
  description = "Memory of the task in MiB."
  type        = number
  default     = 1024

  validation {
    condition     = var.memory >= 512 && var.memory <= 16384
    error_message = "memory must be between 512 and 16384; Fargate allows certain amounts for each cpu."
  }
}

variable "log_retention_in_days" {
  description = "How long CloudWatch keeps the reader's log."
  type        = number
  default     = 30

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.log_retention_in_days)
    error_message = "log_retention_in_days must be a number of days that CloudWatch Logs offers, such as 30."
  }
}

variable "alarm_topic_arns" {
  description = "SNS topics that the alarms tell; none: they only change their state."
  type        = list(string)
  default     = []
}

variable "tags" {
  description = "Tags of everything that the module makes."
  type        = map(string)
  default     = {}
}
