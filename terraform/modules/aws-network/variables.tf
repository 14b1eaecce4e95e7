variable "name" {
  description = "What the network is called."
  type        = string
  default     = "turnfleet"
}

variable "cidr" {
  description = "The private IPv4 network. Networks of several regions may be the same: they are not joined."
  type        = string
  default     = "10.74.0.0/16"

  validation {
    condition     = can(cidrsubnet(var.cidr, 8, 0))
    error_message = "cidr is an IPv4 network of /16 to /20."
  }
}

variable "zones" {
  description = "The availability zones, each with a public subnet."
  type        = list(string)

  validation {
    condition     = length(var.zones) > 0 && length(var.zones) == length(distinct(var.zones))
    error_message = "There is one zone at least, and none twice."
  }
}

variable "ipv6" {
  description = "Whether machines have IPv6 addresses as well."
  type        = bool
  default     = true
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
