# Three controllers and a relay in networks that a test makes: the module renders what they are started with.

variable "binary_sha256" {
  type = string
}

locals {
  modules = "../modules"
  domain  = "controller.example.org"
  binary  = { url = "http://169.254.169.254/turnfleet", sha256 = var.binary_sha256 }
  members = { c0 = "11.74.0.10", c1 = "11.74.1.10", c2 = "11.74.2.10" }
  secret  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:fleet"
}

module "controller" {
  source   = "../modules/cloud-init"
  for_each = local.members

  service      = "controller"
  binary       = local.binary
  aws_secret   = local.secret
  masked_units = ["etcd.service"]
  units        = { "turnfleet-etcd.service" = file("${local.modules}/aws-controllers/files/turnfleet-etcd.service") }
  settings     = { "log.filter" = "info" }

  files = {
    "etcd.env" = templatefile("${local.modules}/aws-controllers/templates/etcd.env.tftpl", {
      name    = each.key
      address = each.value
      members = local.members
      fleet   = "turnfleet"
    })
  }

  config = templatefile("${local.modules}/aws-controllers/templates/controller.toml.tftpl", {
    id          = each.key
    host        = "${each.key}.${local.domain}"
    realm       = "example.org"
    region      = "eu"
    regions     = ["eu"]
    relay_ports = "49152-65535"
    etcd        = [for address in local.members : "https://${address}:2379"]
    more        = "[probe]\ninterval_milliseconds = 500\n"
  })

  ingress = [
    { protocol = "tcp", ports = "8080-8081", cidrs = ["0.0.0.0/0"] },
    { protocol = "tcp", ports = "2379-2380", cidrs = [for address in local.members : "${address}/32"] },
  ]
}

module "relay" {
  source = "../modules/cloud-init"

  service            = "relay"
  binary             = local.binary
  aws_secret         = local.secret
  node_id            = "relay-1"
  region             = "eu"
  zone               = "eu-central-1a"
  controllers        = [for name in keys(local.members) : "https://${name}.${local.domain}:8081"]
  public_address     = "aws"
  metrics_cidrs      = ["11.74.0.0/24"]
  termination_notice = "aws"
  aws_elastic_ip     = "eipalloc-0123456789abcdef0"
  aws_lifecycle_hook = { group = "relay-1", name = "drain" }
  drain_seconds      = 30

  listeners = [
    { transport = "udp", port = 3478 },
    { transport = "tcp", port = 3478 },
    { transport = "tcp+tls", port = 443 },
  ]
}

output "machines" {
  sensitive = true
  value = merge(
    { relay = module.relay.user_data },
    { for name, machine in module.controller : name => machine.user_data },
  )
}
