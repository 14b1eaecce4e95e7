variable "name" {
  description = "The name of the fleet; what the module makes is called after it."
  type        = string
  default     = "turnfleet"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{0,30}$", var.name))
    error_message = "name begins with a letter and has at most 31 characters of a-z, 0-9 and '-'."
  }
}

variable "vpc_id" {
  description = "The network, as `aws-network` has it."
  type        = string
}

variable "subnets" {
  description = "A public subnet for each availability zone, as `aws-network` has them. Relays are spread over them."
  type        = map(object({ id = string, cidr = string }))
}

variable "secret_arn" {
  description = "The secret of Secrets Manager with the join token, the authority of the controllers and, for TLS, `tls.pem` and `tls.key`, as `make-secrets.sh` writes it."
  type        = string
}

variable "binary" {
  description = "Where the binary comes from: an `https` URL, and its SHA-256. It or `image` is needed."
  type        = object({ url = string, sha256 = string })
  default     = null
}

variable "image" {
  description = "The container image that the binary is taken from."
  type        = string
  default     = null
}

variable "ami" {
  description = "The machine image: Debian 12 or later, or Ubuntu 24.04 or later. Without it, the latest of Debian 12 for amd64."
  type        = string
  default     = null
}

variable "instance_type" {
  description = "What machine it is."
  type        = string
  default     = "c6i.large"
}

variable "ssh_cidrs" {
  description = "Networks that may reach port 22. Without any, nobody may."
  type        = list(string)
  default     = []
}

variable "settings" {
  description = "Further keys of the configuration reference, such as `{ \"log.format\" = \"json\" }`."
  type        = map(string)
  default     = {}
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}

variable "region" {
  description = "The region of the fleet that these relays serve, such as `eu`; it need not be called as AWS calls it."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9-]{1,20}$", var.region))
    error_message = "region has at most 20 characters of a-z, 0-9 and '-'."
  }
}

variable "relays" {
  description = "How many relays, each with an address of its own that outlives its machine. AWS gives an account five such addresses a region until it is asked for more."
  type        = number
  default     = 2

  validation {
    condition     = var.relays >= 1 && var.relays <= 200 && floor(var.relays) == var.relays
    error_message = "relays are 1 to 200."
  }
}

variable "controllers" {
  description = "The controllers that the relays join, `https://host:port`, as `aws-controllers` has them."
  type        = list(string)
}

variable "listeners" {
  description = "Where relays listen: transport and port, as of the module `cloud-init`."
  type        = list(object({ transport = string, port = number }))
  default = [
    { transport = "udp", port = 3478 },
    { transport = "tcp", port = 3478 },
  ]
}

variable "hostnames" {
  description = "DNS names that `turns:` URIs carry, such as `turn.example.org`."
  type        = list(string)
  default     = []
}

variable "relay_ports" {
  description = "The ports that relays open for clients, FIRST-LAST, as the controllers'."
  type        = string
  default     = "49152-65535"
}

variable "ipv6" {
  description = "Whether relays serve IPv6 as well; the network has to have it."
  type        = bool
  default     = true
}

variable "drain_seconds" {
  description = "How long calls may live on when a machine is to end. Auto Scaling waits for two hours at most."
  type        = number
  default     = 3600

  validation {
    condition     = var.drain_seconds >= 1 && var.drain_seconds <= 6900
    error_message = "drain_seconds are 1 to 6900: a lifecycle hook of Auto Scaling lasts two hours at most."
  }
}

variable "spot" {
  description = "Takes spot machines: cheaper, and ended with a notice of two minutes, in which the relay leaves the lists."
  type        = bool
  default     = false
}

variable "metrics_cidrs" {
  description = "Networks that may read the relays' metrics at port 9641."
  type        = list(string)
  default     = []
}
