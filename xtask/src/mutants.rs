//! `cargo xtask mutants`: breaks the TURN core in one line at a time, and sees whether `turnfleet conformance` notices.
//!
//! Works on a copy of the tracked files below `target/`, so nothing of the checkout is changed. Takes a build for each. What
//! no client can live with is no mutant: a fleet that never comes up is seen without a suite.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::process::{cargo, root, run};

/// Where the core is.
const CORE: &str = "relay/turn/src";

/// One line of the core, and what stands there in the broken build.
struct Mutant {
    name: &'static str,
    /// Below [`CORE`].
    file: &'static str,
    /// Stands in the file once.
    line: &'static str,
    broken: &'static str,
}

/// `name: file, line => broken` for each.
macro_rules! mutants {
    ($($name:literal: $file:literal, $line:literal => $broken:literal;)*) => {
        const MUTANTS: &[Mutant] = &[$(Mutant {
            name: $name,
            file: $file,
            line: $line,
            broken: $broken,
        }),*];
    };
}

mutants! {
    "any nonce is good": "server/auth.rs",
        "        given_to(request.from.client)\n" => "        true\n";
    "no username gets 401": "server/auth.rs",
        "(named, message.realm(), message.nonce()) else {\n            return Err(Reject::BadRequest);" =>
        "(named, message.realm(), message.nonce()) else {\n            return Err(Reject::Unauthenticated);";
    "password algorithms may be bid down": "server/auth.rs",
        "if offered.is(&OFFERED) && OFFERED.contains(&chosen)" => "if OFFERED.contains(&chosen)";
    "a stale nonce gets 401": "server/auth.rs",
        ".ok_or(Reject::StaleNonce)?;" => ".ok_or(Reject::Unauthenticated)?;";
    "SHA-256 is answered by SHA-1": "server/request.rs",
        "integrity: if chooses {" => "integrity: if false {";
    "no answer has a fingerprint": "server/request.rs",
        "if self.closing.fingerprint {" => "if false {";
    "unknown attributes are not listed": "server/refusing.rs",
        "writer.unknown_attributes(self.unknown_in_request(request));" => "";
    "a wrong fingerprint is good": "server/mod.rs",
        "if message.fingerprint() == Fingerprint::Invalid {" => "if false {";
    "no allocation gets 400": "server/mod.rs",
        "request.allocation.ok_or(Reject::AllocationMismatch)?" => "request.allocation.ok_or(Reject::BadRequest)?";
    "somebody else gets 437": "server/mod.rs",
        "Err(Reject::WrongCredentials)" => "Err(Reject::AllocationMismatch)";
    "a second allocate gets the first one's answer": "server/allocate.rs",
        "        if !same {" => "        if false {";
    "another transport gets 400": "reject.rs",
        "ErrorCode::UNSUPPORTED_TRANSPORT_PROTOCOL" => "ErrorCode::BAD_REQUEST";
    "the largest lifetime is not looked at": "server/refresh.rs",
        ".min(self.policy.limits.max_lifetime)" => "";
    "a short lifetime is granted": "server/refresh.rs",
        ".max(DEFAULT_LIFETIME)" => "";
    "a refresh tells no lifetime": "server/refresh.rs",
        "writer.lifetime(seconds(lifetime));" => "let _ = seconds(lifetime);";
    "a lifetime of zero deletes nothing": "server/refresh.rs",
        "            self.delete(now, id, family);" => "";
    "no peer is a peer": "server/permission.rs",
        "if peers.is_empty() {" => "if false {";
    "another family may be permitted": "server/permission.rs",
        "return Err(Reject::PeerAddressFamilyMismatch);" => "{}";
    "channel numbers go on": "server/channel.rs",
        "const LAST_CHANNEL: u16 = 0x4FFF;" => "const LAST_CHANNEL: u16 = 0x7FFF;";
    "a bound channel is bound anew": "server/channel.rs",
        "let bound = bound.map_err(|_| Reject::BadRequest)?;" => "let bound = bound.unwrap_or(true);";
    "a channel permits nobody": "server/channel.rs",
        "self.install_permissions(id, &[peer.ip()], now)?;" => "";
    "data needs no permission": "server/relaying.rs",
        "let via = relayed.id;\n        let Some(moved) = allocation.permissions.live(peer.ip(), now) else {" =>
        "let via = relayed.id;\n        let mut moved = crate::usage::Bytes::default();\n        let Some(moved) = Some(&mut moved) else {";
    "peers need no permission": "server/relaying.rs",
        "// §9: the permission is the peer's IP address, whatever its port.\n        let Some(moved) = allocation.permissions.live(peer.ip(), now) else {" =>
        "let mut moved = crate::usage::Bytes::default();\n        let Some(moved) = Some(&mut moved) else {";
    "a bound peer's data comes as an indication": "server/relaying.rs",
        "match allocation.channels.number(peer, now) {" => "match allocation.channels.number(peer, now).filter(|_| false) {";
    "no reservation is redeemed": "server/reservation.rs",
        "self.counters.reservations -= 1;\n        self.reservations.remove(token)" =>
        "self.counters.reservations -= 1;\n        None";
}

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Only mutants whose name contains this.
    #[arg(default_value = "")]
    only: String,
}

pub(crate) fn run_all(options: &Options) -> Result<()> {
    let yard = Yard::new()?;
    yard.build()?;
    ensure!(
        yard.conforms()?,
        "the core fails before anything is broken in it"
    );
    let (mut tried, mut missed) = (0, Vec::new());
    for mutant in MUTANTS {
        if !mutant.name.contains(&options.only) {
            continue;
        }
        let file = yard.source.join(CORE).join(mutant.file);
        let whole = fs::read_to_string(&file)?;
        fs::write(&file, mutant.apply(&whole)?)?;
        yard.build()?;
        let conforms = yard.conforms()?;
        fs::write(&file, whole)?;
        say(mutant.name, if conforms { "MISSED" } else { "caught" });
        tried += 1;
        if conforms {
            missed.push(mutant.name);
        }
    }
    ensure!(missed.is_empty(), "not noticed: {}", missed.join("; "));
    say("caught", &format!("{tried} of {tried}"));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "the outcome of the chore")]
fn say(name: &str, outcome: &str) {
    println!("{name}: {outcome}");
}

impl Mutant {
    fn apply(&self, whole: &str) -> Result<String> {
        let found = whole.matches(self.line).count();
        ensure!(
            found == 1,
            "{}: the line of \"{}\" stands {found} times there, expected once",
            self.file,
            self.name
        );
        Ok(whole.replace(self.line, self.broken))
    }
}

/// The copy, and where it is built.
struct Yard {
    source: PathBuf,
    target: PathBuf,
}

impl Yard {
    fn new() -> Result<Self> {
        let yard = root().join("target/mutants");
        let source = yard.join("source");
        if source.exists() {
            fs::remove_dir_all(&source)?;
        }
        fs::create_dir_all(&source)?;
        let prefix = format!("--prefix={}/", source.display());
        run(Command::new("git").args(["checkout-index", "--all", &prefix]))?;
        Ok(Self {
            source,
            target: yard.join("build"),
        })
    }

    /// The test by which the conformance suite runs against a fleet, over each transport.
    fn conformance_test(&self) -> Command {
        let mut test = cargo();
        test.args(["test", "--quiet", "-p", "turnfleet", "--test", "interop"])
            .arg("--manifest-path")
            .arg(self.source.join("Cargo.toml"))
            .env("CARGO_TARGET_DIR", &self.target)
            .env("RUSTFLAGS", "--cap-lints=allow");
        test
    }

    fn build(&self) -> Result<()> {
        run(self.conformance_test().arg("--no-run"))
    }

    fn conforms(&self) -> Result<bool> {
        let status = self
            .conformance_test()
            .args(["--", "turnfleet_keeps_every_statement"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("cannot start cargo")?;
        Ok(status.success())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mutant_breaks_a_line_that_is_there() {
        for mutant in MUTANTS {
            let whole = fs::read_to_string(root().join(CORE).join(mutant.file)).unwrap();
            assert_ne!(mutant.apply(&whole).unwrap(), whole);
        }
    }
}
