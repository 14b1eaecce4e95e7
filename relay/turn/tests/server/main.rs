//! The server against what the RFCs say, against scenarios told as text, and against a net that loses packets.

#![expect(clippy::unwrap_used, reason = "what a test takes for granted fails it")]

mod model;
mod reflection;
mod rfc6062;
mod rfc8489;
mod rfc8489_sha256;
mod rfc8656;
mod scenarios;
mod sessions;
mod simulation;
mod support;
