//! The fleet as a value: lists of relays that have both families of addresses.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::SocketAddr;

use turnfleet_controller::config::PortPlan;
use turnfleet_controller::fleet::record::{NodeRecord, Record};
use turnfleet_controller::fleet::{
    Ask, Event, Fleet, FleetView, Identity, Listener, Registration, Settings, Transport, UriKind,
};
use turnfleet_proto::{NodeId, PortRange};
use turnfleet_turn::Now;

/// One healthy relay by UDP and TCP, on an address of each family.
fn dual() -> FleetView {
    let settings = Settings {
        region: "local".into(),
        ports: PortPlan {
            range: PortRange::DYNAMIC,
            relays_per_address: 1,
        },
        probing: false,
    };
    let addresses: [SocketAddr; 2] =
        ["[2001:db8::1]:3478", "192.0.2.1:3478"].map(|it| it.parse().unwrap());
    let listener = |(transport, address)| Listener {
        transport,
        address,
        local: None,
    };
    let both = [Transport::Udp, Transport::Tcp];
    let places = both
        .into_iter()
        .flat_map(|transport| addresses.map(|address| (transport, address)));
    let identity = Identity {
        listeners: places.map(listener).collect(),
        public_ips: addresses.iter().map(SocketAddr::ip).collect(),
        ..Identity::default()
    };
    let id: NodeId = "relay-0".parse().unwrap();
    let record = Record::Node(NodeRecord {
        id: id.clone(),
        credential: [0; 32],
        identity: Some(identity.clone()),
    });
    let mut fleet = Fleet::new(settings);
    let now = Now::default();
    let stored = Event::Stored {
        key: record.key(),
        record: Some(Box::new(record)),
        revision: 1,
    };
    fleet.apply(now, stored);
    let registration = Box::new(Registration {
        id,
        incarnation: [1; 16],
        identity,
        applied_generation: 1,
        allocations: 0,
    });
    let opened = Event::SessionOpened {
        number: 1,
        registration,
    };
    fleet.apply(now, opened);
    fleet.view(now)
}

fn list(ask: &Ask<'_>) -> Vec<String> {
    dual().list(ask).iter().map(ToString::to_string).collect()
}

const V4: &str = "turn:192.0.2.1:3478?transport=udp";
const V6: &str = "turn:[2001:db8::1]:3478?transport=udp";

#[test]
fn what_is_left_of_a_list_is_filled_with_the_other_family() {
    let whole = list(&Ask {
        count: Some(8),
        ..Ask::default()
    });
    assert_eq!(
        whole,
        [
            "stun:192.0.2.1:3478",
            V4,
            "turn:192.0.2.1:3478?transport=tcp",
            "turn:[2001:db8::1]:3478?transport=tcp",
            V6,
        ]
    );
    let udp = list(&Ask {
        kinds: &[UriKind::Udp],
        ..Ask::default()
    });
    assert_eq!(udp, [V4, V6]);
}

#[test]
fn a_caller_by_ipv6_is_shown_ipv6_first() {
    let client = Some("2001:db8:1::7".parse().unwrap());
    let udp = |count| {
        list(&Ask {
            client,
            kinds: &[UriKind::Udp],
            count: Some(count),
            ..Ask::default()
        })
    };
    assert_eq!(
        (udp(1), udp(2)),
        (vec![V6.to_owned()], vec![V6.to_owned(), V4.to_owned()])
    );
    let mapped = Some("::ffff:192.0.2.9".parse().unwrap());
    let first = list(&Ask {
        client: mapped,
        kinds: &[UriKind::Udp],
        count: Some(1),
        ..Ask::default()
    });
    assert_eq!(first, [V4]);
}
