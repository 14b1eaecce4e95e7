//! How a password becomes a key, and how the two sides agree on it (RFC 8489 §9.2.2, §14.11, §14.12, §18.5).

use md5::{Digest, Md5};
use sha2::Sha256;

use super::attribute::AttributeError;
use super::{padded, read_u16};

/// What a nonce begins with where its server speaks RFC 8489 (§9.2); four characters of security features follow.
pub(crate) const NONCE_COOKIE: &[u8; 9] = b"obMatJos2";

/// A password algorithm (RFC 8489 §18.5). Neither of them has parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// 0x0001, with keys of 16 bytes: what is used where a request names no algorithm (§9.2.4).
    #[default]
    Md5,
    /// 0x0002, with keys of 32 bytes.
    Sha256,
}

/// A key of the long-term credential mechanism (RFC 8489 §9.2.2).
#[derive(Clone, PartialEq, Eq)]
pub enum LongTermKey {
    /// Made by [`PasswordAlgorithm::Md5`].
    Md5([u8; 16]),
    /// Made by [`PasswordAlgorithm::Sha256`].
    Sha256([u8; 32]),
}

/// The value of PASSWORD-ALGORITHMS (RFC 8489 §14.11): what a server offers, in the order of its preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordAlgorithms<'a>(&'a [u8]);

impl PasswordAlgorithm {
    /// The number of RFC 8489 §18.5.
    #[must_use]
    pub fn number(self) -> u16 {
        match self {
            Self::Md5 => 0x0001,
            Self::Sha256 => 0x0002,
        }
    }

    /// Number and length of the parameters, as both attributes have them.
    pub(super) fn entry(self) -> [u8; 4] {
        let [high, low] = self.number().to_be_bytes();
        [high, low, 0, 0]
    }

    /// The algorithm of one entry; `None` for one that is not known, or has parameters that it should not have.
    fn of(number: u16, parameters: &[u8]) -> Option<Self> {
        match number {
            0x0001 if parameters.is_empty() => Some(Self::Md5),
            0x0002 if parameters.is_empty() => Some(Self::Sha256),
            _ => None,
        }
    }

    /// The value of PASSWORD-ALGORITHM.
    pub(super) fn read(value: &[u8]) -> Result<Self, AttributeError> {
        let mut entries = Entries(value);
        match (entries.next(), entries.0) {
            (Some((number, parameters)), []) => {
                Self::of(number, parameters).ok_or(AttributeError::Value)
            }
            (_, _) => Err(AttributeError::Length),
        }
    }
}

impl LongTermKey {
    /// The key of a client that names no algorithm: MD5, as RFC 5389 had it.
    #[must_use]
    pub fn derive(username: &str, realm: &str, password: &str) -> Self {
        Self::derive_with(PasswordAlgorithm::Md5, username, realm, password)
    }

    /// `algorithm` over username, realm and password, joined by colons (RFC 8489 §18.5.1). The texts are taken as they are:
    /// bringing them into the OpaqueString profile is up to who chose them.
    #[must_use]
    pub fn derive_with(
        algorithm: PasswordAlgorithm,
        username: &str,
        realm: &str,
        password: &str,
    ) -> Self {
        let text = [username, ":", realm, ":", password];
        match algorithm {
            PasswordAlgorithm::Md5 => Self::Md5(digest::<Md5>(text).into()),
            PasswordAlgorithm::Sha256 => Self::Sha256(digest::<Sha256>(text).into()),
        }
    }

    /// Which algorithm has made it.
    #[must_use]
    pub fn algorithm(&self) -> PasswordAlgorithm {
        match self {
            Self::Md5(_) => PasswordAlgorithm::Md5,
            Self::Sha256(_) => PasswordAlgorithm::Sha256,
        }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Md5(key) => key,
            Self::Sha256(key) => key,
        }
    }
}

impl std::fmt::Debug for LongTermKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LongTermKey(..)")
    }
}

impl<'a> PasswordAlgorithms<'a> {
    pub(super) fn new(value: &'a [u8]) -> Self {
        Self(value)
    }

    /// The value as it came: a client repeats it byte for byte (§9.2.5).
    #[must_use]
    pub fn as_bytes(self) -> &'a [u8] {
        self.0
    }

    /// The algorithms that this crate knows, in their order, up to where the list is cut off.
    pub fn known(self) -> impl Iterator<Item = PasswordAlgorithm> + use<'a> {
        Entries(self.0).filter_map(|(number, parameters)| PasswordAlgorithm::of(number, parameters))
    }

    /// Whether the list has exactly `algorithms`, in their order, and nothing else.
    #[must_use]
    pub fn is(self, algorithms: &[PasswordAlgorithm]) -> bool {
        let entries = algorithms.iter().flat_map(|algorithm| algorithm.entry());
        self.0.iter().copied().eq(entries)
    }
}

/// Numbers and parameters, ending where an entry is cut off. The padding of the last one may be missing.
struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (header, rest) = self.0.split_at_checked(4)?;
        let len = usize::from(read_u16(header, 2));
        let parameters = rest.get(..len)?;
        self.0 = rest.get(padded(len)..).unwrap_or_default();
        Some((read_u16(header, 0), parameters))
    }
}

/// Whether `nonce` begins with a nonce cookie that announces password algorithms (RFC 8489 §9.2, §18.1): bit 0 of the feature
/// set, which is the highest of the first base64 character.
#[must_use]
pub fn announces_password_algorithms(nonce: &[u8]) -> bool {
    let features = nonce
        .strip_prefix(NONCE_COOKIE)
        .and_then(<[u8]>::first_chunk::<4>);
    features.is_some_and(|[first, ..]| matches!(first, b'g'..=b'z' | b'0'..=b'9' | b'+' | b'/'))
}

fn digest<D: Digest>(parts: [&str; 5]) -> md5::digest::Output<D> {
    let mut digest = D::new();
    for part in parts {
        digest.update(part);
    }
    digest.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8489 §9.2.2.
    #[test]
    fn the_md5_key_is_that_of_the_rfcs_example() {
        let expected = 0x8493_FBC5_3BA5_82FB_4C04_4C45_6BDC_40EB_u128.to_be_bytes();
        assert_eq!(
            LongTermKey::derive("user", "realm", "pass"),
            LongTermKey::Md5(expected)
        );
    }

    #[test]
    fn a_list_is_read_up_to_where_it_is_cut_off() {
        use PasswordAlgorithm::{Md5, Sha256};
        let known = |value| {
            PasswordAlgorithms(value)
                .known()
                .collect::<Vec<PasswordAlgorithm>>()
        };
        assert_eq!(known(&[0, 2, 0, 0, 0, 1, 0, 0]), [Sha256, Md5]);
        // One that is not known, with parameters and their padding, before one that is.
        assert_eq!(known(&[0, 9, 0, 1, 7, 0, 0, 0, 0, 1, 0, 0]), [Md5]);
        // Parameters where there are none to be.
        assert_eq!(known(&[0, 2, 0, 4, 1, 2, 3, 4, 0, 1, 0, 0]), [Md5]);
        assert_eq!(known(&[0, 1, 0, 0, 0, 2, 0, 9, 1]), [Md5]);
        assert_eq!(known(&[0, 1, 0]), []);
    }

    #[test]
    fn one_algorithm_is_one_whole_entry() {
        use AttributeError::{Length, Value};
        for (value, expected) in [
            (&[0, 1, 0, 0][..], Ok(PasswordAlgorithm::Md5)),
            (&[0, 2, 0, 0], Ok(PasswordAlgorithm::Sha256)),
            (&[0, 3, 0, 0], Err(Value)),
            (&[0, 0, 0, 0], Err(Value)),
            (&[0, 2, 0, 1, 7], Err(Value)),
            (&[0, 2, 0, 0, 0, 1, 0, 0], Err(Length)),
            (&[0, 2, 0], Err(Length)),
            (&[], Err(Length)),
        ] {
            assert_eq!(PasswordAlgorithm::read(value), expected, "{value:?}");
        }
    }

    #[test]
    fn bit_0_of_the_nonce_cookie_announces_password_algorithms() {
        for (nonce, expected) in [
            (&b"obMatJos2gAAA"[..], true),
            (b"obMatJos2wAAAfollowed by anything", true),
            (b"obMatJos2////", true),
            (b"obMatJos2AAAAfollowed by anything", false),
            (b"obMatJos2QAAA", false),
            (b"obMatJos2fAAA", false),
            // Cut off, or none at all.
            (b"obMatJos2gAA", false),
            (b"xbMatJos2gAAA", false),
            (b"", false),
        ] {
            assert_eq!(announces_password_algorithms(nonce), expected, "{nonce:?}");
        }
    }
}
