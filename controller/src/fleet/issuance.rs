//! The fleet's certificate, the order of the next one, and the account that orders: what the store keeps of them, sealed, as JSON
//! texts. Knows no certificate authority; when an order is due, `acme` decides.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use turnfleet_proto::fleet as wire;
use turnfleet_proto::fleet::challenge_answer;

use super::record::{Record, Setting};
use super::{Fleet, Plan};

/// All that is known of the fleet's certificate.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Issuance {
    /// The account, as the client of the authority wrote it.
    pub account: Option<Account>,
    /// The certificate; `None` before the first one.
    pub certificate: Option<IssuedCertificate>,
    /// The next one.
    pub attempt: Attempt,
}

/// An account at a certificate authority.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The authority's directory.
    pub directory: String,
    /// What its bearer knows, JSON. A secret.
    pub credentials: String,
}

/// A certificate, and what has to be known of it.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCertificate {
    /// The authority's directory.
    pub directory: String,
    /// The names that were ordered, in the order of the alphabet.
    pub names: Vec<String>,
    /// PEM, its own certificate first.
    pub chain: String,
    /// Its private key, PEM.
    pub key: String,
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// When the next one is ordered, Unix seconds.
    pub renew_at: u64,
    /// When it came, Unix seconds.
    pub issued_at: u64,
}

/// The next certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Attempt {
    /// The directory and the names that it is about: others begin anew.
    pub directory: String,
    /// In the order of the alphabet.
    pub names: Vec<String>,
    /// The order, while one is under way.
    pub order: Option<Order>,
    /// Failures in a row.
    pub failures: u32,
    /// The last of them.
    pub failure: Option<Failure>,
    /// Nothing is tried before, Unix seconds.
    pub next_at: u64,
    /// When the last orders were begun, Unix seconds, the oldest first.
    pub ordered_at: Vec<u64>,
}

/// An order that is under way. Whoever leads goes on with it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Its URL.
    pub url: String,
    /// The private key that the certificate will be for, PEM.
    pub key: String,
    /// How the authority's challenges are answered.
    pub answers: Vec<Answer>,
}

/// The answer to one challenge.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Over HTTP.
    Http {
        /// The last part of the path.
        token: String,
        /// The text that is served.
        key_authorization: String,
    },
    /// In the TLS handshake.
    Tls {
        /// The name that is asked for.
        domain: String,
        /// PEM.
        certificate: String,
        /// PEM.
        key: String,
    },
}

/// Why there is no certificate yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// When, Unix seconds.
    pub at: u64,
    /// Its kind.
    pub reason: String,
    /// What happened.
    pub error: String,
}

impl Issuance {
    /// What `kept` says; what does not read counts as not there, and is made anew.
    fn read(kept: &BTreeMap<Setting, String>) -> Self {
        fn of<T: for<'a> Deserialize<'a>>(
            kept: &BTreeMap<Setting, String>,
            setting: Setting,
        ) -> Option<T> {
            serde_json::from_str(kept.get(&setting)?).ok()
        }
        Self {
            account: of(kept, Setting::AcmeAccount),
            certificate: of(kept, Setting::AcmeCertificate),
            attempt: of(kept, Setting::AcmeAttempt).unwrap_or_default(),
        }
    }

    /// What relays are told.
    #[must_use]
    pub fn told(&self) -> wire::Certificates {
        let (chain, key) = self.pair();
        wire::Certificates {
            chain: chain.to_owned(),
            key: key.to_owned(),
            answers: self.answers().iter().map(Into::into).collect(),
        }
    }

    /// Whether relays that were told `known` know all.
    pub(crate) fn is_told_as(&self, known: &wire::Certificates) -> bool {
        let answers = self.answers();
        self.pair() == (&*known.chain, &*known.key)
            && answers.len() == known.answers.len()
            && answers
                .iter()
                .zip(&known.answers)
                .all(|(answer, known)| wire::ChallengeAnswer::from(answer) == *known)
    }

    fn pair(&self) -> (&str, &str) {
        let certificate = self.certificate.as_ref();
        certificate.map_or(("", ""), |it| (it.chain.as_str(), it.key.as_str()))
    }

    fn answers(&self) -> &[Answer] {
        let order = self.attempt.order.as_ref();
        order.map_or(&[], |order| &order.answers)
    }
}

/// The text that is kept of a part.
pub(crate) fn to_text(part: &impl Serialize) -> String {
    serde_json::to_string(part).expect("names are texts, and so are keys")
}

impl From<&Answer> for wire::ChallengeAnswer {
    fn from(answer: &Answer) -> Self {
        let answer = match answer.clone() {
            Answer::Http {
                token,
                key_authorization,
            } => challenge_answer::Answer::Http(wire::HttpAnswer {
                token,
                key_authorization,
            }),
            Answer::Tls {
                domain,
                certificate,
                key,
            } => challenge_answer::Answer::Tls(wire::TlsAnswer {
                domain,
                certificate,
                key,
            }),
        };
        Self {
            answer: Some(answer),
        }
    }
}

impl fmt::Debug for Issuance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuance")
            .field("certificate", &self.certificate)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuedCertificate")
            .field("names", &self.names)
            .field("not_after", &self.not_after)
            .field("renew_at", &self.renew_at)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Order")
            .field("url", &self.url)
            .field("answers", &self.answers.len())
            .finish_non_exhaustive()
    }
}

impl Fleet {
    /// Takes over a text that the controller keeps.
    pub(super) fn keep(&mut self, setting: Setting, text: Option<String>) {
        match text {
            Some(text) => drop(self.kept.insert(setting, text)),
            None => drop(self.kept.remove(&setting)),
        }
        match setting {
            Setting::AcmeAccount | Setting::AcmeCertificate | Setting::AcmeAttempt => {
                self.issuance = Arc::new(Issuance::read(&self.kept));
            }
            Setting::ApiToken | Setting::JoinToken | Setting::ConfiguredSecret => {}
        }
    }

    /// Keeps these texts about the fleet's certificate: the leader's work.
    #[must_use]
    pub fn plan_issuance(&self, texts: Vec<(Setting, String)>) -> Plan {
        let texts = texts.into_iter();
        let changed = texts.filter(|(setting, text)| self.kept(*setting) != Some(text.as_str()));
        let puts = changed.map(|(setting, text)| Record::Setting(setting, text));
        Plan {
            as_leader: true,
            ..self.plan(puts.collect(), Vec::new())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn issuance() -> Issuance {
        let certificate = IssuedCertificate {
            names: vec!["turn.example.org".to_owned()],
            chain: "the chain".to_owned(),
            key: "a secret key".to_owned(),
            ..IssuedCertificate::default()
        };
        let order = Order {
            url: "https://ca.example/order/1".to_owned(),
            key: "a secret key".to_owned(),
            answers: vec![Answer::Http {
                token: "t".to_owned(),
                key_authorization: "t.thumb".to_owned(),
            }],
        };
        Issuance {
            account: Some(Account {
                directory: "https://ca.example/".to_owned(),
                credentials: "a secret key".to_owned(),
            }),
            certificate: Some(certificate),
            attempt: Attempt {
                order: Some(order),
                ..Attempt::default()
            },
        }
    }

    #[test]
    fn what_is_kept_reads_again_and_damage_counts_as_nothing() {
        let known = issuance();
        let mut kept = BTreeMap::from([
            (Setting::AcmeAccount, to_text(&known.account)),
            (Setting::AcmeCertificate, to_text(&known.certificate)),
            (Setting::AcmeAttempt, to_text(&known.attempt)),
        ]);
        assert!(Issuance::read(&kept) == known);
        for setting in [Setting::AcmeAccount, Setting::AcmeAttempt] {
            kept.insert(setting, "{".to_owned());
        }
        let damaged = Issuance::read(&kept);
        assert!(damaged.account.is_none() && damaged.attempt == Attempt::default());
        assert!(damaged.certificate.is_some());
    }

    #[test]
    fn no_key_is_shown_and_relays_are_told_of_changes_alone() {
        let mut known = issuance();
        assert!(!format!("{known:?}").contains("secret"));
        let told = known.told();
        assert!(known.is_told_as(&told));
        assert_eq!((&*told.chain, told.answers.len()), ("the chain", 1));
        known.attempt.failures = 1;
        assert!(known.is_told_as(&told));
        known.attempt.order = None;
        assert!(!known.is_told_as(&told));
        assert!(Issuance::default().is_told_as(&wire::Certificates::default()));
    }
}
