//! Reserved ports (RFC 8656 §7.2) whose sockets change their shard, and do not arrive.

use crate::support::{Answer, claimed};

// RFC 8656 §7.2 (5)
#[test]
fn a_reserved_socket_that_is_lost_on_its_way_gets_508_and_gives_its_port_back() {
    for client_stays in [true, false] {
        let (mut owner, _, mut asker, other) = claimed();
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
