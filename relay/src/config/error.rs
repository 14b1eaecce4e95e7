//! What is wrong with a configuration: every mistake at once.

use std::fmt;

/// One mistake, in the words of the configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The key, such as `listeners[1].address`.
    pub key: String,
    /// What was found there; `None` where nothing was, or where it is a secret.
    pub value: Option<String>,
    /// What would be right.
    pub expected: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.value {
            Some(value) => write!(f, "{}: {value:?}: expected {}", self.key, self.expected),
            None => write!(f, "{}: expected {}", self.key, self.expected),
        }
    }
}

/// All mistakes of a configuration, one a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Something that is skipped or has no effect: worth a line at start, no reason to refuse.
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

/// Collects mistakes while the rest is read on.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: Vec<ConfigError>,
    pub(crate) warnings: Vec<ConfigWarning>,
}

impl Findings {
    /// Notes that `value` at `key` should be `expected`.
    pub(crate) fn error(&mut self, key: impl Into<String>, value: &str, expected: &str) {
        self.errors.push(ConfigError {
            key: key.into(),
            value: Some(value.chars().take(200).collect()),
            expected: expected.into(),
        });
    }

    /// Notes that `key` lacks what is expected, or holds a secret that does not fit.
    pub(crate) fn missing(&mut self, key: impl Into<String>, expected: impl Into<String>) {
        self.errors.push(ConfigError {
            key: key.into(),
            value: None,
            expected: expected.into(),
        });
    }

    /// Notes something that has no effect.
    pub(crate) fn warn(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.warnings.push(ConfigWarning {
            key: key.into(),
            message: message.into(),
        });
    }

    /// The warnings, or all errors.
    pub(crate) fn finish(self) -> Result<Vec<ConfigWarning>, ConfigErrors> {
        if self.errors.is_empty() {
            Ok(self.warnings)
        } else {
            Err(ConfigErrors(self.errors))
        }
    }
}
