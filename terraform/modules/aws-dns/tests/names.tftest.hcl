# With a stand-in for AWS: what is made of which variables.

mock_provider "aws" {}

variables {
  zone_id = "Z1"
  domain  = "example.org"
  regions = {
    eu = { aws_region = "eu-central-1", ipv4 = { "turnfleet-eu-0" = "203.0.113.8", "turnfleet-eu-1" = "203.0.113.9" } }
    us = { aws_region = "us-east-1", ipv4 = { "turnfleet-us-0" = "198.51.100.8" } }
  }
}

run "names_of_the_nearest_region_and_of_each" {
  assert {
    condition     = aws_route53_record.nearest["eu"].name == "turn.example.org" && one(aws_route53_record.nearest["eu"].latency_routing_policy).region == "eu-central-1"
    error_message = "Clients are not led to the nearest region."
  }

  assert {
    condition     = aws_route53_record.nearest["eu"].records == toset(["203.0.113.8", "203.0.113.9"])
    error_message = "A relay is missing."
  }

  assert {
    condition     = aws_route53_record.relay["us/turnfleet-us-0"].name == "turn.us.example.org"
    error_message = "The region has another name."
  }

  assert {
    condition     = output.turn_uris == ["turn:turn.example.org:3478?transport=udp", "turn:turn.example.org:3478?transport=tcp"]
    error_message = "The list is another one."
  }

  assert {
    condition     = length(aws_route53_health_check.relay) == 3 && length(aws_route53_health_check.region["eu"].child_healthchecks) >= 1
    error_message = "A relay is not asked whether it is well."
  }
}

run "without_health_checks" {
  variables {
    health_checks = false
    controllers   = { domain = "controller.example.org", names = { "c0.controller.example.org" = "203.0.113.20" } }
  }

  assert {
    condition     = length(aws_route53_health_check.relay) == 0 && length(aws_route53_record.controller) == 1
    error_message = "There are health checks, or no names of controllers."
  }
}

run "tls_has_turns_uris" {
  variables {
    listeners = [{ transport = "tcp+tls", port = 443 }]
  }

  assert {
    condition     = output.turn_uris == ["turn:turn.example.org:443?transport=tcp", "turns:turn.example.org:443?transport=tcp"]
    error_message = "The list is another one."
  }
}
