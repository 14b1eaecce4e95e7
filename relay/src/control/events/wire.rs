//! Events as the controller is told of them.

use turnfleet_proto::fleet;
use turnfleet_proto::fleet::event::What;
use turnfleet_proto::fleet::events_lost::Reason;
use turnfleet_proto::fleet::listener::Transport as WireTransport;
use turnfleet_turn::{Event, Transport};

use crate::shard::Told;

/// What a shard has told, without number and time.
pub(super) fn event(told: Told) -> fleet::Event {
    let Told {
        shard,
        tenant,
        event,
    } = told;
    let five_tuple = event.client();
    let client = fleet::EventClient {
        shard: shard.into(),
        allocation: event.allocation(),
        transport: transport(five_tuple.transport).into(),
        client: five_tuple.client.to_string(),
        server: five_tuple.server.to_string(),
        username: event.username().unwrap_or_default().to_owned(),
        tenant: tenant.map_or_else(String::new, Into::into),
    };
    fleet::Event {
        client: Some(client),
        what: what(event),
        ..fleet::Event::default()
    }
}

/// The number of events that nobody will hear of.
pub(super) fn lost(count: u64, reason: Reason) -> fleet::Event {
    let reason = reason.into();
    fleet::Event {
        what: Some(What::Lost(fleet::EventsLost { count, reason })),
        ..fleet::Event::default()
    }
}

fn what(event: Event) -> Option<What> {
    match event {
        Event::Opened {
            relayed_transport,
            relayed,
            ..
        } => Some(What::Opened(fleet::AllocationOpened {
            relayed_transport: transport(relayed_transport).into(),
            relayed: relayed.iter().map(ToString::to_string).collect(),
        })),
        Event::Closed {
            reason,
            duration,
            bytes_to_peers,
            bytes_to_client,
            ..
        } => Some(What::Closed(fleet::AllocationClosed {
            reason: reason.name().to_owned(),
            seconds: duration.as_secs(),
            bytes_to_peers,
            bytes_to_client,
        })),
        Event::Evicting { deadline, .. } => {
            Some(What::Evicting(fleet::AllocationEvicting { deadline }))
        }
        Event::Refused { code, .. } => Some(What::Refused(fleet::AllocationRefused {
            code: code.into(),
        })),
        Event::PeerConnected { .. } | Event::PeerDenied { .. } => None,
    }
}

fn transport(transport: Transport) -> WireTransport {
    match transport {
        Transport::Udp => WireTransport::Udp,
        Transport::Tcp => WireTransport::Tcp,
        Transport::Tls => WireTransport::Tls,
    }
}
