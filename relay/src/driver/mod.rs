//! Sockets: turns operating-system events into datagrams and messages, and decisions into system calls.
//!
//! Each file owns one kind of socket. Nothing here knows a protocol rule: what a packet means is the core's business
//! ([`turnfleet_turn::Server`]), and which call follows which event is the shard's.

pub(crate) mod batch;
pub(crate) mod clock;
mod control;
pub(crate) mod counters;
pub(crate) mod descriptors;
pub(crate) mod directory;
pub(crate) mod entrance;
pub(crate) mod error_queue;
mod fixed;
pub(crate) mod ip_options;
pub(crate) mod peer_connections;
pub(crate) mod places;
pub(crate) mod relayed_tcp;
pub(crate) mod relayed_udp;
pub(crate) mod sockaddr;
pub(crate) mod splice;
pub(crate) mod stream;
pub(crate) mod tcp;
pub(crate) mod tls;
pub(crate) mod udp;
