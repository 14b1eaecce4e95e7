//! What becomes of TCP allocations when the operator switches them on and off.

use turnfleet_turn::policy::TcpRelaying;
use turnfleet_turn::wire::Method;
use turnfleet_turn::{PeerAddr, Transport};

use crate::support::{Answer, Caller, Net, Outcome, addr};

const ALICE: &str = "192.0.2.1:5000";
const PEER: &str = "203.0.113.9:9000";

/// A client on TCP and the code of its Allocate request for TCP.
fn allocate(net: &mut Net, client: &str) -> (Caller, u16) {
    let mut caller = Caller::of(net, client, Transport::Tcp, "alice");
    let answer = caller.request(net, Method::Allocate, |writer| {
        writer.requested_transport(6);
    });
    (caller, answer.code())
}

// RFC 6062 §5.1
#[test]
fn tcp_allocations_are_switched_on_and_off_while_those_that_live_go_on() {
    let mut net = Net::new();
    assert_eq!(allocate(&mut net, ALICE).1, 442);
    net.change_policy(|policy| policy.tcp_relaying = TcpRelaying::On);
    let (mut caller, code) = allocate(&mut net, ALICE);
    assert_eq!(code, 200);
    net.change_policy(|policy| policy.tcp_relaying = TcpRelaying::Off);
    assert_eq!(allocate(&mut net, "192.0.2.1:5001").1, 442);
    assert_eq!(caller.refresh(&mut net, None).code(), 200);
    let connect = caller.signed(Method::Connect, |writer| {
        writer.xor_peer_address(PeerAddr(addr(PEER)));
    });
    let outcome = net.client_sends(caller.five_tuple, &connect);
    assert_eq!(outcome, Outcome::Pending);
    net.peer_answers(Ok(()));
    let (_, answer) = net.outbox.pop_front().unwrap();
    assert_eq!(Answer(answer).code(), 200);
}
