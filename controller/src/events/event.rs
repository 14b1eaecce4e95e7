//! One event, in the form in which it is kept, shared and told.

use std::borrow::Cow;
use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Map, Value as Json, json};

/// What an event is known by: the same at every controller, and every time that it is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// The run of the node or the controller that numbered it.
    pub source: Arc<str>,
    /// Rises with each event of the source.
    pub number: u64,
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.source, self.number)
    }
}

impl FromStr for EventId {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (source, number) = text.rsplit_once('/').ok_or(())?;
        Ok(Self {
            source: source.into(),
            number: number.parse().map_err(|_| ())?,
        })
    }
}

/// Something that happened in the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What it is known by.
    pub id: EventId,
    /// When, in Unix milliseconds.
    pub at_milliseconds: u64,
    /// One of [`super::kind_reference`], or of a later version's.
    pub kind: Cow<'static, str>,
    /// The node that it concerns.
    pub node: Option<Arc<str>>,
    /// The tenant that it concerns; `None` for the default one, and for nobody's.
    pub tenant: Option<Arc<str>>,
    /// What the kind tells.
    pub fields: Vec<Field>,
}

/// One thing that an event tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is.
    pub value: Value,
}

/// What a field holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(u64),
    /// Yes or no.
    Flag(bool),
    /// Several texts.
    Texts(Vec<String>),
    /// Who somebody is, hashed under privacy: a USERNAME.
    User(String),
    /// Where somebody is, hashed under privacy: an address, with a port or without.
    Address(String),
}

impl Value {
    /// Bytes that it takes, about.
    fn size(&self) -> usize {
        match self {
            Self::Text(text) | Self::User(text) | Self::Address(text) => text.len(),
            Self::Texts(texts) => texts.iter().map(|text| text.len() + 24).sum(),
            Self::Number(_) | Self::Flag(_) => 0,
        }
    }

    fn to_json(&self) -> Json {
        match self {
            Self::Text(text) | Self::User(text) | Self::Address(text) => text.as_str().into(),
            Self::Number(number) => (*number).into(),
            Self::Flag(flag) => (*flag).into(),
            Self::Texts(texts) => texts.clone().into(),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) | Self::User(text) | Self::Address(text) => f.write_str(text),
            Self::Number(number) => number.fmt(f),
            Self::Flag(flag) => flag.fmt(f),
            Self::Texts(texts) => f.write_str(&texts.join(",")),
        }
    }
}

impl Event {
    /// Bytes that it takes, about.
    #[must_use]
    pub fn size(&self) -> usize {
        let fields = self.fields.iter();
        let fields: usize = fields.map(|field| 64 + field.value.size()).sum();
        160 + fields
    }

    /// The field of that name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        let field = self.fields.iter().find(|field| field.name == name);
        field.map(|field| &field.value)
    }

    /// What its order is kept by: events of one lane are delivered as they happened. An allocation is a lane, and so is
    /// everything else of a source.
    #[must_use]
    pub fn lane(&self) -> (&str, u64, u64) {
        let number = |name| match self.field(name) {
            Some(Value::Number(number)) => *number,
            _ => u64::MAX,
        };
        (&self.id.source, number("shard"), number("allocation"))
    }
}

/// The form in which programs get it.
pub(crate) fn to_json(event: &Event) -> Json {
    let fields = event.fields.iter();
    let fields: Map<_, _> = fields
        .map(|field| (field.name.to_string(), field.value.to_json()))
        .collect();
    json!({
        "id": event.id.to_string(),
        "at_milliseconds": event.at_milliseconds,
        "kind": event.kind,
        "node": event.node.as_deref(),
        "tenant": event.tenant.as_deref(),
        "fields": fields,
    })
}

/// What the table of kinds makes values of; `None` where there is nothing to tell.
pub(super) trait Tells {
    fn value(&self) -> Option<Value>;
}

/// A USERNAME.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Username(pub String);

/// Where a client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place(pub String);

impl From<SocketAddr> for Place {
    fn from(address: SocketAddr) -> Self {
        Self(address.to_string())
    }
}

impl Tells for String {
    fn value(&self) -> Option<Value> {
        Some(Value::Text(self.clone()))
    }
}

impl Tells for u64 {
    fn value(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }
}

impl Tells for bool {
    fn value(&self) -> Option<Value> {
        Some(Value::Flag(*self))
    }
}

impl Tells for Vec<String> {
    fn value(&self) -> Option<Value> {
        Some(Value::Texts(self.clone()))
    }
}

impl Tells for Username {
    fn value(&self) -> Option<Value> {
        Some(Value::User(self.0.clone()))
    }
}

impl Tells for Place {
    fn value(&self) -> Option<Value> {
        Some(Value::Address(self.0.clone()))
    }
}

impl<T: Tells> Tells for Option<T> {
    fn value(&self) -> Option<Value> {
        self.as_ref().and_then(Tells::value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_as_it_is_shown() {
        let id = EventId {
            source: "node/relay-0/1f3a9c21".into(),
            number: 42,
        };
        assert_eq!(id.to_string(), "node/relay-0/1f3a9c21/42");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!("42".parse::<EventId>(), Err(()));
        assert_eq!("a/b".parse::<EventId>(), Err(()));
    }
}
