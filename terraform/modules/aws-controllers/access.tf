# Who reaches the controllers, and what their role may do.

resource "aws_security_group" "controller" {
  name        = "${var.name}-controllers"
  description = "Turnfleet controllers"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_security_group_rule" "relays" {
  security_group_id = aws_security_group.controller.id
  description       = "Control sessions of relays and of other controllers"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 8081
  to_port           = 8081
  cidr_blocks       = concat(var.relay_cidrs, [for address in aws_eip.controller : "${address.public_ip}/32"])
}

resource "aws_security_group_rule" "api" {
  security_group_id = aws_security_group.controller.id
  description       = "HTTP API and dashboard"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 8080
  to_port           = 8080
  cidr_blocks       = concat(var.api_cidrs, [for address in aws_eip.controller : "${address.public_ip}/32"])
}

resource "aws_security_group_rule" "etcd" {
  security_group_id = aws_security_group.controller.id
  description       = "etcd"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 2379
  to_port           = 2380
  self              = true
}

resource "aws_security_group_rule" "ssh" {
  count = length(var.ssh_cidrs) > 0 ? 1 : 0

  security_group_id = aws_security_group.controller.id
  description       = "SSH"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_blocks       = var.ssh_cidrs
}

resource "aws_security_group_rule" "out" {
  security_group_id = aws_security_group.controller.id
  description       = "Relays, packages and the secret"
  type              = "egress"
  protocol          = "-1"
  from_port         = 0
  to_port           = 0
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = ["::/0"]
}

resource "aws_iam_role" "controller" {
  name = "${var.name}-controller"
  tags = local.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "controller" {
  name = "controller"
  role = aws_iam_role.controller.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "secretsmanager:GetSecretValue"
      Resource = var.secret_arn
    }]
  })
}

resource "aws_iam_instance_profile" "controller" {
  name = "${var.name}-controller"
  role = aws_iam_role.controller.name
}
