//! How much one address may have at a time of what there is a bound to, such as a listener's connections, so that no caller takes
//! it all.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

/// The seats that are taken, by who holds them: an IPv4 address, or an IPv6 /64.
#[derive(Clone, Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One of them, given back when dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    holder: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Seats {
    pub(crate) fn new(most: usize) -> Self {
        Self {
            most,
            taken: Arc::default(),
        }
    }

    /// A seat for `ip`, or nothing where that has as many as it may. This machine has no bound: a proxy
    /// on it speaks for everybody.
    pub(crate) fn take(&self, ip: IpAddr) -> Option<Seat> {
        let holder = network(ip);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&holder).copied().unwrap_or(0);
        if count >= self.most && !ip.is_loopback() {
            return None;
        }
        taken.insert(holder, count + 1);
        Some(Seat {
            holder,
            taken: Arc::clone(&self.taken),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = taken.get_mut(&self.holder) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.holder);
            }
        }
    }
}

fn network(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_has_a_bound_and_leaves_the_rest_to_others() {
        let seats = Seats::new(2);
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let held = [ip("192.0.2.1"), ip("192.0.2.1")].map(|ip| seats.take(ip).unwrap());
        assert!(seats.take(ip("::ffff:192.0.2.1")).is_none());
        assert!(seats.take(ip("192.0.2.2")).is_some());
        drop(held);
        assert!(seats.taken.lock().unwrap().is_empty());
    }

    #[test]
    fn an_ipv6_network_counts_as_one_and_this_machine_not_at_all() {
        let seats = Seats::new(1);
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let _held = seats.take(ip("2001:db8::1")).unwrap();
        assert!(seats.take(ip("2001:db8::2")).is_none());
        assert!(seats.take(ip("2001:db8:0:1::1")).is_some());
        let here = [ip("127.0.0.1"), ip("127.0.0.1")];
        assert!(here.map(|ip| seats.take(ip)).iter().all(Option::is_some));
    }
}
