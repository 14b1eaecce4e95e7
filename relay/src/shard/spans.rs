//! Spans of what shards do for clients' control requests, for a trace; none is made for data.
//!
//! A span is made once its end is known, and says how long it took: between the request and the success other requests are
//! served. Nothing in it tells who the client is.

use std::time::Duration;

use turnfleet_proto::spans::TARGET;
use turnfleet_turn::{Event, ShardId, TenantId};

use super::event_log::Rate;

/// Spans that one shard makes in one second: refusals cost an attacker nothing, allocations not much.
const SPANS_A_SECOND: u32 = 200;

/// The spans of one shard.
pub(super) struct ShardSpans {
    shard: ShardId,
    rate: Rate,
}

impl ShardSpans {
    pub(super) fn new(shard: ShardId) -> Self {
        Self {
            shard,
            rate: Rate::default(),
        }
    }

    /// Makes the span of `event`, which happened in second `unix`, where there is one and somebody takes it.
    pub(super) fn make(&mut self, event: &Event, unix: u64) {
        if event.tenant() == Some(TenantId::PROBE) {
            return;
        }
        let transport = event.client().transport.name();
        let shard = i64::from(self.shard.0);
        let span = match event {
            Event::Opened {
                allocation,
                relayed_transport,
                took,
                ..
            } if self.rate.admits(unix, SPANS_A_SECOND) => tracing::info_span!(
                target: TARGET,
                "allocate",
                otel.kind = "server",
                shard,
                transport,
                allocation = signed(*allocation),
                relayed_transport = relayed_transport.name(),
                took_nanos = nanos(*took),
            ),
            Event::Closed {
                allocation,
                reason,
                duration,
                bytes_to_peers,
                bytes_to_client,
                ..
            } if self.rate.admits(unix, SPANS_A_SECOND) => tracing::info_span!(
                target: TARGET,
                "allocation",
                shard,
                transport,
                allocation = signed(*allocation),
                reason = reason.name(),
                bytes_to_peers = signed(*bytes_to_peers),
                bytes_to_client = signed(*bytes_to_client),
                took_nanos = nanos(*duration),
            ),
            Event::Refused { code, .. } if self.rate.admits(unix, SPANS_A_SECOND) => {
                tracing::info_span!(
                    target: TARGET,
                    "allocate",
                    otel.kind = "server",
                    otel.status_code = "ERROR",
                    shard,
                    transport,
                    code = i64::from(*code),
                )
            }
            Event::Opened { .. }
            | Event::Closed { .. }
            | Event::Refused { .. }
            | Event::Evicting { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDenied { .. } => return,
        };
        // Its end is that of what it tells of.
        drop(span);
    }
}

/// Traces know signed numbers only.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn nanos(duration: Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}
