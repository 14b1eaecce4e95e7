//! Signs certificates: for keys that requests prove possession of.

use std::time::SystemTime;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, PublicKeyData,
    SerialNumber, SignatureAlgorithm,
};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

use super::Manner;

/// The authority's own key and certificate.
pub(super) struct Issuer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    pem: String,
    serial: u64,
}

/// The public key of a request.
struct Point(Vec<u8>);

impl PublicKeyData for Point {
    fn der_bytes(&self) -> &[u8] {
        &self.0
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &rcgen::PKCS_ECDSA_P256_SHA256
    }
}

impl Issuer {
    pub(super) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = DistinguishedName::new();
        let name = "An authority for tests";
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            issuer: rcgen::Issuer::new(parameters, key),
            pem,
            serial: 0,
        }
    }

    /// Its certificate, PEM.
    pub(super) fn pem(&self) -> &str {
        &self.pem
    }

    /// A certificate for its own server, and the key, PEM.
    pub(super) fn own(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new([name.to_owned()]).unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    /// The chain for the key of `request`, which asks for exactly these names.
    pub(super) fn sign(
        &mut self,
        request: &[u8],
        names: &[String],
        manner: &Manner,
    ) -> Option<String> {
        let point = read(request, names)?;
        let mut parameters = CertificateParams::new(names.to_vec()).ok()?;
        parameters.distinguished_name = DistinguishedName::new();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let first = now.ok()?.checked_sub(manner.backdate)?;
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        parameters.not_before = epoch + first;
        parameters.not_after = epoch + (first + manner.life);
        self.serial += 1;
        parameters.serial_number = Some(SerialNumber::from(self.serial));
        let certificate = parameters.signed_by(&Point(point), &self.issuer).ok()?;
        Some(certificate.pem() + &self.pem)
    }
}

/// The public key of a request (RFC 2986) that is signed by it and names all of `names`.
fn read(request: &[u8], names: &[String]) -> Option<Vec<u8>> {
    // An uncompressed point in a bit string.
    const POINT: &[u8] = &[3, 66, 0, 4];
    const POINT_LEN: usize = 65;
    let (_, whole, _) = element(request)?;
    let (info, _, rest) = element(whole)?;
    let (_, _, rest) = element(rest)?;
    let (_, signature, _) = element(rest)?;
    let place = info.windows(POINT.len()).position(|it| it == POINT)? + POINT.len() - 1;
    let point = info.get(place..place + POINT_LEN)?.to_vec();
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, &point);
    key.verify(info, signature.get(1..)?).ok()?;
    let is_named = |name: &String| {
        let wanted = [
            &[0x82, u8::try_from(name.len()).unwrap()][..],
            name.as_bytes(),
        ]
        .concat();
        info.windows(wanted.len()).any(|it| it == wanted)
    };
    names.iter().all(is_named).then_some(point)
}

/// The first element of DER bytes as a whole, its content, and what follows.
fn element(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[_, first], rest) = bytes.split_first_chunk::<2>()?;
    let (head, length) = if first < 0x80 {
        (2, usize::from(first))
    } else {
        let digits = usize::from(first - 0x80);
        let value = rest.get(..digits)?.iter();
        let length = value.fold(0, |sum, digit| sum << 8 | usize::from(*digit));
        (2 + digits, length)
    };
    let end = head + length;
    Some((bytes.get(..end)?, bytes.get(head..end)?, &bytes[end..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_believed_for_its_own_key_and_names() {
        let names = ["a.example.org".to_owned(), "b.example.org".to_owned()];
        let key = KeyPair::generate().unwrap();
        let parameters = CertificateParams::new(names.to_vec()).unwrap();
        let request = parameters.serialize_request(&key).unwrap();
        let request = request.der().to_vec();
        assert_eq!(read(&request, &names).unwrap(), key.public_key_raw());
        assert_eq!(read(&request, &["c.example.org".to_owned()]), None);
        let mut forged = request;
        let last = forged.len() - 1;
        forged[last] ^= 1;
        assert_eq!(read(&forged, &names), None);
    }
}
