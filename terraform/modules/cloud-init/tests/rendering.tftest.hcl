# What user data says for each kind of machine, and which mistakes are refused. Nothing is made.

variables {
  service     = "relay"
  binary      = { url = "https://dl.example.org/turnfleet", sha256 = "0000000000000000000000000000000000000000000000000000000000000000" }
  controllers = ["https://controller.example.org:8081"]
}

run "a_relay" {
  assert {
    condition     = startswith(output.user_data, "#cloud-config\n")
    error_message = "cloud-init knows user data by its first line."
  }

  assert {
    condition     = can(yamldecode(output.user_data).write_files)
    error_message = "The user data is no YAML."
  }

  assert {
    condition     = output.udp_ports == tolist(["3478", "49152-65535"]) && output.tcp_ports == tolist(["3478", "49152-65535"])
    error_message = "Open are other ports than the listeners and the relay ports."
  }

  assert {
    condition     = !strcontains(output.firewall, " 22 ") && !strcontains(output.firewall, "9641")
    error_message = "SSH or metrics are open to somebody, and nobody was named."
  }

  assert {
    condition     = can(regex("(?s)icmp type .*icmpv6 type .*ct state invalid drop", output.firewall))
    error_message = "Media is not tracked, so errors about it count as invalid: relays would not hear of them."
  }
}

run "a_relay_with_tls_on_443" {
  variables {
    listeners = [
      { transport = "udp", port = 3478 },
      { transport = "tcp+tls", port = 443 },
    ]
  }

  assert {
    condition     = contains([for file in yamldecode(output.user_data).write_files : file.path], "/etc/systemd/system/turnfleet-relay.service.d/low-ports.conf")
    error_message = "Port 443 needs a capability."
  }

  assert {
    condition     = strcontains(output.user_data, "/etc/turnfleet/tls.pem")
    error_message = "TLS needs a certificate."
  }
}

run "ports_of_the_machine_itself_are_elsewhere" {
  variables {
    relay_ports = "20000-29999"
  }

  assert {
    condition     = strcontains(output.user_data, "net.ipv4.ip_local_port_range = 30000 65535") && strcontains(output.user_data, "ip_local_reserved_ports = 3478,20000-29999")
    error_message = "The kernel would give relay ports to whoever connects."
  }
}

run "addresses_are_told_and_other_sources_are_a_flag" {
  variables {
    public_address = "203.0.113.8/10.0.0.8"
  }

  assert {
    condition     = strcontains(output.user_data, "203.0.113.8/10.0.0.8") && !strcontains(output.user_data, "--public-ip-from")
    error_message = "An address that is given is not asked for."
  }
}

run "an_address_from_metadata" {
  variables {
    public_address     = "google"
    termination_notice = "google"
  }

  assert {
    condition     = strcontains(output.user_data, "--public-ip-from google") && strcontains(output.user_data, "turnfleet-termination.timer")
    error_message = "The relay is not told where to ask, or nobody looks for the machine's end."
  }
}

run "settings_are_environment" {
  variables {
    settings = { "limits.allocations" = "5000" }
  }

  assert {
    condition     = anytrue([for file in yamldecode(output.user_data).write_files : file.path == "/etc/turnfleet/relay.env" && file.content == "TURNFLEET_RELAY__LIMITS__ALLOCATIONS=\"5000\"\n"])
    error_message = "A setting is lost."
  }
}

run "a_secret_in_user_data_is_for_the_service_alone" {
  variables {
    secrets = { "join-token" = "a token that nobody knows" }
  }

  assert {
    condition     = anytrue([for file in yamldecode(output.user_data).write_files : file.path == "/etc/turnfleet/join-token" && file.permissions == "0600"])
    error_message = "The join token is readable to others."
  }
}

run "a_whole_fleet_on_one_machine" {
  variables {
    service     = "up"
    controllers = []
    config      = "relays = 1\ntls-port = 443\n"
    listeners   = [{ transport = "udp", port = 3478 }, { transport = "tls", port = 443 }]
    ingress     = [{ protocol = "tcp", ports = "8080", cidrs = ["198.51.100.0/24", "2001:db8::/32"] }]
  }

  assert {
    condition     = contains([for file in yamldecode(output.user_data).write_files : file.path], "/etc/systemd/system/turnfleet.service")
    error_message = "There is no unit."
  }

  assert {
    condition     = strcontains(output.firewall, "ip6 saddr 2001:db8::/32 tcp dport 8080 accept")
    error_message = "What was to be opened is closed."
  }

  assert {
    condition     = output.udp_ports == tolist(["3478", "49152-65535"]) && output.tcp_ports == tolist(["443", "49152-65535"])
    error_message = "Clients and peers are to reach the listeners and the relay ports."
  }

  assert {
    condition     = alltrue([for rule in ["udp dport { 3478 } notrack", "udp dport { 3478 } accept", "tcp dport { 443 } accept", "udp dport 49152-65535 accept"] : strcontains(output.firewall, rule)])
    error_message = "The firewall keeps clients and peers out."
  }

  assert {
    condition     = contains([for file in yamldecode(output.user_data).write_files : file.path], "/etc/systemd/system/turnfleet.service.d/low-ports.conf")
    error_message = "Port 443 needs a capability."
  }
}

run "a_controller_opens_what_it_is_told_alone" {
  variables {
    service     = "controller"
    controllers = []
    config      = "id = \"c0\"\n"
    aws_secret  = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:fleet"
    listeners   = [{ transport = "tls", port = 443 }]
    ingress     = [{ protocol = "tcp", ports = "8081", cidrs = ["0.0.0.0/0"] }]
  }

  assert {
    condition     = length(output.udp_ports) == 0 && length(output.tcp_ports) == 0 && !strcontains(output.firewall, "notrack")
    error_message = "A controller has no listeners of TURN."
  }

  assert {
    condition     = strcontains(output.user_data, "/usr/local/lib/turnfleet/secrets.sh") && !strcontains(output.user_data, "turnfleet-secrets.timer")
    error_message = "A controller's secrets are fetched once."
  }
}

run "a_renewed_certificate_is_fetched" {
  variables {
    listeners       = [{ transport = "tcp+tls", port = 443 }]
    secrets_command = "cat /run/secrets.json"
  }

  assert {
    condition = length(setsubtract(
      ["/etc/systemd/system/turnfleet-secrets.timer", "/etc/systemd/system/turnfleet-secrets.service", "/usr/local/lib/turnfleet/secrets.sh"],
      [for file in yamldecode(output.user_data).write_files : file.path],
    )) == 0
    error_message = "Nobody looks for a renewed certificate."
  }

  assert {
    condition     = anytrue([for file in yamldecode(output.user_data).write_files : file.path == "/etc/turnfleet/setup.env" && strcontains(file.content, "turnfleet-secrets.timer")])
    error_message = "The timer is not started."
  }
}

run "a_relay_that_joins_nobody_is_refused" {
  command = plan

  variables {
    controllers = []
  }

  expect_failures = [output.user_data]
}

run "two_sources_of_the_binary_are_refused" {
  command = plan

  variables {
    image = "registry.example.org/turnfleet"
  }

  expect_failures = [output.user_data]
}

run "mistakes_are_refused" {
  command = plan

  variables {
    service            = "relais"
    binary             = { url = "dl.example.org", sha256 = "0" }
    controllers        = ["http://controller.example.org:8081"]
    join               = "password"
    listeners          = [{ transport = "dtls", port = 5349 }]
    public_address     = "somewhere"
    relay_ports        = "65535-49152"
    drain_seconds      = 0
    termination_notice = "alibaba"
    settings           = { "Limits Allocations" = "1" }
    files              = { "../../passwd" = "" }
    ingress            = [{ protocol = "icmp", ports = "1", cidrs = [] }]
    units              = { "a b" = "" }
  }

  expect_failures = [
    var.service, var.binary, var.controllers, var.join, var.listeners, var.public_address, var.relay_ports, var.drain_seconds,
    var.termination_notice, var.settings, var.files, var.ingress, var.units,
  ]
}
