//! What is found while a configuration is checked: every mistake at once, and what has no effect.

use std::str::FromStr;

use turnfleet_proto::{ConfigError, ConfigErrors, ConfigWarning};

/// Collects mistakes while the rest is read on.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    errors: ConfigErrors,
    pub(crate) warnings: Vec<ConfigWarning>,
}

impl Findings {
    /// Notes that `value` at `key` should be `expected`.
    pub(crate) fn error(&mut self, key: impl Into<String>, value: &str, expected: &str) {
        let value = Some(value.to_owned());
        self.errors.push(ConfigError::new(key, value, expected));
    }

    /// Notes that `key` lacks what is expected, or holds a secret that does not fit.
    pub(crate) fn missing(&mut self, key: impl Into<String>, expected: impl Into<String>) {
        self.errors.push(ConfigError::new(key, None, expected));
    }

    /// The value that `text` at `key` means, or a note that it is none.
    pub(crate) fn parse<T: FromStr>(
        &mut self,
        key: impl Into<String>,
        text: &str,
        expected: &str,
    ) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.error(key, text, expected);
        }
        parsed
    }

    /// Notes that `value` at `key` is out of its bounds, if it is.
    pub(crate) fn within(&mut self, key: &str, value: u32, least: u32, most: u32) {
        if !(least..=most).contains(&value) {
            self.error(key, &value.to_string(), &format!("{least} to {most}"));
        }
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
            Err(self.errors)
        }
    }
}
