//! Allowed and denied peers.

use crate::import::draft::{Draft, Given, Part};
use crate::import::peers::Denied;
use crate::import::ranges::Range;
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

fn range(given: &Given<'_>) -> Result<Range, String> {
    let expected = || "an IP address, or FIRST-LAST".to_owned();
    Range::parse(given.text()?).ok_or_else(expected)
}

pub(in crate::import) fn allowed(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let allowed = draft.peers.allow(range(given)?);
    if allowed.entries.is_empty() {
        let words = "neither the default filter nor denied-peer-ip refuses any of it";
        return Ok(Outcome::new(Kind::Default, words));
    }
    let closed = match allowed.closed {
        0 => String::new(),
        closed => format!("; nothing opens {closed} of its addresses here"),
    };
    let is_denied = draft.has("denied-peer-ip");
    if allowed.opened == 0 && !closed.is_empty() && !is_denied {
        let words = format!("the default filter refuses it{closed}");
        return Ok(Outcome::new(Kind::NoEquivalent, words));
    }
    let mut outcome = Outcome::new(Kind::Translated, "allow-peer");
    for entry in allowed.entries {
        outcome = draft.push(Part::Up, "allow-peer", entry, given.setting);
    }
    Ok(outcome.noting(&format!(
        "it opens {} of the addresses that the default filter refuses{closed}",
        allowed.opened
    )))
}

pub(in crate::import) fn denied(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(match draft.peers.deny(range(given)?) {
        Denied::Allowed => Outcome::new(Kind::NotNeeded, "allowed-peer-ip lets all of it through"),
        Denied::Refused => Outcome::new(Kind::Default, "the default filter refuses all of it"),
        Denied::Entries(entries) => {
            let mut outcome = Outcome::new(Kind::Translated, "controller.peers.deny");
            for entry in entries {
                outcome = draft.push(Part::Controller, "peers.deny", entry, given.setting);
            }
            outcome
        }
    })
}

pub(in crate::import) fn allow_loopback(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let remark = "allow-loopback-peers lets every client reach every service on the machine's \
         loopback addresses: for tests only";
    draft.remarks.push(remark.to_owned());
    let name = "danger-allow-loopback-peers";
    Ok(draft.set(Part::Up, name, true, given.setting))
}
