//! A fleet of processes under a real Prometheus with the rules of the chart: every expression of the dashboards and every
//! recorded series has something to show, what is scraped is as promtool wants it, a healthy fleet raises no alarm, and a relay
//! that dies does, at an Alertmanager.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use turnfleet_turn::client::AllocateOptions;

use super::dashboards::sources;
use super::prometheus::{Server, check_metrics, present};
use super::{RULES, rules, values};
use crate::client::{Caller, Credential};
use crate::fleet::{Fleet, Place, Ports, signal, within};

const SECRET: &str = "north-by-northwest";
/// Time for rules of abuse to find somebody, and for rates to have two samples after it.
const PATIENCE: Duration = Duration::from_secs(90);
/// Between two rounds of calls.
const PACE: Duration = Duration::from_millis(300);
/// So many allocations within a minute are abuse here.
const THRESHOLD: &str = "12";

#[track_caller]
fn allocate(relay: SocketAddr, user: &str) -> Option<(Caller, SocketAddr)> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut caller = Caller::udp(socket, relay, &Credential::synapse(SECRET, user));
    // A user that is found abusing is refused.
    let allocated = caller.allocate(AllocateOptions::default()).ok()?;
    Some((caller, allocated.relayed))
}

/// Something to measure, now and then.
#[derive(Default)]
struct Rounds {
    count: u32,
    last: Option<Instant>,
}

impl Rounds {
    /// Two clients of a relay talk, and one that never says anything leaves, unless that was a moment ago. One of them is the
    /// same user each time.
    fn talk(&mut self, fleet: &Fleet) {
        if self.last.is_some_and(|last| last.elapsed() < PACE) {
            return;
        }
        self.last = Some(Instant::now());
        self.count += 1;
        let (relay, count) = (fleet.relay(0), self.count);
        fleet.api(&format!("/turn?service=turn&username=caller{count}"));
        if let Some((mut alice, _)) = allocate(relay, "alice") {
            alice.end().unwrap();
        }
        let (mut one, here) = allocate(relay, &format!("bob{count}")).unwrap();
        let (mut other, there) = allocate(relay, &format!("carol{count}")).unwrap();
        one.bind(there).unwrap();
        other.permit(here).unwrap();
        one.send(there, "hello");
        assert_eq!(other.hear(), (here, "hello".to_owned()));
        other.send(here, "and you");
        assert_eq!(one.hear(), (there, "and you".to_owned()));
        one.end().unwrap();
        other.end().unwrap();
    }
}

/// What Prometheus is told: everything once a second, and every alert without the patience that it has in the chart.
fn configure(place: &Path, fleet: &Fleet, alertmanager: u16) -> String {
    for file in RULES {
        let mut text = String::new();
        for line in rules(file).lines() {
            let line = match line.trim_start().strip_prefix("for: ") {
                Some(_) => "        for: 1s",
                None => line,
            };
            writeln!(text, "{line}").unwrap();
        }
        let name = Path::new(file).file_name().unwrap();
        fs::write(place.join(name), text).unwrap();
    }
    let bare = |url: &str| {
        let rest = url.strip_prefix("http://").unwrap();
        rest.split('/').next().unwrap().to_owned()
    };
    let relays = [0, 1].map(|relay| bare(fleet.text(&format!("/relays/{relay}/metrics"))));
    let controller = bare(fleet.text("/http"));
    let [one, other] = relays;
    format!(
        "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
         rule_files: [recording.yaml, alerts.yaml]\n\
         alerting:\n  alertmanagers:\n    - static_configs: [{{ targets: [\"127.0.0.1:{alertmanager}\"] }}]\n\
         scrape_configs:\n  \
         - job_name: relays\n    static_configs: [{{ targets: [\"{one}\", \"{other}\"] }}]\n  \
         - job_name: controllers\n    static_configs: [{{ targets: [\"{controller}\"] }}]\n"
    )
}

/// Whether something is there that can be drawn.
fn shows(samples: &[Value]) -> bool {
    let value = |sample: &Value| sample["value"][1].as_str().map(str::to_owned);
    let mut values = samples.iter().filter_map(value);
    values.any(|value| value != "NaN")
}

/// Everything that a dashboard asks for, and everything that is recorded.
fn expressions() -> Vec<String> {
    let asked = sources()
        .into_iter()
        .flat_map(|dashboard| dashboard.expressions());
    let asked = asked.map(|expression| {
        let expression = expression.replace("$__rate_interval", "1m");
        expression.replace("$instance", ".+")
    });
    let recording = rules(RULES[0]);
    let recorded = values(&recording, "record").map(str::to_owned);
    let mut all: Vec<String> = asked.chain(recorded).collect();
    all.sort();
    all.dedup();
    all
}

/// promtool has nothing against what the controller and a relay serve.
#[track_caller]
fn check_pages(place: &Path, fleet: &Fleet) {
    let controller = format!("{}/metrics", fleet.text("/http"));
    let pages = [
        (controller.as_str(), "turnfleet_controller_leader 1"),
        (fleet.text("/relays/0/metrics"), "turnfleet_relay_ready 1"),
    ];
    for (url, line) in pages {
        let mut answer = ureq::get(url).call().unwrap();
        let metrics = answer.body_mut().read_to_string().unwrap();
        assert!(metrics.contains(line), "{url}: no {line} in\n{metrics}");
        check_metrics(place, &metrics).unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

/// The names of critical alerts that fire.
fn alarms(prometheus: &Server) -> Vec<String> {
    let firing = prometheus.query("ALERTS{alertstate=\"firing\",severity=\"critical\"}");
    let names = firing
        .iter()
        .map(|sample| sample["metric"]["alertname"].to_string());
    names.collect()
}

#[test]
fn every_panel_and_every_recorded_series_shows_something_and_a_dead_relay_is_told() {
    if !present() {
        return;
    }
    let place = Place::new();
    let ports = Ports::free();
    let threshold = format!("controller.abuse.reconnect_loop.threshold={THRESHOLD}");
    let flags = [
        "--spawn",
        "--shared-secret",
        SECRET,
        "--set",
        &threshold,
        "--set",
        "controller.abuse.reconnect_loop.verdict=throttle",
    ];
    let fleet = place.start(ports, &flags);
    let folder = place.0.path();
    let (told, asked) = (ports.0 + 35, ports.0 + 36);
    let alertmanager = Server::alertmanager(folder, told);
    let config = configure(folder, &fleet, told);
    let prometheus = Server::prometheus(folder, asked, &config);
    within(PATIENCE, "all three are scraped twice", || {
        let twice = "count_over_time(up[1m]) >= 2 and up == 1";
        prometheus.query(twice).len() == 3
    });

    fleet.order(&["ban", "--user", "mallory", "--reason", "a drill"]);
    let mut missing = expressions();
    let begun = Instant::now();
    let mut rounds = Rounds::default();
    within(PATIENCE, "every expression is asked for", || {
        rounds.talk(&fleet);
        missing.retain(|expression| !shows(&prometheus.query(expression)));
        missing.is_empty() || begun.elapsed() > PATIENCE - PACE * 10
    });
    assert!(missing.is_empty(), "no result: {missing:#?}");
    within(PATIENCE, "abuse is found", || {
        rounds.talk(&fleet);
        let found = "sum(increase(turnfleet_controller_abuse_found_total[10m])) > 0";
        shows(&prometheus.query(found))
    });
    assert_eq!(alarms(&prometheus), Vec::<String>::new());
    check_pages(folder, &fleet);

    let node = fleet.text("/relays/0/node").to_owned();
    fleet.order(&["drain", &node]);
    within(PATIENCE, "the drain is seen by both", || {
        let draining =
            "max(turnfleet_controller_nodes_draining) == 1 and sum(turnfleet_relay_draining) == 1";
        shows(&prometheus.query(draining))
    });
    signal("KILL", fleet.pid(1));
    let mut heard = String::new();
    within(PATIENCE, "the Alertmanager hears of the dead relay", || {
        heard = alertmanager.get("/api/v2/alerts").unwrap_or_default();
        heard.contains("TurnfleetRelayGone")
    });
    let alerts: Vec<Value> = serde_json::from_str(&heard).unwrap();
    let gone = |alert: &&Value| alert["labels"]["alertname"] == "TurnfleetRelayGone";
    let alert = alerts.iter().find(gone).unwrap();
    assert_eq!(alert["labels"]["severity"], "critical");
    let runbook = "docs/incidents.md#turnfleetrelaygone";
    assert_eq!(alert["annotations"]["runbook_url"], runbook);
}
