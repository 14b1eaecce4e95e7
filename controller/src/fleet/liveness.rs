//! Whether one node lives: the state machine over its control session and its probes.
//!
//! | session | probe | health |
//! |---|---|---|
//! | open | succeeds | healthy |
//! | open | fails twice in a row, from every place that has a say | unhealthy |
//! | open | has never reached any node by that transport | by the session alone |
//! | silent for 6 s, or broken | succeeds | unmanaged |
//! | silent for 6 s, or broken | fails | gone |
//! | left on purpose | | gone |
//!
//! A node is listed after its first good probe; after a fault of the same process, after three good ones over 10 s. A later
//! incarnation begins anew. When a session breaks or falls silent the probe is asked at once, and its first word decides; a
//! broken session without any word within 1.5 s is a dead node. Without a probe, it is one that has no other session within
//! half a second.

use std::time::Duration;

use turnfleet_turn::Instant;

use super::damping::Faults;
use super::health::{Ended, Health};
use super::vantage::{Sights, Vantage};

/// Three heartbeats of two seconds.
pub(super) const HEARTBEATS_LOST: Duration = Duration::from_secs(6);
/// A session that breaks after so long without a heartbeat broke by a timeout.
const SILENCE: Duration = Duration::from_secs(3);
/// The time in which the probe must speak for a node whose session broke.
const VERDICT: Duration = Duration::from_millis(1500);
/// Where there is no probe, the time in which another session must speak for it: one that is sent to another controller is
/// there within a few round trips, and that controller's word a tenth of a second later.
const MOVE: Duration = Duration::from_millis(500);
/// Good probes that bring a node back after a fault.
const GOOD_PROBES: u32 = 3;
/// The time that they cover.
const GOOD_TIME: Duration = Duration::from_secs(10);
/// Words of a probe that sees nothing, after which the session is taken for enough.
const BLIND_PROBES: u32 = 2;

/// What a probe says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The node works.
    Good,
    /// It does not: `silent` where there was no answer at all, which may as well be the observer's fault.
    Bad { silent: bool },
    /// No answer, from a place that has never had one from any node by that transport.
    Blind,
}

/// One node's session and probes, folded.
#[derive(Clone, Debug)]
pub(super) struct Liveness {
    /// Whether there is a probe at all; without one the session alone decides.
    probing: bool,
    standing: Standing,
    contact: Contact,
    /// Good probes in a row, and since when.
    good: u32,
    good_since: Instant,
    sights: Sights,
    /// Words in a row of a probe that sees nothing.
    blind: u32,
    round: u64,
    faults: Faults,
    /// When it failed last, and whether by timeouts alone.
    failed: Option<Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    at: Instant,
    silent: bool,
}

/// What the probe's word amounts to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// This incarnation has not been seen to work.
    Unproven,
    Proven,
    /// It worked once, and failed.
    Failed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contact {
    /// No session since the controller started.
    Never,
    Open {
        last_heartbeat: Instant,
    },
    /// Heartbeats are lost, or the stream broke.
    Lost {
        since: Instant,
        /// By a timeout.
        silent: bool,
        verdict: Verdict,
    },
    /// Said goodbye.
    Left,
}

/// Whether the probe has spoken since contact was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Spoken,
    Awaited { until: Option<Instant> },
}

impl Liveness {
    pub(super) fn new(probing: bool) -> Self {
        Self {
            probing,
            standing: Standing::Unproven,
            contact: Contact::Never,
            good: 0,
            good_since: Instant::default(),
            sights: Sights::default(),
            blind: 0,
            round: 0,
            faults: Faults::default(),
            failed: None,
        }
    }

    pub(super) fn health(&self) -> Health {
        match (self.standing, self.contact) {
            (_, Contact::Left) => Health::Gone,
            (Standing::Unproven, Contact::Open { .. }) => Health::Starting,
            (Standing::Proven, Contact::Open { .. }) => Health::Healthy,
            (Standing::Failed, Contact::Open { .. }) => Health::Unhealthy,
            (Standing::Proven, Contact::Never | Contact::Lost { .. }) => Health::Unmanaged,
            (Standing::Unproven | Standing::Failed, Contact::Never | Contact::Lost { .. }) => {
                Health::Gone
            }
        }
    }

    /// Whether its session is open and speaks.
    pub(super) fn is_connected(&self) -> bool {
        self.heard().is_some()
    }

    /// When its open session spoke last.
    pub(super) fn heard(&self) -> Option<Instant> {
        match self.contact {
            Contact::Open { last_heartbeat } => Some(last_heartbeat),
            Contact::Never | Contact::Lost { .. } | Contact::Left => None,
        }
    }

    /// Whether contact was lost later than `then`: that it worked then says nothing of what came after.
    pub(super) fn is_lost_since(&self, then: Instant) -> bool {
        matches!(self.contact, Contact::Lost { since, .. } if then <= since)
    }

    /// What its faults lead to.
    pub(super) fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Whether it is proven by its session alone, because the probe reaches nobody.
    pub(super) fn is_unseen(&self) -> bool {
        self.standing == Standing::Proven && self.blind >= BLIND_PROBES
    }

    /// When it failed by timeouts, if it did and nobody but this controller says so: the fault may be the observer's.
    pub(super) fn suspected_since(&self, now: Instant) -> Option<Instant> {
        let failed = self.failed.filter(|failed| failed.silent)?;
        let open_question = self.standing == Standing::Failed && self.contact != Contact::Left;
        (open_question && self.sights.failing(now) < 2).then_some(failed.at)
    }

    /// Takes the last fault back: it was the observer's, and the node has been seen to work.
    pub(super) fn pardon(&mut self) {
        if self.standing == Standing::Failed {
            self.standing = Standing::Proven;
            self.failed = None;
            self.faults.pardon();
        }
    }

    /// The round that the prober shall be in; `None` where there is nothing to probe.
    pub(super) fn probe_round(&self) -> Option<u64> {
        (self.probing && self.contact != Contact::Left).then_some(self.round)
    }

    /// Asks for a probe at once.
    pub(super) fn ask_probe(&mut self) {
        self.round += 1;
    }

    /// A session opened, of the incarnation that was known, if any was, or of a later one.
    pub(super) fn opened(&mut self, now: Instant, same_incarnation: bool) {
        if !same_incarnation || self.contact == Contact::Left {
            // A process that ended without a Goodbye failed, however soon the next one is there.
            if self.standing == Standing::Proven && self.contact != Contact::Left {
                self.faults.note(now);
            }
            self.standing = Standing::Unproven;
            (self.good, self.blind, self.failed) = (0, 0, None);
            self.sights.forget();
        }
        self.contact = Contact::Open {
            last_heartbeat: now,
        };
        self.trust_session(now);
        self.ask_probe();
    }

    pub(super) fn heartbeat(&mut self, now: Instant) {
        self.contact = Contact::Open {
            last_heartbeat: now,
        };
        self.trust_session(now);
    }

    pub(super) fn ended(&mut self, now: Instant, ended: Ended) {
        match ended {
            Ended::Goodbye => self.contact = Contact::Left,
            Ended::Reset => {
                let silent = match self.contact {
                    Contact::Open { last_heartbeat } => now.since(last_heartbeat) >= SILENCE,
                    Contact::Lost { silent, .. } => silent,
                    Contact::Never | Contact::Left => false,
                };
                let patience = if self.probing { VERDICT } else { MOVE };
                self.lose(now, silent, Some(now.after(patience)));
            }
        }
    }

    /// A probe ended that was begun in `round`, from `vantage`.
    pub(super) fn probed(&mut self, now: Instant, vantage: Vantage, round: u64, word: Word) {
        match word {
            Word::Good => {
                // One begun before the last change of the session says nothing of what came after.
                if round >= self.round {
                    self.blind = 0;
                    self.sights.note(now, vantage, true);
                    self.probed_well(now);
                }
            }
            Word::Bad { silent } => {
                self.blind = 0;
                self.sights.note(now, vantage, false);
                self.probed_badly(now, silent);
            }
            // Without a session there is nothing else that speaks for the node.
            Word::Blind if !self.is_connected() => {
                self.sights.note(now, vantage, false);
                self.probed_badly(now, true);
            }
            Word::Blind => {
                self.blind = self.blind.saturating_add(1);
                if self.blind >= BLIND_PROBES {
                    self.probed_well(now);
                }
            }
        }
    }

    /// Lets time pass; says whether that changed the health or asks for a probe.
    pub(super) fn tick(&mut self, now: Instant) -> bool {
        match self.contact {
            Contact::Open { last_heartbeat } if now.since(last_heartbeat) >= HEARTBEATS_LOST => {
                let failing = self.sights.all_doubt(now);
                self.lose(now, true, None);
                if failing {
                    self.fail(now, true);
                }
                true
            }
            Contact::Lost {
                since,
                silent,
                verdict: Verdict::Awaited { until: Some(until) },
            } if now >= until => {
                self.contact = Contact::Lost {
                    since,
                    silent,
                    verdict: Verdict::Spoken,
                };
                self.fail(now, silent);
                true
            }
            Contact::Open { .. } | Contact::Lost { .. } | Contact::Never | Contact::Left => false,
        }
    }

    fn trust_session(&mut self, now: Instant) {
        if !self.probing {
            self.prove(now);
        }
    }

    fn prove(&mut self, now: Instant) {
        self.standing = Standing::Proven;
        self.failed = None;
        self.faults.recovered(now);
    }

    fn lose(&mut self, now: Instant, silent: bool, until: Option<Instant>) {
        if self.contact == Contact::Left {
            return;
        }
        self.contact = Contact::Lost {
            since: now,
            silent,
            verdict: Verdict::Awaited { until },
        };
        if self.probing {
            self.ask_probe();
        } else if until.is_none() {
            self.fail(now, silent);
        }
    }

    fn fail(&mut self, now: Instant, silent: bool) {
        if self.standing == Standing::Proven {
            self.standing = Standing::Failed;
            self.failed = Some(Failed { at: now, silent });
            self.faults.note(now);
        }
        self.good = 0;
    }

    fn probed_well(&mut self, now: Instant) {
        if self.good == 0 {
            self.good_since = now;
        }
        self.good += 1;
        if let Contact::Lost { verdict, .. } = &mut self.contact {
            *verdict = Verdict::Spoken;
        }
        match self.standing {
            Standing::Unproven => self.prove(now),
            Standing::Failed
                if self.good >= GOOD_PROBES && now.since(self.good_since) >= GOOD_TIME =>
            {
                self.prove(now);
            }
            Standing::Proven | Standing::Failed => {}
        }
    }

    fn probed_badly(&mut self, now: Instant, silent: bool) {
        if self.sights.all_doubt(now) {
            self.good = 0;
        }
        if let Contact::Lost {
            since,
            silent: by_timeout,
            verdict: verdict @ Verdict::Awaited { .. },
        } = &mut self.contact
        {
            *verdict = Verdict::Spoken;
            if !self.sights.is_seen_since(*since) {
                let silent = silent && *by_timeout;
                self.fail(now, silent);
                return;
            }
        }
        if self.sights.all_fail(now) {
            let reset = matches!(self.contact, Contact::Lost { silent: false, .. });
            self.fail(now, silent && !reset);
        }
    }
}

#[cfg(test)]
mod tests;
