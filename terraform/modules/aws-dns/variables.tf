variable "zone_id" {
  description = "The hosted zone of Route 53."
  type        = string
}

variable "domain" {
  description = "The domain of the names, such as `example.org`: `turn.example.org` leads clients to the nearest region, `turn.eu.example.org` to the region `eu`."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+[.])+[a-z0-9-]+$", var.domain))
    error_message = "domain is a DNS name such as example.org."
  }
}

variable "regions" {
  description = "The regions of the fleet: the region of AWS that latency is measured to, and the relays' addresses by their names, as `aws-relays` has them."
  type        = map(object({ aws_region = string, ipv4 = map(string) }))
}

variable "listeners" {
  description = "Where relays listen, as of `aws-relays`."
  type        = list(object({ transport = string, port = number }))
  default = [
    { transport = "udp", port = 3478 },
    { transport = "tcp", port = 3478 },
  ]
}

variable "controllers" {
  description = "Names and addresses of the controllers: `domain` and `names` of `aws-controllers`."
  type        = object({ domain = string, names = map(string) })
  default     = null
}

variable "health_checks" {
  description = "Whether Route 53 asks each relay by TCP, and leaves out those that do not answer."
  type        = bool
  default     = true
}

variable "ttl" {
  description = "How long resolvers keep an answer, in seconds."
  type        = number
  default     = 60
}

variable "tags" {
  description = "Tags of the health checks."
  type        = map(string)
  default     = {}
}
