//! The certificate and its key.

use crate::import::draft::{Draft, Given, Part};
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

pub(in crate::import) fn certificate(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    file(draft, given, "tls-cert", "pkey")
}

pub(in crate::import) fn key(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    file(draft, given, "tls-key", "cert")
}

/// Coturn has a name for the other file where it is not given; here they come together.
fn file(draft: &mut Draft<'_>, given: &Given<'_>, key: &'static str, other: &str) -> Judged {
    let path = draft.place.named(given.text()?);
    if !draft.has(other) {
        let words =
            format!("it needs {other}, too; without them the fleet makes a certificate of its own");
        return Ok(Outcome::new(Kind::NoEquivalent, words));
    }
    let path = path.display().to_string();
    Ok(draft.set(Part::Up, key, path, given.setting))
}
