//! How many answers a network is sent by UDP, where whoever asks may have written another's address on the query.
//!
//! Networks share a table of fixed size: memory does not grow with what strangers claim to be, and one that shares its slot
//! with a flooded network is sent to TCP, where it gets in.

use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;

/// Networks that are told apart.
const SLOTS: usize = 1 << 16;
/// How much of a rate may come at once.
const BURST: Duration = Duration::from_secs(2);

/// What a query by UDP gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Answer,
    /// No more than the word to ask by TCP.
    Refer,
    Drop,
}

/// The answers that networks have had.
#[derive(Debug)]
pub(super) struct Limiter {
    /// Who has no bound, besides this machine.
    trusted: Box<[IpNet]>,
    /// What one answer costs; `None` where there is no bound.
    each: Option<Duration>,
    /// For each slot the time, since the beginning, at which all that it was sent is paid for.
    paid: Box<[Duration]>,
    hasher: RandomState,
    referred_last: bool,
}

impl Limiter {
    /// Zero for no bound.
    pub(super) fn new(answers_per_second: u32, trusted: &[IpNet]) -> Self {
        let each = Duration::from_secs(1).checked_div(answers_per_second);
        let slots = if each.is_some() { SLOTS } else { 0 };
        Self {
            trusted: trusted.into(),
            each,
            paid: vec![Duration::ZERO; slots].into(),
            hasher: RandomState::new(),
            referred_last: false,
        }
    }

    /// Takes a query from `asker` into account, `now` after the beginning.
    pub(super) fn judge(&mut self, asker: IpAddr, now: Duration) -> Verdict {
        let ip = asker.to_canonical();
        let trusted = || ip.is_loopback() || self.trusted.iter().any(|net| net.contains(&ip));
        let Some(each) = self.each.filter(|_| !trusted()) else {
            return Verdict::Answer;
        };
        let hash = self.hasher.hash_one(network(ip));
        // The remainder is below the number of slots, which fits.
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        let paid = self.paid[slot].max(now) + each;
        if paid <= now + BURST {
            self.paid[slot] = paid;
            return Verdict::Answer;
        }
        self.referred_last = !self.referred_last;
        if self.referred_last {
            Verdict::Refer
        } else {
            Verdict::Drop
        }
    }
}

/// The IPv4 /24 or the IPv6 /56 of `ip`.
fn network(ip: IpAddr) -> (bool, u64) {
    match ip {
        IpAddr::V4(ip) => (true, u64::from(ip.to_bits() >> 8)),
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, ..] = ip.octets();
            (false, u64::from_be_bytes([0, a, b, c, d, e, f, g]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_network_gets_its_rate_and_then_every_second_is_sent_to_tcp() {
        let mut limiter = Limiter::new(10, &[]);
        let start = Duration::from_secs(5);
        for host in 0..20 {
            let asker = ip(&format!("192.0.2.{host}"));
            assert_eq!(limiter.judge(asker, start), Verdict::Answer);
        }
        let more = [0; 4].map(|_| limiter.judge(ip("192.0.2.77"), start));
        let (refer, drop) = (Verdict::Refer, Verdict::Drop);
        assert_eq!(more, [refer, drop, refer, drop]);
        let later = start + Duration::from_millis(100);
        assert_eq!(limiter.judge(ip("192.0.2.1"), later), Verdict::Answer);
        assert_ne!(limiter.judge(ip("192.0.2.1"), later), Verdict::Answer);
        assert_eq!(
            limiter.judge(ip("::ffff:198.51.100.1"), later),
            Verdict::Answer
        );
    }

    #[test]
    fn an_ipv6_network_of_56_bits_is_one() {
        let mut limiter = Limiter::new(1, &[]);
        let now = Duration::ZERO;
        for asker in ["2001:db8:0:1::1", "2001:db8:0:ff::2"] {
            assert_eq!(limiter.judge(ip(asker), now), Verdict::Answer);
        }
        assert_ne!(limiter.judge(ip("2001:db8::3"), now), Verdict::Answer);
    }

    #[test]
    fn this_machine_and_whom_the_operator_trusts_have_no_bound() {
        let mut limiter = Limiter::new(1, &["198.51.100.0/24".parse().unwrap()]);
        let mut boundless = Limiter::new(0, &[]);
        let now = Duration::ZERO;
        for _ in 0..100 {
            for asker in ["127.0.0.1", "::1", "198.51.100.7"] {
                assert_eq!(limiter.judge(ip(asker), now), Verdict::Answer);
            }
            assert_eq!(boundless.judge(ip("192.0.2.1"), now), Verdict::Answer);
        }
    }
}
