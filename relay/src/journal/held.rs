//! What a segment leaves to the next one: the allocations that live, and the times of which too little was written.

use std::collections::HashMap;
use std::fs::File;
use std::net::SocketAddr;

use turnfleet_turn::Transport;

use super::record::{Key, Next, Opened, Record};
use super::segment;

/// Times that are told apart; beyond that the two earliest ones become one.
const MAX_LOSSES: usize = 16;

/// What holds at the end of a segment, by what can be read of it.
#[derive(Debug, Default)]
pub(super) struct Held {
    allocations: HashMap<Key, Opened>,
    /// Who has an address: the end of an earlier allocation there was not written.
    by_address: HashMap<(SocketAddr, Transport), Key>,
    losses: Vec<Loss>,
}

/// So many events between two moments, in Unix seconds, were not written. Whose end or beginning it was is not known, so that
/// later moments of the same process are in doubt, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) since: u64,
    pub(super) until: u64,
    /// Zero where nobody can say.
    pub(super) count: u64,
}

impl Held {
    /// As far as `file` can be read, at second `now`.
    pub(super) fn of(file: &File, now: u64) -> Self {
        let mut held = Self::default();
        let mut heard = None;
        let mut records = segment::reader(file);
        loop {
            match Record::read(&mut records) {
                Ok(Next::Record(record)) => {
                    heard = record.at().or(heard);
                    held.follow(record);
                }
                Ok(Next::End) => return held,
                Ok(Next::Torn) => break,
                Err(error) => {
                    tracing::warn!(%error, "a part of the journal of allocations cannot be read");
                    break;
                }
            }
        }
        held.lose(Loss {
            since: heard.unwrap_or(now),
            until: now,
            count: 0,
        });
        held
    }

    fn follow(&mut self, record: Record) {
        match record {
            Record::Opened(opened) => {
                for address in &opened.relayed {
                    let place = (*address, opened.relayed_transport);
                    if let Some(earlier) = self.by_address.insert(place, opened.key)
                        && earlier != opened.key
                    {
                        self.allocations.remove(&earlier);
                    }
                }
                self.allocations.insert(opened.key, opened);
            }
            Record::Named { key, user } => {
                if let Some(opened) = self.allocations.get_mut(&key) {
                    opened.user = Some(user);
                }
            }
            Record::Closed { key, .. } => {
                if let Some(opened) = self.allocations.remove(&key) {
                    for address in opened.relayed {
                        self.by_address.remove(&(address, opened.relayed_transport));
                    }
                }
            }
            Record::Lost(loss) => self.lose(loss),
            Record::Begin { .. } | Record::Mark { .. } | Record::End { .. } => {}
        }
    }

    fn lose(&mut self, loss: Loss) {
        self.losses.push(loss);
        if self.losses.len() > MAX_LOSSES {
            let earliest = self.losses.remove(0);
            let next = &mut self.losses[0];
            *next = Loss {
                since: earliest.since.min(next.since),
                until: earliest.until.max(next.until),
                count: earliest.count.saturating_add(next.count),
            };
        }
    }

    /// What the next segment begins with. Losses that ended before `horizon` concern nobody any more.
    pub(super) fn into_records(self, horizon: u64) -> Vec<Record> {
        let losses = self.losses.into_iter();
        let losses = losses.filter(|loss| loss.until >= horizon);
        let mut records: Vec<_> = losses.map(Record::Lost).collect();
        let mut held: Vec<_> = self.allocations.into_values().collect();
        held.sort_by_key(|opened| (opened.at, opened.key));
        records.extend(held.into_iter().map(Record::Opened));
        records
    }
}
