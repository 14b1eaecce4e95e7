output "vpc_id" {
  description = "The network."
  value       = aws_vpc.this.id
}

output "subnets" {
  description = "The subnet of each zone: its `id` and its IPv4 `cidr`."
  value       = { for zone, subnet in aws_subnet.public : zone => { id = subnet.id, cidr = subnet.cidr_block } }
}

output "ipv6" {
  description = "Whether there is IPv6."
  value       = var.ipv6
}
