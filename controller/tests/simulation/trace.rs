//! What happened last, for who looks into a broken run.

use std::collections::VecDeque;
use std::fmt::{self, Write as _};
use std::time::Duration;

/// Events that are kept.
const KEPT: usize = 400;

/// The last events, and a digest of all of them.
pub(crate) struct Trace {
    last: VecDeque<(Duration, String)>,
    digest: u64,
    events: u64,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self {
            last: VecDeque::new(),
            digest: 0xcbf2_9ce4_8422_2325,
            events: 0,
        }
    }

    pub(crate) fn note(&mut self, at: Duration, event: fmt::Arguments<'_>) {
        if self.last.len() == KEPT {
            self.last.pop_front();
        }
        let text = event.to_string();
        for byte in text.bytes().chain(at.as_nanos().to_le_bytes()) {
            self.digest = (self.digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.events += 1;
        self.last.push_back((at, text));
    }

    /// Two runs of one seed have the same.
    pub(crate) fn digest(&self) -> (u64, u64) {
        (self.events, self.digest)
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for (at, event) in &self.last {
            let _ = writeln!(text, "{:9.3}s {event}", at.as_secs_f64());
        }
        text
    }
}
