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
use crate::config::ProbeConfig;
use crate::fleet::{FleetView, Incarnation, NodeView, ProbeOutcome, Probing, Transport};
use crate::metrics::Metrics;
use crate::reconcile::Handle;
use examination::{Examination, Finding};

/// Examinations at a time.
const MAX_RUNNING: usize = 64;
/// After a failure the next examination comes in this part of the interval.
const RETRY_DIVISOR: u32 = 4;

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
        if !config.enabled {
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
    /// Failed in its last trial while another transport worked.
    suspect: Option<Transport>,
    /// Failed twice running.
    broken: Vec<Transport>,
}

struct Done {
    node: NodeId,
    round: u64,
    finding: Finding,
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
                    // An examination that was cut short by a later round has nothing to say.
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
        if let Some(earlier) = watched.running.take() {
            earlier.abort();
        }
        let examination = Examination::new(node, view, watched.turn, &watched.broken, &self.tls);
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
        watched.learn(&finding, Instant::now() + self.interval / RETRY_DIVISOR);
        self.metrics
            .probed(finding.result.map_err(|failure| failure.name()));
        let outcome = ProbeOutcome {
            round,
            result: finding.result,
            broken: watched.broken.clone(),
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

    /// Draws what follows from a finding: whose turn is next, when, and what is broken.
    fn learn(&mut self, finding: &Finding, retry_at: Instant) {
        if finding.result.is_err() {
            self.due = self.due.min(retry_at);
            return;
        }
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
                self.due = self.due.min(retry_at);
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
            failed: None,
        }
    }

    fn only_failed(transport: Transport) -> Finding {
        Finding {
            result: Ok(Duration::from_millis(1)),
            worked: None,
            failed: Some(transport),
        }
    }

    #[test]
    fn a_transport_is_broken_after_two_failures_and_whole_after_one_success() {
        let now = Instant::now();
        let mut watched = Watched::new(now);
        watched.learn(&only_failed(Transport::Tcp), now);
        assert_eq!((watched.broken.as_slice(), watched.turn), (&[][..], 0));
        watched.learn(&only_failed(Transport::Tcp), now);
        assert_eq!(
            (watched.broken.as_slice(), watched.turn),
            (&[Transport::Tcp][..], 1)
        );
        watched.learn(&good(Transport::Udp), now);
        assert_eq!(watched.broken, [Transport::Tcp]);
        watched.learn(&good(Transport::Tcp), now);
        assert_eq!((watched.broken.as_slice(), watched.turn), (&[][..], 3));
    }

    #[test]
    fn a_failed_examination_is_repeated_soon() {
        let now = Instant::now();
        let mut watched = Watched::new(now + Duration::from_secs(2));
        let failed = Finding {
            result: Err(ProbeFailure::NoAnswer),
            worked: None,
            failed: None,
        };
        let soon = now + Duration::from_millis(500);
        watched.learn(&failed, soon);
        assert_eq!((watched.due, watched.turn), (soon, 0));
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
