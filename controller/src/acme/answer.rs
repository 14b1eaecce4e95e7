//! What relays answer to one challenge of a certificate authority.

use instant_acme::{ChallengeHandle, ChallengeType};
use rcgen::{CertificateParams, CustomExtension, DistinguishedName, KeyPair};

use super::fault::Fault;
use crate::fleet::issuance::Answer;

/// The answer to `challenge`, which is about `domain`.
///
/// # Errors
/// When no certificate can be made for the name.
pub(super) fn answer(challenge: &ChallengeHandle<'_>, domain: &str) -> Result<Answer, Fault> {
    let authorization = challenge.key_authorization();
    if challenge.r#type == ChallengeType::TlsAlpn01 {
        return tls(domain, authorization.digest().as_ref());
    }
    Ok(Answer::Http {
        token: challenge.token.clone(),
        key_authorization: authorization.as_str().to_owned(),
    })
}

/// A certificate for the name with the digest in it (RFC 8737 §3).
fn tls(domain: &str, digest: &[u8]) -> Result<Answer, Fault> {
    let unusable = |error: rcgen::Error| Fault::unusable(format!("{domain}: {error}"));
    let mut parameters = CertificateParams::new([domain.to_owned()]).map_err(unusable)?;
    parameters.distinguished_name = DistinguishedName::new();
    parameters.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let key = KeyPair::generate().map_err(unusable)?;
    let certificate = parameters.self_signed(&key).map_err(unusable)?;
    Ok(Answer::Tls {
        domain: domain.to_owned(),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
    })
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    use turnfleet_proto::certificate::Certificate;
    use turnfleet_proto::fleet::ChallengeAnswer;

    use super::*;

    #[test]
    fn the_certificate_of_an_answer_can_be_shown_and_has_the_digest() {
        let digest = [7; 32];
        let answer = tls("turn.example.org", &digest).unwrap();
        let certificate = Certificate::awaited();
        certificate
            .answer(&[ChallengeAnswer::from(&answer)])
            .unwrap();
        assert!(certificate.is_challenged());
        let Answer::Tls {
            certificate: pem,
            key,
            ..
        } = answer
        else {
            panic!("an answer by TLS");
        };
        assert!(key.contains("PRIVATE KEY"));
        let leaf = CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        let found = leaf.windows(digest.len()).filter(|part| *part == digest);
        assert_eq!(found.count(), 1);
        assert!(tls("türn.example.org", &digest).is_err());
    }
}
