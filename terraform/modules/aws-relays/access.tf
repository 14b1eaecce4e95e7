# Who reaches the relays, and what their role may do.

resource "aws_security_group" "relay" {
  name        = "${var.name}-${var.region}-relays"
  description = "TURN relays"
  vpc_id      = var.vpc_id
  tags        = local.tags
}

resource "aws_security_group_rule" "udp" {
  for_each = toset(local.udp_ports)

  security_group_id = aws_security_group.relay.id
  description       = "TURN over UDP"
  type              = "ingress"
  protocol          = "udp"
  from_port         = split("-", each.value)[0]
  to_port           = reverse(split("-", each.value))[0]
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = local.anywhere6
}

resource "aws_security_group_rule" "tcp" {
  for_each = toset(local.tcp_ports)

  security_group_id = aws_security_group.relay.id
  description       = "TURN over TCP and TLS, and peers by TCP"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = split("-", each.value)[0]
  to_port           = reverse(split("-", each.value))[0]
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = local.anywhere6
}

# Destination unreachable, of all codes: clients hear of peers that are gone, and how much fits the path.
resource "aws_security_group_rule" "icmp" {
  security_group_id = aws_security_group.relay.id
  description       = "ICMP destination unreachable"
  type              = "ingress"
  protocol          = "icmp"
  from_port         = 3
  to_port           = -1
  cidr_blocks       = ["0.0.0.0/0"]
}

resource "aws_security_group_rule" "icmpv6" {
  count = var.ipv6 ? 1 : 0

  security_group_id = aws_security_group.relay.id
  description       = "ICMPv6"
  type              = "ingress"
  protocol          = "icmpv6"
  from_port         = -1
  to_port           = -1
  ipv6_cidr_blocks  = ["::/0"]
}

resource "aws_security_group_rule" "metrics" {
  count = length(var.metrics_cidrs) > 0 ? 1 : 0

  security_group_id = aws_security_group.relay.id
  description       = "Metrics"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 9641
  to_port           = 9641
  cidr_blocks       = var.metrics_cidrs
}

resource "aws_security_group_rule" "ssh" {
  count = length(var.ssh_cidrs) > 0 ? 1 : 0

  security_group_id = aws_security_group.relay.id
  description       = "SSH"
  type              = "ingress"
  protocol          = "tcp"
  from_port         = 22
  to_port           = 22
  cidr_blocks       = var.ssh_cidrs
}

resource "aws_security_group_rule" "out" {
  security_group_id = aws_security_group.relay.id
  description       = "Peers are anywhere"
  type              = "egress"
  protocol          = "-1"
  from_port         = 0
  to_port           = 0
  cidr_blocks       = ["0.0.0.0/0"]
  ipv6_cidr_blocks  = local.anywhere6
}

resource "aws_iam_role" "relay" {
  name = "${var.name}-${var.region}-relay"
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

# To read one secret, to take these addresses for machines of this fleet, and to say that a machine has drained.
resource "aws_iam_role_policy" "relay" {
  name = "relay"
  role = aws_iam_role.relay.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [
      {
        Effect   = "Allow"
        Action   = "secretsmanager:GetSecretValue"
        Resource = var.secret_arn
      },
      {
        Effect   = "Allow"
        Action   = "ec2:AssociateAddress"
        Resource = [for address in aws_eip.relay : "arn:${data.aws_partition.current.partition}:ec2:*:*:elastic-ip/${address.id}"]
      },
      {
        Effect    = "Allow"
        Action    = "ec2:AssociateAddress"
        Resource  = "arn:${data.aws_partition.current.partition}:ec2:*:*:instance/*"
        Condition = { StringEquals = { "ec2:ResourceTag/Fleet" = var.name } }
      },
      {
        Effect   = "Allow"
        Action   = "ec2:AssociateAddress"
        Resource = "arn:${data.aws_partition.current.partition}:ec2:*:*:network-interface/*"
      },
      {
        Effect   = "Allow"
        Action   = "autoscaling:CompleteLifecycleAction"
        Resource = [for name in keys(local.relays) : "arn:${data.aws_partition.current.partition}:autoscaling:*:*:autoScalingGroup:*:autoScalingGroupName/${name}"]
      },
    ]
  })
}

resource "aws_iam_instance_profile" "relay" {
  name = "${var.name}-${var.region}-relay"
  role = aws_iam_role.relay.name
}
