# With a stand-in for AWS: what is made of which variables.

mock_provider "aws" {
  mock_resource "aws_eip" {
    defaults = { public_ip = "203.0.113.20" }
  }
  mock_resource "aws_ebs_volume" {
    defaults = { id = "vol-0123456789abcdef0" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-debian" }
  }
}

variables {
  vpc_id = "vpc-1"
  subnets = {
    "eu-central-1a" = { id = "subnet-a", cidr = "10.74.0.0/24" }
    "eu-central-1b" = { id = "subnet-b", cidr = "10.74.1.0/24" }
    "eu-central-1c" = { id = "subnet-c", cidr = "10.74.2.0/24" }
  }
  secret_arn  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:controllers"
  binary      = { url = "https://dl.example.org/turnfleet", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  domain      = "controller.example.org"
  realm       = "example.org"
  relay_cidrs = ["203.0.113.8/32"]
}

run "three_controllers_in_three_zones" {
  assert {
    condition     = output.endpoints == ["https://c0.controller.example.org:8081", "https://c1.controller.example.org:8081", "https://c2.controller.example.org:8081"]
    error_message = "Relays are sent elsewhere."
  }

  assert {
    condition     = output.private_addresses == ["10.74.0.10", "10.74.1.10", "10.74.2.10"] && aws_instance.controller["c2"].subnet_id == "subnet-c"
    error_message = "The members of etcd are elsewhere."
  }

  assert {
    condition     = strcontains(output.controller_address, "https://c1.controller.example.org:8080") && output.dashboard_address == "https://controller.example.org:8080/"
    error_message = "The API is elsewhere."
  }

  assert {
    condition     = contains(aws_security_group_rule.relays.cidr_blocks, "203.0.113.8/32") && !contains(aws_security_group_rule.relays.cidr_blocks, "0.0.0.0/0")
    error_message = "Others than relays may come to the control port."
  }

  assert {
    condition     = aws_ebs_volume.data["c0"].encrypted && aws_ebs_volume.data["c1"].availability_zone == "eu-central-1b"
    error_message = "The disk is not where its controller is, or is not encrypted."
  }
}

run "a_domain_that_is_none_is_refused" {
  command = plan

  variables {
    domain = "https://controller"
  }

  expect_failures = [var.domain]
}
