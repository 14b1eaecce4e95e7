//! Quotas, lifetimes and rates.

use crate::import::draft::{Draft, Given, Part};
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

/// What the keys take, in seconds.
const NONCE: (i64, i64) = (60, 3600);
const LIFETIME: (i64, i64) = (600, 86_400);
const ESTABLISHMENT: (i64, i64) = (1, 300);
/// Coturn's own, where `stale-nonce` has no value.
const STALE_NONCE: i64 = 600;
/// RFC 8656.
const CHANNEL: i64 = 600;
const PERMISSION: i64 = 300;
const BITS: i64 = 8;

pub(in crate::import) fn user_quota(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let quota = given.number(0, u32::MAX.into())?;
    if quota == 0 {
        let words = "a user always has a bound, 100 unless controller.limits.allocations_per_user \
         says otherwise";
        return Ok(Outcome::new(Kind::NoEquivalent, words));
    }
    let name = "limits.allocations_per_user";
    Ok(draft.set(Part::Controller, name, quota, given.setting))
}

pub(in crate::import) fn total_quota(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let quota = given.number(0, u32::MAX.into())?;
    if quota == 0 {
        return Ok(Outcome::new(Kind::Default, given.option.why));
    }
    Ok(draft.set(Part::Relay, "limits.allocations", quota, given.setting))
}

pub(in crate::import) fn max_bps(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let note = "of one user in each direction, over all of its allocations";
    quota(draft, given, "user_bits_per_second", note)
}

pub(in crate::import) fn bps_capacity(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let note = "of all users together, in each direction";
    quota(draft, given, "bits_per_second", note)
}

fn quota(draft: &mut Draft<'_>, given: &Given<'_>, name: &'static str, note: &str) -> Judged {
    let bytes = given.number(0, i64::MAX / BITS)?;
    if bytes == 0 {
        return Ok(Outcome::new(Kind::Default, given.option.why));
    }
    let bits = bytes * BITS;
    draft.quotas.push((name, bits, given.setting.clone()));
    let words = format!("controller.tenants, quotas.{name} = {bits}: {note}");
    Ok(Outcome::new(Kind::Translated, words))
}

pub(in crate::import) fn stale_nonce(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let seconds = match given.setting.value.as_deref() {
        None | Some("") => STALE_NONCE,
        Some(_) => given.number(0, i64::MAX)?,
    };
    if seconds == 0 || seconds > NONCE.1 {
        let words = "a nonce lives for an hour at most, which is the default";
        return Ok(Outcome::new(Kind::NoEquivalent, words));
    }
    bounded(
        draft,
        given,
        Part::Relay,
        "nonce_lifetime_seconds",
        seconds,
        NONCE,
    )
}

pub(in crate::import) fn max_allocate_lifetime(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let seconds = given.number(0, i64::MAX)?;
    let name = "limits.max_lifetime_seconds";
    bounded(draft, given, Part::Controller, name, seconds, LIFETIME)
}

pub(in crate::import) fn max_allocate_timeout(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let seconds = given.number(0, i64::MAX)?;
    let name = "stream.unauthenticated_seconds";
    bounded(draft, given, Part::Relay, name, seconds, ESTABLISHMENT)
}

/// The nearest value that the key takes.
fn bounded(
    draft: &mut Draft<'_>,
    given: &Given<'_>,
    part: Part,
    name: &'static str,
    seconds: i64,
    (least, most): (i64, i64),
) -> Judged {
    let kept = seconds.clamp(least, most);
    let outcome = draft.set(part, name, kept, given.setting);
    Ok(if kept == seconds {
        outcome
    } else {
        outcome.noting(&format!("{kept}, of {least} to {most}"))
    })
}

pub(in crate::import) fn channel_lifetime(_: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    fixed(given, CHANNEL)
}

pub(in crate::import) fn permission_lifetime(_: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    fixed(given, PERMISSION)
}

fn fixed(given: &Given<'_>, seconds: i64) -> Judged {
    let kind = if given.number(0, i64::MAX)? == seconds {
        Kind::Default
    } else {
        Kind::NoEquivalent
    };
    Ok(Outcome::new(
        kind,
        format!("{seconds} seconds, as RFC 8656 has it"),
    ))
}
