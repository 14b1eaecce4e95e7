//! RFC 6062: who may take how many of the connections that the operator allows an allocation.

use crate::support::tcp::{ALICE_DATA, PEER, allocated, caller, connect, refused_connect, spliced};

// RFC 6062 §5.3: peers alone take half of what the operator allows
#[test]
fn peers_that_nobody_claims_leave_places_for_the_client() {
    let (mut net, mut control, relayed) = allocated();
    control.permit(&mut net, &[PEER]);
    let mut accepted =
        (1..=64).map_while(|port| net.peer_connects(&format!("203.0.113.9:{port}"), relayed));
    let first = accepted.next().expect("the first may stay");
    assert_eq!(accepted.count(), 31);
    let mut data = caller(&mut net, ALICE_DATA);
    spliced(&mut net, &mut data, first);
    assert!(net.peer_connects("203.0.113.9:65", relayed).is_some());
    net.outbox.clear();
    for port in 1..=31 {
        connect(
            &mut net,
            &mut control,
            &format!("203.0.113.9:{}", 2000 + port),
        );
    }
    let last = refused_connect(&mut net, &mut control, "203.0.113.9:3000");
    assert_eq!(last, 508);
}
