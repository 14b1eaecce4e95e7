//! `GET /v1/events` and gRPC `WatchEvents`: what happens in the fleet, as it happens.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse as _, Response};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use turnfleet_proto::operator as wire;
use wire::event_field::Value as Told;

use super::route::Call;
use super::serve::LongAnswer;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::events::{Batch, Cursor, Event, EventBus, Filter, NAMED, Subscription, Value, to_json};

/// Between two comments that keep an idle stream open.
const HEARTBEAT: Duration = Duration::from_secs(10);
/// Milliseconds that a browser waits before it asks again.
const RETRY: Duration = Duration::from_secs(1);
/// Events that wait for one reader, beside those of the bus.
const QUEUE: usize = 64;
/// The longest cursor.
const MAX_CURSOR: usize = 256;
/// Where `after` begins with everything that is kept.
const START: &str = "start";

/// What the query may say.
pub(super) const QUERY: &[Field] = &[
    Field::new(
        "kinds",
        Kind::Any(NAMED),
        "Only events of these kinds; `allocation` is every kind that begins so.",
    ),
    Field::new(
        "tenant",
        Kind::Name,
        "Only events that concern this tenant.",
    ),
    Field::new("node", Kind::Name, "Only events that concern this node."),
    Field::new(
        "after",
        Kind::Text(MAX_CURSOR),
        "The `id:` of the last event that was seen, to go on from there; `start` for everything that is kept. The header Last-Event-ID says the same, and goes first.",
    ),
    Field::new(
        "once",
        Kind::Flag,
        "Whether the stream ends with what is kept; without it, it goes on with what happens.",
    ),
];

/// What somebody wants to read.
struct Wish {
    filter: Filter,
    from: From,
}

/// Where a reader begins.
enum From {
    Now,
    Start,
    After(Cursor),
}

impl Wish {
    /// What `asked`, in the fields of [`QUERY`], says, for a bearer who is bound to `bound`.
    fn read(asked: &Values, after: Option<&str>, bound: Option<&str>) -> Result<Self, ApiError> {
        let tenant = asked.text("tenant");
        if let (Some(bound), Some(tenant)) = (bound, tenant)
            && bound != tenant
        {
            return Err(ApiError::bound_to_tenant());
        }
        let from = match after.or_else(|| asked.text("after")) {
            None | Some("") => From::Now,
            Some(START) => From::Start,
            Some(text) => From::After(text.parse().map_err(|()| {
                let expected = "the id of an event of this stream, or start";
                ApiError::bad_parameter("query.after", "it is no place in the stream", expected)
            })?),
        };
        Ok(Self {
            filter: Filter {
                kinds: asked
                    .some("kinds")
                    .iter()
                    .map(|&kind| kind.to_owned())
                    .collect(),
                tenant: bound.or(tenant).map(str::to_owned),
                node: asked.text("node").map(str::to_owned),
            },
            from,
        })
    }

    fn subscribe(self, bus: &EventBus) -> Subscription {
        match self.from {
            From::Now => bus.subscribe(self.filter, None),
            From::Start => bus.subscribe_to_all(self.filter),
            From::After(cursor) => bus.subscribe(self.filter, Some(&cursor)),
        }
    }
}

/// `GET /v1/events`.
pub(super) async fn stream(call: Call) -> Result<Response, ApiError> {
    let wish = Wish::read(
        &call.query,
        call.last_event_id.as_deref(),
        call.tenant.as_deref(),
    )?;
    let bus = call.app.handle.events().clone();
    let seat = seat(&bus)?;
    let follow = !call.query.flag("once");
    let reader = wish.subscribe(&bus);
    let (down, stream) = mpsc::channel(QUEUE);
    let begun = sse::Event::default().retry(RETRY);
    // There is room for the first.
    drop(down.try_send(Ok::<_, Infallible>(begun)));
    tokio::spawn(pass_on(bus, reader, seat, down, follow, to_sse));
    let mut answer = Sse::new(ReceiverStream::new(stream))
        .keep_alive(KeepAlive::new().interval(HEARTBEAT))
        .into_response();
    answer.extensions_mut().insert(LongAnswer);
    Ok(answer)
}

/// The stream of `WatchEvents`, for a bearer who is bound to `bound`.
///
/// # Errors
/// Where the request is not good, or there are too many readers.
pub(super) fn watch(
    bus: &EventBus,
    request: wire::WatchEventsRequest,
    bound: Option<&str>,
) -> Result<ReceiverStream<Result<wire::Event, Status>>, ApiError> {
    let given = |text: String| Some(text).filter(|text| !text.is_empty());
    let asked = json!({
        "kinds": request.kinds,
        "tenant": given(request.tenant),
        "node": given(request.node_id),
        "after": given(request.after),
    });
    let asked = Values::of_json(QUERY, &asked)?;
    let wish = Wish::read(&asked, None, bound)?;
    let seat = seat(bus)?;
    let reader = wish.subscribe(bus);
    let (down, stream) = mpsc::channel(QUEUE);
    tokio::spawn(pass_on(bus.clone(), reader, seat, down, true, to_grpc));
    Ok(ReceiverStream::new(stream))
}

fn seat(bus: &EventBus) -> Result<OwnedSemaphorePermit, ApiError> {
    let full = || ApiError::too_many_requests(Duration::from_secs(5));
    bus.seat().ok_or_else(full)
}

/// One thing that a reader is told.
enum Word<'a> {
    /// An event, and where a reader goes on that has seen it.
    Event(&'a Event, Cursor),
    /// So many events are missing; `None` where it is not known how many.
    Missed(Option<u64>),
}

/// Tells a reader what it wants until it has gone, or has everything where it does not follow.
async fn pass_on<T>(
    bus: EventBus,
    mut reader: Subscription,
    seat: OwnedSemaphorePermit,
    down: mpsc::Sender<T>,
    follow: bool,
    told: fn(Word<'_>) -> T,
) {
    loop {
        let batch = if follow {
            tokio::select! {
                batch = reader.next() => batch,
                () = down.closed() => break,
            }
        } else {
            match reader.next_kept() {
                Some(batch) => batch,
                None => break,
            }
        };
        let Batch { missed, events, .. } = batch;
        if missed != Some(0) && down.send(told(Word::Missed(missed))).await.is_err() {
            break;
        }
        for (place, event) in events {
            let cursor = bus.cursor(place, &event);
            let word = told(Word::Event(&event, cursor));
            if down.send(word).await.is_err() {
                break;
            }
        }
    }
    drop(seat);
}

fn to_sse(word: Word<'_>) -> Result<sse::Event, Infallible> {
    Ok(match word {
        Word::Event(event, cursor) => sse::Event::default()
            .event(&event.kind)
            .id(cursor.to_string())
            .data(to_json(event).to_string()),
        Word::Missed(count) => {
            let data = json!({ "kind": MISSED, "fields": { "count": count } });
            sse::Event::default().event(MISSED).data(data.to_string())
        }
    })
}

/// The kind of what tells of events that are missing.
const MISSED: &str = "events.missed";

fn to_grpc(word: Word<'_>) -> Result<wire::Event, Status> {
    Ok(match word {
        Word::Event(event, cursor) => {
            let or_empty = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
            let field = |field: &crate::events::Field| wire::EventField {
                name: field.name.to_string(),
                value: Some(match &field.value {
                    Value::Text(text) | Value::User(text) | Value::Address(text) => {
                        Told::Text(text.clone())
                    }
                    Value::Number(number) => Told::Number(*number),
                    Value::Flag(flag) => Told::Flag(*flag),
                    Value::Texts(texts) => Told::Texts(wire::EventTexts {
                        texts: texts.clone(),
                    }),
                }),
            };
            wire::Event {
                id: event.id.to_string(),
                cursor: cursor.to_string(),
                at_milliseconds: event.at_milliseconds,
                kind: event.kind.to_string(),
                node_id: or_empty(&event.node),
                tenant: or_empty(&event.tenant),
                fields: event.fields.iter().map(field).collect(),
            }
        }
        Word::Missed(count) => wire::Event {
            kind: MISSED.to_owned(),
            fields: count
                .map(|count| wire::EventField {
                    name: "count".to_owned(),
                    value: Some(Told::Number(count)),
                })
                .into_iter()
                .collect(),
            ..wire::Event::default()
        },
    })
}
