//! The controller as its callers meet it: its store, its APIs, its name server and its probe, over real sockets and real files,
//! with control sessions that a test speaks for the nodes. One program, so that the controller is linked once; a module a
//! subject, and modules that several of them stand on.
//!
//! `cargo test -p turnfleet-controller --test controller rollout::` runs one module. Scenarios of the fleet's core and the
//! simulation, in virtual time and without a socket, are the programs `fleet` and `simulation`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod abuse;
#[path = "../../../tests/acme/mod.rs"]
mod acme;
mod alternates;
mod authority;
mod certified;
#[expect(
    dead_code,
    reason = "the program `chaos` shares it, and uses more of it"
)]
mod cluster;
mod controllers;
mod dns;
mod etcd_access;
mod etcd_failures;
mod events;
mod explain;
mod fleet_store;
mod fuzzed_api;
mod grpc;
mod http_api;
mod leader;
mod maintenance;
mod matrix;
mod membership;
mod nodes_api;
mod operator_api;
mod operator_grpc;
mod paused_link;
mod plain_fleet;
mod policy_push;
mod probe;
mod promises;
mod rollout;
mod sealing;
mod secrets_api;
mod small_homeserver;
mod small_relay;
mod stage;
mod start;
mod store;
mod store_etcd;
mod store_that_fails;
mod tenant_quotas;
mod tenants_and_bans;
mod traces;
mod usage;
mod webhooks;
