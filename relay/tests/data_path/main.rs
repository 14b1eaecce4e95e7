//! The data path with real sockets on loopback: a relay, the sans-IO client on sockets of its own, and peers.

mod fronts;
mod hairpin;
mod hairpin_worlds;
mod sockets;
mod streams;
mod support;
mod tcp;
mod transports;
