//! ConnectionBind requests (RFC 6062 §5.4) in two segments, cut anywhere.

use turnfleet_turn::{AddressFamily, Transport};

use crate::support::{Driver, Relay};
use crate::tcp::{connect, expect, listen, relay, signed_bind, tcp_options, with_tls};

const BINDING: &[u8; 20] = b"\0\x01\0\0\x21\x12\xA4\x42a segment...";

/// Cuts a request behind each of its bytes: its peer gets what stands behind it, and nothing else.
#[track_caller]
fn binds_wherever_it_is_cut(relay: &Relay, transport: Transport, open: impl Fn() -> Driver) {
    let mut control = open();
    control.allocate(tcp_options(AddressFamily::V4));
    let (mut cut, mut len) = (0, 1);
    while cut < len {
        cut += 1;
        let (listener, _) = listen(true);
        let (id, mut peer) = connect(&mut control, &listener);
        let mut data = open();
        let mut stream = signed_bind(&mut data, id);
        len = stream.len();
        stream.extend_from_slice(b"early");
        // The answer to what stands before the first part says that the part has been read.
        data.send_raw(&[BINDING, &stream[..cut]].concat());
        assert_eq!(data.receive_raw()[..2], [1, 1], "cut at {cut}");
        data.send_raw(&stream[cut..]);
        expect(&mut peer, b"early");
        assert_eq!(data.receive_raw()[..2], [1, 0x0B], "cut at {cut}");
        data.send_raw(b"late");
        expect(&mut peer, b"late");
    }
    relay.wait_until("the end of all, and a count of them", |shards| {
        let counters = shards.counters();
        let to_peers = counters.to_peers(transport).bytes;
        to_peers == 9 * cut as u64 && counters.connections == 0
    });
}

#[test]
fn a_connection_bind_request_may_be_cut_anywhere() {
    for shards in [1, 2] {
        let relay = relay(shards);
        let server = relay.address(Transport::Tcp, true);
        binds_wherever_it_is_cut(&relay, Transport::Tcp, || Driver::tcp(server));
    }
}

#[test]
fn a_connection_bind_request_may_be_cut_anywhere_over_tls() {
    for shards in [1, 2] {
        let folder = tempfile::tempdir().expect("a folder");
        let (relay, chain) = with_tls(folder.path(), shards);
        let server = relay.address(Transport::Tls, true);
        binds_wherever_it_is_cut(&relay, Transport::Tls, || Driver::tls(server, &chain));
    }
}
