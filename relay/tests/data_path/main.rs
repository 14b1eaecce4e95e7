//! The data path with real sockets on loopback: a relay, the sans-IO client on sockets of its own, and peers.

mod bans;
mod certificates;
mod fronts;
mod hairpin;
mod hairpin_worlds;
mod ip;
mod sockets;
mod streams;
mod support;
mod tcp;
mod tcp_cut;
mod tcp_peers;
mod tenants;
mod transports;
