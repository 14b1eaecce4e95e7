//! What `turnfleet up` prints when the fleet is ready: how to use it, for a person, and the ready line for a script.
//!
//! The page holds secrets. A terminal shows them; a journal or a file does not, and is told which file of the state folder
//! holds them.

use std::fmt::Write as _;
use std::io::{IsTerminal as _, Write as _};
use std::net::IpAddr;

use turnfleet_controller::Controller;
use turnfleet_proto::credentials::mint;

use super::plan::Plan;
use super::ready::Ready;
use crate::credentials::unix_now;
use crate::state_dir::StateDir;

/// What a terminal would show: a credential, the shared secret in a homeserver's configuration, and the API token.
const FILE: &str = "secrets.txt";

/// Prints the page, and with `--json` the ready line: the line is then alone on standard output, and the page goes to
/// standard error. A reader that has gone stops no fleet.
///
/// # Errors
/// When the clock is wrong, so that no credential can be minted.
pub(crate) fn print(
    ready: &Ready,
    plan: &Plan,
    state: &StateDir,
    controller: &Controller,
) -> anyhow::Result<()> {
    let seen = if plan.flags().json {
        std::io::stderr().is_terminal()
    } else {
        std::io::stdout().is_terminal()
    };
    let mut page = String::new();
    servers(&mut page, ready)?;
    if seen {
        secrets(&mut page, ready, controller)?;
    } else {
        let mut whole = String::new();
        secrets(&mut whole, ready, controller)?;
        let file = state.write(FILE, &whole)?;
        writeln!(page, "\nSecrets            {}", file.display())?;
    }
    places(&mut page, ready, plan, state, controller)?;
    writeln!(page, "\nStop it with Ctrl-C.")?;
    if plan.flags().json {
        let line = serde_json::to_string(ready)?;
        let mut out = std::io::stdout().lock();
        let _ = writeln!(out, "{line}").and_then(|()| out.flush());
        let _ = std::io::stderr().write_all(page.as_bytes());
    } else {
        let mut out = std::io::stdout().lock();
        let _ = out.write_all(page.as_bytes()).and_then(|()| out.flush());
    }
    Ok(())
}

fn servers(page: &mut String, ready: &Ready) -> anyhow::Result<()> {
    let Ready { relays, realm, .. } = ready;
    let count = relays.len();
    let noun = if count == 1 { "relay" } else { "relays" };
    writeln!(page, "Turnfleet is ready: {count} {noun}, realm {realm}.")?;
    writeln!(page, "\nTURN servers")?;
    for uri in &ready.turn_uris {
        writeln!(page, "  {uri}")?;
    }
    Ok(())
}

/// Whatever lets somebody in.
fn secrets(page: &mut String, ready: &Ready, controller: &Controller) -> anyhow::Result<()> {
    let credential = mint(&controller.shared_secret(), "try-me", unix_now()? + 3600);
    writeln!(page, "\nA credential, good for an hour")?;
    writeln!(page, "  username  {}", credential.username)?;
    writeln!(page, "  password  {}", credential.password)?;
    homeserver(page, ready)?;
    // A browser keeps what stands behind the hash to itself.
    writeln!(
        page,
        "\nDashboard          {}/dashboard#token={}",
        ready.http, ready.api_token
    )?;
    writeln!(page, "API token          {}", ready.api_token)?;
    Ok(())
}

fn homeserver(page: &mut String, ready: &Ready) -> anyhow::Result<()> {
    writeln!(page, "\nFor Synapse, in homeserver.yaml")?;
    writeln!(page, "  turn_uris:")?;
    for uri in &ready.few_uris {
        writeln!(page, "    - \"{uri}\"")?;
    }
    // A JSON string is a YAML string too.
    let secret = serde_json::Value::from(ready.shared_secret.as_str());
    writeln!(page, "  turn_shared_secret: {secret}")?;
    writeln!(page, "  turn_user_lifetime: 1h")?;
    writeln!(page, "  turn_allow_guests: true")?;
    Ok(())
}

fn places(
    page: &mut String,
    ready: &Ready,
    plan: &Plan,
    state: &StateDir,
    controller: &Controller,
) -> anyhow::Result<()> {
    writeln!(page, "API                {}", ready.http)?;
    writeln!(page, "State folder       {}", state.path().display())?;
    writeln!(
        page,
        "Its sealing key    {}",
        controller.key_file().display()
    )?;
    if let Some(ca) = &ready.ca {
        writeln!(
            page,
            "CA certificate     {} (what clients of turns: are to trust)",
            ca.display()
        )?;
    }
    if plan.flags().spawn {
        let file = state.join("relay-K.toml");
        writeln!(
            page,
            "\nStart relay K again with: turnfleet relay --config {}",
            file.display()
        )?;
    }
    let view = controller.view();
    let public_ips = || view.nodes.iter().flat_map(|node| &node.identity.public_ips);
    if public_ips().any(is_private) {
        writeln!(
            page,
            "\nThe relays have private addresses, which clients in other networks do not reach.\n\
             Behind 1:1 NAT, name both addresses: --public-ip EXTERNAL/LOCAL."
        )?;
    }
    if public_ips().any(IpAddr::is_loopback) && !plan.flags().danger_allow_loopback_peers {
        writeln!(
            page,
            "\nThe relays have loopback addresses, and refuse all peers on loopback but relays of this fleet.\n\
             To try it with peers on this machine, add --danger-allow-loopback-peers."
        )?;
    }
    Ok(())
}

/// Whether the address is one that networks use within themselves.
fn is_private(ip: &IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_private(),
        IpAddr::V6(ip) => ip.is_unique_local(),
    }
}
