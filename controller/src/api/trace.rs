//! `POST /v1/trace`: who had a relayed address, by the journals of the relay nodes; by gRPC too.
//!
//! A look at what people did: it is written to the audit log before anything is asked, and does not happen where that
//! cannot be.

use std::net::{IpAddr, SocketAddr};

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;
use turnfleet_proto::fleet::journal_gap::Reason;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::traced_allocation::Ending;
use turnfleet_proto::fleet::{JournalGap, TracedAllocation};
use turnfleet_proto::operator as wire;
use turnfleet_proto::user_hash::UserHash;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::fleet::tenants::Tenants;
use crate::reconcile::Handle;
use crate::traces::{Outcome, Question, Tracer};

/// Seconds before and after the time of a request that does not say how many.
const WITHIN: u64 = 30;
/// The most of these: relays answer for a day.
const MAX_WITHIN: u64 = 43_200;

/// What the body may say.
pub(super) const TRACE: &[Field] = &[
    Field::required(
        "ip",
        Kind::Address,
        "The relayed address, as the packet's receiver saw it.",
    ),
    Field::required("port", Kind::Whole(1, 65_535), "Its port."),
    Field::required(
        "at",
        Kind::Whole(0, 1 << 40),
        "When it was seen, in Unix seconds.",
    ),
    Field::new(
        "within_seconds",
        Kind::Whole(0, MAX_WITHIN),
        "How many seconds before and after that are searched, too; 30 where it is left out.",
    ),
    Field::new(
        "user",
        Kind::Text(508),
        "Is it this user? As it stands in usernames, behind the time.",
    ),
];

/// Who had the address, as far as anybody knows.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Traces")]
pub(super) struct Answer {
    /// In the order of nodes.
    traces: Vec<Trace>,
    /// Times of which a journal does not know all: those that were asked for, and earlier ones that cast doubt on them.
    gaps: Vec<Gap>,
    /// The nodes that answered.
    heard: Vec<Heard>,
    /// The nodes that may have had the address, and did not answer.
    unheard: Vec<Unheard>,
}

/// An allocation that had the address.
#[derive(Debug, Serialize, JsonSchema)]
struct Trace {
    node: String,
    /// The client's address, with its port.
    client: String,
    /// `udp`, `tcp` or `tls`.
    transport: &'static str,
    relayed: Vec<String>,
    /// `udp` or `tcp`.
    relayed_transport: &'static str,
    /// The user's tenant, or `#` and its number where it has been removed; the tenant of the node where the user is the default one's,
    /// and `null` where that has none either.
    tenant: Option<String>,
    /// 32 hexadecimal digits: HMAC-SHA-256 under a key of the fleet, cut in half. `null` where it is not known.
    user_hash: Option<String>,
    /// Whether it is the user of the request; `null` where none is asked for, or it is not known.
    is_user: Option<bool>,
    /// Unix seconds.
    opened: u64,
    /// `live`, `closed`, `died` where its process ended without a word after that, `unseen` where its end was not written and
    /// the address was another's then, or `unread` where it lived then and the search took too long to come to its end.
    ending: &'static str,
    /// Unix seconds; `null` for one that lives.
    ended: Option<u64>,
    /// Why it was closed.
    reason: Option<String>,
}

/// A time of which a node's journal does not know all.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "TraceGap")]
struct Gap {
    node: String,
    /// Unix seconds.
    from: u64,
    /// Unix seconds.
    to: u64,
    /// `before_journal`, `stopped`, `died`, `silent`, `lost`, `damaged` or `unread`.
    reason: &'static str,
}

/// A node that answered.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "HeardNode")]
struct Heard {
    node: String,
    /// Unix seconds of the earliest moment that its journal tells of; `null` where that is empty.
    covers_since: Option<u64>,
    /// Whether it found more than an answer holds.
    has_more: bool,
}

/// A node that may have had the address, and did not answer.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "UnheardNode")]
struct Unheard {
    node: String,
    reason: String,
}

/// Asks the relays what is `asked` in the fields of [`TRACE`].
pub(super) async fn search(
    handle: &Handle,
    tracer: &Tracer,
    actor: &Actor,
    asked: &Values,
) -> Result<Answer, ApiError> {
    let ip = asked.text("ip").and_then(|ip| ip.parse::<IpAddr>().ok());
    let ip = ip.map(|ip| ip.to_canonical());
    let port = asked.whole("port").and_then(|port| port.try_into().ok());
    let (Some(ip), Some(port), Some(at)) = (ip, port, asked.whole("at")) else {
        return Err(ApiError::internal(&"a field was not checked"));
    };
    let within = asked.whole("within_seconds").unwrap_or(WITHIN);
    let question = Question {
        ip,
        port,
        from: at.saturating_sub(within),
        to: at.saturating_add(within),
    };
    let target = SocketAddr::new(ip, port).to_string();
    let user = asked.text("user").filter(|user| !user.is_empty());
    let detail = match user {
        Some(user) => format!("at {at}, within {within} s, is it {user}"),
        None => format!("at {at}, within {within} s"),
    };
    let admitted = tracer.admit().map_err(ApiError::searches_run)?;
    actor.looks(handle, "trace", &target, detail).await?;
    let outcome = tracer.search(question, admitted).await;
    let user = user.map(|user| tracer.journals().key().hash(user));
    Ok(Answer::of(outcome, user, &handle.view().tenants))
}

/// `POST /v1/trace`.
pub(crate) async fn trace(call: Call) -> Result<Response, ApiError> {
    let app = &call.app;
    let answer = search(&app.handle, &app.tracer, &call.actor, &call.body).await?;
    Ok(answer_json(&answer))
}

impl Answer {
    fn of(outcome: Outcome, user: Option<UserHash>, tenants: &Tenants) -> Self {
        let mut answer = Self {
            traces: Vec::new(),
            gaps: Vec::new(),
            heard: Vec::new(),
            unheard: Vec::new(),
        };
        for heard in outcome.heard {
            let (node, told) = (heard.node.to_string(), heard.answer);
            for told in told.allocations {
                let tenant = match told.tenant {
                    0 => heard.tenant.clone(),
                    id => tenants.label(id),
                };
                answer.traces.push(Trace::of(&node, tenant, told, user));
            }
            let gaps = told.gaps.iter();
            answer.gaps.extend(gaps.map(|gap| Gap::of(&node, gap)));
            answer.heard.push(Heard {
                node,
                covers_since: Some(told.covers_since).filter(|since| *since != 0),
                has_more: told.has_more,
            });
        }
        let unheard = outcome.unheard.into_iter();
        answer.unheard.extend(unheard.map(|unheard| Unheard {
            node: unheard.node.to_string(),
            reason: unheard.reason,
        }));
        answer
    }
}

impl Trace {
    fn of(node: &str, tenant: String, told: TracedAllocation, user: Option<UserHash>) -> Self {
        let (transport, relayed_transport) = (told.transport(), told.relayed_transport());
        let (ending, is_live) = match told.ending() {
            Ending::Unspecified => ("live", true),
            Ending::Closed => ("closed", false),
            Ending::Died => ("died", false),
            Ending::Unseen => ("unseen", false),
            Ending::Unread => ("unread", false),
        };
        let hash = UserHash::from_bytes(&told.user_hash);
        Self {
            node: node.to_owned(),
            client: told.client,
            transport: name(transport),
            relayed: told.relayed,
            relayed_transport: name(relayed_transport),
            tenant: Some(tenant).filter(|tenant| !tenant.is_empty()),
            user_hash: hash.map(|hash| hash.to_string()),
            is_user: hash.zip(user).map(|(hash, user)| hash == user),
            opened: told.opened,
            ending,
            ended: Some(told.ended).filter(|_| !is_live),
            reason: Some(told.reason).filter(|reason| !reason.is_empty()),
        }
    }
}

impl Gap {
    fn of(node: &str, gap: &JournalGap) -> Self {
        Self {
            node: node.to_owned(),
            from: gap.from,
            to: gap.to,
            reason: match gap.reason() {
                Reason::BeforeJournal => "before_journal",
                Reason::Stopped => "stopped",
                Reason::Died => "died",
                Reason::Silent => "silent",
                Reason::Lost => "lost",
                Reason::Damaged => "damaged",
                Reason::Unread => "unread",
                Reason::Unspecified => "unknown",
            },
        }
    }
}

fn name(transport: Transport) -> &'static str {
    match transport {
        Transport::Udp => "udp",
        Transport::Tcp => "tcp",
        Transport::Tls => "tls",
        Transport::Dtls => "dtls",
        Transport::Unspecified => "unknown",
    }
}

impl From<Answer> for wire::TraceResponse {
    fn from(answer: Answer) -> Self {
        let trace = |it: Trace| wire::Trace {
            node_id: it.node,
            client: it.client,
            transport: it.transport.to_owned(),
            relayed: it.relayed,
            relayed_transport: it.relayed_transport.to_owned(),
            tenant: it.tenant.unwrap_or_default(),
            user_hash: it.user_hash.unwrap_or_default(),
            is_user: it.is_user,
            opened: it.opened,
            ending: it.ending.to_owned(),
            ended: it.ended.unwrap_or(0),
            reason: it.reason.unwrap_or_default(),
        };
        let gap = |it: Gap| wire::TraceGap {
            node_id: it.node,
            from: it.from,
            to: it.to,
            reason: it.reason.to_owned(),
        };
        let heard = |it: Heard| wire::HeardNode {
            node_id: it.node,
            covers_since: it.covers_since.unwrap_or(0),
            has_more: it.has_more,
        };
        let unheard = |it: Unheard| wire::UnheardNode {
            node_id: it.node,
            reason: it.reason,
        };
        Self {
            traces: answer.traces.into_iter().map(trace).collect(),
            gaps: answer.gaps.into_iter().map(gap).collect(),
            heard: answer.heard.into_iter().map(heard).collect(),
            unheard: answer.unheard.into_iter().map(unheard).collect(),
        }
    }
}
