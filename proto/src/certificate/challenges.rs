//! How the challenges of a certificate authority are answered: by a certificate of its own on TLS (RFC 8737), or by a text over
//! HTTP (RFC 8555 §8.3). Held beside the certificate that listeners show, and as long as the fleet's order needs them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::{Certificate, PairError, told_parts};
use crate::fleet::ChallengeAnswer;
use crate::fleet::challenge_answer::Answer;

/// The most answers that are held: a certificate has at most 100 names.
const MAX_ANSWERS: usize = 100;

/// The answers that are held.
#[derive(Default)]
pub(super) struct Answers {
    /// By the name that is asked for.
    tls: BTreeMap<String, Arc<CertifiedKey>>,
    /// By the token.
    http: BTreeMap<String, String>,
}

/// Shows the answers of a certificate, by the name that a client asks for, and nothing else.
#[derive(Clone, Debug)]
pub struct Challenged(pub Arc<Certificate>);

impl Certificate {
    /// Answers challenges so from here on, and no others. Those beyond a hundred are left out, and counted.
    ///
    /// # Errors
    /// When one of them cannot be used; the others are held.
    pub fn answer(&self, told: &[ChallengeAnswer]) -> Result<(), PairError> {
        let mut answers = Answers::default();
        let mut outcome = Ok(());
        let left_out = told.len().saturating_sub(MAX_ANSWERS) as u64;
        self.answers_left_out.fetch_add(left_out, Ordering::Relaxed);
        for answer in told.iter().take(MAX_ANSWERS) {
            match &answer.answer {
                Some(Answer::Http(http)) => {
                    let text = http.key_authorization.clone();
                    answers.http.insert(http.token.clone(), text);
                }
                Some(Answer::Tls(tls)) => match answering_pair(&tls.certificate, &tls.key) {
                    Ok(pair) => {
                        let domain = tls.domain.to_ascii_lowercase();
                        answers.tls.insert(domain, Arc::new(pair));
                    }
                    Err(error) => outcome = Err(error),
                },
                // That of a later version of the protocol.
                None => {}
            }
        }
        *self.answers.write().unwrap_or_else(PoisonError::into_inner) = answers;
        outcome
    }

    /// Whether somebody may ask for an answer by TLS.
    #[must_use]
    pub fn is_challenged(&self) -> bool {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        !answers.tls.is_empty()
    }

    /// The text that answers to `token`.
    #[must_use]
    pub fn key_authorization(&self, token: &str) -> Option<String> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.http.get(token).cloned()
    }

    /// The certificate that answers for `domain`.
    fn answer_for(&self, domain: &str) -> Option<Arc<CertifiedKey>> {
        let answers = self.answers.read().unwrap_or_else(PoisonError::into_inner);
        answers.tls.get(&domain.to_ascii_lowercase()).cloned()
    }
}

/// A certificate that answers, with its key. Whether they fit cannot be told: the critical extension that makes it an answer keeps it from
/// being read as the certificate of a server.
fn answering_pair(certificate: &str, key: &str) -> Result<CertifiedKey, PairError> {
    let (chain, key) = told_parts(certificate, key)?;
    let key = ring::sign::any_supported_type(&key).map_err(PairError::Key)?;
    Ok(CertifiedKey::new(chain, key))
}

impl ResolvesServerCert for Challenged {
    fn resolve(&self, client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.answer_for(client_hello.server_name()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::{HttpAnswer, TlsAnswer};

    fn http(token: &str) -> ChallengeAnswer {
        ChallengeAnswer {
            answer: Some(Answer::Http(HttpAnswer {
                token: token.to_owned(),
                key_authorization: format!("{token}.thumb"),
            })),
        }
    }

    fn tls(domain: &str, is_good: bool) -> ChallengeAnswer {
        let made = rcgen::generate_simple_self_signed([domain.to_owned()]).unwrap();
        let key = made.signing_key.serialize_pem();
        ChallengeAnswer {
            answer: Some(Answer::Tls(TlsAnswer {
                domain: domain.to_owned(),
                certificate: made.cert.pem(),
                key: if is_good { key } else { String::new() },
            })),
        }
    }

    #[test]
    fn answers_are_held_until_others_are_told() {
        let certificate = Certificate::awaited();
        let told = [http("a"), tls("Turn.example.org", true)];
        certificate.answer(&told).unwrap();
        assert!(certificate.is_challenged());
        assert_eq!(certificate.key_authorization("a").unwrap(), "a.thumb");
        assert!(certificate.answer_for("turn.EXAMPLE.org").is_some());
        assert!(certificate.answer_for("example.org").is_none());
        // One that is no good does not keep the others from being answered.
        let told = [tls("bad.example.org", false), http("b")];
        certificate.answer(&told).unwrap_err();
        assert!(!certificate.is_challenged());
        assert_eq!(certificate.key_authorization("a"), None);
        assert!(certificate.key_authorization("b").is_some());
        certificate.answer(&[]).unwrap();
        assert_eq!(certificate.key_authorization("b"), None);
    }

    #[test]
    fn no_more_answers_are_held_than_a_certificate_has_names() {
        let certificate = Certificate::awaited();
        let told: Vec<_> = (0..=MAX_ANSWERS).map(|n| http(&n.to_string())).collect();
        certificate.answer(&told).unwrap();
        assert!(certificate.key_authorization("99").is_some());
        assert!(certificate.key_authorization("100").is_none());
        assert_eq!(certificate.answers_left_out(), 1);
    }
}
