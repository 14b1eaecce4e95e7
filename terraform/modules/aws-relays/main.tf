# The relays of one region. Each has a name and an Elastic IP that outlive its machine: an Auto Scaling group of one puts another
# machine in the place of one that has died, which takes the address and, by the name, the ports of the one before it.

locals {
  tags   = merge({ Fleet = var.name, Name = "${var.name}-${var.region}" }, var.tags)
  zones  = sort(keys(var.subnets))
  relays = { for index in range(var.relays) : "${var.name}-${var.region}-${index}" => local.zones[index % length(local.zones)] }
  hook   = "drain"
  ami    = var.ami != null ? var.ami : data.aws_ami.debian[0].id

  udp_ports = values(module.machine)[0].udp_ports
  tcp_ports = values(module.machine)[0].tcp_ports
  anywhere6 = var.ipv6 ? ["::/0"] : []
}

data "aws_partition" "current" {}

data "aws_ami" "debian" {
  count = var.ami == null ? 1 : 0

  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

# Without tags and domain: what versions of the provider want to be told there excludes each other.
resource "aws_eip" "relay" {
  for_each = local.relays
}

module "machine" {
  source   = "../cloud-init"
  for_each = local.relays

  service            = "relay"
  binary             = var.binary
  image              = var.image
  aws_secret         = var.secret_arn
  node_id            = each.key
  region             = var.region
  zone               = each.value
  hostnames          = var.hostnames
  controllers        = var.controllers
  listeners          = var.listeners
  ipv6               = var.ipv6
  public_address     = aws_eip.relay[each.key].public_ip
  relay_ports        = var.relay_ports
  drain_seconds      = var.drain_seconds
  metrics_cidrs      = var.metrics_cidrs
  ssh_cidrs          = var.ssh_cidrs
  settings           = var.settings
  termination_notice = "aws"
  aws_elastic_ip     = aws_eip.relay[each.key].id
  aws_lifecycle_hook = { group = each.key, name = local.hook }
}

resource "aws_launch_template" "relay" {
  for_each = local.relays

  name                   = each.key
  image_id               = local.ami
  instance_type          = var.instance_type
  user_data              = module.machine[each.key].user_data_gzip
  update_default_version = true

  iam_instance_profile {
    arn = aws_iam_instance_profile.relay.arn
  }

  # An address to begin with, by which the machine asks for its own.
  network_interfaces {
    associate_public_ip_address = true
    ipv6_address_count          = var.ipv6 ? 1 : null
    security_groups             = [aws_security_group.relay.id]
    delete_on_termination       = true
  }

  # Version 2 alone, which no request that somebody else has made up can reach.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  dynamic "instance_market_options" {
    for_each = var.spot ? [1] : []

    content {
      market_type = "spot"
    }
  }

  tag_specifications {
    resource_type = "instance"
    tags          = merge(local.tags, { Name = each.key })
  }
}

resource "aws_autoscaling_group" "relay" {
  for_each = local.relays

  name                = each.key
  min_size            = 1
  max_size            = 1
  desired_capacity    = 1
  vpc_zone_identifier = [var.subnets[each.value].id]
  health_check_type   = "EC2"

  launch_template {
    id      = aws_launch_template.relay[each.key].id
    version = aws_launch_template.relay[each.key].latest_version
  }

  # A machine that is to end drains first, and says when it has.
  initial_lifecycle_hook {
    name                 = local.hook
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    heartbeat_timeout    = var.drain_seconds + 300
    default_result       = "CONTINUE"
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = each.key })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = false
    }
  }

  # To remove a relay is to wait for its calls.
  timeouts {
    delete = "${ceil(var.drain_seconds / 60) + 15}m"
  }

  # Its address and its role are needed until it has drained.
  depends_on = [aws_iam_role_policy.relay]
}
