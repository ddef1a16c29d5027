# Terraform: `terraform apply -var public_key=...` after `flujo lambda build . --python 3.12 --out dist`. Not run on AWS by us: see README.md.
terraform {
  required_providers { aws = { source = "hashicorp/aws" } }
}

variable "public_key" {
  description = "The public key, base64 (openssl pkey -in signing.pem -pubout -outform DER | tail -c 32 | base64)"
  type        = string
}

resource "aws_s3_bucket" "tasks" { bucket_prefix = "flujo-tasks-" }

resource "aws_s3_bucket_public_access_block" "tasks" {
  bucket                  = aws_s3_bucket.tasks.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "tasks" {
  bucket = aws_s3_bucket.tasks.id
  rule {
    id     = "forget"
    status = "Enabled"
    filter {}
    expiration { days = 7 }
  }
}

resource "aws_secretsmanager_secret" "pepper" { name = "pseudonyms/PSEUDONYM_PEPPER" }

resource "aws_iam_role" "worker" {
  name = "pseudonyms-worker"
  assume_role_policy = jsonencode({
    Version   = "2012-10-17"
    Statement = [{ Effect = "Allow", Action = "sts:AssumeRole", Principal = { Service = "lambda.amazonaws.com" } }]
  })
}

resource "aws_iam_role_policy" "worker" {
  role = aws_iam_role.worker.id
  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      { Effect = "Allow", Action = ["s3:GetObject", "s3:PutObject"], Resource = "${aws_s3_bucket.tasks.arn}/flujo/*" },
      { Effect = "Allow", Action = "secretsmanager:GetSecretValue", Resource = aws_secretsmanager_secret.pepper.arn },
      { Effect = "Allow", Action = ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], Resource = "*" },
    ]
  })
}

resource "aws_lambda_function" "pseudonyms" {
  function_name                  = "pseudonyms"
  filename                       = "dist/lambda_project-0.zip"
  source_code_hash               = filebase64sha256("dist/lambda_project-0.zip")
  handler                        = "flujo.backend_lambda.aws.handler"
  runtime                        = "python3.12"
  role                           = aws_iam_role.worker.arn
  memory_size                    = 1769
  timeout                        = 60
  reserved_concurrent_executions = 100
  environment {
    variables = {
      FLUJO_LAMBDA_PUBLIC_KEYS = var.public_key
      FLUJO_LAMBDA_BUCKET      = aws_s3_bucket.tasks.id
      FLUJO_LAMBDA_SECRETS     = "pseudonyms/"
    }
  }
}
