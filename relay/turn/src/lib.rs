//! STUN and TURN as values: bytes, an address and a time go in; decisions come out.
//!
//! The crate owns no socket, thread, clock or source of randomness, and its manifest has nothing that could reach one.
//! [`Server`] is one shard of a TURN server (RFC 8656), [`client::Client`] the other end of the wire, and [`wire`] the
//! bytes that both speak (RFC 8489).
//!
//! A driver feeds a [`Server`] like this, once a batch:
//! 1. read the clock once into a [`Now`];
//! 2. [`Server::handle_client`] for each datagram or deframed stream message, [`Server::handle_peer`] for each datagram
//!    on a relayed socket, and carry out the [`Decision`]; [`Server::handle_peer_error`] for each ICMP message about what
//!    was sent from one;
//! 3. drain [`Server::poll_command`] before any `Reply` of the batch is sent, and answer each [`Command`] that says how;
//! 4. drain [`Server::poll_event`];
//! 5. sleep until [`Server::poll_timeout`], then call [`Server::handle_timeout`].
//!
//! `examples/media_server.rs` is a program with such a loop of its own, for those who embed the server in theirs.
//!
//! Assumptions: one `Server` per shard; the caller's time never goes backwards; the same seed and the same inputs give
//! the same outputs, byte for byte.

pub mod addr;
mod allocation;
pub mod alternates;
pub mod bans;
mod channels;
pub mod client;
mod command;
mod context;
mod counters;
mod decision;
mod event;
pub mod expiry;
mod ip;
pub mod ledger;
mod pace;
pub mod peer_filter;
mod permissions;
pub mod policy;
pub mod ports;
pub mod quota;
pub mod random;
mod reject;
mod request_method;
pub mod server;
pub mod shaper;
mod table;
mod tenant;
mod time;
pub mod usage;
pub mod wire;

pub use addr::{AddressFamily, FiveTuple, PeerAddr, Transport};
pub use command::{Command, ConnectError, OpenError, RelayedId, ShardId};
pub use context::{Candidate, Candidates, Context, Identity, KeySource};
pub use counters::{Counters, Durations, Flow, Limit, RedirectReason};
pub use decision::{ClientHeader, Decision, DropReason, Span};
pub use event::{CloseReason, ConnectionOrigin, Event};
pub use ip::IpMeta;
pub use ledger::Ledger;
pub use reject::Reject;
pub use request_method::RequestMethod;
pub use server::Server;
pub use tenant::{TenantId, TenantPolicy, Tenants};
pub use time::{Instant, Now};
