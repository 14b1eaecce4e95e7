//! The simulated machine that the statements and the simulation share: a relay, its clients, and what they get.

mod answer;
mod caller;
mod net;
mod setup;
pub(crate) mod tcp;
mod worlds;

pub(crate) use answer::{Answer, data_indication};
pub(crate) use caller::Caller;
pub(crate) use net::{Net, Outcome};
pub(crate) use setup::{
    ACME, ACME_NAME, ACME_REALM, OFFERED, PEER, PEER6, PORTS, PROBE_NAME, REALM, START_UNIX, Setup,
    V4, V6, addr, host,
};
pub(crate) use worlds::{
    ALICE, ALICE_AGAIN, BOB, allocated, assert_challenge, claimed, dual, limited, refresh_family,
    reserve, signed_allocate, v4_only, v6_only,
};
