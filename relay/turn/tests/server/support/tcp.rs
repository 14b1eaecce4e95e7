//! Clients with TCP allocations (RFC 6062), as its statements begin with them.

use std::net::SocketAddr;

use turnfleet_turn::policy::TcpRelaying;
use turnfleet_turn::wire::{ConnectionId, Method};
use turnfleet_turn::{PeerAddr, Transport};

use super::{Answer, Caller, Net, Outcome, Setup, addr};

pub(crate) const ALICE: &str = "192.0.2.1:5000";

pub(crate) const ALICE_DATA: &str = "192.0.2.1:5001";

pub(crate) const BOB: &str = "192.0.2.2:5000";

/// A peer on a port that clients may connect to.
pub(crate) const PEER: &str = "203.0.113.9:9000";

pub(crate) const PEER6: &str = "[2001:db8:9::9]:9000";

pub(crate) const TCP: u8 = 6;

pub(crate) fn net_with(tcp_relaying: TcpRelaying) -> Net {
    Net::with(Setup {
        tcp_relaying,
        ..Setup::default()
    })
}

pub(crate) fn net() -> Net {
    net_with(TcpRelaying::On)
}

/// A client that has a control connection.
pub(crate) fn caller(net: &mut Net, client: &str) -> Caller {
    Caller::of(net, client, Transport::Tcp, "alice")
}

pub(crate) fn allocate(net: &mut Net, caller: &mut Caller) -> Answer {
    caller.request(net, Method::Allocate, |writer| {
        writer.requested_transport(TCP);
    })
}

/// A TCP allocation and its relayed transport address.
#[track_caller]
pub(crate) fn allocated() -> (Net, Caller, SocketAddr) {
    let mut net = net();
    let mut caller = caller(&mut net, ALICE);
    let answer = allocate(&mut net, &mut caller);
    assert_eq!(answer.code(), 200);
    let relayed = answer.relayed()[0];
    (net, caller, relayed)
}

/// Sends a Connect request, which waits for the peer.
#[track_caller]
pub(crate) fn connect(net: &mut Net, caller: &mut Caller, peer: &str) {
    let packet = caller.signed(Method::Connect, |writer| {
        writer.xor_peer_address(PeerAddr(addr(peer)));
    });
    let outcome = net.client_sends(caller.five_tuple, &packet);
    assert_eq!(outcome, Outcome::Pending);
}

/// A Connect request that is refused at once.
#[track_caller]
pub(crate) fn refused_connect(net: &mut Net, caller: &mut Caller, peer: &str) -> u16 {
    let answer = caller.request(net, Method::Connect, |writer| {
        writer.xor_peer_address(PeerAddr(addr(peer)));
    });
    answer.code()
}

/// What the server has sent to the control connection without being asked.
#[track_caller]
pub(crate) fn sent(net: &mut Net, caller: &Caller) -> Answer {
    let (to, message) = net
        .outbox
        .pop_front()
        .expect("the server has sent something");
    assert_eq!(to, caller.five_tuple);
    Answer(message)
}

/// A connection to [`PEER`] that waits for its ConnectionBind request.
#[track_caller]
pub(crate) fn connected(net: &mut Net, caller: &mut Caller) -> ConnectionId {
    connect(net, caller, PEER);
    net.peer_answers(Ok(()));
    let answer = sent(net, caller);
    assert_eq!(answer.code(), 200);
    answer.message().connection_id().unwrap().unwrap()
}

pub(crate) fn bind(net: &mut Net, caller: &mut Caller, id: ConnectionId) -> Outcome {
    let packet = caller.signed(Method::ConnectionBind, |writer| {
        writer.connection_id(id);
    });
    net.client_sends(caller.five_tuple, &packet)
}

#[track_caller]
pub(crate) fn refused_bind(net: &mut Net, caller: &mut Caller, id: ConnectionId) -> u16 {
    let outcome = bind(net, caller, id);
    let Outcome::Reply(answer) = outcome else {
        panic!("no refusal but {outcome:?}");
    };
    Answer(answer).code()
}

#[track_caller]
pub(crate) fn spliced(net: &mut Net, caller: &mut Caller, id: ConnectionId) {
    let Outcome::Spliced(connection, answer) = bind(net, caller, id) else {
        panic!("the connection is not spliced");
    };
    assert_eq!(connection, id);
    let answer = Answer(answer);
    assert_eq!(answer.code(), 200);
    assert!(answer.is_signed_for(caller));
}
