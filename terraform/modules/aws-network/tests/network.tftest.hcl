# With a stand-in for AWS: what is made of which variables.

mock_provider "aws" {
  mock_resource "aws_vpc" {
    defaults = {
      id              = "vpc-1"
      ipv6_cidr_block = "2001:db8:74::/56"
    }
  }
}

variables {
  zones = ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
}

run "a_subnet_in_each_zone" {
  assert {
    condition     = keys(output.subnets) == ["eu-central-1a", "eu-central-1b", "eu-central-1c"]
    error_message = "There is a zone without a subnet."
  }

  assert {
    condition     = output.subnets["eu-central-1c"].cidr == "10.74.2.0/24"
    error_message = "Subnets are not one after the other."
  }

  assert {
    condition     = aws_subnet.public["eu-central-1b"].ipv6_cidr_block == "2001:db8:74:1::/64" && length(aws_route.ipv6) == 1
    error_message = "There is no IPv6."
  }
}

run "without_ipv6" {
  variables {
    ipv6 = false
  }

  assert {
    condition     = length(aws_route.ipv6) == 0 && !aws_vpc.this.assign_generated_ipv6_cidr_block
    error_message = "There is IPv6."
  }
}

run "a_zone_twice_is_refused" {
  command = plan

  variables {
    zones = ["eu-central-1a", "eu-central-1a"]
  }

  expect_failures = [var.zones]
}
