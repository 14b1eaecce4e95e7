//! The server against what the RFCs say, against scenarios told as text, and against a net that loses packets.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

mod bans;
mod hairpin_worlds;
mod model;
mod reflection;
mod rfc6062_connect;
mod rfc6062_data;
mod rfc6062_places;
mod rfc6062_switch;
mod rfc8489_alternate;
mod rfc8489_authentication;
mod rfc8489_messages;
mod rfc8489_sha256;
mod rfc8656_allocate;
mod rfc8656_allocations;
mod rfc8656_channels;
mod rfc8656_claims;
mod rfc8656_data;
mod rfc8656_families;
mod rfc8656_hairpin;
mod rfc8656_icmp;
mod rfc8656_ip;
mod rfc8656_permissions;
mod rfc8656_ports;
mod rfc8656_quotas;
mod rfc8656_refresh;
mod rfc8656_reservations;
mod rfc8656_retransmission;
mod rfc8656_streams;
mod scenarios;
mod sessions;
mod simulation;
mod support;
mod tenants;
