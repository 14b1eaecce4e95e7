variable "service" {
  description = "What the machine is: `relay`, `controller`, or `up` for a whole fleet on one machine."
  type        = string

  validation {
    condition     = contains(["relay", "controller", "up"], var.service)
    error_message = "service is relay, controller or up."
  }
}

variable "binary" {
  description = "Where the binary comes from: an `https` URL, and its SHA-256 in hexadecimal. It or `image` is needed."
  type        = object({ url = string, sha256 = string })
  default     = null

  validation {
    condition     = var.binary == null ? true : can(regex("^https?://[^[:space:]]+$", var.binary.url)) && can(regex("^[0-9a-f]{64}$", var.binary.sha256))
    error_message = "binary needs an http(s) URL and 64 hexadecimal digits of SHA-256."
  }
}

variable "image" {
  description = "The container image that the binary is taken from by podman, best by digest (`registry.example.org/turnfleet@sha256:…`). The service runs by systemd all the same."
  type        = string
  default     = null
}

variable "image_binary" {
  description = "Where in the image the binary is."
  type        = string
  default     = "/usr/local/bin/turnfleet"
}

variable "config" {
  description = "The TOML configuration of a controller or of `up`. That of a relay is made from the variables below."
  type        = string
  default     = null
}

variable "settings" {
  description = "Further keys of the configuration reference for a relay or a controller, such as `{ \"limits.allocations\" = \"5000\" }`. They stand over the configuration."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for key in keys(var.settings) : can(regex("^[a-z0-9_]+([.][a-z0-9_]+)*$", key))])
    error_message = "settings are named as in the configuration reference: limits.allocations."
  }
}

variable "files" {
  description = "Files for the folder `/etc/turnfleet` that everybody may know, such as `ca.pem`: name and content."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.files) : can(regex("^[a-z0-9][a-z0-9._-]*$", name))])
    error_message = "files have names of a-z, 0-9, '.', '_' and '-', without folders."
  }
}

variable "secrets" {
  description = "Files for the same folder that the service alone may read, such as `join-token`. They are in the user data, which whoever administers the machine can read, and in Terraform's state: prefer `aws_secret` or `secrets_command`."
  type        = map(string)
  default     = {}
  sensitive   = true

  validation {
    condition     = alltrue([for name in keys(var.secrets) : can(regex("^[a-z0-9][a-z0-9._-]*$", name))])
    error_message = "secrets have names of a-z, 0-9, '.', '_' and '-', without folders."
  }
}

variable "aws_secret" {
  description = "The ARN of a secret of AWS Secrets Manager: a JSON object of file names and contents. The machine asks for it by its instance role."
  type        = string
  default     = null
}

variable "secrets_command" {
  description = "A command that prints such a JSON object, run as root: the client of any other secret manager."
  type        = string
  default     = null
}

variable "node_id" {
  description = "The relay's name, unique in its fleet. Empty: the machine's host name."
  type        = string
  default     = ""
}

variable "region" {
  description = "The region that the relay serves."
  type        = string
  default     = "local"
}

variable "zone" {
  description = "The failure domain within the region."
  type        = string
  default     = ""
}

variable "hostnames" {
  description = "DNS names of the relay, which `turns:` URIs carry."
  type        = list(string)
  default     = []
}

variable "controllers" {
  description = "The controllers that the relay joins, `https://host:port`."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for url in var.controllers : can(regex("^https://[^/[:space:]]+:[0-9]+$", url))])
    error_message = "controllers are https://host:port, without a path."
  }
}

variable "controller_ca" {
  description = "The file of `files` or of the secrets with the authority of the controllers' certificate."
  type        = string
  default     = "ca.pem"
}

variable "join" {
  description = "How the relay becomes a member: `token`, by the file `join-token`, or `certificate`, by the files `relay.pem` and `relay.key`, which name its identity as SPIFFE has it."
  type        = string
  default     = "token"

  validation {
    condition     = contains(["token", "certificate"], var.join)
    error_message = "join is token or certificate."
  }
}

variable "listeners" {
  description = "Where the relay listens on all its addresses: `udp`, `tcp`, `tls` or `tcp+tls`, and the port. The firewall opens these ports and the relay ports. Those of TLS need the files `tls.pem` and `tls.key`. For `up`, where its `config` has it listen."
  type        = list(object({ transport = string, port = number }))
  default = [
    { transport = "udp", port = 3478 },
    { transport = "tcp", port = 3478 },
  ]

  validation {
    condition = length(var.listeners) > 0 && alltrue([
      for listener in var.listeners : contains(["udp", "tcp", "tls", "tcp+tls"], listener.transport) && listener.port > 0 && listener.port < 65536
    ])
    error_message = "listeners have a transport of udp, tcp, tls or tcp+tls, and a port of 1 to 65535; there is one at least."
  }
}

variable "ipv6" {
  description = "Whether the relay listens on the machine's IPv6 addresses as well."
  type        = bool
  default     = false
}

variable "public_address" {
  description = "How the relay learns the address that clients see: `machine` (its own addresses are public), `aws`, `google`, `azure` (their metadata services), `stun:HOST:PORT`, or the addresses themselves with commas between them, each alone or as EXTERNAL/LOCAL."
  type        = string
  default     = "machine"

  validation {
    condition     = can(regex("^(machine|aws|google|azure|stun:[^[:space:]]+:[0-9]+|[0-9a-fA-F.:,/]+)$", var.public_address))
    error_message = "public_address is machine, aws, google, azure, stun:HOST:PORT, or addresses with commas between them."
  }
}

variable "relay_ports" {
  description = "The ports that relays open for clients, FIRST-LAST, as the controller's `relay_ports`, or `relay-ports` in the configuration of `up`."
  type        = string
  default     = "49152-65535"

  validation {
    condition     = can(regex("^[0-9]{4,5}-[0-9]{4,5}$", var.relay_ports))
    error_message = "relay_ports are FIRST-LAST, such as 49152-65535."
  }

  validation {
    condition     = try(tonumber(split("-", var.relay_ports)[0]) >= 1024 && tonumber(split("-", var.relay_ports)[0]) <= tonumber(split("-", var.relay_ports)[1]) && tonumber(split("-", var.relay_ports)[1]) <= 65535, false)
    error_message = "relay_ports begin at 1024 or above, end at 65535 or below, and not before they begin."
  }
}

variable "drain_seconds" {
  description = "How long allocations may live on when the relay is told to end; the service is waited for a minute longer."
  type        = number
  default     = 3600

  validation {
    condition     = var.drain_seconds >= 1 && var.drain_seconds <= 172800
    error_message = "drain_seconds are 1 to 172800."
  }
}

variable "metrics_cidrs" {
  description = "Networks that may read the relay's metrics at port 9641. Without any, the machine alone may."
  type        = list(string)
  default     = []
}

variable "ssh_cidrs" {
  description = "Networks that may reach port 22. Without any, nobody may."
  type        = list(string)
  default     = []
}

variable "ingress" {
  description = "Further ports that the firewall opens, such as a controller's: protocol, ports (`8081` or `8080-8081`), and the networks."
  type        = list(object({ protocol = string, ports = string, cidrs = list(string) }))
  default     = []

  validation {
    condition = alltrue([
      for rule in var.ingress : contains(["tcp", "udp"], rule.protocol) && can(regex("^[0-9]{1,5}(-[0-9]{1,5})?$", rule.ports))
    ])
    error_message = "ingress has a protocol of tcp or udp, and ports such as 8081 or 8080-8081."
  }
}

variable "termination_notice" {
  description = "Whose notice of a machine's end is watched for, upon which the relay drains: `aws` (spot, Auto Scaling), `google`, `azure`, or `none`."
  type        = string
  default     = "none"

  validation {
    condition     = contains(["none", "aws", "google", "azure"], var.termination_notice)
    error_message = "termination_notice is none, aws, google or azure."
  }
}

variable "aws_elastic_ip" {
  description = "The allocation ID of the Elastic IP that the machine takes when it starts; its instance role has to allow that."
  type        = string
  default     = null
}

variable "aws_lifecycle_hook" {
  description = "The Auto Scaling group of the machine, and its lifecycle hook that is told when the relay has drained."
  type        = object({ group = string, name = string })
  default     = null
}

variable "data_volume" {
  description = "The device of the disk that `/var/lib/turnfleet` is on. Where it is blank, a file system is made on it. Without it, the root disk."
  type        = string
  default     = null
}

variable "packages" {
  description = "Packages of the distribution to install beside those that the module needs."
  type        = list(string)
  default     = []
}

variable "masked_units" {
  description = "Units that packages bring and that shall not run, such as `etcd.service`."
  type        = list(string)
  default     = []
}

variable "units" {
  description = "Further units of systemd that are started before the service: name and content."
  type        = map(string)
  default     = {}

  validation {
    condition     = alltrue([for name in keys(var.units) : can(regex("^[a-z0-9-]+[.](service|timer)$", name))])
    error_message = "units are named such as turnfleet-etcd.service."
  }
}
