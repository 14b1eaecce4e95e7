//! Signed requests (RFC 8555 §6.2): ES256 alone, which every client speaks.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde_json::Value;

/// A request whose signature is not checked yet.
pub(super) struct Signed {
    pub(super) header: Value,
    /// Null for a request without one (POST-as-GET).
    pub(super) payload: Value,
    input: Vec<u8>,
    signature: Vec<u8>,
}

/// The public key of an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Key {
    point: Vec<u8>,
    /// RFC 7638.
    pub(super) thumb: String,
}

pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

pub(super) fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Signed {
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let whole: Value = serde_json::from_slice(body).ok()?;
        let part = |name: &str| whole[name].as_str();
        let (protected, payload) = (part("protected")?, part("payload")?);
        let header = serde_json::from_slice(&decode(protected)?).ok()?;
        let bytes = decode(payload)?;
        let is_empty = bytes.is_empty();
        Some(Self {
            header,
            payload: match is_empty {
                true => Value::Null,
                false => serde_json::from_slice(&bytes).ok()?,
            },
            input: format!("{protected}.{payload}").into_bytes(),
            signature: decode(part("signature")?)?,
        })
    }

    /// Whether `key` has signed it.
    pub(super) fn is_of(&self, key: &Key) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &key.point);
        self.header["alg"] == "ES256" && key.verify(&self.input, &self.signature).is_ok()
    }
}

impl Key {
    pub(super) fn read(jwk: &Value) -> Option<Self> {
        let (x, y) = (jwk["x"].as_str()?, jwk["y"].as_str()?);
        if jwk["kty"] != "EC" || jwk["crv"] != "P-256" {
            return None;
        }
        let point = [vec![4], decode(x)?, decode(y)?].concat();
        let canonical = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
        let thumb = encode(digest(&SHA256, canonical.as_bytes()));
        Some(Self { point, thumb })
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
    use serde_json::json;

    use super::*;

    #[test]
    fn only_the_key_that_has_signed_is_believed() {
        let random = SystemRandom::new();
        let pair = || {
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let bytes = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            EcdsaKeyPair::from_pkcs8(algorithm, bytes.as_ref(), &random).unwrap()
        };
        let jwk = |pair: &EcdsaKeyPair| {
            let point = pair.public_key().as_ref();
            let (x, y) = (encode(&point[1..33]), encode(&point[33..]));
            Key::read(&json!({"kty": "EC", "crv": "P-256", "x": x, "y": y})).unwrap()
        };
        let (signer, other) = (pair(), pair());
        let protected = encode(json!({"alg": "ES256", "nonce": "1"}).to_string());
        let payload = encode(json!({"a": 1}).to_string());
        let input = format!("{protected}.{payload}");
        let signature = signer.sign(&random, input.as_bytes()).unwrap();
        let body = |payload: &str| json!({"protected": protected, "payload": payload, "signature": encode(signature)});
        let read = |body: Value| Signed::read(body.to_string().as_bytes()).unwrap();
        let signed = read(body(&payload));
        assert!(signed.is_of(&jwk(&signer)) && signed.payload["a"] == 1);
        assert!(!signed.is_of(&jwk(&other)));
        assert!(!read(body(&encode("{}"))).is_of(&jwk(&signer)));
        assert!(Signed::read(b"{}").is_none());
    }
}
