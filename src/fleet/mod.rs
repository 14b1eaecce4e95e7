//! `turnfleet fleet`: what a running controller knows of its relay nodes, as tables or as the API's own JSON, and what an
//! operator does with them. Each group of commands has a file; [`console`] asks and prints for all of them.
//!
//! It knows the HTTP API and nothing else of a controller.

mod abuse;
mod audit;
mod bans;
pub(crate) mod call;
mod capacity;
mod certificates;
mod console;
mod events;
mod explain;
mod join_tokens;
mod nodes;
mod policy;
mod ports;
mod secrets;
mod table;
mod tenants;
mod tokens;
mod top;
mod trace;
mod usage;

use clap::{Args, Subcommand};
use turnfleet_proto::NodeId;

use console::Console;

/// Which controller to ask, and for what.
#[derive(Args, Debug)]
pub(crate) struct FleetArgs {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    controllers: call::ControllerArgs,
    #[command(flatten)]
    output: console::OutputArgs,
}

/// What to show or to do.
#[derive(Debug, Subcommand)]
enum Action {
    /// Every relay node: whether lists name it, or why not, and what it does
    Nodes,
    /// What the fleet, its regions, zones and nodes can hold, what they hold, and when they will be full
    Capacity,
    /// The fleet's certificate, the order of the next one, and what each relay shows
    Certificates,
    /// Who holds which ports of which public address
    Ports(ports::Ports),
    /// What the fleet has carried, for whom and where
    Usage(usage::Usage),
    /// The whole fleet, live in a terminal; or the largest users or networks of the last minute or hour
    Top(usage::Top),
    /// Who is suspected of abuse, by which rule, and what would be done
    Abuse(abuse::Abuse),
    /// Why relay nodes are, or are not, in somebody's list
    Explain(explain::Explain),
    /// What happens in the fleet: allocations, nodes, secrets, quotas, abuse, bans
    Events(events::Events),
    /// Who changed what, the latest first
    Audit(audit::Audit),
    /// Who had a relayed address at a time: client, tenant and the hash of the user, by the journals of the relay nodes
    Trace(trace::Trace),
    /// The API tokens: who may use the controller
    #[command(subcommand)]
    Tokens(tokens::Action),
    /// The join tokens: what lets relay nodes into the fleet
    #[command(subcommand)]
    JoinTokens(join_tokens::Action),
    /// The shared secrets that credentials are minted with: rotation, pinning, revocation
    Secrets(secrets::Secrets),
    /// Whoever has users of their own: realm, TLS names, peers, quotas
    Tenants(tenants::Tenants),
    /// Bans a user, a tenant, a source or peers on every relay, and ends what they have
    Ban(bans::Ban),
    /// Lifts a ban
    Unban(bans::Unban),
    /// Who is not let in, the latest first
    Bans(bans::Bans),
    /// Takes a relay node out of the lists; it opens no more allocations, and live ones go on until the deadline
    Drain(nodes::Drain),
    /// Takes a drain back
    Undrain {
        /// The node
        node: NodeId,
    },
    /// Ends the process of a relay node, and its allocations with it
    Kill {
        /// The node
        node: NodeId,
    },
    /// How far a changed policy has come
    Rollout {
        /// Gives every relay the policy, whatever the first one said of it
        #[arg(long)]
        force: bool,
    },
    /// Follows a store that was restored from an older backup
    ConfirmRestore,
    /// Forgets a relay node that is gone for good: its ports are others' once it cannot use them any more
    Forget {
        /// The node
        node: NodeId,
    },
}

/// Runs the command.
///
/// # Errors
/// When no controller can be reached, or it refuses.
pub(crate) fn run(args: &FleetArgs) -> anyhow::Result<()> {
    let console = Console::new(&args.controllers, &args.output)?;
    match &args.action {
        Action::Nodes => nodes::list(&console),
        Action::Capacity => capacity::show(&console),
        Action::Certificates => certificates::show(&console),
        Action::Ports(ports) => ports.run(&console),
        Action::Usage(usage) => usage.run(&console),
        Action::Top(top) => top.run(&console),
        Action::Abuse(abuse) => abuse.run(&console),
        Action::Explain(explain) => explain.run(&console),
        Action::Events(events) => events.run(&console),
        Action::Audit(audit) => audit.run(&console),
        Action::Trace(trace) => trace.run(&console),
        Action::Tokens(action) => action.run(&console),
        Action::JoinTokens(action) => action.run(&console),
        Action::Secrets(secrets) => secrets.run(&console),
        Action::Tenants(tenants) => tenants.run(&console),
        Action::Ban(ban) => ban.run(&console),
        Action::Unban(unban) => unban.run(&console),
        Action::Bans(bans) => bans.run(&console),
        Action::Drain(drain) => drain.run(&console),
        Action::Undrain { node } => nodes::undrain(&console, node),
        Action::Kill { node } => nodes::kill(&console, node),
        Action::Rollout { force: false } => policy::show(&console),
        Action::Rollout { force: true } => policy::force(&console),
        Action::ConfirmRestore => policy::confirm_restore(&console),
        Action::Forget { node } => nodes::forget(&console, node),
    }
}
