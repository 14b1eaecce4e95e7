locals {
  uris = {
    for name in concat(["turn.${var.domain}"], [for region in keys(var.regions) : "turn.${region}.${var.domain}"]) : name => concat(
      [for listener in var.listeners : "turn:${name}:${listener.port}?transport=udp" if listener.transport == "udp"],
      [for listener in var.listeners : "turn:${name}:${listener.port}?transport=tcp" if contains(["tcp", "tcp+tls"], listener.transport)],
      [for listener in var.listeners : "turns:${name}:${listener.port}?transport=tcp" if contains(["tls", "tcp+tls"], listener.transport)],
    )
  }
}

output "turn_uris" {
  description = "The URIs for a static list, as Synapse's `turn_uris`."
  value       = local.uris["turn.${var.domain}"]
}

output "turn_uris_of_regions" {
  description = "The URIs of each region by itself."
  value       = { for region in keys(var.regions) : region => local.uris["turn.${region}.${var.domain}"] }
}
