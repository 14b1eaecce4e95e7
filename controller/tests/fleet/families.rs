//! Lists of relays that have both families of addresses.

use turnfleet_controller::fleet::{Ask, Listener, Transport, UriKind};

use crate::stage::{Stage, identity};

const V4: &str = "turn:192.0.2.1:3478?transport=udp";
const V6: &str = "turn:[2001:db8::1]:3478?transport=udp";

/// One healthy relay by UDP and TCP, on an address of each family.
fn dual() -> Stage {
    let mut both = identity(1);
    both.listeners
        .retain(|listener| listener.transport != Transport::Tls);
    let v6 = |listener: &Listener| Listener {
        address: "[2001:db8::1]:3478".parse().unwrap(),
        ..*listener
    };
    let more: Vec<_> = both.listeners.iter().map(v6).collect();
    both.listeners.extend(more);
    let mut stage = Stage::empty();
    stage.join(1, both);
    stage
}

#[test]
fn what_is_left_of_a_list_is_filled_with_the_other_family() {
    let stage = dual();
    let whole = stage.list(&Ask {
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
    let udp = stage.list(&Ask {
        kinds: &[UriKind::Udp],
        ..Ask::default()
    });
    assert_eq!(udp, [V4, V6]);
}

#[test]
fn a_caller_by_ipv6_is_shown_ipv6_first() {
    let stage = dual();
    let udp = |client: &str, count| {
        stage.list(&Ask {
            client: Some(client.parse().unwrap()),
            kinds: &[UriKind::Udp],
            count: Some(count),
            ..Ask::default()
        })
    };
    assert_eq!(udp("2001:db8:1::7", 1), [V6]);
    assert_eq!(udp("2001:db8:1::7", 2), [V6, V4]);
    assert_eq!(udp("::ffff:192.0.2.9", 1), [V4]);
}
