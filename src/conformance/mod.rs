//! `turnfleet conformance`: what RFC 8489, RFC 8656 and RFC 6062 say of TURN servers, seen from outside, statement by statement.
//!
//! Each statement has an id, a level and a check; a check opens lines to the server, sends messages that are well made or
//! spoilt with care, and looks at what comes. Answers are awaited; that something does not come is judged once for all
//! statements, at the end. Nothing is known of the server but its URI and a credential.

mod algorithms;
mod allocate;
mod answer;
mod authentication;
mod channel;
mod data;
mod discarded;
mod families;
mod line;
mod message;
mod network;
mod peer;
mod permission;
mod refresh;
mod report;
mod reservation;
mod statement;
mod streams;
mod subject;
mod tcp_allocation;
mod tcp_connect;
mod tcp_data;

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::credentials::SecretArgs;
use crate::target::Target;
use report::{Finding, Report};
use statement::{Outcome, Statement, Verdict};
use subject::Subject;

/// How long what should not come is given to come, counted from the last message that was sent for it.
const QUIET: Duration = Duration::from_millis(500);

/// Which server to examine, and as whom.
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    /// The server: turn:HOST[:PORT][?transport=udp|tcp] or turns:HOST[:PORT]; without a port, where its SRV records say.
    target: Target,
    #[command(flatten)]
    secret: SecretArgs,
    /// A static user; statements about two users are skipped.
    #[arg(long, value_name = "NAME:PASSWORD", conflicts_with_all = ["secret", "secret_file"])]
    user: Option<String>,
    /// The CA that the certificate of a turns: server is checked against.
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// An address of this machine for peers, one of each family [default: the one that reaches the server].
    #[arg(long, value_name = "IP")]
    peer: Vec<IpAddr>,
    /// Examines only statements whose id contains this.
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// Prints one JSON object instead of lines.
    #[arg(long)]
    json: bool,
}

/// Every statement, in the order of the subjects.
fn statements() -> Vec<Statement> {
    let subjects = [
        message::statements,
        discarded::statements,
        authentication::statements,
        algorithms::statements,
        allocate::statements,
        reservation::statements,
        families::statements,
        refresh::statements,
        permission::statements,
        channel::statements,
        data::statements,
        network::statements,
        streams::statements,
        tcp_allocation::statements,
        tcp_connect::statements,
        tcp_data::statements,
    ];
    subjects.into_iter().flat_map(|subject| subject()).collect()
}

/// Examines the server and prints what was found.
///
/// # Errors
/// When the server cannot be reached, or does not keep a statement that it has to keep.
pub(crate) fn run(args: &Args) -> Result<()> {
    ensure!(args.target.is_turn(), "a turn: or turns: URI is needed");
    let subject = Subject::new(args)?;
    let chosen: Vec<Statement> = statements()
        .into_iter()
        .filter(|statement| statement.id.contains(&args.only))
        .collect();
    ensure!(
        !chosen.is_empty(),
        "no statement's id contains {:?}",
        args.only
    );
    subject.greet()?;
    let report = Report::new(args.target.to_string(), examine(&subject, chosen));
    let found = if args.json {
        report.json().to_string()
    } else {
        report.text()
    };
    crate::print(&format!("{found}\n"))?;
    let failures = report.failures();
    ensure!(
        failures == 0,
        "{failures} statements that a server has to keep are not kept"
    );
    Ok(())
}

/// Checks every statement; those that listen for what should not come are judged together at the end.
fn examine(subject: &Subject, chosen: Vec<Statement>) -> Vec<Finding> {
    let verdicts: Vec<Verdict> = chosen
        .iter()
        .map(|statement| (statement.check)(subject))
        .collect();
    if verdicts
        .iter()
        .any(|verdict| matches!(verdict, Ok(Outcome::MetIfQuiet(_))))
    {
        wait(QUIET);
    }
    let judged = verdicts.into_iter().map(judge);
    let findings = chosen.into_iter().zip(judged);
    findings
        .map(|(statement, result)| Finding {
            id: statement.id,
            level: statement.level,
            text: statement.text,
            result,
        })
        .collect()
}

/// What remains of a verdict once the time for what should not come has passed.
fn judge(verdict: Verdict) -> Result<(), statement::Shortfall> {
    match verdict? {
        Outcome::Met => Ok(()),
        Outcome::MetIfQuiet(judge_now) => judge_now().map(|_| ()),
    }
}

/// Lets time pass.
fn wait(time: Duration) {
    let until = Instant::now() + time;
    while let Some(left) = until.checked_duration_since(Instant::now()) {
        std::thread::park_timeout(left);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_statements_have_the_same_id() {
        let all = statements();
        let mut seen = BTreeSet::new();
        let twice: Vec<&str> = all
            .iter()
            .map(|statement| statement.id.as_str())
            .filter(|id| !seen.insert(*id))
            .collect();
        assert_eq!(twice, [""; 0]);
        assert!(seen.iter().all(|id| id.starts_with("RFC")));
    }
}
