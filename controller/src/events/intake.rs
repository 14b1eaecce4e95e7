//! What a node tells over its session, as events of the fleet.
//!
//! The node hears that its events are taken once the webhooks have delivered them, or have not in a while: what it has not heard
//! of it tells the next controller, should this one die.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout_at};
use turnfleet_proto::fleet as wire;
use turnfleet_proto::fleet::event::What as Told;
use turnfleet_proto::fleet::events_lost::Reason;
use turnfleet_proto::fleet::listener::Transport;

use super::bus::{EventBus, source};
use super::event::{Event, EventId, Place, Username};
use super::kinds::What;
use super::ring::Source;
use super::webhooks::Receipt;
use crate::config::is_name;
use crate::reconcile::SessionKey;

/// The longest text of a node that is kept.
const MAX_TEXT: usize = 600;
/// How long a node is left without a word while its events are being delivered.
const HELD: Duration = Duration::from_secs(5);
/// Batches of which it is: a node has eight under way, and is not to wait.
const MAX_HELD: usize = 5;

/// The events of one session.
#[derive(Debug)]
pub(crate) struct Intake {
    bus: EventBus,
    node: Arc<str>,
    source: Arc<str>,
    /// What the node has to hear of.
    taken: Option<Taken>,
    /// What is being delivered: the number of the last event of each batch, and until when the node is left without a word.
    under_way: VecDeque<(u64, Receipt, Instant)>,
}

/// The events of the incarnation up to that number are in good hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Taken(pub(crate) u64);

impl Intake {
    /// That of `session`, whose node hears first what is known of its events.
    pub(crate) fn new(bus: EventBus, session: &SessionKey) -> Self {
        let node = session.node.as_str();
        let source: Arc<str> = source("node", node, &session.incarnation).into();
        Self {
            taken: Some(Taken(bus.latest_of(&source))),
            under_way: VecDeque::new(),
            node: node.into(),
            source,
            bus,
        }
    }

    /// Takes what the node told. It tells of the users of the tenant that it is `bound` to, if it is.
    pub(crate) fn take(&mut self, events: Vec<wire::Event>, bound: Option<&str>) {
        let Some(last) = events.last().map(|event| event.number) else {
            return;
        };
        let read = events
            .into_iter()
            .filter_map(|event| self.read(event, bound));
        let receipt = self.bus.take(read, Source::Here);
        let until = Instant::now() + HELD;
        self.under_way.push_back((last, receipt, until));
        while self.under_way.len() > MAX_HELD {
            self.taken = self.under_way.pop_front().map(|(last, ..)| Taken(last));
        }
    }

    /// Waits for what the node has to hear of. Nothing is lost where it is not waited for to the end.
    pub(crate) async fn settled(&mut self) -> Taken {
        if let Some(taken) = self.taken.take() {
            return taken;
        }
        let Some((last, receipt, until)) = self.under_way.front_mut() else {
            return std::future::pending().await;
        };
        let last = *last;
        // What takes longer is in this controller's hands alone.
        let _ = timeout_at(*until, receipt.settled()).await;
        self.under_way.pop_front();
        Taken(last)
    }

    /// The event, where it is one that this controller knows.
    fn read(&self, event: wire::Event, bound: Option<&str>) -> Option<Event> {
        let client = event.client.as_ref();
        let of = bound.or_else(|| Some(client?.tenant.as_str()));
        let tenant = of.filter(|of| is_name(of)).map(Arc::from);
        let what = what(event.client, event.what?)?;
        Some(Event {
            id: EventId {
                source: Arc::clone(&self.source),
                number: event.number,
            },
            at_milliseconds: event.unix_millis,
            kind: what.kind().into(),
            node: Some(Arc::clone(&self.node)),
            tenant,
            fields: what.fields(),
        })
    }
}

fn what(client: Option<wire::EventClient>, told: Told) -> Option<What> {
    if let Told::Lost(lost) = told {
        return Some(What::EventsLost {
            count: lost.count,
            reason: reason(lost.reason()).to_owned(),
        });
    }
    let client = client?;
    let (shard, allocation) = (client.shard.into(), client.allocation);
    let transport = transport(client.transport()).to_owned();
    let (place, server) = (Place(text(client.client)), text(client.server));
    let username = text(client.username);
    Some(match told {
        Told::Opened(opened) => What::AllocationOpened {
            shard,
            allocation: allocation?,
            transport,
            client: place,
            server,
            username: Username(username),
            relayed_transport: self::transport(opened.relayed_transport()).to_owned(),
            relayed: opened.relayed.into_iter().take(2).map(text).collect(),
        },
        Told::Closed(closed) => What::AllocationClosed {
            shard,
            allocation: allocation?,
            transport,
            client: place,
            server,
            username: Username(username),
            reason: text(closed.reason),
            seconds: closed.seconds,
            bytes_to_peers: closed.bytes_to_peers,
            bytes_to_client: closed.bytes_to_client,
        },
        Told::Evicting(evicting) => What::AllocationEvicting {
            shard,
            allocation: allocation?,
            transport,
            client: place,
            server,
            username: Username(username),
            deadline: evicting.deadline,
        },
        Told::Refused(refused) => What::AllocationRefused {
            shard,
            transport,
            client: place,
            server,
            username: Some(username).filter(|name| !name.is_empty()).map(Username),
            code: refused.code.into(),
        },
        Told::Lost(_) => return None,
    })
}

fn reason(reason: Reason) -> &'static str {
    match reason {
        Reason::Unspecified => "other",
        Reason::Room => "room",
        Reason::Speed => "speed",
        Reason::Rate => "rate",
    }
}

fn transport(transport: Transport) -> &'static str {
    match transport {
        Transport::Unspecified => "other",
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Dtls => "dtls",
    }
}

/// `text`, as far as it is kept.
fn text(text: String) -> String {
    if text.len() <= MAX_TEXT {
        return text;
    }
    text.chars().take(MAX_TEXT / 4).collect()
}
