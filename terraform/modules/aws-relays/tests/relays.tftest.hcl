# With a stand-in for AWS: what is made of which variables.

mock_provider "aws" {
  mock_resource "aws_eip" {
    defaults = {
      id        = "eipalloc-1"
      public_ip = "203.0.113.8"
    }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/relay" }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-debian" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
}

variables {
  region      = "eu"
  vpc_id      = "vpc-1"
  subnets     = { "eu-central-1a" = { id = "subnet-a", cidr = "10.74.0.0/24" }, "eu-central-1b" = { id = "subnet-b", cidr = "10.74.1.0/24" } }
  secret_arn  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:relays"
  binary      = { url = "https://dl.example.org/turnfleet", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  controllers = ["https://c0.controller.example.org:8081"]
  relays      = 3
}

run "relays_with_names_and_addresses_that_last" {
  assert {
    condition     = keys(output.ipv4) == ["turnfleet-eu-0", "turnfleet-eu-1", "turnfleet-eu-2"]
    error_message = "Relays are called otherwise."
  }

  assert {
    condition     = one(aws_autoscaling_group.relay["turnfleet-eu-1"].vpc_zone_identifier) == "subnet-b" && aws_autoscaling_group.relay["turnfleet-eu-1"].max_size == 1
    error_message = "Relays are not spread over the zones."
  }

  assert {
    condition     = aws_launch_template.relay["turnfleet-eu-0"].image_id == "ami-debian" && aws_launch_template.relay["turnfleet-eu-0"].metadata_options[0].http_tokens == "required"
    error_message = "The machine is another one."
  }

  assert {
    condition     = one(aws_autoscaling_group.relay["turnfleet-eu-0"].initial_lifecycle_hook).heartbeat_timeout == 3900
    error_message = "Auto Scaling does not wait for the drain."
  }
}

run "open_is_what_is_served" {
  variables {
    listeners = [{ transport = "udp", port = 3478 }, { transport = "tls", port = 443 }]
  }

  assert {
    condition     = keys(aws_security_group_rule.udp) == ["3478", "49152-65535"] && keys(aws_security_group_rule.tcp) == ["443", "49152-65535"]
    error_message = "Other ports are open."
  }

  assert {
    condition     = aws_security_group_rule.udp["49152-65535"].from_port == 49152 && aws_security_group_rule.udp["49152-65535"].to_port == 65535
    error_message = "The relay ports are others."
  }

  assert {
    condition     = length(aws_security_group_rule.metrics) == 0 && length(aws_security_group_rule.ssh) == 0
    error_message = "Metrics or SSH are open."
  }
}

run "spot_machines" {
  variables {
    spot = true
  }

  assert {
    condition     = aws_launch_template.relay["turnfleet-eu-0"].instance_market_options[0].market_type == "spot"
    error_message = "The machine is no spot machine."
  }
}

run "a_drain_that_auto_scaling_does_not_wait_for_is_refused" {
  command = plan

  variables {
    drain_seconds = 7200
  }

  expect_failures = [var.drain_seconds]
}
