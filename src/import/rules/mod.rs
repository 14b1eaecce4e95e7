//! How the value of an option becomes keys, one file for each kind of option; and what the configuration needs beside the lines.

pub(super) mod access;
pub(super) mod limits;
pub(super) mod network;
pub(super) mod peers;
pub(super) mod service;
pub(super) mod tls;

use super::draft::Draft;

/// Writes what follows from several lines, or from the lack of one.
pub(super) fn finish(draft: &mut Draft<'_>) {
    network::finish(draft);
    access::finish(draft);
}
