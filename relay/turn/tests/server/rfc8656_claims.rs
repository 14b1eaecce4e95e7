//! Reserved ports (RFC 8656 §7.2) whose sockets change their shard, and do not arrive.

use super::support::{ALICE, Answer, BOB, Caller, Net, Outcome, Setup, reserve};
use turnfleet_turn::wire::Method;

// RFC 8656 §7.2 (5)
#[test]
fn a_reserved_socket_that_is_lost_on_its_way_gets_508_and_gives_its_port_back() {
    for client_stays in [true, false] {
        let mut owner = Net::new();
        let first = reserve(&mut owner, ALICE);
        let mut asker = Net::with(Setup {
            shard: 1,
            ledger: Some(owner.ledger.clone()),
            ..Setup::default()
        });
        let mut other = Caller::new(&mut asker, BOB);
        let packet = other.signed(Method::Allocate, |writer| {
            writer
                .requested_transport(17)
                .reservation_token(first.token());
        });
        let outcome = asker.client_sends(other.five_tuple, &packet);
        assert_eq!(outcome, Outcome::Pending);
        let (id, _, token) = asker.claims.pop().unwrap();
        let (held, local) = owner.server.release_reserved(owner.now, token).unwrap();
        assert_eq!(owner.sockets.remove(&local), Some(held));
        assert_eq!(owner.usage().ports_used, 2);

        if !client_stays {
            asker
                .server
                .handle_client_closed(asker.now, other.five_tuple);
        }
        asker.server.handle_claim_lost(asker.now, id, local);
        asker.obey();
        let answer = asker
            .outbox
            .pop_front()
            .map(|(_, message)| Answer(message).code());
        assert_eq!(answer, client_stays.then_some(508));
        assert_eq!(owner.usage().ports_used, 1);
    }
}
