//! The probe: whether a relay does what a call needs, from outside and by its public
//! addresses; a relay on the controller's own machine by its local ones.
//!
//! One task owns the schedule: each node at its interval, jittered, and at once when the fleet asks for it (a node has
//! registered, or its session broke). At most [`MAX_RUNNING`] examinations run at a time, those asked for at once first. What an
//! examination found goes to the fleet, which alone decides what follows from it.

mod examination;
mod link;
mod trial;
mod trust;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinHandle, JoinSet};
use tokio::time::Instant;
use turnfleet_proto::NodeId;

use crate::StartError;
use crate::config::{ProbeConfig, ProbeMode};
use crate::fleet::{
    FleetView, Health, Incarnation, NodeView, ProbeOutcome, Probing, Transport, Vantage,
};
use crate::metrics::Metrics;
use crate::reconcile::Handle;
use examination::{Examination, Finding, History};

/// Examinations at a time.
const MAX_RUNNING: usize = 64;
/// After a failure the next examination comes in this part of the interval.
const RETRY_DIVISOR: u32 = 4;
/// A node that is gone is looked for ever more seldom, and at least this often. When it comes back it registers, and is
/// examined at once.
const LONGEST_RETRY: Duration = Duration::from_secs(60);

/// The running probe.
#[derive(Debug)]
pub(crate) struct Prober(Option<JoinHandle<()>>);

impl Prober {
    /// Starts probing, where the configuration wants it.
    ///
    /// # Errors
    /// When `probe.ca` cannot be used.
    pub(crate) fn start(
        config: &ProbeConfig,
        handle: Handle,
        metrics: Arc<Metrics>,
    ) -> Result<Self, StartError> {
        if config.mode == ProbeMode::Off {
            return Ok(Self(None));
        }
        let schedule = Schedule {
            interval: config.interval,
            tls: trust::client_config(config.ca.as_deref())?,
            views: handle.changes(),
            handle,
            metrics,
            nodes: HashMap::new(),
            running: JoinSet::new(),
        };
        Ok(Self(Some(tokio::spawn(schedule.run()))))
    }

    /// The file of the probe's authority, if it cannot be used.
    pub(crate) fn check(config: &ProbeConfig) -> Option<StartError> {
        let ca = config
            .ca
            .as_deref()
            .filter(|_| config.mode != ProbeMode::Off);
        trust::client_config(ca).err()
    }

    /// Ends every examination.
    pub(crate) fn stop(self) {
        if let Some(task) = self.0 {
            task.abort();
        }
    }
}

struct Schedule {
    interval: Duration,
    tls: Arc<rustls::ClientConfig>,
    views: watch::Receiver<Arc<FleetView>>,
    handle: Handle,
    metrics: Arc<Metrics>,
    nodes: HashMap<NodeId, Watched>,
    running: JoinSet<Done>,
}

/// A node on the schedule.
struct Watched {
    incarnation: Option<Incarnation>,
    /// The round of the examination begun last.
    round: Option<u64>,
    /// Which listener and kind of trial is next; a trial that failed is repeated.
    turn: u64,
    due: Instant,
    running: Option<AbortHandle>,
    /// Without a session, and failing.
    is_gone: bool,
    /// Examinations in a row that failed, while it was gone.
    failures: u32,
    /// What the last good trial took.
    took: Option<Duration>,
    /// Failed in its last trial while another transport worked.
    suspect: Option<Transport>,
    /// Failed twice running.
    broken: Vec<Transport>,
}

struct Done {
    node: NodeId,
    round: u64,
    /// Nothing where the controller's own machine failed.
    finding: Option<Finding>,
}

impl Schedule {
    async fn run(mut self) {
        loop {
            let view = Arc::clone(&self.views.borrow_and_update());
            self.forget_absent(&view);
            let next = self.begin_due(&view);
            tokio::select! {
                changed = self.views.changed() => if changed.is_err() {
                    return;
                },
                Some(ended) = self.running.join_next() => {
                    if let Ok(done) = ended {
                        self.record(done).await;
                    }
                }
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }

    fn forget_absent(&mut self, view: &FleetView) {
        self.nodes.retain(|id, _| {
            view.node(id)
                .is_some_and(|node| node.probing != Probing::No)
        });
    }

    /// Begins what is due, as far as there is room, and says when to look again.
    fn begin_due(&mut self, view: &Arc<FleetView>) -> Instant {
        let now = Instant::now();
        let mut next = now + self.interval;
        let mut due = Vec::new();
        for node in &view.nodes {
            let Probing::Yes { round } = node.probing else {
                continue;
            };
            let watched = self
                .nodes
                .entry(node.id.clone())
                .or_insert_with(|| Watched::new(now));
            watched.notice_restart(node.incarnation);
            watched.is_gone = node.health == Health::Gone;
            let urgent = watched.round != Some(round);
            let running = watched.running.as_ref().is_some_and(|it| !it.is_finished());
            if urgent || (!running && watched.due <= now) {
                due.push((!urgent, watched.due, round, node));
            } else if !running {
                next = next.min(watched.due);
            }
        }
        due.sort_by_key(|(later, due, _, _)| (*later, *due));
        for (_, _, round, node) in due {
            if self.running.len() >= MAX_RUNNING {
                break;
            }
            self.begin(round, node, view);
        }
        next
    }

    fn begin(&mut self, round: u64, node: &NodeView, view: &FleetView) {
        let Some(watched) = self.nodes.get_mut(&node.id) else {
            return;
        };
        // An earlier examination goes on until it has deleted its allocations; what it finds has no say.
        let examination = Examination::new(node, view, watched.history(), &self.tls);
        let id = node.id.clone();
        let running = self.running.spawn(async move {
            let finding = examination.run().await;
            Done {
                node: id,
                round,
                finding,
            }
        });
        watched.round = Some(round);
        watched.due = Instant::now() + jittered(self.interval);
        watched.running = Some(running);
    }

    async fn record(&mut self, done: Done) {
        let Done {
            node,
            round,
            finding,
        } = done;
        let Some(watched) = self.nodes.get_mut(&node) else {
            return;
        };
        if watched.round != Some(round) {
            return;
        }
        let now = Instant::now();
        let Some(finding) = finding else {
            self.metrics.probed(Err("local"));
            watched.due = now + self.interval / RETRY_DIVISOR;
            return;
        };
        watched.learn(&finding, now, self.interval);
        self.metrics
            .probed(finding.result.map_err(|failure| failure.name()));
        let outcome = ProbeOutcome {
            vantage: Vantage::HERE,
            round,
            result: finding.result,
            reached: finding.reached,
            missed: finding.missed,
            broken: watched.broken.clone(),
            shown_generation: finding.shown_generation,
        };
        self.handle.report_probe(&node, outcome).await;
    }
}

impl Watched {
    fn new(now: Instant) -> Self {
        Self {
            incarnation: None,
            round: None,
            turn: 0,
            due: now,
            running: None,
            is_gone: false,
            failures: 0,
            took: None,
            suspect: None,
            broken: Vec::new(),
        }
    }

    /// Another process has another history.
    fn notice_restart(&mut self, incarnation: Option<Incarnation>) {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.turn = 0;
            self.suspect = None;
            self.broken.clear();
        }
    }

    fn history(&self) -> History<'_> {
        History {
            turn: self.turn,
            took: self.took,
            broken: &self.broken,
        }
    }

    /// Draws what follows from a finding: whose turn is next, when, and what is broken.
    fn learn(&mut self, finding: &Finding, now: Instant, interval: Duration) {
        let soon = interval / RETRY_DIVISOR;
        let Ok(took) = finding.result else {
            if !self.is_gone {
                self.failures = 0;
            }
            let longest = LONGEST_RETRY.max(interval);
            self.due = now + (soon * (1 << self.failures.min(16))).min(longest);
            self.failures += 1;
            return;
        };
        self.failures = 0;
        self.took = Some(took);
        match finding.failed {
            None => {
                self.suspect = None;
                self.broken.retain(|broken| Some(*broken) != finding.worked);
                self.turn += 1;
            }
            Some(failed) if self.broken.contains(&failed) => self.turn += 1,
            Some(failed) if self.suspect == Some(failed) => {
                self.suspect = None;
                self.broken.push(failed);
                self.turn += 1;
            }
            Some(failed) => {
                self.suspect = Some(failed);
                self.due = self.due.min(now + soon);
            }
        }
    }
}

/// `interval`, a tenth more or less, so that nodes that came together do not stay together.
fn jittered(interval: Duration) -> Duration {
    let mut byte = [0];
    SystemRandom::new()
        .fill(&mut byte)
        .expect("the system's random source works once it has started");
    interval * (1152 + u32::from(byte[0])) / 1280
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::ProbeFailure;

    fn good(transport: Transport) -> Finding {
        Finding {
            result: Ok(Duration::from_millis(1)),
            worked: Some(transport),
            ..Finding::default()
        }
    }

    fn only_failed(transport: Transport) -> Finding {
        Finding {
            result: Ok(Duration::from_millis(1)),
            failed: Some(transport),
            ..Finding::default()
        }
    }

    const INTERVAL: Duration = Duration::from_secs(2);

    #[test]
    fn a_transport_is_broken_after_two_failures_and_whole_after_one_success() {
        let now = Instant::now();
        let mut watched = Watched::new(now);
        let mut learn = |finding| {
            watched.learn(&finding, now, INTERVAL);
            (watched.broken.clone(), watched.turn)
        };
        let broken = vec![Transport::Tcp];
        assert_eq!(learn(only_failed(Transport::Tcp)), (Vec::new(), 0));
        assert_eq!(learn(only_failed(Transport::Tcp)), (broken.clone(), 1));
        assert_eq!(learn(good(Transport::Udp)), (broken, 2));
        assert_eq!(learn(good(Transport::Tcp)), (Vec::new(), 3));
    }

    fn failed() -> Finding {
        Finding {
            result: Err(ProbeFailure::NoAnswer),
            ..Finding::default()
        }
    }

    #[test]
    fn a_failed_examination_is_repeated_soon() {
        let now = Instant::now();
        let mut watched = Watched::new(now);
        for _ in 0..20 {
            watched.learn(&failed(), now, INTERVAL);
            assert_eq!((watched.due, watched.turn), (now + INTERVAL / 4, 0));
        }
    }

    #[test]
    fn a_node_that_is_gone_is_looked_for_ever_more_seldom() {
        let now = Instant::now();
        let mut watched = Watched::new(now);
        watched.is_gone = true;
        let mut waits = Vec::new();
        for _ in 0..40 {
            watched.learn(&failed(), now, INTERVAL);
            waits.push((watched.due - now).as_millis());
        }
        assert_eq!(waits[..4], [500, 1000, 2000, 4000]);
        assert_eq!(waits[39], 60_000);
        watched.learn(&good(Transport::Udp), now, INTERVAL);
        watched.learn(&failed(), now, INTERVAL);
        assert_eq!(watched.due, now + INTERVAL / 4);
    }

    #[test]
    fn jitter_stays_within_a_tenth() {
        let interval = Duration::from_secs(10);
        for _ in 0..200 {
            let jittered = jittered(interval);
            assert!(jittered >= interval * 9 / 10 && jittered <= interval * 11 / 10);
        }
    }
}
