variable "domain" {
  description = "The domain of the fleet's names: `turn.DOMAIN`, `turn.REGION.DOMAIN` and `controller.DOMAIN`."
  type        = string
}

variable "zone_id" {
  description = "The hosted zone of Route 53 that the domain is in."
  type        = string
}

variable "binary" {
  description = "Where the binary comes from: an `https` URL, and its SHA-256."
  type        = object({ url = string, sha256 = string })
}

variable "secret_arns" {
  description = "The secrets that `make-secrets.sh` has made: `controllers.json`, and `relays.json` in each region."
  type        = object({ controllers = string, eu = string, us = string, ap = string })
}

variable "api_cidrs" {
  description = "Networks that may use the HTTP API and the dashboard."
  type        = list(string)
  default     = []
}

variable "metrics_cidrs" {
  description = "Networks that may read the relays' metrics."
  type        = list(string)
  default     = []
}

variable "amis" {
  description = "Machine images of each region, instead of the latest Debian 12."
  type        = object({ eu = optional(string), us = optional(string), ap = optional(string) })
  default     = {}
}

variable "ipv6" {
  description = "Whether relays serve IPv6 as well."
  type        = bool
  default     = true
}
