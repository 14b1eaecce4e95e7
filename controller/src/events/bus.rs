//! The bus: the latest events in a ring of bounded number and size, and whoever reads along.
//!
//! Every event has a place, which rises by one in the order in which this controller learned of them. A reader knows its place,
//! and no reader holds anything up: one whose place has been overtaken is told by how much.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ring::rand::{SecureRandom as _, SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::cursor::Cursor;
use super::event::{Event, EventId, Value};
use super::filter::Filter;
use super::kinds::{What, log};
use super::privacy::Privacy;
use super::ring::{Ring, Source};
use super::webhooks::{Receipt, Token, WebhookStanding, Webhooks};
use crate::wall_clock::since_epoch;

/// Events that a reader gets at once.
const BATCH: usize = 256;
/// Events that a reader looks at at once.
const LOOKED_AT: usize = 2048;
/// Readers of the API at a time.
const READERS: usize = 512;

/// Where what happens in the fleet is told. Cheap to clone.
#[derive(Clone)]
pub struct EventBus(Arc<Shared>);

struct Shared {
    /// Of this process.
    run: [u8; 16],
    /// What the events that are numbered here come from.
    source: Arc<str>,
    privacy: Option<Privacy>,
    ring: Mutex<Ring>,
    /// The place of the latest event.
    latest: watch::Sender<u64>,
    readers: Arc<Semaphore>,
    webhooks: OnceLock<Webhooks>,
}

/// What an event is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The node.
    pub node: Option<String>,
    /// The tenant; `None` for the default one.
    pub tenant: Option<String>,
}

impl About {
    /// A node.
    #[must_use]
    pub fn node(node: impl fmt::Display) -> Self {
        Self {
            node: Some(node.to_string()),
            tenant: None,
        }
    }

    /// A tenant.
    #[must_use]
    pub fn tenant(tenant: impl Into<String>) -> Self {
        Self {
            node: None,
            tenant: Some(tenant.into()),
        }
    }
}

impl EventBus {
    /// The bus of the controller `id`. Under privacy it hides who and where users are.
    #[must_use]
    pub fn new(id: &str, privacy: Option<Privacy>) -> Self {
        let mut run = [0; 16];
        // Without random bytes only its restarts are not told from each other.
        let _ = SystemRandom::new().fill(&mut run);
        Self(Arc::new(Shared {
            source: source("controller", id, &run).into(),
            run,
            privacy,
            ring: Mutex::default(),
            latest: watch::Sender::new(0),
            readers: Arc::new(Semaphore::new(READERS)),
            webhooks: OnceLock::new(),
        }))
    }

    /// Tells of something that happened now, and writes it to the log.
    pub fn publish(&self, about: About, what: What) {
        let at = since_epoch().as_millis();
        let mut ring = self.ring();
        ring.number += 1;
        let event = Event {
            id: EventId {
                source: Arc::clone(&self.0.source),
                number: ring.number,
            },
            at_milliseconds: u64::try_from(at).unwrap_or(u64::MAX),
            kind: what.kind().into(),
            node: about.node.map(Into::into),
            tenant: about.tenant.map(Into::into),
            fields: what.fields(),
        };
        let event = self.hidden(event);
        log(&event);
        self.add(&mut ring, event, Source::Here, &Receipt::new().token());
        self.0.latest.send_replace(ring.latest);
    }

    /// Has what is heard here delivered by `webhooks`, from here on. Of several the first counts.
    pub(crate) fn deliver_by(&self, webhooks: Webhooks) {
        // There are some already.
        let _ = self.0.webhooks.set(webhooks);
    }

    /// How the webhooks stand.
    pub(crate) fn webhooks(&self) -> Vec<WebhookStanding> {
        let webhooks = self.0.webhooks.get();
        webhooks.map(Webhooks::standings).unwrap_or_default()
    }

    /// Takes what a node or another controller has told; what is known already is passed over. The receipt is settled when the
    /// webhooks are through with it.
    pub(crate) fn take(&self, events: impl IntoIterator<Item = Event>, source: Source) -> Receipt {
        let receipt = Receipt::new();
        let token = receipt.token();
        let mut ring = self.ring();
        for event in events {
            let event = self.hidden(event);
            self.add(&mut ring, event, source, &token);
        }
        self.0.latest.send_replace(ring.latest);
        receipt
    }

    fn add(&self, ring: &mut Ring, event: Event, source: Source, token: &Token) {
        let event = Arc::new(event);
        let heard_first = ring.add(Arc::clone(&event), source);
        if heard_first
            && source == Source::Here
            && let Some(webhooks) = self.0.webhooks.get()
        {
            webhooks.offer(&event, token);
        }
    }

    /// Whether a happening of that kind, of the same node or secret, was told in the last `span`.
    pub(crate) fn has_recent(&self, about: &About, what: &What, span: Duration) -> bool {
        let from = since_epoch().saturating_sub(span).as_millis();
        let fields = what.fields();
        let secret = fields.iter().find(|field| field.name == "secret");
        let ring = self.ring();
        let mut latest = ring.kept.iter().rev().map(|kept| &kept.event);
        latest.any(|event| {
            event.kind == what.kind()
                && u128::from(event.at_milliseconds) >= from
                && event.node.as_deref() == about.node.as_deref()
                && event.field("secret") == secret.map(|field| &field.value)
        })
    }

    /// The number of the latest event that was heard here of `source`; zero for none.
    pub(crate) fn latest_of(&self, source: &str) -> u64 {
        let ring = self.ring();
        let heard = ring.kept.iter().filter(|kept| kept.source == Source::Here);
        let numbers = heard.filter(|kept| *kept.event.id.source == *source);
        numbers.map(|kept| kept.event.id.number).max().unwrap_or(0)
    }

    /// Reads what `filter` takes: what is kept of the time after `cursor`, and what comes; only the latter without it.
    pub(crate) fn subscribe(&self, filter: Filter, cursor: Option<&Cursor>) -> Subscription {
        let ring = self.ring();
        let (next, is_cut) = match cursor {
            None => (ring.latest + 1, false),
            Some(cursor) if cursor.run == self.short_run() && cursor.place <= ring.latest => {
                (cursor.place + 1, false)
            }
            Some(cursor) => match ring.shortly_before(&cursor.id) {
                Some(place) => (place, false),
                None => (ring.first(), true),
            },
        };
        self.reader(filter, next, is_cut)
    }

    /// Reads everything that is kept and that `filter` takes, and what comes.
    pub(crate) fn subscribe_to_all(&self, filter: Filter) -> Subscription {
        let first = self.ring().first();
        self.reader(filter, first, false)
    }

    /// Reads what was heard here, for another controller: what is kept of the time after `place`, and what comes.
    pub(crate) fn follow(&self, run: &[u8], place: u64) -> Subscription {
        let next = if run == self.0.run { place + 1 } else { 1 };
        Subscription {
            only_here: true,
            ..self.reader(Filter::default(), next, false)
        }
    }

    fn reader(&self, filter: Filter, next: u64, is_cut: bool) -> Subscription {
        Subscription {
            latest: self.0.latest.subscribe(),
            bus: self.clone(),
            filter,
            next,
            is_cut,
            only_here: false,
        }
    }

    /// A place among the readers of the API, if there is one left.
    pub(crate) fn seat(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0.readers).try_acquire_owned().ok()
    }

    /// Tells places of this process from those of others.
    pub(crate) fn run(&self) -> &[u8] {
        &self.0.run
    }

    /// Where a reader goes on that has seen `event` at `place`.
    pub(crate) fn cursor(&self, place: u64, event: &Event) -> Cursor {
        Cursor {
            run: self.short_run(),
            place,
            id: event.id.clone(),
        }
    }

    fn short_run(&self) -> u32 {
        let [a, b, c, d, ..] = self.0.run;
        u32::from_be_bytes([a, b, c, d])
    }

    /// Whether users and addresses are hidden.
    pub(crate) fn is_private(&self) -> bool {
        self.0.privacy.is_some()
    }

    /// A user, as it may be shown.
    pub(crate) fn user(&self, name: &str) -> String {
        self.shown(Value::User(name.to_owned()))
    }

    /// The address or the network of a client, as it may be shown.
    pub(crate) fn place(&self, address: &str) -> String {
        self.shown(Value::Address(address.to_owned()))
    }

    fn shown(&self, value: Value) -> String {
        let hidden = match &self.0.privacy {
            Some(privacy) => privacy.hide(value),
            None => value,
        };
        hidden.to_string()
    }

    fn hidden(&self, mut event: Event) -> Event {
        if let Some(privacy) = &self.0.privacy {
            for field in &mut event.fields {
                let value = std::mem::replace(&mut field.value, Value::Flag(false));
                field.value = privacy.hide(value);
            }
        }
        event
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // No operation leaves the ring half changed.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for EventBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventBus")
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

/// The name of a run of a node or a controller among the sources of events.
pub(super) fn source(what: &str, id: &str, run: &[u8; 16]) -> String {
    let [a, b, c, d, ..] = run;
    format!("{what}/{id}/{a:02x}{b:02x}{c:02x}{d:02x}")
}

/// Somebody who reads along.
#[derive(Debug)]
pub struct Subscription {
    bus: EventBus,
    latest: watch::Receiver<u64>,
    filter: Filter,
    /// The place of the event to look at next.
    next: u64,
    /// Whether something is missing before that, nobody knows how much.
    is_cut: bool,
    only_here: bool,
}

/// What a reader gets at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// Events before these that the reader will not get, wanted or not; `None` where it is not known how many.
    pub missed: Option<u64>,
    /// Those that it wants, with their places.
    pub events: Vec<(u64, Arc<Event>)>,
    /// The place of the last event that was looked at.
    pub place: u64,
}

impl Subscription {
    /// What comes next; waits where there is nothing.
    pub async fn next(&mut self) -> Batch {
        loop {
            let batch = self.take();
            if !batch.events.is_empty() || batch.missed != Some(0) {
                return batch;
            }
            let next = self.next;
            // The sender is a part of the bus.
            let _ = self.latest.wait_for(|latest| *latest >= next).await;
        }
    }

    /// What comes next of what is kept; `None` where there is nothing.
    pub(crate) fn next_kept(&mut self) -> Option<Batch> {
        while self.is_behind() {
            let batch = self.take();
            if !batch.events.is_empty() || batch.missed != Some(0) {
                return Some(batch);
            }
        }
        None
    }

    fn is_behind(&self) -> bool {
        self.next <= self.bus.ring().latest
    }

    fn take(&mut self) -> Batch {
        let ring = self.bus.ring();
        let first = ring.first();
        let missed = match std::mem::take(&mut self.is_cut) {
            true => None,
            false => Some(first.saturating_sub(self.next)),
        };
        self.next = self.next.max(first);
        let mut events = Vec::new();
        let behind = usize::try_from(self.next - first).unwrap_or(usize::MAX);
        for kept in ring.kept.iter().skip(behind).take(LOOKED_AT) {
            if events.len() == BATCH {
                break;
            }
            let is_wanted = !self.only_here || kept.source == Source::Here;
            if is_wanted && self.filter.takes(&kept.event) {
                events.push((self.next, Arc::clone(&kept.event)));
            }
            self.next += 1;
        }
        Batch {
            missed,
            events,
            place: self.next - 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ring::{MAX_BYTES, MAX_EVENTS};
    use super::*;

    fn bus() -> EventBus {
        EventBus::new("a", None)
    }

    fn publish(bus: &EventBus, count: u64) {
        for secret in 0..count {
            let scope = "fleet".to_owned();
            bus.publish(About::default(), What::SecretPinned { secret, scope });
        }
    }

    fn numbers(batch: &Batch) -> Vec<u64> {
        let events = batch.events.iter();
        events.map(|(_, event)| event.id.number).collect()
    }

    #[tokio::test]
    async fn a_reader_gets_what_comes_and_goes_on_where_it_was() {
        let bus = bus();
        publish(&bus, 2);
        let mut reader = bus.subscribe(Filter::default(), None);
        publish(&bus, 2);
        let batch = reader.next().await;
        assert_eq!((numbers(&batch), batch.missed), (vec![3, 4], Some(0)));
        let (place, event) = &batch.events[0];
        let cursor = bus.cursor(*place, event).to_string().parse().unwrap();
        let mut again = bus.subscribe(Filter::default(), Some(&cursor));
        assert_eq!(numbers(&again.next().await), [4]);
    }

    #[tokio::test]
    async fn a_reader_that_lags_is_told_how_much_it_missed() {
        let bus = bus();
        let mut reader = bus.subscribe(Filter::default(), None);
        publish(&bus, MAX_EVENTS as u64 + 7);
        let batch = reader.next().await;
        assert_eq!(batch.missed, Some(7));
        assert_eq!(batch.events[0].1.id.number, 8);
        assert_eq!(reader.next().await.missed, Some(0));
    }

    #[tokio::test]
    async fn another_controller_goes_on_from_shortly_before() {
        let (bus, other) = (bus(), EventBus::new("b", None));
        let mut reader = bus.follow(&[], 0);
        publish(&bus, 3);
        let batch = reader.next().await;
        let events = || batch.events.iter().map(|(_, event)| Event::clone(event));
        other.take(events(), Source::Peer);
        other.take(events(), Source::Peer);
        let cursor = bus.cursor(2, &batch.events[1].1);
        let mut there = other.subscribe(Filter::default(), Some(&cursor));
        let told = there.next().await;
        assert_eq!((numbers(&told), told.missed), (vec![1, 2, 3], Some(0)));

        let gone = EventId {
            source: "node/a/00000000".into(),
            number: 1,
        };
        let cursor = Cursor { id: gone, ..cursor };
        let mut cut = other.subscribe(Filter::default(), Some(&cursor));
        let told = cut.next().await;
        assert_eq!((numbers(&told), told.missed), (vec![1, 2, 3], None));
    }

    #[tokio::test]
    async fn what_another_controller_told_is_told_to_no_third() {
        let (bus, other) = (bus(), EventBus::new("b", None));
        publish(&bus, 1);
        let told = bus.follow(&[], 0).next().await;
        let events = told.events.iter().map(|(_, event)| Event::clone(event));
        other.take(events, Source::Peer);
        publish(&other, 1);
        let batch = other.follow(&[], 0).next().await;
        assert_eq!(batch.events.len(), 1);
        assert!(batch.events[0].1.id.source.starts_with("controller/b/"));
        assert_eq!(batch.place, 2);
        assert_eq!(other.latest_of(&told.events[0].1.id.source), 0);
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let bus = bus();
        for _ in 0..MAX_EVENTS {
            let reason = "x".repeat(1500);
            let what = What::NodePolicyRefused {
                reason,
                running_generation: 1,
            };
            bus.publish(About::node("relay-0"), what);
        }
        let ring = bus.ring();
        assert!(ring.bytes <= MAX_BYTES && ring.kept.len() < MAX_EVENTS);
        assert_eq!(ring.known.len(), ring.kept.len());
    }
}
