//! `turnfleet up` as scripts and supervisors see it: real processes, their output, their ports and their end.

#![expect(
    clippy::unwrap_used,
    reason = "what is missing ends the test, and says where"
)]

#[path = "../acme/mod.rs"]
mod acme;
mod bans;
mod bench;
mod calls;
mod certificates;
#[path = "../client/mod.rs"]
#[expect(dead_code, reason = "other test programs share it, and use more of it")]
mod client;
mod credentials;
mod draining;
mod fleet;
mod machines;
#[path = "../monitoring/mod.rs"]
mod monitoring;
mod processes;
mod quotas;
mod ready;
mod refusals;
mod secrets;
mod terminal;
mod traces;
