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
  description = "A public subnet for each availability zone, as `aws-network` has them. There is one controller in each: three in production, one for a trial."
  type        = map(object({ id = string, cidr = string }))
}

variable "secret_arn" {
  description = "The secret of Secrets Manager with the keys and tokens of the controllers, as `make-secrets.sh` writes it."
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
  default     = "t3.small"
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

variable "domain" {
  description = "The name that leads to all controllers, such as `controller.example.org`. Each has a name of its own before it, `c0.controller.example.org`; the certificate is for all of them."
  type        = string

  validation {
    condition     = can(regex("^([a-z0-9-]+[.])+[a-z0-9-]+$", var.domain))
    error_message = "domain is a DNS name such as controller.example.org."
  }
}

variable "realm" {
  description = "The realm of the fleet's TURN servers."
  type        = string
}

variable "region" {
  description = "The region of the fleet that the controllers are in."
  type        = string
  default     = "local"
}

variable "regions" {
  description = "The order in which regions stand in for each other."
  type        = list(string)
  default     = []
}

variable "relay_ports" {
  description = "The ports that relays open for clients, FIRST-LAST."
  type        = string
  default     = "49152-65535"
}

variable "config" {
  description = "Further tables of the controllers' TOML configuration, such as `[matrix]`."
  type        = string
  default     = ""
}

variable "relay_cidrs" {
  description = "Where relays come from: their public addresses, as networks. Each is a rule of the security group, which has 60 until AWS is asked for more."
  type        = list(string)
}

variable "api_cidrs" {
  description = "Networks that may use the HTTP API and the dashboard: applications, homeservers and yourself."
  type        = list(string)
  default     = []
}

variable "data_gigabytes" {
  description = "The size of each controller's disk for etcd and its state."
  type        = number
  default     = 20
}
