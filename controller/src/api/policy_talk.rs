//! What one relay has been told of its policy, and what it runs: so that it is sent no more than it lacks.

use std::time::Duration;

use tokio::time::Instant;
use turnfleet_proto::NodeId;
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::{Hold, PolicyStatus};
use turnfleet_proto::spans::TARGET;

use crate::fleet::NodePolicy;
use crate::metrics::{self, PolicyCounters};
use crate::reconcile::{Offer, Session};

/// For a relay's word on a delta.
const PATIENCE: Duration = Duration::from_secs(30);

/// One session's talk about policy. With a relay that takes deltas one is under way at a time, so that it is known what the
/// next one rests on.
pub(super) struct PolicyTalk<'a> {
    counters: &'a PolicyCounters,
    node: NodeId,
    takes_deltas: bool,
    /// What the relay runs, where it is known.
    runs: Option<NodePolicy>,
    told: Option<Told>,
    /// What to say when the word on that has come.
    next: Option<Offer>,
}

/// What a relay's word on its policy leads to.
pub(super) struct Word {
    /// Whether it is the relay's last word on what it was told, and no question.
    pub(super) is_final: bool,
    /// What to say at once.
    pub(super) answer: Option<Down>,
}

/// A delta without an answer.
struct Told {
    policy: NodePolicy,
    is_whole: bool,
    at: Instant,
    /// Ends when the word has come.
    span: tracing::Span,
}

impl<'a> PolicyTalk<'a> {
    pub(super) fn new(session: &Session, counters: &'a PolicyCounters) -> Self {
        Self {
            counters,
            node: session.key.node.clone(),
            takes_deltas: session.takes_deltas,
            runs: session.runs.clone(),
            told: None,
            next: None,
        }
    }

    /// Until when the relay must have answered, where it has been told something.
    pub(super) fn due(&self) -> Option<Instant> {
        self.told.as_ref().map(|told| told.at + PATIENCE)
    }

    /// The relay has not answered in time.
    pub(super) fn give_up(&mut self) {
        if let Some(told) = self.told.take() {
            told.end(self.counters, metrics::Word::Missing);
        }
    }

    /// What to say of `offer`, if anything.
    pub(super) fn tell(&mut self, offer: Offer) -> Option<Down> {
        if self.told.is_some() {
            self.next = Some(offer);
            return None;
        }
        match offer {
            Offer::Policy(policy) if self.takes_deltas => {
                let delta = match &self.runs {
                    Some(runs) => policy.since(runs),
                    None => policy.whole(),
                };
                let is_whole = delta.base_generation == 0;
                self.await_word(policy, is_whole);
                Some(Down::Delta(delta))
            }
            Offer::Policy(policy) => Some(Down::Snapshot(policy.snapshot())),
            Offer::Hold => self.takes_deltas.then(|| {
                let reason = "the store is older than what this node runs".to_owned();
                Down::Hold(Hold { reason })
            }),
        }
    }

    /// Takes the relay's word on what it was told.
    pub(super) fn hear(&mut self, status: &PolicyStatus) -> Word {
        let about = |told: &mut Told| told.policy.generation() == status.generation;
        if let Some(told) = self.told.take_if(about) {
            told.end(self.counters, word_of(status));
            if status.applied {
                self.runs = Some(told.policy);
            } else if status.needs_whole {
                self.runs = None;
                if !told.is_whole {
                    let whole = told.policy.whole();
                    self.await_word(told.policy, true);
                    return Word {
                        is_final: false,
                        answer: Some(Down::Delta(whole)),
                    };
                }
            }
        }
        Word {
            is_final: true,
            answer: self.next.take().and_then(|offer| self.tell(offer)),
        }
    }

    fn await_word(&mut self, policy: NodePolicy, is_whole: bool) {
        let generation = i64::try_from(policy.generation()).unwrap_or(i64::MAX);
        let span = tracing::info_span!(
            target: TARGET,
            parent: None,
            "policy push",
            otel.kind = "producer",
            node = %self.node,
            generation,
            is_whole,
            outcome = tracing::field::Empty,
        );
        self.told = Some(Told {
            policy,
            is_whole,
            at: Instant::now(),
            span,
        });
    }
}

impl Told {
    fn end(&self, counters: &PolicyCounters, word: metrics::Word) {
        counters.heard(word, self.at.elapsed());
        self.span.record("outcome", word.name());
    }
}

fn word_of(status: &PolicyStatus) -> metrics::Word {
    match (status.applied, status.needs_whole) {
        (true, _) => metrics::Word::Applied,
        (false, true) => metrics::Word::NeedsWhole,
        (false, false) => metrics::Word::Refused,
    }
}
