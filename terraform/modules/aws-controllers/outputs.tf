output "endpoints" {
  description = "Where relays join: the `controllers` of `aws-relays`."
  value       = [for controller in local.controllers : "https://${controller.host}:8081"]
}

output "controller_address" {
  description = "The HTTP API, as `TURNFLEET_CONTROLLER_URL` has it: every controller, of which the first that answers is taken."
  value       = join(",", [for controller in local.controllers : "https://${controller.host}:8080"])
}

output "dashboard_address" {
  description = "The dashboard."
  value       = "https://${var.domain}:8080/"
}

output "names" {
  description = "The public address of each controller by its name, for DNS."
  value       = { for name, controller in local.controllers : controller.host => aws_eip.controller[name].public_ip }
}

output "domain" {
  description = "The name that leads to all of them."
  value       = var.domain
}

output "private_addresses" {
  description = "Where etcd listens: what `make-secrets.sh` makes its certificate for."
  value       = local.addresses
}
