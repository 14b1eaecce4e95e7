//! What `terraform/` makes: the modules by Terraform itself, AWS by a stand-in for it, machines by namespaces, units by systemd's own
//! checks.
//!
//! A test whose tool is missing says so and passes, unless `TURNFLEET_REQUIRE_TOOLS` is set, as `cargo xtask test` does
//! where it has installed them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod aws;
#[path = "../client/mod.rs"]
#[expect(
    dead_code,
    unused_imports,
    reason = "other test programs share it, and use more of it"
)]
mod client;
mod installation;
mod machine;
mod machines;
mod modules;
#[path = "../interop/netns.rs"]
#[expect(
    dead_code,
    reason = "another test program shares it, and uses more of it"
)]
mod netns;
mod readme;
#[path = "../interop/tools.rs"]
mod tools;
mod workshop;
