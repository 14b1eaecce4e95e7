//! What controllers ask the journal: a search each, beside the session, and no more than two at a time.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::task::JoinSet;
use turnfleet_proto::fleet;
use turnfleet_proto::fleet::controller_message::Message as FromController;
use turnfleet_proto::fleet::journal_gap::Reason;
use turnfleet_proto::fleet::listener::Transport as WireTransport;
use turnfleet_proto::fleet::traced_allocation::Ending as WireEnding;
use turnfleet_proto::user_hash::UserKey;
use turnfleet_turn::Transport;

use crate::journal::{Ending, Findings, Found, Gap, GapReason, Journal, Question};

/// Searches at a time: each may read the whole journal.
const SEARCHES: usize = 2;
/// Refusals that wait to be said; the session is as good as over when a controller asks faster.
const REFUSALS: usize = 16;
/// The longest time that may be asked for: a day.
const MAX_SECONDS: u64 = 86_400;

/// The searches of one session. Dropping it leaves those that run without an answer.
pub(super) struct Traces {
    journal: Arc<Journal>,
    running: JoinSet<fleet::TraceAnswer>,
    refused: VecDeque<fleet::TraceAnswer>,
}

impl Traces {
    pub(super) fn new(journal: Arc<Journal>) -> Self {
        Self {
            journal,
            running: JoinSet::new(),
            refused: VecDeque::new(),
        }
    }

    /// Takes what concerns the journal, and gives back every other message.
    pub(super) fn take(&mut self, message: FromController) -> Option<FromController> {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "every other message is the session's, which lists them all"
        )]
        match message {
            FromController::JournalKey(given) => match UserKey::from_bytes(&given.key) {
                Some(key) => self.journal.hash_with(key),
                None => tracing::warn!("the controller gave a key for the journal that is none"),
            },
            FromController::TraceQuery(query) => self.ask(&query),
            other => return Some(other),
        }
        None
    }

    /// The next answer; never, where nothing is asked. May be dropped at any point without losing one.
    pub(super) async fn next(&mut self) -> fleet::TraceAnswer {
        if let Some(refused) = self.refused.pop_front() {
            return refused;
        }
        loop {
            match self.running.join_next().await {
                Some(Ok(answer)) => return answer,
                // One that panicked has no answer; whoever asked does not wait for ever.
                Some(Err(error)) => tracing::error!(%error, "a search of the journal failed"),
                None => std::future::pending().await,
            }
        }
    }

    fn ask(&mut self, query: &fleet::TraceQuery) {
        let id = query.id;
        let refusal = match question(query) {
            _ if !self.journal.is_kept() => "no journal is kept (journal.retention_days)",
            _ if self.running.len() >= SEARCHES => "two searches run already",
            None => "not an address, a port and a time of a day at most",
            Some(question) => {
                tracing::debug!(?question, "the controller searches the journal");
                let journal = Arc::clone(&self.journal);
                self.running
                    .spawn_blocking(move || search(&journal, &question, id));
                return;
            }
        };
        if self.refused.len() < REFUSALS {
            self.refused.push_back(refused(id, refusal));
        }
    }
}

fn refused(id: u64, refusal: &str) -> fleet::TraceAnswer {
    fleet::TraceAnswer {
        id,
        refusal: refusal.to_owned(),
        ..fleet::TraceAnswer::default()
    }
}

fn question(query: &fleet::TraceQuery) -> Option<Question> {
    let ip = query.relayed_ip.parse::<IpAddr>().ok()?;
    let port = u16::try_from(query.relayed_port).ok()?;
    let seconds = query.to.checked_sub(query.from)?;
    (seconds <= MAX_SECONDS).then(|| Question {
        relayed: SocketAddr::new(ip.to_canonical(), port),
        from: query.from,
        to: query.to,
    })
}

fn search(journal: &Journal, question: &Question, id: u64) -> fleet::TraceAnswer {
    match journal.search(question) {
        Ok(findings) => answer(id, findings),
        Err(error) => {
            tracing::warn!(%error, "the journal cannot be read");
            refused(id, "the journal cannot be read; the relay's log says why")
        }
    }
}

fn answer(id: u64, findings: Findings) -> fleet::TraceAnswer {
    fleet::TraceAnswer {
        id,
        allocations: findings.found.into_iter().map(traced).collect(),
        gaps: findings.gaps.into_iter().map(gap).collect(),
        covers_since: findings.covers_since.unwrap_or(0),
        has_more: findings.has_more,
        refusal: String::new(),
    }
}

fn traced(found: Found) -> fleet::TracedAllocation {
    let opened = found.opened;
    let (ending, ended, reason) = match found.ending {
        None => (WireEnding::Unspecified, 0, None),
        Some(Ending::Closed { at, reason }) => (WireEnding::Closed, at, reason),
        Some(Ending::Died { after }) => (WireEnding::Died, after, None),
        Some(Ending::Unseen { before }) => (WireEnding::Unseen, before, None),
        Some(Ending::Unread { after }) => (WireEnding::Unread, after, None),
    };
    fleet::TracedAllocation {
        client: opened.client.to_string(),
        transport: transport(opened.transport).into(),
        relayed: opened.relayed.iter().map(ToString::to_string).collect(),
        relayed_transport: transport(opened.relayed_transport).into(),
        tenant: opened.tenant.0,
        user_hash: opened
            .user
            .map_or_else(Vec::new, |user| user.as_bytes().to_vec()),
        opened: opened.at,
        ending: ending.into(),
        ended,
        reason: reason.map_or("", |reason| reason.name()).to_owned(),
    }
}

fn gap(gap: Gap) -> fleet::JournalGap {
    let reason = match gap.reason {
        GapReason::BeforeJournal => Reason::BeforeJournal,
        GapReason::Stopped => Reason::Stopped,
        GapReason::Died => Reason::Died,
        GapReason::Silent => Reason::Silent,
        GapReason::Lost => Reason::Lost,
        GapReason::Damaged => Reason::Damaged,
        GapReason::Unread => Reason::Unread,
    };
    fleet::JournalGap {
        from: gap.from,
        to: gap.to,
        reason: reason.into(),
    }
}

fn transport(transport: Transport) -> WireTransport {
    match transport {
        Transport::Udp => WireTransport::Udp,
        Transport::Tcp => WireTransport::Tcp,
        Transport::Tls => WireTransport::Tls,
    }
}
