//! When a certificate is ordered: the first time, again in time before its end, and after failures. Pure: times are Unix seconds,
//! chance comes in as a number.

use super::fault::Reason;
use crate::fleet::issuance::{Attempt, Issuance, IssuedCertificate};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
/// The longest rest after a failure.
const LONGEST_REST: u64 = 6 * HOUR;
/// The longest one where the certificate in use ends within three days, or there is none.
const URGENT_REST: u64 = HOUR;
const URGENT: u64 = 3 * 24 * HOUR;
/// Orders within an hour. Let's Encrypt takes five failed validations of a name an hour, and five certificates of the same names
/// a week, of which a fleet needs one in two months.
pub(super) const ORDERS_AN_HOUR: usize = 5;

/// What the configuration asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of which authority.
    pub(super) directory: String,
    /// Names, in the order of the alphabet.
    pub(super) names: Vec<String>,
}

impl Wanted {
    fn is_met_by(&self, certificate: &IssuedCertificate) -> bool {
        (&certificate.directory, &certificate.names) == (&self.directory, &self.names)
    }

    /// The attempt to go on with, or another one where the configuration has changed; the orders of the last hour count for both.
    pub(super) fn attempt(&self, known: &Attempt) -> Attempt {
        if (&known.directory, &known.names) == (&self.directory, &self.names) {
            return known.clone();
        }
        Attempt {
            directory: self.directory.clone(),
            names: self.names.clone(),
            ordered_at: known.ordered_at.clone(),
            ..Attempt::default()
        }
    }
}

/// When something is to be done, as far as is known at `now`.
pub(super) fn due(wanted: &Wanted, known: &Issuance, now: u64) -> u64 {
    let attempt = wanted.attempt(&known.attempt);
    let certificate = known.certificate.as_ref();
    let renewal = certificate.filter(|certificate| wanted.is_met_by(certificate));
    let renewal = renewal.map_or(0, |certificate| certificate.renew_at);
    let earliest = renewal.max(rested(attempt.next_at, now));
    match attempt.order {
        // It has been counted.
        Some(_) => earliest,
        None => earliest.max(budget(&attempt.ordered_at, now)),
    }
}

/// Until when nothing is tried after a failure. What is further off than any rest was noted by a clock that was wrong.
fn rested(next_at: u64, now: u64) -> u64 {
    let longest = LONGEST_REST / 4 * 5;
    Some(next_at)
        .filter(|at| *at <= now + longest)
        .unwrap_or_default()
}

/// When another order may be begun.
fn budget(ordered_at: &[u64], now: u64) -> u64 {
    let recent = ordered_at.iter().filter(|at| is_recent(**at, now));
    let recent: Vec<_> = recent.collect();
    let first = recent.len().checked_sub(ORDERS_AN_HOUR);
    first.map_or(0, |first| recent[first] + HOUR)
}

/// Notes an order that begins.
pub(super) fn note_order(ordered_at: &mut Vec<u64>, now: u64) {
    ordered_at.retain(|at| is_recent(*at, now));
    ordered_at.push(now);
    let surplus = ordered_at.len().saturating_sub(ORDERS_AN_HOUR);
    ordered_at.drain(..surplus);
}

/// Times to come are those of a clock that was wrong.
fn is_recent(at: u64, now: u64) -> bool {
    at <= now && now - at < HOUR
}

/// How long nothing is tried after so many failures in a row, where the certificate in use is good for `left`.
pub(super) fn rest(failures: u32, reason: Reason, left: Option<u64>, chance: u64) -> u64 {
    let is_urgent = left.is_none_or(|left| left < URGENT);
    let longest = if is_urgent { URGENT_REST } else { LONGEST_REST };
    let doubled = MINUTE << failures.saturating_sub(1).min(16);
    let rest = match reason {
        Reason::RateLimited => HOUR,
        Reason::Refused
        | Reason::Challenge
        | Reason::Unreachable
        | Reason::Late
        | Reason::Unusable
        | Reason::Store => doubled.min(longest),
    };
    // A quarter of it at most, so that the fleets of one authority do not come back together.
    rest + chance % (rest / 4 + 1)
}

/// When the next certificate is ordered: after two thirds of the life of this one, and up to a fiftieth later.
pub(super) fn renewal(not_before: u64, not_after: u64, chance: u64) -> u64 {
    let life = not_after.saturating_sub(not_before);
    not_before + life / 3 * 2 + chance % (life / 50 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::issuance::Order;

    const NOW: u64 = 1_800_000_000;

    fn wanted() -> Wanted {
        Wanted {
            directory: "https://ca.example/".to_owned(),
            names: vec!["turn.example.org".to_owned()],
        }
    }

    fn issued(renew_at: u64) -> Issuance {
        Issuance {
            certificate: Some(IssuedCertificate {
                directory: wanted().directory,
                names: wanted().names,
                renew_at,
                ..IssuedCertificate::default()
            }),
            ..Issuance::default()
        }
    }

    #[test]
    fn the_first_is_due_at_once_and_the_next_in_time() {
        assert_eq!(due(&wanted(), &Issuance::default(), NOW), 0);
        assert_eq!(due(&wanted(), &issued(NOW + 7), NOW), NOW + 7);
        let other_names = Wanted {
            names: vec!["other.example.org".to_owned()],
            ..wanted()
        };
        let other_authority = Wanted {
            directory: "https://other.example/".to_owned(),
            ..wanted()
        };
        for other in [other_names, other_authority] {
            assert_eq!(due(&other, &issued(NOW + 7), NOW), 0);
        }
    }

    #[test]
    fn failures_are_rested_after_unless_the_configuration_has_changed() {
        let mut known = Issuance::default();
        known.attempt = wanted().attempt(&known.attempt);
        known.attempt.next_at = NOW + 60;
        assert_eq!(due(&wanted(), &known, NOW), NOW + 60);
        let other = Wanted {
            names: vec!["a.example.org".to_owned()],
            ..wanted()
        };
        assert_eq!(due(&other, &known, NOW), 0);
        known.attempt.next_at = NOW + 2 * LONGEST_REST;
        assert_eq!(due(&wanted(), &known, NOW), 0, "by a wrong clock");
    }

    #[test]
    fn no_more_than_five_orders_are_begun_an_hour_whatever_changes() {
        let mut known = Issuance::default();
        for at in 0..7 {
            note_order(&mut known.attempt.ordered_at, NOW + at);
        }
        assert_eq!(known.attempt.ordered_at.len(), ORDERS_AN_HOUR);
        let begun = NOW + 6;
        assert_eq!(due(&wanted(), &known, begun), NOW + 2 + HOUR);
        assert_eq!(due(&wanted(), &known, NOW + 2 + HOUR), 0);
        // One that is under way is gone on with.
        known.attempt = wanted().attempt(&known.attempt);
        known.attempt.order = Some(Order {
            url: String::new(),
            key: String::new(),
            answers: Vec::new(),
        });
        assert_eq!(due(&wanted(), &known, begun), 0);
    }

    #[test]
    fn rests_double_up_to_a_bound() {
        let plenty = Some(30 * 24 * HOUR);
        let at = |failures, left| rest(failures, Reason::Unreachable, left, 0);
        assert_eq!(at(1, plenty), MINUTE);
        assert_eq!(at(3, plenty), 4 * MINUTE);
        assert_eq!(at(u32::MAX, plenty), LONGEST_REST);
        for left in [None, Some(HOUR)] {
            assert_eq!(at(40, left), URGENT_REST);
        }
        assert_eq!(rest(1, Reason::RateLimited, plenty, 0), HOUR);
        let most = rest(1, Reason::Challenge, plenty, u64::MAX);
        assert!((MINUTE..=MINUTE * 5 / 4).contains(&most), "{most}");
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        const DAY: u64 = 24 * HOUR;
        assert_eq!(renewal(NOW, NOW + 90 * DAY, 0), NOW + 60 * DAY);
        let latest = renewal(NOW, NOW + 90 * DAY, u64::MAX);
        assert!(latest <= NOW + 62 * DAY, "{latest}");
        assert_eq!(renewal(NOW, NOW, 5), NOW);
    }
}
