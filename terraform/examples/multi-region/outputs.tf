output "turn_uris" {
  description = "The URIs for a static list: those of the nearest region."
  value       = module.dns.turn_uris
}

output "turn_uris_of_regions" {
  description = "The URIs of each region."
  value       = module.dns.turn_uris_of_regions
}

output "controller_address" {
  description = "The HTTP API: the value of `TURNFLEET_CONTROLLER_URL`."
  value       = module.controllers.controller_address
}

output "dashboard_address" {
  description = "The dashboard."
  value       = module.controllers.dashboard_address
}
