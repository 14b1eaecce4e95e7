//! The parameters of a query string or a form, with errors that name the parameter.
//!
//! Unlike the usual decoders it replaces nothing silently: what is not valid percent-encoded UTF-8 is refused.

use super::status::{ApiError, excerpt};

/// More than any request here has; a longer list is refused.
const MAX_PARAMETERS: usize = 32;

/// Decoded names and values, in the order in which they were given.
#[derive(Debug, Default)]
pub(crate) struct Parameters {
    place: &'static str,
    pairs: Vec<(String, String)>,
}

impl Parameters {
    /// Takes `text` apart. `place` is where it stands, for errors: `query` or `body`.
    ///
    /// # Errors
    /// On a bad percent escape, bytes that are not UTF-8, or too many parameters.
    pub(crate) fn parse(text: &str, place: &'static str) -> Result<Self, ApiError> {
        let mut pairs = Vec::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            if pairs.len() == MAX_PARAMETERS {
                return Err(ApiError::bad_parameter(
                    place,
                    "there are too many parameters",
                    format!("at most {MAX_PARAMETERS}"),
                ));
            }
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode(name).ok_or_else(|| {
                ApiError::bad_parameter(
                    place,
                    "the name of a parameter is not percent-encoded UTF-8",
                    "name=value pairs, percent-encoded UTF-8",
                )
            })?;
            let value = decode(value).ok_or_else(|| {
                ApiError::bad_parameter(
                    format!("{place}.{}", excerpt(&name)),
                    "the value is not percent-encoded UTF-8",
                    "percent-encoded UTF-8",
                )
            })?;
            pairs.push((name, value));
        }
        Ok(Self { place, pairs })
    }

    /// Adds the parameters of `other` behind these.
    pub(crate) fn append(&mut self, other: Self) {
        self.pairs.extend(other.pairs);
    }

    /// The names, as often as they were given.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.pairs.iter().map(|(name, _)| name.as_str())
    }

    /// The value of `name`.
    ///
    /// # Errors
    /// When it is given more than once.
    pub(crate) fn value(&self, name: &str) -> Result<Option<&str>, ApiError> {
        let mut values = self.pairs.iter().filter(|(given, _)| given == name);
        let first = values.next().map(|(_, value)| value.as_str());
        if values.next().is_some() {
            return Err(ApiError::bad_parameter(
                self.path(name),
                "the parameter is given more than once",
                "one value",
            ));
        }
        Ok(first)
    }

    /// Where `name` stands, for errors.
    pub(crate) fn path(&self, name: &str) -> String {
        format!("{}.{name}", self.place)
    }
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => nibble(rest.next()?)? << 4 | nibble(rest.next()?)?,
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_percent_decoded() {
        let parameters =
            Parameters::parse("service=turn&username=%40a%3Ab+c&flag", "query").unwrap();
        assert_eq!(parameters.value("username").unwrap(), Some("@a:b c"));
        assert_eq!(parameters.value("flag").unwrap(), Some(""));
        assert_eq!(parameters.value("ttl").unwrap(), None);
    }

    #[test]
    fn what_cannot_be_decoded_is_refused() {
        for text in [
            "username=%",
            "username=%4",
            "username=%zz",
            "username=%ff",
            "%ff=1",
        ] {
            assert!(Parameters::parse(text, "query").is_err(), "{text}");
        }
        assert!(Parameters::parse(&"a&".repeat(33), "query").is_err());
    }

    #[test]
    fn a_parameter_given_twice_is_refused() {
        let parameters = Parameters::parse("ttl=1&ttl=2", "query").unwrap();
        assert!(parameters.value("ttl").is_err());
    }
}
