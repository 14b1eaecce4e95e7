//! What the process shell is told of its log and its traces, checked.

use turnfleet_proto::spans;

use super::super::{RawLog, RawTelemetry};
use super::Check;

/// What the process shell logs, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogConfig {
    /// Level and directives, which the shell reads.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

impl Check {
    pub(super) fn log(&mut self, raw: RawLog) -> LogConfig {
        let format = match raw.format.as_str() {
            "json" => LogFormat::Json,
            "text" => LogFormat::Text,
            other => {
                self.fail("log.format", Some(other.to_owned()), "text or json");
                LogFormat::Text
            }
        };
        LogConfig {
            filter: raw.filter,
            format,
        }
    }

    pub(super) fn otlp_endpoint(&mut self, raw: RawTelemetry) -> Option<String> {
        let endpoint = Some(raw.otlp_endpoint).filter(|endpoint| !endpoint.is_empty())?;
        if !spans::is_endpoint(&endpoint) {
            let expected = spans::ENDPOINT_FORM;
            self.fail("telemetry.otlp_endpoint", Some(endpoint.clone()), expected);
        }
        Some(endpoint)
    }
}
