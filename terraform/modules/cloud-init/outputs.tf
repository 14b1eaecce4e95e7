output "user_data" {
  description = "The user data, as text."
  value       = local.user_data
  sensitive   = true

  precondition {
    condition     = (var.binary == null) != (var.image == null)
    error_message = "Either binary or image says where the binary comes from, and not both."
  }

  precondition {
    condition     = (var.service == "relay") == (var.config == null)
    error_message = "config is the configuration of a controller or of up; that of a relay is made from the other variables."
  }

  precondition {
    condition     = var.service != "relay" || length(var.controllers) > 0
    error_message = "A relay needs controllers to join."
  }

  precondition {
    condition     = var.service != "up" || length(var.settings) == 0
    error_message = "settings are for a relay or a controller; those of up stand in its config, under [relay] and [controller]."
  }
}

output "user_data_gzip" {
  description = "The same, compressed and in base64, as providers with a narrow limit want it."
  value       = base64gzip(local.user_data)
  sensitive   = true
}

output "firewall" {
  description = "The rules of nftables that the machine loads."
  value       = local.firewall
}

output "udp_ports" {
  description = "The UDP ports that are open to everybody, as FIRST-LAST or a port, for a provider's own firewall."
  value       = local.serves ? concat(local.udp_ports, [var.relay_ports]) : []
}

output "tcp_ports" {
  description = "The TCP ports that are open to everybody, in the same form."
  value       = local.serves ? concat(local.tcp_ports, [var.relay_ports]) : []
}
