//! Events on their way between controllers.

use std::borrow::Cow;
use std::sync::Arc;

use turnfleet_proto::fleet as wire;
use turnfleet_proto::fleet::fleet_event_field::Value as Told;

use super::event::{Event, EventId, Field, Value};
use super::kinds::KINDS;

/// The longest text of another controller that is kept.
const MAX_TEXT: usize = 2048;
/// The most fields of an event.
const MAX_FIELDS: usize = 32;

impl From<&Event> for wire::FleetEvent {
    fn from(event: &Event) -> Self {
        let or_empty = |text: &Option<Arc<str>>| text.as_deref().unwrap_or_default().to_owned();
        let field = |field: &Field| wire::FleetEventField {
            name: field.name.to_string(),
            value: Some(match &field.value {
                Value::Text(text) | Value::User(text) | Value::Address(text) => {
                    Told::Text(text.clone())
                }
                Value::Number(number) => Told::Number(*number),
                Value::Flag(flag) => Told::Flag(*flag),
                Value::Texts(texts) => Told::Texts(wire::FleetEventTexts {
                    texts: texts.clone(),
                }),
            }),
        };
        Self {
            source: event.id.source.to_string(),
            number: event.id.number,
            unix_millis: event.at_milliseconds,
            kind: event.kind.to_string(),
            node_id: or_empty(&event.node),
            tenant: or_empty(&event.tenant),
            fields: event.fields.iter().map(field).collect(),
        }
    }
}

impl Event {
    /// What another controller of the fleet has told; `None` where it is beyond any bound.
    pub(crate) fn read(told: wire::FleetEvent) -> Option<Self> {
        let texts = [&told.source, &told.kind, &told.node_id, &told.tenant];
        if texts.iter().any(|text| text.len() > MAX_TEXT) || told.fields.len() > MAX_FIELDS {
            return None;
        }
        let given = |text: String| Some(text).filter(|text| !text.is_empty()).map(Arc::from);
        let field = |field: wire::FleetEventField| {
            let value = match field.value? {
                Told::Text(text) => Value::Text(text),
                Told::Number(number) => Value::Number(number),
                Told::Flag(flag) => Value::Flag(flag),
                Told::Texts(texts) => Value::Texts(texts.texts),
            };
            let name = Cow::Owned(field.name);
            Some(Field { name, value })
        };
        let known = KINDS.iter().find(|kind| **kind == told.kind);
        Some(Self {
            id: EventId {
                source: told.source.into(),
                number: told.number,
            },
            at_milliseconds: told.unix_millis,
            kind: known.map_or_else(|| Cow::Owned(told.kind), |kind| Cow::Borrowed(*kind)),
            node: given(told.node_id),
            tenant: given(told.tenant),
            fields: told.fields.into_iter().filter_map(field).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_as_it_went() {
        let field = |name: &'static str, value| Field {
            name: name.into(),
            value,
        };
        let event = Event {
            id: "node/relay-0/1f3a9c21/42".parse().unwrap(),
            at_milliseconds: 1_700_000_000_123,
            kind: "allocation.opened".into(),
            node: Some("relay-0".into()),
            tenant: None,
            fields: vec![
                field("username", Value::Text("ann".to_owned())),
                field("allocation", Value::Number(7)),
                field("enforced", Value::Flag(true)),
                field("relayed", Value::Texts(vec!["192.0.2.1:1".to_owned()])),
            ],
        };
        assert_eq!(Event::read((&event).into()), Some(event));
    }
}
