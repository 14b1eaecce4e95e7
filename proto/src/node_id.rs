//! The name of a relay node: stable over restarts of its process, unique in its fleet.

use std::fmt;
use std::str::FromStr;

/// 1 to 63 characters of `a-z`, `0-9`, `-` and `.`, beginning and ending with a letter or digit, so that a host name or
/// the name of a pod can serve.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(Box<str>);

impl NodeId {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for NodeId {
    type Err = NodeIdError;

    fn from_str(text: &str) -> Result<Self, NodeIdError> {
        let edge =
            |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
        let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        let fits = text.len() <= 63
            && edge(text.chars().next())
            && edge(text.chars().next_back())
            && text.chars().all(inner);
        if fits {
            Ok(Self(text.into()))
        } else {
            Err(NodeIdError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that cannot name a node.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a node id: expected 1 to 63 characters of a-z, 0-9, '-' and '.', beginning and ending with a letter or digit"
)]
pub struct NodeIdError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_and_pod_names_are_node_ids() {
        for text in ["relay-0", "a", "turn1.eu-west.example.org", "0"] {
            assert_eq!(
                text.parse::<NodeId>().map(|id| id.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn anything_that_could_break_a_key_or_a_label_is_refused() {
        let long = "a".repeat(64);
        for text in ["", "-a", "a-", "A", "a/b", "a b", "a\n", "é", long.as_str()] {
            assert!(text.parse::<NodeId>().is_err(), "{text:?}");
        }
    }
}
