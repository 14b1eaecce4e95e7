//! One order from the account to the certificate. Each step that cannot be taken twice is in the store before the next one, so
//! that after a crash, or a change of the leader, the order goes on where it was.

use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeStatus, ChallengeType, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tokio::time::sleep;
use turnfleet_proto::certificate::{Certificate, validity_of};

use super::answer::answer;
use super::fault::Fault;
use super::schedule::{self, Wanted};
use super::{Task, chance};
use crate::config::AcmeChallenge;
use crate::fleet::issuance::{self, Attempt, IssuedCertificate, to_text};
use crate::fleet::record::Setting;
use crate::wall_clock::since_epoch;

/// How long the authority may look for answers, and how often it is asked.
const LOOKING: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// An order that is carried out.
pub(super) struct Ordering<'t> {
    task: &'t Task,
    wanted: &'t Wanted,
    /// As the store has it.
    pub(super) attempt: Attempt,
    account: Option<issuance::Account>,
}

impl<'t> Ordering<'t> {
    /// Goes on with what is known.
    pub(super) fn new(task: &'t Task, wanted: &'t Wanted) -> Self {
        let known = task.handle.view().issuance.clone();
        let account = known.account.clone();
        Self {
            task,
            wanted,
            attempt: wanted.attempt(&known.attempt),
            account: account.filter(|account| account.directory == wanted.directory),
        }
    }

    /// Comes to a certificate that is in the store.
    ///
    /// # Errors
    /// With what went wrong.
    pub(super) async fn carry_out(&mut self) -> Result<(), Fault> {
        let account = self.open_account().await?;
        let mut order = self.open_order(&account).await?;
        let status = order.state().status;
        if status == OrderStatus::Pending {
            self.answer_challenges(&mut order).await?;
        }
        let status = order.state().status;
        match status {
            OrderStatus::Ready => {
                tracing::info!(names = ?self.wanted.names, "the certificate authority has found the answers");
                let request = self.request()?;
                order.finalize_csr(&request).await?;
            }
            OrderStatus::Processing | OrderStatus::Valid => {}
            OrderStatus::Pending | OrderStatus::Invalid => {
                return Err(Fault::challenge(reasons(&mut order).await));
            }
        }
        let chain = order.poll_certificate(&LOOKING).await?;
        self.take(chain).await
    }

    async fn open_account(&mut self) -> Result<Account, Fault> {
        let builder = self.task.client.account();
        if let Some(known) = &self.account {
            let credentials = serde_json::from_str(&known.credentials);
            if let Ok(credentials) = credentials {
                return Ok(builder.from_credentials(credentials).await?);
            }
        }
        let contact: Vec<_> = self
            .task
            .config
            .contact
            .iter()
            .map(String::as_str)
            .collect();
        let asked = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        // A store that takes nothing would have one account after another made, and none of them known.
        self.keep_attempt().await?;
        let directory = self.wanted.directory.clone();
        let (account, credentials) = builder.create(&asked, directory.clone(), None).await?;
        let kept = issuance::Account {
            directory,
            credentials: to_text(&credentials),
        };
        let texts = vec![(Setting::AcmeAccount, to_text(&kept))];
        self.task.keep(texts).await?;
        tracing::info!(
            directory = kept.directory,
            "an account at the certificate authority"
        );
        self.account = Some(kept);
        Ok(account)
    }

    /// The order that is under way, or another one.
    async fn open_order(&mut self, account: &Account) -> Result<Order, Fault> {
        if let Some(known) = &self.attempt.order {
            tracing::info!(url = known.url, "going on with the order of a certificate");
            let order = account.order(known.url.clone()).await;
            return order.map_err(Fault::of_account);
        }
        schedule::note_order(&mut self.attempt.ordered_at, since_epoch().as_secs());
        // Counted first: one that nobody hears the end of is one all the same.
        self.keep_attempt().await?;
        let names = self.wanted.names.iter();
        let names: Vec<_> = names.map(|name| Identifier::Dns(name.clone())).collect();
        let order = account.new_order(&NewOrder::new(&names)).await;
        let order = order.map_err(Fault::of_account)?;
        let key = KeyPair::generate().map_err(unusable)?;
        self.attempt.order = Some(issuance::Order {
            url: order.url().to_owned(),
            key: key.serialize_pem(),
            answers: Vec::new(),
        });
        self.keep_attempt().await?;
        tracing::info!(url = order.url(), names = ?self.wanted.names, "a certificate is ordered");
        Ok(order)
    }

    /// Has relays answer, tells the authority to look, and waits until it has.
    async fn answer_challenges(&mut self, order: &mut Order) -> Result<(), Fault> {
        let kind = match self.task.config.challenge {
            AcmeChallenge::TlsAlpn01 => ChallengeType::TlsAlpn01,
            AcmeChallenge::Http01 => ChallengeType::Http01,
        };
        let mut answers = Vec::new();
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            let domain = authorization.identifier().to_string();
            let Some(challenge) = authorization.challenge(kind.clone()) else {
                let name = self.task.config.challenge.name();
                let error = format!("the certificate authority does not offer {name} for {domain}");
                return Err(Fault::challenge(error));
            };
            answers.push(answer(&challenge, &domain)?);
        }
        if let Some(known) = &mut self.attempt.order {
            known.answers = answers;
        }
        self.keep_attempt().await?;
        sleep(self.task.config.spread).await;
        let mut authorizations = order.authorizations();
        while let Some(authorization) = authorizations.next().await {
            let mut authorization = authorization?;
            if authorization.status == AuthorizationStatus::Valid {
                continue;
            }
            if let Some(mut challenge) = authorization.challenge(kind.clone())
                && challenge.status == ChallengeStatus::Pending
            {
                challenge.set_ready().await?;
            }
        }
        order.poll_ready(&LOOKING).await?;
        Ok(())
    }

    /// The request for a certificate of the key that is kept.
    fn request(&self) -> Result<Vec<u8>, Fault> {
        let key = self.key()?;
        let key = KeyPair::from_pem(key).map_err(unusable)?;
        let names = self.wanted.names.clone();
        let mut parameters = CertificateParams::new(names).map_err(unusable)?;
        parameters.distinguished_name = DistinguishedName::new();
        let request = parameters.serialize_request(&key).map_err(unusable)?;
        Ok(request.der().to_vec())
    }

    fn key(&self) -> Result<&str, Fault> {
        let order = self.attempt.order.as_ref();
        let order = order.ok_or_else(|| Fault::unusable("the key of the order is gone"))?;
        Ok(&order.key)
    }

    /// Keeps the certificate, if it is good, and ends the attempt.
    async fn take(&mut self, chain: String) -> Result<(), Fault> {
        let issued_at = since_epoch().as_secs();
        let key = self.key()?.to_owned();
        let (not_before, not_after) = judge(&chain, &key, &self.wanted.names, issued_at)?;
        let certificate = IssuedCertificate {
            directory: self.wanted.directory.clone(),
            names: self.wanted.names.clone(),
            chain,
            key,
            not_before,
            not_after,
            renew_at: schedule::renewal(not_before, not_after, chance()),
            issued_at,
        };
        let done = Attempt {
            directory: self.attempt.directory.clone(),
            names: self.attempt.names.clone(),
            ordered_at: self.attempt.ordered_at.clone(),
            ..Attempt::default()
        };
        let texts = vec![
            (Setting::AcmeCertificate, to_text(&certificate)),
            (Setting::AcmeAttempt, to_text(&done)),
        ];
        self.task.keep(texts).await?;
        let (not_after, renew_at) = (certificate.not_after, certificate.renew_at);
        tracing::info!(names = ?certificate.names, not_after, renew_at, "a certificate was issued");
        Ok(())
    }

    async fn keep_attempt(&self) -> Result<(), Fault> {
        let texts = vec![(Setting::AcmeAttempt, to_text(&self.attempt))];
        Ok(self.task.keep(texts).await?)
    }
}

fn unusable(error: rcgen::Error) -> Fault {
    Fault::unusable(error.to_string())
}

/// When `chain` is valid.
///
/// # Errors
/// When it is not for `key` and all of `names`, or not valid at `unix`.
fn judge(chain: &str, key: &str, names: &[String], unix: u64) -> Result<(u64, u64), Fault> {
    let certificate = Certificate::awaited();
    let shown = certificate.replace(chain, key);
    shown.map_err(|error| Fault::unusable(error.to_string()))?;
    let leaf = certificate.leaf();
    let leaf = leaf.ok_or_else(|| Fault::unusable("there is no certificate in the chain"))?;
    let read = webpki::EndEntityCert::try_from(&leaf);
    let read = read.map_err(|error| Fault::unusable(error.to_string()))?;
    let found: Vec<_> = read.valid_dns_names().collect();
    if let Some(missing) = names.iter().find(|name| !found.contains(&name.as_str())) {
        return Err(Fault::unusable(format!(
            "the certificate is not for {missing}"
        )));
    }
    let validity = validity_of(&leaf).filter(|(_, not_after)| *not_after > unix);
    validity.ok_or_else(|| Fault::unusable("the certificate has ended"))
}

/// Why the authority did not find its answers.
async fn reasons(order: &mut Order) -> String {
    let mut found = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else {
            break;
        };
        let domain = state.identifier().to_string();
        let errors = state.challenges.iter();
        let errors = errors.filter_map(|challenge| challenge.error.as_ref());
        found.extend(errors.map(|error| format!("{domain}: {error}")));
    }
    if found.is_empty() {
        return "the certificate authority has given the order up".to_owned();
    }
    found.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::acme::fault::Reason;

    #[test]
    fn only_a_certificate_that_is_good_is_taken() {
        let names = ["a.example.org".to_owned(), "b.example.org".to_owned()];
        let key = KeyPair::generate().unwrap();
        let (pem, other) = (key.serialize_pem(), KeyPair::generate().unwrap());
        let parameters = CertificateParams::new(names.to_vec()).unwrap();
        let chain = parameters.self_signed(&key).unwrap().pem();
        let now = since_epoch().as_secs();
        let (not_before, not_after) = judge(&chain, &pem, &names, now).unwrap();
        assert!(not_before < now && now < not_after);
        let more = [&names[..], &["c.example.org".to_owned()]].concat();
        for (chain, key, names, unix) in [
            (&*chain, &*other.serialize_pem(), &names[..], now),
            ("", &*pem, &names[..], now),
            (&*chain, &*pem, &more[..], now),
            (&*chain, &*pem, &names[..], not_after),
        ] {
            let fault = judge(chain, key, names, unix).unwrap_err();
            assert_eq!(fault.reason, Reason::Unusable);
        }
    }
}
