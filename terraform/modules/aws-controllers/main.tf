# The controllers of a fleet with etcd beside each of them, one in each zone. Addresses and disks outlive the machines: one that is made
# anew is the member that it was before.

locals {
  tags  = merge({ Fleet = var.name, Name = "${var.name}-controllers" }, var.tags)
  zones = sort(keys(var.subnets))
  controllers = {
    for index, zone in local.zones : "c${index}" => {
      zone    = zone
      subnet  = var.subnets[zone].id
      address = cidrhost(var.subnets[zone].cidr, 10)
      host    = "c${index}.${var.domain}"
    }
  }
  addresses = [for controller in local.controllers : controller.address]
  ami       = var.ami != null ? var.ami : data.aws_ami.debian[0].id
}

data "aws_ami" "debian" {
  count = var.ami == null ? 1 : 0

  owners      = ["136693071363"]
  most_recent = true

  filter {
    name   = "name"
    values = ["debian-12-amd64-*"]
  }
}

module "machine" {
  source   = "../cloud-init"
  for_each = local.controllers

  service      = "controller"
  binary       = var.binary
  image        = var.image
  aws_secret   = var.secret_arn
  settings     = var.settings
  relay_ports  = var.relay_ports
  ssh_cidrs    = var.ssh_cidrs
  data_volume  = "/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_${replace(aws_ebs_volume.data[each.key].id, "-", "")}"
  packages     = ["etcd-server"]
  masked_units = ["etcd.service"]
  units        = { "turnfleet-etcd.service" = file("${path.module}/files/turnfleet-etcd.service") }

  files = {
    "etcd.env" = templatefile("${path.module}/templates/etcd.env.tftpl", {
      name    = each.key
      address = each.value.address
      members = { for name, controller in local.controllers : name => controller.address }
      fleet   = var.name
    })
  }

  config = templatefile("${path.module}/templates/controller.toml.tftpl", {
    id          = each.key
    host        = each.value.host
    realm       = var.realm
    region      = var.region
    regions     = var.regions
    relay_ports = var.relay_ports
    etcd        = [for address in local.addresses : "https://${address}:2379"]
    more        = var.config
  })

  # Relays come and go, and with them their addresses: the security group follows them, the machine's own firewall need not.
  ingress = [
    { protocol = "tcp", ports = "8080-8081", cidrs = ["0.0.0.0/0"] },
    { protocol = "tcp", ports = "2379-2380", cidrs = [for address in local.addresses : "${address}/32"] },
  ]
}

resource "aws_instance" "controller" {
  for_each = local.controllers

  ami           = local.ami
  instance_type = var.instance_type
  subnet_id     = each.value.subnet
  # The address by which the members of etcd know each other.
  private_ip             = each.value.address
  vpc_security_group_ids = [aws_security_group.controller.id]
  iam_instance_profile   = aws_iam_instance_profile.controller.name
  user_data_base64       = module.machine[each.key].user_data_gzip
  tags                   = merge(local.tags, { Name = "${var.name}-${each.key}" })

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # A change is for machines that are made later: replace them one after the other, so that etcd keeps its majority.
  lifecycle {
    ignore_changes = [ami, user_data_base64]
  }

  depends_on = [aws_iam_role_policy.controller]
}

resource "aws_ebs_volume" "data" {
  for_each = local.controllers

  availability_zone = each.value.zone
  size              = var.data_gigabytes
  type              = "gp3"
  encrypted         = true
  tags              = merge(local.tags, { Name = "${var.name}-${each.key}" })
}

# A disk in use is not taken away: it is free when its machine has ended.
resource "aws_volume_attachment" "data" {
  for_each = local.controllers

  device_name  = "/dev/sdf"
  volume_id    = aws_ebs_volume.data[each.key].id
  instance_id  = aws_instance.controller[each.key].id
  skip_destroy = true
}

resource "aws_eip" "controller" {
  for_each = local.controllers

  instance = aws_instance.controller[each.key].id
}
