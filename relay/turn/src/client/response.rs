//! What the client makes of answers: whether to believe them, challenges, and what they grant (RFC 8489 §9.2.5).

use std::net::SocketAddr;

use super::event::{Allocated, Event, Failure, Redirect};
use super::request::Request;
use super::transaction::{Signature, Transaction};
use super::{Challenge, Client, Redirections};
use crate::time::Instant;
use crate::wire::{
    Class, ErrorCode, IntegrityKind, LongTermKey, Message, PasswordAlgorithm, PasswordAlgorithms,
    announces_password_algorithms,
};

/// How often one request is made again after a 401 or 438.
const MAX_RETRIES: u8 = 2;

/// What an answer is worth.
enum Verdict {
    /// It is as if it had never come.
    Discard,
    /// It ends the transaction, and says nothing.
    Violation,
    Granted,
    Refused(ErrorCode),
    Malformed,
}

impl Client {
    /// `false` where the answer belongs to no request, or is not believed.
    pub(super) fn handle_response(&mut self, now: Instant, message: Message<'_>) -> bool {
        let id = message.transaction_id();
        let Some(index) = self.transactions.iter().position(|it| it.id == id) else {
            return false;
        };
        let transaction = &mut self.transactions[index];
        if message.method() != Some(transaction.request.method())
            || (self.password_algorithms && hides_algorithms(message))
        {
            return false;
        }
        let verdict = judge(transaction, message, self.transport.is_stream());
        if matches!(verdict, Verdict::Discard) {
            return false;
        }
        let transaction = self.transactions.swap_remove(index);
        match verdict {
            Verdict::Discard => {}
            Verdict::Violation => self.fail(&transaction.request, Failure::IntegrityViolated),
            Verdict::Malformed => self.fail(&transaction.request, Failure::Malformed),
            Verdict::Granted => self.handle_granted(now, transaction.request, message),
            Verdict::Refused(code) => self.handle_refused(now, transaction, code, message),
        }
        true
    }

    fn handle_granted(&mut self, now: Instant, request: Request, message: Message<'_>) {
        let event = match &request {
            Request::Binding => match message.xor_mapped_address() {
                Some(Ok(mapped)) => Some(Event::Bound { mapped }),
                Some(Err(_)) | None => None,
            },
            Request::Allocate(_) => allocated(message).map(Event::Allocated),
            Request::Refresh { .. } => match message.lifetime() {
                Some(Ok(lifetime)) => Some(Event::Refreshed { lifetime }),
                Some(Err(_)) | None => None,
            },
            Request::CreatePermission { peers } => Some(Event::PermissionCreated {
                peers: peers.clone(),
            }),
            Request::ChannelBind { number, peer } => Some(Event::ChannelBound {
                number: *number,
                peer: *peer,
            }),
            Request::Connect { peer } => match message.connection_id() {
                Some(Ok(connection)) => Some(Event::Connected {
                    peer: *peer,
                    connection,
                }),
                Some(Err(_)) | None => None,
            },
            Request::ConnectionBind { connection } => Some(Event::ConnectionBound {
                connection: *connection,
            }),
        };
        match event {
            Some(event) => self.grant(now, event),
            None => self.fail(&request, Failure::Malformed),
        }
    }

    fn grant(&mut self, now: Instant, event: Event) {
        self.keepalive.granted(now, &event);
        self.emit(event);
    }

    /// Takes up the challenge of a 401 or 438 and asks again, or reports the refusal.
    fn handle_refused(
        &mut self,
        now: Instant,
        transaction: Transaction,
        code: ErrorCode,
        message: Message<'_>,
    ) {
        let challenged = is_challenge(code)
            && transaction.request.is_authenticated()
            && transaction.retries < MAX_RETRIES;
        let taken = if challenged {
            self.take_challenge(&transaction, code, message)
        } else {
            Err(Failure::Refused(code))
        };
        if code == ErrorCode::TRY_ALTERNATE
            && let Some(redirect) = redirect(&transaction, message)
        {
            self.emit(Event::Redirected(redirect));
            return;
        }
        let deletes = matches!(transaction.request, Request::Refresh { lifetime: 0 });
        match taken {
            // RFC 8656 §8.3: the allocation is gone, as it was to be.
            Err(_) if deletes && code == ErrorCode::ALLOCATION_MISMATCH => {
                self.grant(now, Event::Refreshed { lifetime: 0 });
            }
            Ok(()) => self.start(now, transaction.request, transaction.retries + 1),
            Err(why) => self.fail(&transaction.request, why),
        }
    }

    /// Takes up the challenge where it leaves something to try: after a 401 to a signed request only another realm does.
    fn take_challenge(
        &mut self,
        transaction: &Transaction,
        code: ErrorCode,
        message: Message<'_>,
    ) -> Result<(), Failure> {
        let refused = Failure::Refused(code);
        let Some(Ok(nonce)) = message.nonce() else {
            return Err(refused);
        };
        let realm = match (message.realm(), &self.challenge) {
            (Some(Ok(realm)), _) => realm,
            (None, Some(challenge)) if code == ErrorCode::STALE_NONCE => &challenge.realm,
            (_, _) => return Err(refused),
        };
        let derive =
            |algorithm| LongTermKey::derive_with(algorithm, &self.username, realm, &self.password);
        if code == ErrorCode::UNAUTHENTICATED
            && let Some(tried) = &transaction.signed_with
            && tried.key == derive(tried.key.algorithm())
        {
            return Err(refused);
        }
        let offered = self.offered_algorithms(message, nonce)?;
        let signature = match offered {
            None => Signature {
                key: derive(PasswordAlgorithm::Md5),
                kind: IntegrityKind::Sha1,
            },
            Some(offered) => Signature {
                key: derive(offered.known().next().ok_or(refused)?),
                kind: IntegrityKind::Sha256,
            },
        };
        self.challenge = Some(Challenge {
            realm: realm.into(),
            nonce: nonce.into(),
            algorithms: offered.map(|offered| offered.as_bytes().into()),
            signature,
        });
        Ok(())
    }

    /// What a challenge offers. A nonce that says so without an offer, or an offer withdrawn, is not to be answered
    /// (RFC 8489 §9.2.5).
    fn offered_algorithms<'a>(
        &self,
        message: Message<'a>,
        nonce: &[u8],
    ) -> Result<Option<PasswordAlgorithms<'a>>, Failure> {
        if !self.password_algorithms {
            return Ok(None);
        }
        let offered = message.password_algorithms();
        let offered_before = self
            .challenge
            .as_ref()
            .is_some_and(|challenge| challenge.algorithms.is_some());
        if offered.is_none() && (announces_password_algorithms(nonce) || offered_before) {
            return Err(Failure::BidDown);
        }
        Ok(offered)
    }
}

/// The checks of RFC 8489 §9.2.5 and §6.3.3 in their order. Deviation: a 400 to a request that was not signed is believed, as
/// any other answer to it is; whoever asks why a server refuses the first request is not left to wait for nothing.
fn judge(transaction: &mut Transaction, message: Message<'_>, reliable: bool) -> Verdict {
    let code = match (message.class(), message.error_code()) {
        (Class::ErrorResponse, Some(Ok(code))) => Some(code),
        (Class::ErrorResponse, _) => return Verdict::Discard,
        (Class::Request | Class::Indication | Class::SuccessResponse, _) => None,
    };
    if let Some(signature) = &transaction.signed_with
        && !code.is_some_and(is_challenge)
        && !signature.signs(&message)
    {
        transaction.violated = true;
        let unsigned_bad_request = code == Some(ErrorCode::BAD_REQUEST) && !message.has_integrity();
        return if reliable && !unsigned_bad_request {
            Verdict::Violation
        } else {
            Verdict::Discard
        };
    }
    match code {
        Some(code) => Verdict::Refused(code),
        None if message.unknown_required().next().is_some() => Verdict::Malformed,
        None => Verdict::Granted,
    }
}

/// Whether an answer other than a challenge has a nonce that offers password algorithms, and does not name them: it is to be
/// ignored (RFC 8489 §9.2.5).
fn hides_algorithms(message: Message<'_>) -> bool {
    let challenges = matches!(message.error_code(), Some(Ok(code)) if is_challenge(code));
    let offers = matches!(message.nonce(), Some(Ok(nonce)) if announces_password_algorithms(nonce));
    !challenges && offers && message.password_algorithms().is_none()
}

/// Whether a refusal asks for other credentials; it cannot be signed, as the server may not know the key.
fn is_challenge(code: ErrorCode) -> bool {
    code == ErrorCode::UNAUTHENTICATED || code == ErrorCode::STALE_NONCE
}

/// Where a 300 to an Allocate request leads. One that is not signed, because its request was not, leads nowhere: anybody
/// could have sent it.
fn redirect(transaction: &Transaction, message: Message<'_>) -> Option<Redirect> {
    let Request::Allocate(_) = transaction.request else {
        return None;
    };
    transaction.signed_with.as_ref()?;
    let servers: Box<[SocketAddr]> = message
        .alternate_servers()
        .take(Redirections::MAX_SERVERS)
        .collect::<Result<_, _>>()
        .ok()?;
    let domain = message.alternate_domain().transpose().ok()?;
    (!servers.is_empty()).then(|| Redirect {
        servers,
        domain: domain.map(Into::into),
    })
}

/// What a success response to Allocate must have (RFC 8656 §7.3), and may have.
fn allocated(message: Message<'_>) -> Option<Allocated> {
    let mut relayed = message.xor_relayed_addresses();
    Some(Allocated {
        relayed: relayed.next()?.ok()?,
        additional: relayed.next().transpose().ok()?,
        mapped: message.xor_mapped_address()?.ok()?,
        lifetime: message.lifetime()?.ok()?,
        reservation_token: message.reservation_token().transpose().ok()?,
        address_error: message.address_error_code().transpose().ok()?,
    })
}
