//! What is wrong with a configuration, in words for the person who wrote it: the same for relay, controller and command.
//!
//! Every mistake is found before any is told, and a secret is never shown.

use std::fmt;

/// The most characters of a value that are shown.
const MAX_SHOWN: usize = 200;

/// One key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key's dotted path, or the file where no key is to blame.
    key: String,
    /// What was written, unless it is secret or missing.
    value: Option<String>,
    /// What is expected there.
    expected: String,
}

impl ConfigError {
    /// Names the key, what was written (never shown where the key's name says that it is secret), and what is expected.
    pub fn new(key: impl Into<String>, value: Option<String>, expected: impl Into<String>) -> Self {
        let key = key.into();
        let value = value.filter(|_| !is_secret(&key));
        let value = value.map(|value| value.chars().take(MAX_SHOWN).collect());
        Self {
            key,
            value,
            expected: expected.into(),
        }
    }

    /// The key's dotted path, or the file where no key is to blame.
    #[must_use]
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Whether the value of `key` must not be shown. A key that ends in `_file` holds a path.
fn is_secret(key: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    let name = name.split(['[', ' ']).next().unwrap_or(name);
    let telling = ["secret", "token", "password"];
    let holds_one =
        matches!(name, "user" | "users") || telling.iter().any(|word| name.contains(word));
    holds_one && !name.ends_with("_file")
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            key,
            value,
            expected,
        } = self;
        match value {
            // As it was written, unless it would not be seen or would break the line.
            Some(value) if value.is_empty() || value.chars().any(char::is_control) => {
                write!(f, "{key} = {value:?}: expected {expected}")
            }
            Some(value) => write!(f, "{key} = {value}: expected {expected}"),
            None => write!(f, "{key}: expected {expected}"),
        }
    }
}

/// Something that is skipped, has no effect or weakens the whole: worth a line at start, no reason to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigWarning {
    /// The key.
    pub key: String,
    /// What was found and what follows from it.
    pub message: String,
}

impl fmt::Display for ConfigWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.message)
    }
}

/// Everything that is wrong with one configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl ConfigErrors {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds one.
    pub fn push(&mut self, error: ConfigError) {
        self.0.push(error);
    }

    /// Adds one, unless the same is known of the key, or more: a value that was set aside for its type is not missing.
    pub fn add(&mut self, error: ConfigError) {
        let says_as_much = |known: &ConfigError| {
            known.key == error.key && (error.value.is_none() || known.value == error.value)
        };
        if !self.0.iter().any(says_as_much) {
            self.0.push(error);
        }
    }

    /// Adds those of `other`, each key named as `name` says, as [`Self::add`] does.
    pub fn append_named(&mut self, other: Self, name: impl Fn(&str) -> String) {
        for error in other.0 {
            let key = name(&error.key);
            self.add(ConfigError { key, ..error });
        }
    }

    /// Adds those of `other`, as [`Self::add`] does.
    pub fn append(&mut self, other: Self) {
        other.0.into_iter().for_each(|error| self.add(error));
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "  {error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        for key in [
            "shared_secret",
            "controller.join_token",
            "users[0].password",
            "user[1]",
            "user",
        ] {
            let shown = ConfigError::new(key, Some("hidden".to_owned()), "a text").to_string();
            assert!(!shown.contains("hidden"), "{shown}");
        }
        for key in ["join_token_file", "limits.allocations_per_user", "tls.key"] {
            let shown = ConfigError::new(key, Some("shown".to_owned()), "a text").to_string();
            assert!(shown.contains("shown"), "{shown}");
        }
    }
}
