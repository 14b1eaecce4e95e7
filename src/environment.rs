//! The variables of the environment that are Turnfleet's, and those that look like one and are read by nobody.
//!
//! A misspelt variable changes nothing, so it is told, by its name alone: the value may be a secret. The keys of a configuration
//! are judged where it is read, and here only whether a name is meant for one.

use clap::CommandFactory as _;

use crate::cli::Cli;
use crate::config::{self, Configuration, distance};
use crate::credentials;
use crate::fleet::call;

/// What the names of all of them begin with.
const OURS: &str = "TURNFLEET_";
/// Those of the project's tests, which the commands that they run inherit.
const OF_TESTS: [&str; 6] = [
    "TURNFLEET_CHAOS",
    "TURNFLEET_REQUIRE_TOOLS",
    "TURNFLEET_SCARCE_DESCRIPTORS",
    "TURNFLEET_SIM",
    "TURNFLEET_SIM_SEED",
    "TURNFLEET_SIM_SEEDS",
];

type Relay = turnfleet_relay::config::Config;
type Controller = turnfleet_controller::config::Config;

/// What is to be said of the process's environment, a sentence for each variable that nobody reads.
pub(crate) fn warnings() -> Vec<String> {
    let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    unread(names)
}

fn unread(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut strange: Vec<String> = names.filter(|name| is_strange(name)).collect();
    if strange.is_empty() {
        return Vec::new();
    }
    let mut known = flags();
    strange.retain(|name| !known.contains(name));
    if strange.is_empty() {
        return Vec::new();
    }
    strange.sort_unstable();
    known.extend(config::variables::<Relay>());
    known.extend(config::variables::<Controller>());
    let warning = |name: &String| {
        let near = known.iter().map(|it| (distance(name, it), it)).min();
        let near = near.filter(|(distance, _)| *distance <= 3);
        let meant = near.map_or_else(String::new, |(_, it)| format!(" (did you mean {it}?)"));
        format!("the environment's {name} is read by nobody{meant}")
    };
    strange.iter().map(warning).collect()
}

/// Whether a variable may be one that nobody reads.
fn is_strange(name: &str) -> bool {
    let of_keys = [Relay::ENVIRONMENT, Controller::ENVIRONMENT];
    name.starts_with(OURS)
        && !of_keys.iter().any(|prefix| name.starts_with(prefix))
        && !OF_TESTS.contains(&name)
        && !is_of_kubernetes(name)
}

/// Whether Kubernetes makes such a variable for a service that stands beside the pod, whatever the service is called.
fn is_of_kubernetes(name: &str) -> bool {
    let is_numbered = |rest: &str| {
        let (port, rest) = rest.split_once('_').unwrap_or((rest, ""));
        let is_port = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let protocols = ["TCP", "UDP", "SCTP"];
        is_port && protocols.iter().any(|it| rest.starts_with(it))
    };
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || name.ends_with("_PORT")
        || name
            .match_indices("_PORT_")
            .any(|(at, word)| is_numbered(&name[at + word.len()..]))
}

/// The variables that stand for flags, with those that are read where no flag is given.
fn flags() -> Vec<String> {
    let mut names = vec![
        credentials::VARIABLE.to_owned(),
        call::TOKEN.to_owned(),
        call::TOKEN_FILE.to_owned(),
    ];
    of_command(&Cli::command(), &mut names);
    names.retain(|name| name.starts_with(OURS));
    names.sort_unstable();
    names.dedup();
    names
}

fn of_command(command: &clap::Command, names: &mut Vec<String>) {
    let variables = command.get_arguments().filter_map(clap::Arg::get_env);
    names.extend(variables.filter_map(|name| name.to_str().map(str::to_owned)));
    for inner in command.get_subcommands() {
        of_command(inner, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn said(names: &[&str]) -> Vec<String> {
        unread(names.iter().map(|name| (*name).to_owned()))
    }

    #[test]
    fn a_misspelt_variable_is_told_with_the_one_that_was_meant() {
        for (name, meant) in [
            (
                "TURNFLEET_RELAY_METRICS__ADDRESS",
                "TURNFLEET_RELAY__METRICS__ADDRESS",
            ),
            (
                "TURNFLEET_CONTROLLER_HTTP_ADDRESS",
                "TURNFLEET_CONTROLLER__HTTP__ADDRESS",
            ),
            ("TURNFLEET_CONTROLER_URL", "TURNFLEET_CONTROLLER_URL"),
            ("TURNFLEET_SECRET_FILE", ""),
        ] {
            let said = said(&[name]);
            let [warning] = &said[..] else {
                panic!("{name}: {said:?}");
            };
            assert!(warning.contains(name), "{warning}");
            let end = match meant {
                "" => "read by nobody".to_owned(),
                _ => format!("(did you mean {meant}?)"),
            };
            assert!(warning.ends_with(&end), "{warning}");
        }
    }

    #[test]
    fn what_is_known_or_comes_from_kubernetes_is_passed_over() {
        let known = flags();
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        assert_eq!(said(&known), [""; 0]);
        let others = [
            "PATH",
            "TURNFLEET_RELAY__NO_SUCH_KEY",
            "TURNFLEET_SERVICE_HOST",
            "TURNFLEET_CONTROLLER_SERVICE_PORT",
            "TURNFLEET_CONTROLLER_SERVICE_PORT_HTTP",
            "TURNFLEET_CONTROLLER_PORT",
            "TURNFLEET_CONTROLLER_PORT_8080_TCP",
            "TURNFLEET_CONTROLLER_PORT_8080_TCP_ADDR",
            "TURNFLEET_TURN_PORT_3478_UDP_PROTO",
        ];
        assert_eq!(said(&[&others[..], &OF_TESTS].concat()), [""; 0]);
    }

    #[test]
    fn the_manual_has_every_variable() {
        let page = include_str!("../docs/operations.md");
        for name in flags() {
            assert!(page.contains(&format!("| `{name}` |")), "{name}");
        }
    }
}
