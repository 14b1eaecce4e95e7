//! Secrets, users and the realm.

use toml::Value;

use crate::import::draft::{Draft, Given, Part};
use crate::import::report::{Kind, Outcome};

type Judged = Result<Outcome, String>;

/// The longest realm, in characters.
const MAX_REALM: usize = 127;

pub(in crate::import) fn use_auth_secret(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    if !draft.has("static-auth-secret") {
        let remark = "use-auth-secret without static-auth-secret: the secret is in coturn's database \
         (turn_secret). Put it into a file of its own and name that in \
         controller.shared_secret_file; without it, another secret is made";
        draft.remarks.push(remark.to_owned());
    }
    Ok(Outcome::new(Kind::Default, given.option.why))
}

/// The first one is the fleet's; applications that have another one need that pinned.
pub(in crate::import) fn static_auth_secret(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let secret = given.text()?;
    if secret.trim() != secret {
        return Err("a secret that neither begins nor ends with space".to_owned());
    }
    if draft.secrets.iter().any(|known| known == secret) {
        return Ok(Outcome::new(
            Kind::NotNeeded,
            "the same secret stands above",
        ));
    }
    let file = draft.place.secret_file(draft.secrets.len());
    let shown = file.display().to_string();
    draft.secrets.push(secret.to_owned());
    if draft.secrets.len() == 1 {
        let outcome = draft.set(Part::Controller, "shared_secret_file", shown, given.setting);
        return Ok(outcome);
    }
    let pin = format!("turnfleet fleet secrets pin --secret-file {shown}");
    draft.remarks.push(format!(
        "line {} is a further secret; have it accepted, once the fleet runs, by: {pin}",
        given.setting.line
    ));
    Ok(Outcome::new(
        Kind::Translated,
        format!("{shown}: to be pinned"),
    ))
}

pub(in crate::import) fn separator(_: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    Ok(match given.text()? {
        ":" => Outcome::new(Kind::Default, given.option.why),
        _ => Outcome::new(
            Kind::NoEquivalent,
            "usernames are EXPIRY:USER, with a colon",
        ),
    })
}

pub(in crate::import) fn user(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let expected = || "NAME:PASSWORD".to_owned();
    let (name, password) = given.text()?.split_once(':').ok_or_else(expected)?;
    if name.is_empty() || password.is_empty() {
        return Err(expected());
    }
    // A secret switches to secrets by itself.
    if draft.is_on("use-auth-secret") || draft.has("static-auth-secret") {
        let words = "coturn takes no users beside use-auth-secret or static-auth-secret";
        return Ok(Outcome::new(Kind::NotNeeded, words));
    }
    if password.starts_with("0x") {
        let words = "only the MD5 key of the password is there: give the user its password, user = \
         [\"NAME:PASSWORD\"]";
        return Ok(Outcome::new(Kind::NoEquivalent, words));
    }
    let entry = format!("{name}:{password}");
    Ok(draft.push(Part::Up, "user", entry, given.setting))
}

pub(in crate::import) fn realm(draft: &mut Draft<'_>, given: &Given<'_>) -> Judged {
    let realm = given.text()?;
    let is_good = realm.chars().count() <= MAX_REALM && !realm.chars().any(char::is_control);
    if !is_good {
        return Err(format!(
            "1 to {MAX_REALM} characters without control characters"
        ));
    }
    Ok(draft.set(Part::Up, "realm", realm, given.setting))
}

/// What coturn has without a line, and this fleet does not.
pub(super) fn finish(draft: &mut Draft<'_>) {
    if draft.written("realm").and_then(Value::as_str).is_none() {
        let remark = "no realm: coturn takes the machine's domain, and this fleet turnfleet.local; \
         clients do not mind";
        draft.remarks.push(remark.to_owned());
    }
    let nobody = draft.secrets.is_empty() && draft.written("user").is_none();
    if nobody && !draft.is_on("use-auth-secret") {
        let remark = "no secret and no user that could be imported: a secret is made, and kept in the \
         state folder, which applications have to be given";
        draft.remarks.push(remark.to_owned());
    }
}
