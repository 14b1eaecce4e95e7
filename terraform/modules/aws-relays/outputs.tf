output "ipv4" {
  description = "The public address of each relay."
  value       = { for name, address in aws_eip.relay : name => address.public_ip }
}

output "region" {
  description = "The region of the fleet."
  value       = var.region
}

output "groups" {
  description = "The Auto Scaling group of each relay."
  value       = { for name, group in aws_autoscaling_group.relay : name => group.name }
}

output "turn_uris" {
  description = "The URIs of each relay by its address."
  value = {
    for name, address in aws_eip.relay : name => distinct(concat(
      [for listener in var.listeners : "turn:${address.public_ip}:${listener.port}?transport=udp" if listener.transport == "udp"],
      [for listener in var.listeners : "turn:${address.public_ip}:${listener.port}?transport=tcp" if contains(["tcp", "tcp+tls"], listener.transport)],
    ))
  }
}
