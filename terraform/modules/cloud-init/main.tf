# Renders the user data of one machine of the fleet: cloud-init writes files, among them the units of systemd that an installation
# by hand has, and runs the setup script once. It knows no provider, and makes no resource.

locals {
  systemd = "${path.module}/../../systemd"
  unit    = var.service == "up" ? "turnfleet" : "turnfleet-${var.service}"
  name    = var.service == "up" ? "turnfleet" : var.service
  folder  = "/etc/turnfleet"

  uses_tls = length([for listener in var.listeners : listener if strcontains(listener.transport, "tls")]) > 0
  # Where a relay is asked whether it serves: UDP, where there is any.
  listener  = concat([for listener in var.listeners : "udp ${listener.port}" if listener.transport == "udp"], ["tcp ${var.listeners[0].port}"])[0]
  low_ports = length([for listener in var.listeners : listener if listener.port < 1024]) > 0

  # Addresses are told to the relay by its configuration, other sources by a flag.
  given_addresses = can(regex("^[0-9a-fA-F.:,/]+$", var.public_address)) ? split(",", var.public_address) : []
  options         = length(local.given_addresses) > 0 || var.public_address == "machine" ? "" : "--public-ip-from ${var.public_address}"

  relay_config = templatefile("${path.module}/templates/relay.toml.tftpl", {
    node_id         = var.node_id
    region          = var.region
    zone            = var.zone
    hostnames       = var.hostnames
    public_ips      = local.given_addresses
    drain_seconds   = var.drain_seconds
    addresses       = var.ipv6 ? ["0.0.0.0", "[::]"] : ["0.0.0.0"]
    listeners       = var.listeners
    folder          = local.folder
    controllers     = var.controllers
    controller_ca   = var.controller_ca
    by_token        = var.join == "token"
    tls             = local.uses_tls
    metrics_address = length(var.metrics_cidrs) > 0 ? (var.ipv6 ? "[::]:9641" : "0.0.0.0:9641") : "127.0.0.1:9641"
  })
  config = var.service == "relay" ? local.relay_config : var.config

  settings = {
    for key, value in var.settings :
    "TURNFLEET_${upper(var.service)}__${upper(replace(key, ".", "__"))}" => value
  }
  environment = join("", [
    for key, value in merge(local.settings, local.options == "" ? {} : { OPTIONS = local.options }) :
    "${key}=\"${replace(replace(value, "\\", "\\\\"), "\"", "\\\"")}\"\n"
  ])

  # What relays open: their listeners and the relay ports, over UDP and, for peers of RFC 6062, over TCP.
  serves    = var.service != "controller"
  udp_ports = local.serves ? distinct([for listener in var.listeners : tostring(listener.port) if listener.transport == "udp"]) : []
  tcp_ports = local.serves ? distinct([for listener in var.listeners : tostring(listener.port) if listener.transport != "udp"]) : []
  metrics = length(var.metrics_cidrs) == 0 ? [] : [
    { protocol = "tcp", ports = "9641", cidrs = var.metrics_cidrs }
  ]
  ssh = length(var.ssh_cidrs) == 0 ? [] : [
    { protocol = "tcp", ports = "22", cidrs = var.ssh_cidrs }
  ]
  firewall = templatefile("${path.module}/templates/firewall.nft.tftpl", {
    relay       = local.serves
    udp_ports   = local.udp_ports
    tcp_ports   = local.tcp_ports
    relay_ports = var.relay_ports
    rules       = concat(local.metrics, local.ssh, var.ingress)
  })

  first_port = tonumber(split("-", var.relay_ports)[0])
  last_port  = tonumber(split("-", var.relay_ports)[1])
  # Ports for what is no peer's data: the larger side of the relay ports.
  local_ports = local.first_port - 16384 >= 65535 - local.last_port ? "16384 ${local.first_port - 1}" : "${local.last_port + 1} 65535"
  sysctl = replace(
    replace(file("${local.systemd}/sysctl.conf"), "16384 49151", local.local_ports),
    "49152-65535",
    join(",", concat(sort(distinct(concat(local.udp_ports, local.tcp_ports))), [var.relay_ports])),
  )

  setup = {
    SERVICE            = local.unit
    CONFIG             = local.name
    SUBCOMMAND         = var.service
    BINARY_URL         = var.binary == null ? "" : var.binary.url
    BINARY_SHA256      = var.binary == null ? "" : var.binary.sha256
    IMAGE              = var.image == null ? "" : var.image
    IMAGE_BINARY       = var.image_binary
    AWS_SECRET         = var.aws_secret == null ? "" : var.aws_secret
    SECRETS_COMMAND    = var.secrets_command == null ? "" : var.secrets_command
    AWS_ELASTIC_IP     = var.aws_elastic_ip == null ? "" : var.aws_elastic_ip
    AWS_ADDRESS        = length(local.given_addresses) == 0 ? "" : split("/", local.given_addresses[0])[0]
    LISTENER           = local.listener
    DRAIN_SECONDS      = var.drain_seconds
    AWS_LIFECYCLE_HOOK = var.aws_lifecycle_hook == null ? "" : var.aws_lifecycle_hook.name
    AWS_GROUP          = var.aws_lifecycle_hook == null ? "" : var.aws_lifecycle_hook.group
    DATA_VOLUME        = var.data_volume == null ? "" : var.data_volume
    TERMINATION_NOTICE = var.termination_notice
    UNITS              = join(" ", keys(local.units))
  }
  setup_file = join("", [for key, value in local.setup : "${key}='${replace(value, "'", "'\\''")}'\n"])

  watches = var.termination_notice != "none"
  fetches = var.aws_secret != null || var.secrets_command != null
  renews  = local.fetches && local.serves && local.uses_tls
  units = merge(
    var.units,
    { "turnfleet-firewall.service" = file("${path.module}/files/turnfleet-firewall.service") },
    local.watches ? { "turnfleet-termination.timer" = file("${path.module}/files/turnfleet-termination.timer") } : {},
    local.renews ? { "turnfleet-secrets.timer" = file("${path.module}/files/turnfleet-secrets.timer") } : {},
  )
  drop_ins = merge(
    var.service != "relay" ? {} : { "drain.conf" = "[Service]\nTimeoutStopSec=${var.drain_seconds + 60}\n" },
    local.serves && local.low_ports ? { "low-ports.conf" = file("${local.systemd}/low-ports.conf") } : {},
  )

  public_files = concat(
    [
      { path = "${local.folder}/${local.name}.toml", permissions = "0640", content = local.config == null ? "" : local.config },
      { path = "${local.folder}/${local.name}.env", permissions = "0640", content = local.environment },
      { path = "${local.folder}/setup.env", permissions = "0600", content = local.setup_file },
      { path = "${local.folder}/firewall.nft", permissions = "0640", content = local.firewall },
      { path = "/etc/sysctl.d/60-turnfleet.conf", permissions = "0644", content = local.sysctl },
      { path = "/etc/systemd/system/${local.unit}.service", permissions = "0644", content = file("${local.systemd}/${local.unit}.service") },
      { path = "/usr/local/lib/turnfleet/cloud.sh", permissions = "0644", content = file("${path.module}/files/cloud.sh") },
      { path = "/usr/local/lib/turnfleet/setup.sh", permissions = "0755", content = file("${path.module}/files/setup.sh") },
    ],
    local.watches ? [
      { path = "/usr/local/lib/turnfleet/termination.sh", permissions = "0755", content = file("${path.module}/files/termination.sh") },
      { path = "/etc/systemd/system/turnfleet-termination.service", permissions = "0644", content = file("${path.module}/files/turnfleet-termination.service") },
    ] : [],
    local.fetches ? [
      { path = "/usr/local/lib/turnfleet/secrets.sh", permissions = "0755", content = file("${path.module}/files/secrets.sh") },
    ] : [],
    local.renews ? [
      { path = "/etc/systemd/system/turnfleet-secrets.service", permissions = "0644", content = file("${path.module}/files/turnfleet-secrets.service") },
    ] : [],
    [for name, content in local.units : { path = "/etc/systemd/system/${name}", permissions = "0644", content = content }],
    [for name, content in local.drop_ins : { path = "/etc/systemd/system/${local.unit}.service.d/${name}", permissions = "0644", content = content }],
    [for name, content in var.files : { path = "${local.folder}/${name}", permissions = "0640", content = content }],
  )
  secret_files = [
    for name, content in var.secrets : { path = "${local.folder}/${name}", permissions = "0600", content = content }
  ]

  user_data = join("\n", ["#cloud-config", yamlencode({
    # Before packages come, and at every start.
    bootcmd         = concat([["mkdir", "-p", "/etc/turnfleet"]], [for unit in var.masked_units : ["systemctl", "mask", unit]])
    package_update  = true
    packages        = concat(["ca-certificates", "curl", "nftables", "python3"], var.image == null ? [] : ["podman"], var.packages)
    write_files     = concat(local.public_files, local.secret_files)
    runcmd          = [["/usr/local/lib/turnfleet/setup.sh"]]
    package_upgrade = false
  })])
}
