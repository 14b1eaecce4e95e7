//! What a caller asks a credential for, checked, and the credential with its list of URIs. `/turn` and `/v1/ice-servers`
//! differ only in how they read the one and write the other.
//!
//! Everything here is read from the fleet's view: no lock, no store, no waiting.

use std::net::IpAddr;

use turnfleet_proto::credentials::{EphemeralCredential, mint};
use turnfleet_proto::spans::TARGET;

use super::minting::Minting;
use super::status::ApiError;
use crate::fleet::{Ask, FleetView, MAX_URIS, Names, UriKind, UriList};
use crate::wall_clock::since_epoch;

/// The shortest time that a credential is good for, in seconds; who asks for less gets this.
pub(crate) const MIN_TTL: u64 = 300;
/// The longest; who asks for more gets this.
pub(crate) const MAX_TTL: u64 = 86_400;
/// With ten digits of expiry and the colon, the username stays within the 508 bytes of RFC 8489 §14.3.
const MAX_USER_BYTES: usize = 497;
const MAX_REGION_BYTES: usize = 63;
const MAX_ROOM_BYTES: usize = 255;

/// A checked request for a credential.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) struct CredentialRequest {
    tenant: Option<String>,
    user: String,
    ttl: Option<u64>,
    kinds: Vec<UriKind>,
    turn_only: bool,
    count: Option<usize>,
    region: Option<String>,
    room: Option<String>,
    names: Option<Names>,
}

/// What the caller gets.
pub(crate) struct Minted<'v> {
    pub(crate) credential: EphemeralCredential,
    /// Seconds until it ends.
    pub(crate) ttl: u64,
    pub(crate) uris: UriList<'v>,
}

impl CredentialRequest {
    /// Sets the user; `place` names where it stood, for errors. An empty one gives a username without a user.
    pub(crate) fn user(&mut self, user: &str, place: &str) -> Result<(), ApiError> {
        if user.len() > MAX_USER_BYTES || user.chars().any(char::is_control) {
            let what = if user.len() > MAX_USER_BYTES {
                "the user is too long"
            } else {
                "the user has control characters"
            };
            let expected = format!("at most {MAX_USER_BYTES} bytes without control characters");
            return Err(ApiError::bad_parameter(place.to_owned(), what, expected));
        }
        user.clone_into(&mut self.user);
        Ok(())
    }

    /// Makes the user one of `tenant`, as `tenant/user`: what a token that is bound to one may mint.
    pub(crate) fn of_tenant(&mut self, tenant: Option<&str>) -> Result<(), ApiError> {
        let Some(tenant) = tenant else { return Ok(()) };
        if tenant.len() + 1 + self.user.len() > MAX_USER_BYTES {
            let expected = format!("at most {MAX_USER_BYTES} bytes with the tenant and a slash");
            let place = "user, behind the tenant of the API token";
            return Err(ApiError::bad_parameter(
                place,
                "the user is too long",
                expected,
            ));
        }
        self.tenant = Some(tenant.to_owned());
        Ok(())
    }

    /// Sets the ttl in seconds; `None` stands for what is no whole number.
    pub(crate) fn ttl(&mut self, ttl: Option<u64>, place: &str) -> Result<(), ApiError> {
        let Some(ttl) = ttl.filter(|ttl| *ttl > 0) else {
            let expected = format!(
                "a positive whole number of seconds; below {MIN_TTL} it counts as {MIN_TTL}, above {MAX_TTL} as {MAX_TTL}"
            );
            let what = "the ttl is not a positive whole number";
            return Err(ApiError::bad_parameter(place.to_owned(), what, expected));
        };
        self.ttl = Some(ttl.clamp(MIN_TTL, MAX_TTL));
        Ok(())
    }

    /// A request for TURN URIs alone: `stun` is no transport of it.
    pub(crate) fn turn_only() -> Self {
        Self {
            turn_only: true,
            ..Self::default()
        }
    }

    /// Sets the transports, in order of preference.
    pub(crate) fn transports<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
        place: &str,
    ) -> Result<(), ApiError> {
        for name in names {
            let kind = match name {
                "stun" if !self.turn_only => UriKind::Stun,
                "udp" => UriKind::Udp,
                "tcp" => UriKind::Tcp,
                "tls" => UriKind::Tls,
                _ => return Err(self.bad_transports(place)),
            };
            if !self.kinds.contains(&kind) {
                self.kinds.push(kind);
            }
        }
        Ok(())
    }

    /// The error for transports that are no list of known names.
    pub(crate) fn bad_transports(&self, place: &str) -> ApiError {
        let what = "the transports hold something that is not a transport";
        let expected = if self.turn_only {
            "some of udp, tcp, tls"
        } else {
            "some of stun, udp, tcp, tls"
        };
        ApiError::bad_parameter(place.to_owned(), what, expected)
    }

    /// Sets how many URIs there may be; `None` stands for what is no whole number.
    pub(crate) fn count(&mut self, count: Option<u64>, place: &str) -> Result<(), ApiError> {
        let Some(count) = count.filter(|count| *count > 0) else {
            let what = "the count is not a positive whole number";
            let expected = format!("a number of URIs; above {MAX_URIS} it counts as {MAX_URIS}");
            return Err(ApiError::bad_parameter(place.to_owned(), what, expected));
        };
        self.count = Some(usize::try_from(count).map_or(MAX_URIS, |count| count.min(MAX_URIS)));
        Ok(())
    }

    /// Sets the region to prefer.
    pub(crate) fn region(&mut self, region: &str, place: &str) -> Result<(), ApiError> {
        let fits = !region.is_empty() && region.len() <= MAX_REGION_BYTES;
        if !fits || region.chars().any(char::is_control) {
            let expected = format!(
                "the name of a region, at most {MAX_REGION_BYTES} bytes without control characters"
            );
            let what = "the region cannot be the name of one";
            return Err(ApiError::bad_parameter(place.to_owned(), what, expected));
        }
        self.region = Some(region.to_owned());
        Ok(())
    }

    /// Sets the room whose relays are wanted: everybody in it gets the same.
    pub(crate) fn room(&mut self, room: &str, place: &str) -> Result<(), ApiError> {
        if room.len() > MAX_ROOM_BYTES || room.chars().any(char::is_control) {
            let expected = format!("at most {MAX_ROOM_BYTES} bytes without control characters");
            let what = "the room cannot be the name of one";
            return Err(ApiError::bad_parameter(place.to_owned(), what, expected));
        }
        self.room = Some(room.to_owned());
        Ok(())
    }

    /// Sets which URIs carry names.
    pub(crate) fn names(&mut self, names: &str, place: &str) -> Result<(), ApiError> {
        self.names = Some(Names::parse(names).ok_or_else(|| {
            let expected = "turns, or all for every URI";
            let what = "that does not say which URIs carry names";
            ApiError::bad_parameter(place.to_owned(), what, expected)
        })?);
        Ok(())
    }

    /// Mints the credential and picks its relays, for a client at an address that may not be known.
    ///
    /// # Errors
    /// 503 when no relay can serve what is asked for, 403 for a suspended tenant, and 429 for one that has had as many
    /// credentials as it may.
    pub(crate) fn mint<'v>(
        &self,
        view: &'v FleetView,
        minting: &Minting,
        default_ttl: u64,
        client: Option<IpAddr>,
    ) -> Result<Minted<'v>, ApiError> {
        let _span = tracing::info_span!(target: TARGET, "mint").entered();
        let tenant = self.tenant.as_deref().and_then(|it| view.tenants.named(it));
        if tenant.is_some_and(|tenant| tenant.terms.suspended) {
            return Err(ApiError::suspended());
        }
        let (uris, secret) = view.offer(&Ask {
            tenant: self.tenant.as_deref().unwrap_or(""),
            user: &self.user,
            room: self.room.as_deref(),
            client,
            region: self.region.as_deref(),
            kinds: &self.kinds,
            turn_only: self.turn_only,
            count: self.count,
            names: self.names,
        });
        if uris.is_empty() {
            return Err(if view.listed() == 0 {
                ApiError::no_relay("there is no healthy relay")
            } else {
                ApiError::no_relay(
                    "no healthy relay serves this tenant by the transports that were asked for",
                )
            });
        }
        let taken = minting.take(view, self.tenant.as_deref(), &self.user);
        taken.map_err(ApiError::too_many_credentials)?;
        let ttl = self.ttl.unwrap_or(default_ttl);
        let end = since_epoch().as_secs().saturating_add(ttl);
        let credential = match &self.tenant {
            Some(tenant) => mint(secret, &format!("{tenant}/{}", self.user), end),
            None => mint(secret, &self.user, end),
        };
        Ok(Minted {
            credential,
            ttl,
            uris,
        })
    }
}

/// A whole number in digits and nothing else.
pub(crate) fn whole_number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // What has more digits than 64 bits hold is above every bound.
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ttl_is_brought_within_its_bounds() {
        for (given, kept) in [
            (1, 300),
            (300, 300),
            (3600, 3600),
            (86_401, 86_400),
            (u64::MAX, 86_400),
        ] {
            let mut request = CredentialRequest::default();
            request.ttl(Some(given), "query.ttl").unwrap();
            assert_eq!(request.ttl, Some(kept), "{given}");
        }
        assert!(
            CredentialRequest::default()
                .ttl(Some(0), "query.ttl")
                .is_err()
        );
        assert!(CredentialRequest::default().ttl(None, "query.ttl").is_err());
    }

    #[test]
    fn only_digits_are_a_whole_number() {
        for (text, number) in [
            ("0", Some(0)),
            ("3600", Some(3600)),
            ("99999999999999999999999", Some(u64::MAX)),
            ("", None),
            ("-1", None),
            ("+1", None),
            ("1e3", None),
            ("NaN", None),
            (" 1", None),
        ] {
            assert_eq!(whole_number(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_user_that_could_break_a_username_is_refused() {
        let long = "x".repeat(498);
        for user in ["a\nb", "a\0b", "\u{7f}", "\u{85}", long.as_str()] {
            let checked = CredentialRequest::default().user(user, "query.username");
            assert!(checked.is_err(), "{user:?}");
        }
        for user in ["", "@alice:example.org", "ünïcode", "%n%s'\""] {
            assert_eq!(
                CredentialRequest::default().user(user, "query.username"),
                Ok(())
            );
        }
    }
}
