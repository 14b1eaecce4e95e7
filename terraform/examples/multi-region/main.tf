# A fleet in three regions: controllers with etcd in the first, relays in all, and names that lead clients to the nearest.
#
# make-secrets.sh of the module aws-controllers makes the two secrets first; docs/guides/terraform.md has every step.

terraform {
  required_version = ">= 1.5"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = ">= 3.39, < 7"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

provider "aws" {
  alias  = "us"
  region = "us-east-1"
}

provider "aws" {
  alias  = "ap"
  region = "ap-southeast-1"
}

locals {
  listeners = [
    { transport = "udp", port = 3478 },
    { transport = "tcp", port = 3478 },
    { transport = "tls", port = 5349 },
    { transport = "tls", port = 443 },
  ]
  relays = {
    eu = { aws_region = "eu-central-1", ipv4 = module.eu.ipv4 }
    us = { aws_region = "us-east-1", ipv4 = module.us.ipv4 }
    ap = { aws_region = "ap-southeast-1", ipv4 = module.ap.ipv4 }
  }
  relay_cidrs = [for address in flatten([for region in local.relays : values(region.ipv4)]) : "${address}/32"]
}

module "eu_network" {
  source = "../../modules/aws-network"

  zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
  ipv6  = var.ipv6
}

module "us_network" {
  source    = "../../modules/aws-network"
  providers = { aws = aws.us }

  zones = ["us-east-1a", "us-east-1b"]
  ipv6  = var.ipv6
}

module "ap_network" {
  source    = "../../modules/aws-network"
  providers = { aws = aws.ap }

  zones = ["ap-southeast-1a", "ap-southeast-1b"]
  ipv6  = var.ipv6
}

module "controllers" {
  source = "../../modules/aws-controllers"

  vpc_id      = module.eu_network.vpc_id
  subnets     = module.eu_network.subnets
  secret_arn  = var.secret_arns.controllers
  binary      = var.binary
  ami         = var.amis.eu
  domain      = "controller.${var.domain}"
  realm       = var.domain
  region      = "eu"
  regions     = ["eu", "us", "ap"]
  relay_cidrs = local.relay_cidrs
  api_cidrs   = var.api_cidrs
}

module "eu" {
  source = "../../modules/aws-relays"

  region        = "eu"
  vpc_id        = module.eu_network.vpc_id
  subnets       = module.eu_network.subnets
  ipv6          = module.eu_network.ipv6
  secret_arn    = var.secret_arns.eu
  binary        = var.binary
  ami           = var.amis.eu
  controllers   = module.controllers.endpoints
  listeners     = local.listeners
  hostnames     = ["turn.${var.domain}"]
  metrics_cidrs = var.metrics_cidrs
  relays        = 2
}

module "us" {
  source    = "../../modules/aws-relays"
  providers = { aws = aws.us }

  region        = "us"
  vpc_id        = module.us_network.vpc_id
  subnets       = module.us_network.subnets
  ipv6          = module.us_network.ipv6
  secret_arn    = var.secret_arns.us
  binary        = var.binary
  ami           = var.amis.us
  controllers   = module.controllers.endpoints
  listeners     = local.listeners
  hostnames     = ["turn.${var.domain}"]
  metrics_cidrs = var.metrics_cidrs
  relays        = 2
}

module "ap" {
  source    = "../../modules/aws-relays"
  providers = { aws = aws.ap }

  region        = "ap"
  vpc_id        = module.ap_network.vpc_id
  subnets       = module.ap_network.subnets
  ipv6          = module.ap_network.ipv6
  secret_arn    = var.secret_arns.ap
  binary        = var.binary
  ami           = var.amis.ap
  controllers   = module.controllers.endpoints
  listeners     = local.listeners
  hostnames     = ["turn.${var.domain}"]
  metrics_cidrs = var.metrics_cidrs
  relays        = 2
}

module "dns" {
  source = "../../modules/aws-dns"

  zone_id     = var.zone_id
  domain      = var.domain
  regions     = local.relays
  listeners   = local.listeners
  controllers = { domain = module.controllers.domain, names = module.controllers.names }
}
