//! Coturn as a process: logs, metrics, its console.

use super::Takes::{Nothing, Perhaps, Secret, Text};
use super::{CoturnOption, default, none, option, unneeded};
use crate::import::rules::service as rule;

const LOG: &str = "The log goes to standard error, and so to the journal of systemd.";
const LEVEL: &str = "`--log debug` on the command line says more.";
const CONSOLE: &str = "There is no console by telnet; `turnfleet fleet` asks the controller.";
const SYSTEMD: &str = "The unit of systemd says it.";

pub(super) const OPTIONS: &[CoturnOption] = &[
    unneeded("verbose", &["v"], Nothing, LEVEL),
    unneeded("Verbose", &["V"], Nothing, LEVEL),
    unneeded(
        "log-binding",
        &[],
        Nothing,
        "Bindings are counted in `/metrics`, and not logged one by one.",
    ),
    unneeded("log-file", &["l"], Text, LOG),
    unneeded("no-stdout-log", &[], Nothing, LOG),
    unneeded("syslog", &[], Nothing, LOG),
    unneeded("syslog-facility", &[], Text, LOG),
    unneeded("simple-log", &[], Nothing, LOG),
    default("new-log-timestamp", &[], Nothing, "Lines have a full time."),
    unneeded(
        "new-log-timestamp-format",
        &[],
        Text,
        "Lines have a full time, in UTC; `--log-format json` is for collectors.",
    ),
    unneeded("pidfile", &[], Text, SYSTEMD),
    unneeded("daemon", &["o"], Nothing, SYSTEMD),
    unneeded("proc-user", &[], Text, SYSTEMD),
    unneeded("proc-group", &[], Text, SYSTEMD),
    default(
        "prometheus",
        &[],
        Nothing,
        "`/metrics` is served, on 127.0.0.1; coturn listens on all addresses, see \
         `relay.metrics.address`.",
    )
    .always_on(),
    option(
        "prometheus-port",
        &[],
        Text,
        "On 127.0.0.1, unless `prometheus-address` says otherwise.",
    )
    .becomes(&["metrics-port"], rule::prometheus_port),
    option(
        "prometheus-address",
        &[],
        Text,
        "With the port of `prometheus-port`, or 9641.",
    )
    .becomes(&["relay.metrics.address"], rule::prometheus_address),
    default(
        "prometheus-path",
        &[],
        Text,
        "`/metrics`; another one has no equivalent.",
    )
    .by(rule::prometheus_path),
    none(
        "prometheus-username-labels",
        &[],
        Nothing,
        "No user is ever a label; `turnfleet fleet usage` and `top` tell who uses the \
         fleet.",
    ),
    default("no-cli", &[], Nothing, CONSOLE),
    unneeded("cli-ip", &[], Text, CONSOLE),
    unneeded("cli-port", &[], Text, CONSOLE),
    unneeded("cli-password", &[], Secret, CONSOLE),
    unneeded("cli-max-output-sessions", &[], Text, CONSOLE),
    unneeded("c", &[], Text, "It names the configuration itself."),
    unneeded("n", &[], Nothing, "It is of the command line alone."),
    unneeded("help", &["h"], Perhaps, "It is of the command line alone."),
    unneeded("version", &[], Perhaps, "It is of the command line alone."),
];
