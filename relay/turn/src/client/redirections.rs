//! The bound on loops of redirections (RFC 8489 §10).

use std::net::SocketAddr;
use std::time::Duration;

use crate::time::Instant;

/// How long a server that has been asked is not asked again because another one says so.
const MEMORY: Duration = Duration::from_secs(300);

/// The servers that a request has been sent to. It outlives the [`super::Client`]s that ask them, each of which knows one.
#[derive(Clone, Debug, Default)]
pub struct Redirections {
    asked: Vec<(SocketAddr, Instant)>,
}

impl Redirections {
    /// A 300 names one server of each address family.
    pub(super) const MAX_SERVERS: usize = 2;

    /// As many servers are asked at most, one after the other.
    const MAX_ASKED: usize = 16;

    /// The request is about to be sent to `server`: whether it may be. `false` where it was within the last five minutes, and
    /// after many redirections: the request has failed then.
    pub fn may_ask(&mut self, now: Instant, server: SocketAddr) -> bool {
        self.asked.retain(|(_, at)| now.since(*at) < MEMORY);
        let known = self.asked.iter().any(|(asked, _)| *asked == server);
        if known || self.asked.len() >= Self::MAX_ASKED {
            return false;
        }
        self.asked.push((server, now));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, 1], port))
    }

    #[test]
    fn a_server_is_not_asked_twice_within_five_minutes() {
        let mut redirections = Redirections::default();
        let start = Instant::default();
        let later = |seconds| start.after(Duration::from_secs(seconds));
        assert!(redirections.may_ask(start, server(1)));
        assert!(redirections.may_ask(later(1), server(2)));
        assert!(!redirections.may_ask(later(299), server(1)));
        assert!(redirections.may_ask(later(300), server(1)));
        assert!(!redirections.may_ask(later(300), server(2)));
    }

    #[test]
    fn a_chain_of_redirections_ends() {
        let mut redirections = Redirections::default();
        let followed =
            (1..100).filter(|port| redirections.may_ask(Instant::default(), server(*port)));
        assert_eq!(followed.count(), Redirections::MAX_ASKED);
    }
}
