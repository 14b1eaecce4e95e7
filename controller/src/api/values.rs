//! What a request may say, as data: each parameter of a query and each field of a body is a [`Field`], from which come the
//! check, the error that says where and what was expected, and the schema in the API's document.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::{Map, Value, json};

use turnfleet_proto::credentials::SharedSecret;

use super::bans::cursor;
use super::parameters::Parameters;
use super::status::{ApiError, excerpt};
use crate::config::{NAME, is_name};
use crate::fleet::bans::network;
use crate::fleet::record::SecretScope;
use crate::fleet::tenants::{is_dns_name, is_tenant_name};

/// Networks of IPv4, as the document shows them.
const V4_NETWORK: &str = "^((25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])\\.){3}(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])/(3[0-2]|[12]?[0-9])$";
/// Networks of IPv6 in the form that they mostly have; others are taken, too.
const V6_NETWORK: &str = "^[0-9a-f]{1,4}(:[0-9a-f]{1,4}){0,5}::/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$";
/// The longest secret that an operator gives.
const MAX_SECRET_BYTES: usize = 512;

/// One parameter of a query, or one field of a JSON body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    /// What it means, for the document.
    pub(crate) says: &'static str,
}

/// What a field may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    /// 1 to 63 letters, digits, `-`, `_` and `.`.
    Name,
    /// Exactly one of these.
    OneOf(&'static [&'static str]),
    /// An IP address.
    Address,
    /// At most so many bytes, without control characters.
    Text(usize),
    /// A whole number within both bounds.
    Whole(u64, u64),
    /// At least one of these.
    Some(&'static [&'static str]),
    /// Any number of these.
    Any(&'static [&'static str]),
    /// True or false.
    Flag,
    /// A shared secret of at least so many bytes.
    Secret(usize),
    /// The scope of a shared secret: `fleet`, `region:NAME` or `tenant:NAME`.
    SecretScope,
    /// The name of a tenant.
    TenantName,
    /// An address or a network.
    Network,
    /// A name in the DNS, as TLS clients ask for it.
    DnsName,
    /// Where a page of a list begins: a time, and what names an entry.
    Cursor,
    /// At most so many texts of this kind.
    List(&'static Self, usize),
    /// An object with these fields.
    Object(&'static [Field]),
}

impl Field {
    /// One that may be left out.
    pub(crate) const fn new(name: &'static str, kind: Kind, says: &'static str) -> Self {
        Self {
            name,
            kind,
            required: false,
            says,
        }
    }

    /// One that must be there.
    pub(crate) const fn required(name: &'static str, kind: Kind, says: &'static str) -> Self {
        Self {
            required: true,
            ..Self::new(name, kind, says)
        }
    }

    /// The JSON Schema of the value. In a body that leaves it out, it may also be null.
    pub(crate) fn schema(&self, in_body: bool) -> Value {
        let mut schema = match self.kind {
            Kind::Name => {
                json!({ "type": "string", "minLength": 1, "maxLength": 63, "pattern": "^[A-Za-z0-9._-]+$" })
            }
            Kind::Text(max) => {
                json!({ "type": "string", "maxLength": max, "pattern": "^[^\\x00-\\x1f\\x7f-\\x9f]*$" })
            }
            Kind::OneOf(names) => json!({ "type": "string", "enum": names }),
            Kind::Address => {
                json!({ "type": "string", "anyOf": [{ "format": "ipv4" }, { "format": "ipv6" }] })
            }
            Kind::Whole(least, most) => {
                json!({ "type": "integer", "minimum": least, "maximum": most })
            }
            Kind::Any(names) => {
                let items = json!({ "type": "string", "enum": names });
                json!({ "type": "array", "items": items })
            }
            Kind::Some(names) => {
                let items = json!({ "type": "string", "enum": names });
                json!({ "type": "array", "items": items, "minItems": 1 })
            }
            Kind::Flag => json!({ "type": "boolean" }),
            Kind::Secret(least) => {
                json!({ "type": "string", "minLength": least, "maxLength": MAX_SECRET_BYTES, "writeOnly": true })
            }
            Kind::SecretScope => {
                json!({ "type": "string", "pattern": "^(fleet|(region|tenant):[^\\x00-\\x1f\\x7f-\\x9f]{1,63})$" })
            }
            Kind::TenantName => {
                json!({ "type": "string", "pattern": "^[a-z0-9][a-z0-9._-]{0,62}$" })
            }
            Kind::Network => {
                let v4 = json!({ "pattern": V4_NETWORK });
                let v6 = json!({ "pattern": V6_NETWORK });
                let address = [json!({ "format": "ipv4" }), json!({ "format": "ipv6" })];
                json!({ "type": "string", "anyOf": [address[0], address[1], v4, v6] })
            }
            Kind::DnsName => {
                json!({ "type": "string", "maxLength": 253, "pattern": "^[A-Za-z0-9_-]{1,63}(\\.[A-Za-z0-9_-]{1,63})*$" })
            }
            Kind::Cursor => {
                json!({ "type": "string", "pattern": "^[0-9]{1,19}-[0-9a-f]{64}$" })
            }
            Kind::List(kind, most) => {
                let item = Self::required("", *kind, "").schema(false);
                json!({ "type": "array", "items": item, "maxItems": most })
            }
            Kind::Object(fields) => object(fields),
        };
        if in_body && !self.required {
            schema["type"] = json!([schema["type"], "null"]);
        }
        if in_body {
            schema["description"] = json!(self.says);
        }
        schema
    }

    fn expected(&self) -> String {
        match self.kind {
            Kind::Name => NAME.to_owned(),
            Kind::Text(max) => format!("a text of at most {max} bytes without control characters"),
            Kind::OneOf(names) => names.join(" or "),
            Kind::Address => "an IP address".to_owned(),
            Kind::Whole(least, u64::MAX) => format!("a whole number, at least {least}"),
            Kind::Whole(least, most) => format!("a whole number from {least} to {most}"),
            Kind::Some(names) | Kind::Any(names) => {
                format!("a list of some of {}", names.join(", "))
            }
            Kind::Flag => "true or false".to_owned(),
            Kind::Secret(least) => {
                format!("a JSON string of {least} to {MAX_SECRET_BYTES} bytes")
            }
            Kind::SecretScope => "fleet, region:NAME or tenant:NAME".to_owned(),
            Kind::TenantName => "a name such as acme: 1 to 63 lower-case letters, digits, '-', '_' and '.', beginning with a letter or a digit".to_owned(),
            Kind::Network => "an address, or a network such as 192.0.2.0/24".to_owned(),
            Kind::DnsName => "a DNS name such as turn.acme.example".to_owned(),
            Kind::Cursor => "the `next` of the answer before".to_owned(),
            Kind::List(kind, most) => {
                let item = Self::required("", *kind, "").expected();
                format!("a list of at most {most}, each {item}")
            }
            Kind::Object(fields) => {
                let names: Vec<_> = fields.iter().map(|field| field.name).collect();
                format!("an object of {}", names.join(", "))
            }
        }
    }

    fn read(&self, value: &Value) -> Option<Given> {
        match self.kind {
            Kind::Name => value.as_str().filter(|text| is_name(text)).map(Given::text),
            Kind::Text(max) => {
                let fits = |text: &&str| text.len() <= max && !text.chars().any(char::is_control);
                value.as_str().filter(fits).map(Given::text)
            }
            Kind::OneOf(names) => {
                let known = names.iter().find(|name| value == **name);
                known.map(|name| Given::text(name))
            }
            Kind::Address => {
                let text = value.as_str()?;
                text.parse::<IpAddr>().ok().map(|_| Given::text(text))
            }
            Kind::Whole(least, most) => {
                let within = |number: &u64| (least..=most).contains(number);
                whole(value).filter(within).map(Given::Whole)
            }
            Kind::Some(names) | Kind::Any(names) => {
                let known = |item: &Value| names.iter().find(|name| item == **name).copied();
                let chosen: Vec<_> = value.as_array()?.iter().map(known).collect::<Option<_>>()?;
                let may_be_empty = matches!(self.kind, Kind::Any(_));
                (may_be_empty || !chosen.is_empty()).then_some(Given::Some(chosen))
            }
            Kind::Flag => value.as_bool().map(Given::Flag),
            Kind::Secret(least) => {
                let fits = |text: &&str| (least..=MAX_SECRET_BYTES).contains(&text.len());
                let text = value.as_str().filter(fits)?;
                Some(Given::Secret(SharedSecret::new(text)))
            }
            Kind::SecretScope => {
                let text = value.as_str()?;
                text.parse::<SecretScope>().ok()?;
                Some(Given::text(text))
            }
            Kind::TenantName => value
                .as_str()
                .filter(|text| is_tenant_name(text))
                .map(Given::text),
            Kind::Network => {
                let text = value.as_str()?;
                network(text).map(|_| Given::text(text))
            }
            Kind::DnsName => value
                .as_str()
                .filter(|text| is_dns_name(text))
                .map(Given::text),
            Kind::Cursor => {
                let text = value.as_str()?;
                cursor(text).map(|_| Given::text(text))
            }
            Kind::List(kind, most) => {
                let items = value.as_array().filter(|items| items.len() <= most)?;
                let item = Self::required("", *kind, "");
                let read = |value: &Value| item.read(value).and_then(Given::into_text);
                let texts: Option<Vec<_>> = items.iter().map(read).collect();
                texts.map(Given::Texts)
            }
            Kind::Object(fields) => {
                let values = Values::of_object(fields, value.as_object()?, self.name);
                values.ok().map(Given::Object)
            }
        }
    }
}

/// The JSON Schema of an object with these fields and no others.
pub(crate) fn object(fields: &[Field]) -> Value {
    let properties = fields
        .iter()
        .map(|field| (field.name.to_owned(), field.schema(true)));
    let required = fields.iter().filter(|field| field.required);
    json!({
        "type": "object",
        "properties": properties.collect::<Map<_, _>>(),
        "required": required.map(|field| field.name).collect::<Vec<_>>(),
        "additionalProperties": false,
    })
}

/// A whole number as JSON Schema has it: `4.0` is one, too.
pub(crate) fn whole(value: &Value) -> Option<u64> {
    /// Up to here every whole number has a double of its own.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    value.as_u64().or_else(|| {
        let number = value.as_f64()?;
        let is_whole = number.fract() == 0.0 && (0.0..=EXACT).contains(&number);
        // The digits of a whole double are those of the number.
        is_whole.then(|| format!("{number:.0}").parse().ok())?
    })
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Given {
    Text(String),
    Whole(u64),
    Some(Vec<&'static str>),
    Flag(bool),
    Secret(SharedSecret),
    Texts(Vec<String>),
    Object(Values),
}

impl Given {
    fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            Self::Whole(_)
            | Self::Some(_)
            | Self::Flag(_)
            | Self::Secret(_)
            | Self::Texts(_)
            | Self::Object(_) => None,
        }
    }

    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

/// What a request says, checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Values(BTreeMap<&'static str, Given>);

impl Values {
    /// Reads a query.
    ///
    /// # Errors
    /// 400 on a parameter that is not in `fields`, is given twice, is missing, or holds something else.
    pub(crate) fn of_query(fields: &[Field], query: &str) -> Result<Self, ApiError> {
        let parameters = Parameters::parse(query, "query")?;
        let mut object = Map::new();
        for name in parameters.names() {
            let text = parameters.value(name)?.unwrap_or_default();
            let field = fields.iter().find(|field| field.name == name);
            let value = match field.map(|field| field.kind) {
                Some(Kind::Whole(..)) => match text.parse::<u64>() {
                    Ok(number) => json!(number),
                    Err(_) => json!(text),
                },
                Some(Kind::Some(_) | Kind::Any(_) | Kind::List(..)) => text.split(',').collect(),
                Some(Kind::Flag) => text
                    .parse::<bool>()
                    .map_or_else(|_| json!(text), |flag| json!(flag)),
                Some(
                    Kind::Name
                    | Kind::OneOf(_)
                    | Kind::Address
                    | Kind::Text(_)
                    | Kind::Secret(_)
                    | Kind::SecretScope
                    | Kind::TenantName
                    | Kind::Network
                    | Kind::DnsName
                    | Kind::Cursor
                    | Kind::Object(_),
                )
                | None => json!(text),
            };
            object.insert(name.to_owned(), value);
        }
        Self::of_object(fields, &object, "query")
    }

    /// Reads a JSON object; an empty body is an empty one.
    ///
    /// # Errors
    /// 400 on anything else, and as [`Self::of_query`].
    pub(crate) fn of_body(fields: &[Field], body: &[u8]) -> Result<Self, ApiError> {
        let object = if body.trim_ascii().is_empty() {
            Map::new()
        } else {
            serde_json::from_slice(body).map_err(|error| ApiError::bad_json(&error))?
        };
        Self::of_object(fields, &object, "body")
    }

    /// Checks an object that was made of a message of gRPC.
    ///
    /// # Errors
    /// As [`Self::of_body`].
    pub(crate) fn of_json(fields: &[Field], value: &Value) -> Result<Self, ApiError> {
        let none = Map::new();
        Self::of_object(fields, value.as_object().unwrap_or(&none), "request")
    }

    fn of_object(
        fields: &[Field],
        object: &Map<String, Value>,
        place: &'static str,
    ) -> Result<Self, ApiError> {
        let known = |name: &String| fields.iter().any(|field| field.name == *name);
        if let Some(name) = object.keys().find(|name| !known(name)) {
            let names: Vec<_> = fields.iter().map(|field| field.name).collect();
            let expected = match names.as_slice() {
                [] => "none at all".to_owned(),
                names => names.join(", "),
            };
            let what = match place {
                "query" => "there is no such parameter",
                _ => "there is no such field",
            };
            let place = format!("{place}.{}", excerpt(name));
            return Err(ApiError::bad_parameter(place, what, expected));
        }
        let mut values = BTreeMap::new();
        for field in fields {
            let refused = |what| {
                let place = format!("{place}.{}", field.name);
                ApiError::bad_parameter(place, what, field.expected())
            };
            match object.get(field.name) {
                None | Some(Value::Null) if field.required => {
                    return Err(refused("it is missing"));
                }
                None | Some(Value::Null) => {}
                Some(value) => {
                    let read = field.read(value);
                    let read = read.ok_or_else(|| refused("it holds something else"))?;
                    values.insert(field.name, read);
                }
            }
        }
        Ok(Self(values))
    }

    /// The text of a field.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        if let Some(Given::Text(text)) = self.0.get(name) {
            Some(text)
        } else {
            None
        }
    }

    /// The texts of a list; none where it is missing.
    pub(crate) fn texts(&self, name: &str) -> &[String] {
        if let Some(Given::Texts(texts)) = self.0.get(name) {
            texts
        } else {
            &[]
        }
    }

    /// The fields of an object.
    pub(crate) fn object(&self, name: &str) -> Option<&Self> {
        if let Some(Given::Object(values)) = self.0.get(name) {
            Some(values)
        } else {
            None
        }
    }

    /// The number of a field.
    pub(crate) fn whole(&self, name: &str) -> Option<u64> {
        if let Some(Given::Whole(number)) = self.0.get(name) {
            Some(*number)
        } else {
            None
        }
    }

    /// The choices of a field; none where it is missing.
    pub(crate) fn some(&self, name: &str) -> &[&'static str] {
        if let Some(Given::Some(names)) = self.0.get(name) {
            names
        } else {
            &[]
        }
    }

    /// The secret of a field.
    pub(crate) fn secret(&self, name: &str) -> Option<&SharedSecret> {
        if let Some(Given::Secret(secret)) = self.0.get(name) {
            Some(secret)
        } else {
            None
        }
    }

    /// Whether a field is true; one that is missing is not.
    pub(crate) fn flag(&self, name: &str) -> bool {
        self.0.get(name) == Some(&Given::Flag(true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIELDS: [Field; 3] = [
        Field::required("name", Kind::Name, ""),
        Field::new("limit", Kind::Whole(1, 10), ""),
        Field::new("scopes", Kind::Some(&["a", "b"]), ""),
    ];

    #[test]
    fn a_query_and_a_body_are_read_alike() {
        let query = Values::of_query(&FIELDS, "name=x&limit=7&scopes=a,b").unwrap();
        let body = br#"{"name":"x","limit":7,"scopes":["a","b"]}"#;
        assert_eq!(query, Values::of_body(&FIELDS, body).unwrap());
        assert_eq!(
            (query.text("name"), query.whole("limit")),
            (Some("x"), Some(7))
        );
        assert_eq!(query.some("scopes"), ["a", "b"]);
    }

    #[test]
    fn what_no_field_describes_is_refused() {
        for query in [
            "",
            "name=x&other=1",
            "name=x&name=y",
            "name=x&limit=11",
            "name=%20",
            "name=x&scopes=c",
        ] {
            assert!(Values::of_query(&FIELDS, query).is_err(), "{query}");
        }
        for body in [
            "[]",
            "{}",
            r#"{"name":7}"#,
            r#"{"name":"x","scopes":[]}"#,
            r#"{"name":"x","limit":-1}"#,
        ] {
            assert!(Values::of_body(&FIELDS, body.as_bytes()).is_err(), "{body}");
        }
    }
}
