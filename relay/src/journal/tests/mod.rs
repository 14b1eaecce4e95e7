//! The journal, by what a search finds in it.

mod clocks;
mod files;
mod losses;
mod writer;

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use turnfleet_proto::user_hash::UserHash;
use turnfleet_turn::{CloseReason, TenantId, Transport};

use super::log::Log;
use super::record::{Key, Opened, Record};
use super::search::{Findings, Gap, GapReason, Question, Reader, search};
use super::{Bounds, segment};

const DAY: u64 = 86_400;
const BOUNDS: Bounds = Bounds {
    retention: 7 * DAY,
    bytes: 1 << 20,
};
/// No allocation.
const NONE: [u64; 0] = [];
/// A moment that tests begin at.
const T: u64 = 1_800_000_000;

fn relayed(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn opened(number: u64, at: u64, port: u16) -> Opened {
    Opened {
        key: Key { shard: 0, number },
        at,
        client: SocketAddr::from(([198, 51, 100, 7], 1000)),
        transport: Transport::Udp,
        relayed: vec![relayed(port)],
        relayed_transport: Transport::Udp,
        tenant: TenantId(7),
        user: Some(UserHash([1; 16])),
    }
}

fn closed(number: u64, at: u64) -> Record {
    Record::Closed {
        key: Key { shard: 0, number },
        at,
        reason: Some(CloseReason::Refreshed),
    }
}

#[track_caller]
fn begin(folder: &Path, bounds: Bounds, incarnation: u8, now: u64) -> Log {
    Log::begin(folder.to_owned(), bounds, [incarnation; 16], now).unwrap()
}

#[track_caller]
fn write(log: &mut Log, record: Record) {
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    log.append(&bytes).unwrap();
}

#[track_caller]
fn open(log: &mut Log, number: u64, at: u64, port: u16) {
    write(log, Record::Opened(opened(number, at, port)));
}

/// From `T + from` to `T + to`.
fn gap(from: u64, to: u64, reason: GapReason) -> Gap {
    Gap {
        from: T + from,
        to: T + to,
        reason,
    }
}

/// Marks every ten seconds, and syncs after as many marks as are given.
#[track_caller]
fn pass(log: &mut Log, from: u64, to: u64, marks: usize) {
    for (number, at) in (from..=to).step_by(10).enumerate() {
        write(log, Record::Mark { at });
        if number % marks == 0 {
            log.keep(at).unwrap();
        }
    }
}

/// What the process that wrote last finds.
#[track_caller]
fn ask(folder: &Path, port: u16, from: u64, to: u64, now: u64) -> Findings {
    let last = segment::list(folder).unwrap().pop();
    let begun = last.as_ref().and_then(segment::beginning);
    ask_as(
        begun.map_or([0; 16], |(_, by)| by),
        (folder, port),
        from,
        to,
        now,
    )
}

/// What the process of that incarnation finds.
#[track_caller]
fn ask_as(
    incarnation: [u8; 16],
    (folder, port): (&Path, u16),
    from: u64,
    to: u64,
    now: u64,
) -> Findings {
    let reader = Reader {
        incarnation,
        now,
        by: Instant::now() + Duration::from_secs(600),
    };
    let question = Question {
        relayed: relayed(port),
        from,
        to,
    };
    search(folder, &question, reader).unwrap()
}

fn numbers(findings: &Findings) -> Vec<u64> {
    let found = findings.found.iter();
    found.map(|found| found.opened.key.number).collect()
}
