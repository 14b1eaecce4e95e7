//! Whether credentials are good, and what the clock of the relays says: by their form, by the secret, and by which of them
//! a relay takes.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use turnfleet_proto::credentials::{EphemeralUsername, SharedSecret};
use turnfleet_turn::AddressFamily;
use turnfleet_turn::wire::ErrorCode;

use super::catalogue::{CLOCK_SERVER, CREDENTIALS_ACCEPTED, CREDENTIALS_FORM};
use super::identity::{Identity, Source};
use super::report::Report;
use super::session::Refusal;
use super::way::Way;
use crate::credentials::unix_now;

/// A credential that ends later than in a year was made by somebody who wants no end.
const FAR: u64 = 366 * 86_400;
/// More digits are no time to a relay.
const MOST_DIGITS: usize = 11;
/// A credential that a relay with the right time takes, seconds from now.
const GOOD: i64 = 30;
/// One that it refuses, whatever grace it has.
const PAST: i64 = -150;
/// How far clocks may be from each other for the doctor to find out by how much: ten years.
const FURTHEST: i64 = 315_360_000;
/// Between two expiries of which one is taken, so many seconds apart, the clock is known well enough.
const PRECISION: i64 = 30;
/// Credentials that are tried for it; each that is refused counts as a failure at the relay.
const TRIES: usize = 24;

/// What the form of a username and a password says, and the secret where it is known.
pub(super) fn form(username: &str, password: &str, secret: Option<&SharedSecret>, report: &Report) {
    let now = unix_now().unwrap_or_default();
    let subject = username;
    let Some(parsed) = EphemeralUsername::parse(username) else {
        return if let Some(problem) = unread_time(username) {
            report.fail(CREDENTIALS_FORM, subject, problem);
        } else if secret.is_none() {
            report.skip(
                CREDENTIALS_FORM,
                subject,
                "it is no EXPIRY:USER, so a user with a lasting password",
            );
        } else {
            report.fail(
                CREDENTIALS_FORM,
                subject,
                "the username is not of the form EXPIRY or EXPIRY:USER",
            );
        };
    };
    let ends = parsed.expires_at;
    if ends < now {
        report.fail(
            CREDENTIALS_FORM,
            subject,
            format!("it ended {} seconds ago", now - ends),
        );
    } else if ends > now + FAR {
        report.warn(
            CREDENTIALS_FORM,
            subject,
            format!("it ends in {} years", (ends - now) / FAR),
        );
    } else if let Some(problem) = secret.and_then(|secret| unlike(secret, username, password)) {
        report.fail(CREDENTIALS_FORM, subject, problem);
    } else {
        let made = if secret.is_some() {
            ", and the secret makes this password"
        } else {
            ""
        };
        report.pass(
            CREDENTIALS_FORM,
            subject,
            format!("it ends in {} seconds{made}", ends - now),
        );
    }
}

/// What is wrong with a time that relays do not read as one; `None` where a username begins with none.
fn unread_time(username: &str) -> Option<String> {
    let time = username.split(':').next().unwrap_or_default();
    let digits = time.trim();
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        None
    } else if digits != time {
        Some("there is space around its time, which is then none to a relay".to_owned())
    } else if digits.len() > MOST_DIGITS {
        let count = digits.len();
        Some(format!(
            "its time has {count} digits, as milliseconds have, and relays read seconds, which have ten"
        ))
    } else {
        None
    }
}

/// What is wrong with a password that the secret should have made; `None` where it has made it.
fn unlike(secret: &SharedSecret, username: &str, password: &str) -> Option<String> {
    let right = secret.password(username);
    if right == password {
        return None;
    }
    let algorithms = [
        ("SHA-1", hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY),
        ("SHA-256", hmac::HMAC_SHA256),
        ("SHA-384", hmac::HMAC_SHA384),
        ("SHA-512", hmac::HMAC_SHA512),
    ];
    let matching = algorithms.into_iter().find_map(|(name, algorithm)| {
        let key = hmac::Key::new(algorithm, secret.as_bytes());
        let tag = hmac::sign(&key, username.as_bytes());
        let hex: String = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let text = STANDARD.encode(tag);
        let bare = text.trim_end_matches('=');
        if hex.eq_ignore_ascii_case(password) {
            Some(format!("HMAC-{name} in hexadecimal digits"))
        } else if text == password || bare == password.trim_end_matches('=') {
            Some(format!("HMAC-{name} in base64, or without its padding"))
        } else {
            None
        }
    });
    Some(match matching {
        Some(made) => format!(
            "the secret makes this password by {made}; relays know padded base64 of HMAC-SHA1 only"
        ),
        None => {
            "this secret does not make this password by any algorithm that is in use".to_owned()
        }
    })
}

/// Tries the identity on a relay and, where it can make credentials, finds out what time it is there: the identity that is
/// returned is one that the relay takes. `None` where it takes none.
pub(super) fn diagnose(
    mut identity: Identity,
    way: &Way,
    mapped: Option<SocketAddr>,
    report: &Report,
) -> Option<Identity> {
    let subject = way.to_string();
    let family = AddressFamily::of(mapped.unwrap_or(way.candidate.address).ip());
    let takes = |seconds: i64| {
        let credential = identity.ending_in(seconds, 0);
        match way.allocate_as(&credential, Way::family(family)) {
            Err(refusal) if refusal.is_unauthenticated() => Ok(false),
            // So some servers answer a signature that they do not take, and those that know no Allocate.
            Err(refusal @ Refusal::Code(ErrorCode::BAD_REQUEST)) => Err(refusal),
            // Whatever else stands against an allocation, the credential does not.
            Ok(_) | Err(Refusal::Code(_)) => Ok(true),
            Err(refusal) => Err(refusal),
        }
    };
    let tried = if identity.has_secret() {
        by_expiries(takes)
    } else {
        takes(0).map(|taken| taken.then_some(None))
    };
    match tried {
        Err(refusal) => {
            report.fail_with(
                CREDENTIALS_ACCEPTED,
                &subject,
                format!("the server is there, and an Allocate leads to nothing: {refusal}"),
                "see the log of the server: is it a TURN server, and are its answers signed with this secret?",
            );
            None
        }
        Ok(None) if !identity.has_secret() && report.has_failed(&[CREDENTIALS_FORM]) => {
            let text =
                "the username and password are refused (401), for what credentials.form says";
            report.skip(CREDENTIALS_ACCEPTED, &subject, text);
            None
        }
        Ok(None) => {
            refused(&identity, &subject, report);
            None
        }
        Ok(Some(skew)) => {
            report.pass(
                CREDENTIALS_ACCEPTED,
                &subject,
                "an Allocate with them is taken",
            );
            if let Some(skew) = skew {
                told(skew, &subject, report);
                identity.skew = skew;
            } else if identity.has_secret() {
                report.skip(
                    CLOCK_SERVER,
                    &subject,
                    "it takes credentials that ended ten years ago, so nothing tells its clock",
                );
            }
            Some(identity)
        }
    }
}

/// Nothing that the identity has is taken.
fn refused(identity: &Identity, subject: &str, report: &Report) {
    match &identity.source {
        Source::Secret(_) => report.fail(
            CREDENTIALS_ACCEPTED,
            subject,
            "credentials made with this secret are refused (401), however long they last: the relay has another secret",
        ),
        Source::Fixed { username, .. } if EphemeralUsername::parse(username).is_none() => report
            .fail_with(
                CREDENTIALS_ACCEPTED,
                subject,
                "the username and password are refused (401): the relay knows no such user, or another password of it",
                "correct them, or have the relays know the user: turnfleet up --user NAME:PASSWORD",
            ),
        Source::Fixed { .. } => report.fail(
            CREDENTIALS_ACCEPTED,
            subject,
            "the username and password are refused (401): the relay has another secret, or they have ended by its clock",
        ),
    }
}

fn told(skew: i64, subject: &str, report: &Report) {
    if skew == 0 {
        let text = format!(
            "it takes what ends in {GOOD} s, and refuses what ended {} s ago",
            -PAST
        );
        return report.pass(CLOCK_SERVER, subject, text);
    }
    let (far, way) = (
        skew.unsigned_abs(),
        if skew > 0 { "ahead of" } else { "behind" },
    );
    report.fail(
        CLOCK_SERVER,
        subject,
        format!(
            "by which credentials it takes, its clock is about {far} seconds {way} the one here"
        ),
    );
}

/// How far the relay's clock is ahead, by which expiries it takes: `None` where it takes none, zero where nothing is to be
/// seen. A relay that takes what has ended long ago looks at no clock, and is not to be told from one that stands still.
fn by_expiries(
    mut takes: impl FnMut(i64) -> Result<bool, Refusal>,
) -> Result<Option<Option<i64>>, Refusal> {
    let is_taken = takes(GOOD)?;
    // Refused below, taken above.
    let (mut refused, mut taken) = if is_taken {
        if !takes(PAST)? {
            return Ok(Some(Some(0)));
        }
        if takes(-FURTHEST)? {
            return Ok(Some(None));
        }
        (-FURTHEST, PAST)
    } else {
        if !takes(FURTHEST)? {
            return Ok(None);
        }
        (GOOD, FURTHEST)
    };
    for _ in 0..TRIES {
        // Of a day nobody needs the seconds.
        if taken - refused <= PRECISION.max(taken.abs() / 50) {
            break;
        }
        let middle = between(refused, taken);
        if takes(middle)? {
            taken = middle;
        } else {
            refused = middle;
        }
    }
    Ok(Some(Some(taken)))
}

/// Somewhere between, nearer to zero than the middle while the ends are of different sizes.
fn between(refused: i64, taken: i64) -> i64 {
    let (near, far) = if refused.abs() < taken.abs() {
        (refused, taken)
    } else {
        (taken, refused)
    };
    if far.abs() > near.abs().saturating_mul(4) && near.signum() == far.signum() {
        near * 4
    } else {
        refused + (taken - refused) / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a relay is believed to be ahead whose clock is off by so many seconds, and how often it was asked.
    fn found(skew: i64, grace: i64) -> (Option<Option<i64>>, usize) {
        let mut asked = 0;
        let found = by_expiries(|seconds| {
            asked += 1;
            Ok(seconds + grace > skew)
        });
        (found.unwrap(), asked)
    }

    #[test]
    fn the_clock_of_a_relay_is_found_within_a_minute_or_two() {
        for skew in [-86_400, -7200, -600, 600, 7200, 86_400 * 365] {
            for grace in [0, 60] {
                let (found, asked) = found(skew, grace);
                let found = found.unwrap().unwrap();
                let near = 120.max(skew.abs() / 20);
                assert!((found - skew).abs() <= near, "{skew}: {found}");
                assert!(asked <= TRIES + 3, "{skew}: {asked}");
            }
        }
        for skew in [-60, 0, 20] {
            assert_eq!(found(skew, 60).0, Some(Some(0)), "{skew}");
        }
    }

    #[test]
    fn a_wrong_secret_is_no_clock_and_who_takes_everything_has_none() {
        assert_eq!(by_expiries(|_| Ok(false)), Ok(None));
        assert_eq!(by_expiries(|_| Ok(true)), Ok(Some(None)));
        assert_eq!(by_expiries(|_| Err(Refusal::Silent)), Err(Refusal::Silent));
    }

    #[test]
    fn a_time_that_relays_do_not_read_is_no_lasting_user() {
        for (username, has_failed) in [
            ("1795376995000:alice", true),
            ("1795376995000", true),
            (" 1795376995:alice", true),
            // It has ended.
            ("1:alice", true),
            ("alice", false),
            ("alice:1795376995000", false),
            ("", false),
        ] {
            let report = Report::default();
            form(username, "swordfish", None, &report);
            assert_eq!(
                report.has_failed(&[CREDENTIALS_FORM]),
                has_failed,
                "{username}"
            );
        }
    }

    #[test]
    fn a_password_by_another_algorithm_is_recognised() {
        let secret = SharedSecret::new("north");
        let name = "1700000000:@alice:example.org";
        assert_eq!(unlike(&secret, name, "b7c/MWmorxmLryRFjaJYkUW5nOo="), None);
        let bare = unlike(&secret, name, "b7c/MWmorxmLryRFjaJYkUW5nOo").unwrap();
        assert!(bare.contains("without its padding"), "{bare}");
        let hex = "6fb73f3169a8af198baf24458da2589145b99cea";
        let hex = unlike(&secret, name, hex).unwrap();
        assert!(hex.contains("hexadecimal"), "{hex}");
        let other = unlike(&secret, name, "swordfish").unwrap();
        assert!(other.contains("does not make"), "{other}");
    }
}
