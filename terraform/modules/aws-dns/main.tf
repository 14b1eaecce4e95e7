# Names for clients with a static list. They lead to addresses, which carry no port: let all relays listen at the same ones. The
# controllers' own DNS responder does more, for a zone that is delegated to them: it leaves out relays that drain or are full.

locals {
  tcp_ports = [for listener in var.listeners : listener.port if listener.transport != "udp"]
  checked   = var.health_checks && length(local.tcp_ports) > 0
  relays = merge([
    for region, of in var.regions : {
      for name, address in of.ipv4 : "${region}/${name}" => { region = region, name = name, address = address }
    }
  ]...)
}

resource "aws_route53_health_check" "relay" {
  for_each = local.checked ? local.relays : {}

  type              = "TCP"
  ip_address        = each.value.address
  port              = local.tcp_ports[0]
  request_interval  = 10
  failure_threshold = 2
  tags              = merge({ Name = each.value.name }, var.tags)
}

# A region is well while one of its relays is.
resource "aws_route53_health_check" "region" {
  for_each = local.checked ? var.regions : {}

  type                   = "CALCULATED"
  child_health_threshold = 1
  child_healthchecks     = [for key, relay in local.relays : aws_route53_health_check.relay[key].id if relay.region == each.key]
  tags                   = merge({ Name = "turnfleet-${each.key}" }, var.tags)
}

# turn.eu.example.org: the relays of one region that are well.
resource "aws_route53_record" "relay" {
  for_each = local.relays

  zone_id                          = var.zone_id
  name                             = "turn.${each.value.region}.${var.domain}"
  type                             = "A"
  ttl                              = var.ttl
  records                          = [each.value.address]
  set_identifier                   = each.value.name
  multivalue_answer_routing_policy = true
  health_check_id                  = local.checked ? aws_route53_health_check.relay[each.key].id : null
}

# turn.example.org: the relays of the region that is nearest to who asks.
resource "aws_route53_record" "nearest" {
  for_each = var.regions

  zone_id         = var.zone_id
  name            = "turn.${var.domain}"
  type            = "A"
  ttl             = var.ttl
  records         = values(each.value.ipv4)
  set_identifier  = each.key
  health_check_id = local.checked ? aws_route53_health_check.region[each.key].id : null

  latency_routing_policy {
    region = each.value.aws_region
  }
}

resource "aws_route53_record" "controllers" {
  count = var.controllers == null ? 0 : 1

  zone_id = var.zone_id
  name    = var.controllers.domain
  type    = "A"
  ttl     = var.ttl
  records = values(var.controllers.names)
}

resource "aws_route53_record" "controller" {
  for_each = var.controllers == null ? {} : var.controllers.names

  zone_id = var.zone_id
  name    = each.key
  type    = "A"
  ttl     = var.ttl
  records = [each.value]
}
