# The whole example with stand-ins for AWS in three regions.

mock_provider "aws" {
  mock_resource "aws_vpc" {
    defaults = { ipv6_cidr_block = "2001:db8:74::/56" }
  }
  mock_resource "aws_eip" {
    defaults = { public_ip = "203.0.113.8" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/relay" }
  }
}

mock_provider "aws" {
  alias = "us"
  mock_resource "aws_vpc" {
    defaults = { ipv6_cidr_block = "2001:db8:75::/56" }
  }
  mock_resource "aws_eip" {
    defaults = { public_ip = "198.51.100.8" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/relay" }
  }
}

mock_provider "aws" {
  alias = "ap"
  mock_resource "aws_vpc" {
    defaults = { ipv6_cidr_block = "2001:db8:76::/56" }
  }
  mock_resource "aws_eip" {
    defaults = { public_ip = "192.0.2.8" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/relay" }
  }
}

variables {
  domain  = "example.org"
  zone_id = "Z1"
  binary  = { url = "https://dl.example.org/turnfleet", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  secret_arns = {
    controllers = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:controllers"
    eu          = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:relays"
    us          = "arn:aws:secretsmanager:us-east-1:123456789012:secret:relays"
    ap          = "arn:aws:secretsmanager:ap-southeast-1:123456789012:secret:relays"
  }
}

run "three_regions" {
  assert {
    condition     = length(output.turn_uris) == 4 && keys(output.turn_uris_of_regions) == ["ap", "eu", "us"]
    error_message = "A region or a listener has no URI."
  }

  assert {
    condition     = output.dashboard_address == "https://controller.example.org:8080/"
    error_message = "The dashboard is elsewhere."
  }
}
