//! Hashes in the place of who and where somebody is: the same for the same at every controller of the fleet, whose store's key
//! they come from.

use std::fmt;
use std::fmt::Write as _;

use ring::hmac;
use turnfleet_proto::user_hash::UserKey;

use super::event::Value;
use crate::store::Sealer;

/// What the key is derived for.
const USERS: &[u8] = b"turnfleet event privacy users v1";
/// See [`USERS`].
const ADDRESSES: &[u8] = b"turnfleet event privacy addresses v1";
/// Bytes of a hash that are shown.
const HASH_LEN: usize = 16;

/// Hides users and the addresses of clients.
#[derive(Clone)]
pub struct Privacy {
    users: UserKey,
    addresses: hmac::Key,
}

impl Privacy {
    /// With the key of the fleet whose store is sealed by `sealer`.
    #[must_use]
    pub fn of(sealer: &Sealer) -> Self {
        Self::with(sealer.derive(USERS), &sealer.derive(ADDRESSES))
    }

    fn with(users: [u8; 32], addresses: &[u8]) -> Self {
        Self {
            users: UserKey::new(users),
            addresses: hmac::Key::new(hmac::HMAC_SHA256, addresses),
        }
    }

    /// `value` as it may be shown.
    pub(super) fn hide(&self, value: Value) -> Value {
        match value {
            // All credentials of a user have one hash.
            Value::User(name) => Value::User(self.users.hash(&name).to_string()),
            Value::Address(address) => Value::Address(self.hash(&address)),
            open @ (Value::Text(_) | Value::Number(_) | Value::Flag(_) | Value::Texts(_)) => open,
        }
    }

    fn hash(&self, address: &str) -> String {
        let tag = hmac::sign(&self.addresses, address.as_bytes());
        let mut hash = String::with_capacity(2 * HASH_LEN);
        for byte in &tag.as_ref()[..HASH_LEN] {
            write!(hash, "{byte:02x}").expect("a String takes every text");
        }
        hash
    }
}

impl fmt::Debug for Privacy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Privacy(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_and_an_address_have_one_hash_each_and_nothing_else_has() {
        let privacy = Privacy::with([7; 32], &[8; 32]);
        let user = |name: &str| privacy.hide(Value::User(name.to_owned()));
        assert_eq!(user("1700000000:ann"), user("1800000000:ann"));
        assert_ne!(user("1700000000:ann"), user("1700000000:bob"));
        let hidden = privacy.hide(Value::Address("192.0.2.1:5000".to_owned()));
        assert!(!hidden.to_string().contains("192"), "{hidden}");
        let text = Value::Text("192.0.2.1:5000".to_owned());
        assert_eq!(privacy.hide(text.clone()), text);
        assert_eq!(format!("{privacy:?}"), "Privacy(..)");
    }
}
