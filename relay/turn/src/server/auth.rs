//! Who sends a request: the long-term credential mechanism (RFC 8489 §9.2), and what an answer to an unknown sender costs.

use std::ops::Range;

use super::Server;
use super::reflection::AnswerKind;
use super::request::Request;
use crate::addr::Transport;
use crate::allocation::Owner;
use crate::bans::BanKind;
use crate::context::{Candidate, Identity};
use crate::reject::Reject;
use crate::request_method::RequestMethod;
use crate::tenant::TenantId;
use crate::wire::{
    AttributeError, AttributeType, LongTermKey, Message, PasswordAlgorithm,
    announces_password_algorithms,
};

/// How long past its expiry an ephemeral credential still makes allocations: what clocks may be apart, in seconds.
const CREDENTIAL_GRACE: u64 = 60;

/// Verified against when nobody has the username, so that an unknown one takes no less time than a wrong password.
const NOBODY: LongTermKey = LongTermKey::Md5([0; 16]);

/// PASSWORD-ALGORITHMS of every challenge: MD5 is for clients that know the attribute, but not SHA-256.
pub(super) const OFFERED: [PasswordAlgorithm; 2] =
    [PasswordAlgorithm::Sha256, PasswordAlgorithm::Md5];

/// An authentic sender.
pub(super) struct Credential<'a> {
    pub(super) username: &'a str,
    /// The part of the username that counts against the limit per user.
    pub(super) user: Option<Range<u16>>,
    pub(super) tenant: TenantId,
    /// Whose user it is wherever the credential is shown.
    pub(super) home: TenantId,
    pub(super) key: LongTermKey,
    /// Unix seconds at which it ends; `u64::MAX` for a static user's.
    pub(super) expires_at: u64,
    /// What the key was made from.
    pub(super) key_id: u32,
}

impl Credential<'_> {
    /// Whether an allocation is its own: two tenants may have users of one name.
    pub(super) fn owns(&self, owner: &Owner) -> bool {
        *owner.username == *self.username && owner.tenant == self.tenant
    }

    /// The user that counts against limits.
    fn user(&self) -> Option<&str> {
        let range = self.user.as_ref()?;
        self.username.get(range.start.into()..range.end.into())
    }
}

impl Server {
    /// RFC 8489 §9.2.4, in its order.
    pub(super) fn authenticate<'a>(
        &mut self,
        request: &Request<'a>,
    ) -> Result<Credential<'a>, Reject> {
        let message = &request.message;
        // Without MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256: 401.
        if !message.has_integrity() {
            return Err(Reject::Unauthenticated);
        }
        // Without USERNAME, REALM or NONCE: 400. A USERHASH is in the place of a USERNAME, but nobody has it here.
        let username = message.username();
        let named = username.is_some() || message.has(AttributeType::USERHASH);
        let (true, Some(_), Some(nonce)) = (named, message.realm(), message.nonce()) else {
            return Err(Reject::BadRequest);
        };
        // §14.3: a USERNAME longer than any server has to read is malformed, which is no question of credentials: 400.
        if username == Some(Err(AttributeError::Length)) {
            return Err(Reject::BadRequest);
        }
        let algorithm = password_algorithm(message, nonce.unwrap_or_default())?;
        // An invalid USERNAME, or an integrity that does not match: 401, without a difference between them.
        let username = username.and_then(Result::ok).unwrap_or_default();
        let credential = self.verify(request, username, algorithm);
        let credential = credential.ok_or(Reject::Unauthenticated)?;
        // A nonce that is not valid any more, or never was: 438.
        nonce
            .ok()
            .filter(|nonce| self.accepts_nonce(request, nonce))
            .ok_or(Reject::StaleNonce)?;
        Ok(credential)
    }

    /// Whether a signed request shows that its sender has read what was sent to its address.
    pub(super) fn has_read_challenge(&self, request: &Request<'_>) -> bool {
        let nonce = request.message.nonce().and_then(Result::ok);
        let signed = request.message.has_integrity();
        signed && nonce.is_some_and(|nonce| self.accepts_nonce(request, nonce))
    }

    /// Whether the sender was given this nonce. A client data connection may show that of its control connection.
    fn accepts_nonce(&self, request: &Request<'_>, nonce: &[u8]) -> bool {
        let given_to =
            |client| -> bool { self.nonces.verify(request.now.unix, client, nonce).is_ok() };
        given_to(request.from.client)
            || self
                .claimed_allocation(request)
                .is_some_and(|allocation| given_to(allocation.client.client))
    }

    /// Tries the keys that `username` may have signed with.
    fn verify<'a>(
        &mut self,
        request: &Request<'a>,
        username: &'a str,
        algorithm: PasswordAlgorithm,
    ) -> Option<Credential<'a>> {
        let (message, context) = (&request.message, &request.context);
        // The key that the allocation was made with stays good while it lives: rotated secrets and an expired ephemeral
        // credential do not end a call, unless the policy is strict about the latter.
        let allocation = request.allocation.and_then(|id| self.table.allocation(id));
        let allocation = allocation.or_else(|| self.claimed_allocation(request));
        let owner = allocation.map(|allocation| &allocation.owner);
        let ended = |at: u64| request.now.unix >= at.saturating_add(CREDENTIAL_GRACE);
        let strict = self.policy.limits.strict_expiry;
        if let Some(owner) = owner.filter(|owner| *owner.username == *username)
            && !(strict && ended(owner.key.expires_at))
            && owner.key().algorithm() == algorithm
            && message.verify_integrity(owner.key())
        {
            context.keys.used(owner.key.id, request.now);
            return Some(Credential {
                username,
                user: owner.user.clone(),
                tenant: owner.tenant,
                home: owner.key.home,
                key: owner.key().clone(),
                expires_at: owner.key.expires_at,
                key_id: owner.key.id,
            });
        }
        self.candidates.restart(algorithm);
        // Credentials of another realm are nobody's here.
        let realm = request.realm(&self.policy);
        if message.realm() == Some(Ok(realm)) {
            let identity = Identity {
                username,
                realm,
                server_name: context.server_name,
            };
            context
                .keys
                .candidates(identity, request.now, &mut self.candidates);
        }
        if self.candidates.iter().next().is_none() {
            let _ = message.verify_integrity(&NOBODY);
        }
        let signed = |candidate: &&Candidate| message.verify_integrity(&candidate.key);
        let candidate = self.candidates.iter().find(signed)?;
        let expires_at = candidate.expires_at.unwrap_or(u64::MAX);
        // A ConnectionBind request makes nothing anew.
        let makes = request.method != RequestMethod::ConnectionBind;
        if (makes || strict) && ended(expires_at) {
            return None;
        }
        context.keys.used(candidate.key_id, request.now);
        Some(Credential {
            username,
            user: candidate
                .user
                .as_ref()
                .and_then(|range| user_range(range, username)),
            tenant: candidate.tenant,
            home: candidate.home,
            key: candidate.key.clone(),
            expires_at,
            key_id: candidate.key_id,
        })
    }

    /// Why an authentic sender is not served: it, its tenant, or who it is elsewhere.
    pub(super) fn ban_of(&self, request: &Request<'_>, sender: &Credential<'_>) -> Option<BanKind> {
        let (user, unix) = (sender.user(), request.now.unix);
        let bans = |tenant| self.policy.bans_user(tenant, user, unix);
        bans(sender.tenant).or_else(|| bans(sender.home))
    }

    /// Whether an answer may go to a sender who has proved nothing: its address may be somebody else's.
    pub(super) fn may_challenge(&mut self, request: &Request<'_>) -> bool {
        self.within_budget(request, AnswerKind::Challenge)
    }

    /// As [`Self::may_challenge`], for a Binding response.
    pub(super) fn may_answer_binding(&mut self, request: &Request<'_>) -> bool {
        self.within_budget(request, AnswerKind::Binding)
    }

    /// An authentic request has come from its address, which pays back what its answers cost.
    pub(super) fn pay_back(&mut self, request: &Request<'_>) {
        if request.from.transport == Transport::Udp {
            self.note_proven(request);
            self.reflection
                .authenticated(request.now.instant, request.from.client);
        }
    }

    /// A handshake has proved the address of a stream's client, an authentic request that of an allocation's.
    fn within_budget(&mut self, request: &Request<'_>, kind: AnswerKind) -> bool {
        request.from.transport.is_stream()
            || request.allocation.is_some()
            || self.reflection.answer_allowed(
                request.now.instant,
                request.from.client,
                kind,
                request.message.transaction_id(),
            )
    }
}

/// RFC 8489 §9.2.4, third check: a nonce that offers password algorithms is answered with both of the attributes, as they were
/// sent, or with neither: else 400. A nonce that offers none is not one of ours: its request gets 438 when the sender is known.
fn password_algorithm(message: &Message<'_>, nonce: &[u8]) -> Result<PasswordAlgorithm, Reject> {
    let (offered, chosen) = (message.password_algorithms(), message.password_algorithm());
    if !announces_password_algorithms(nonce) {
        return Ok(chosen.and_then(Result::ok).unwrap_or_default());
    }
    match (offered, chosen) {
        (None, None) => Ok(PasswordAlgorithm::Md5),
        (Some(offered), Some(Ok(chosen))) if offered.is(&OFFERED) && OFFERED.contains(&chosen) => {
            Ok(chosen)
        }
        (_, _) => Err(Reject::BadRequest),
    }
}

/// The user's part of `username`, where it is one and not empty.
fn user_range(range: &Range<usize>, username: &str) -> Option<Range<u16>> {
    let user = username.get(range.clone())?;
    let start = u16::try_from(range.start).ok()?;
    let end = u16::try_from(range.end).ok()?;
    (!user.is_empty()).then_some(start..end)
}
