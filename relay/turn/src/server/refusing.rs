//! The one place that makes error responses of refusals.

use super::Server;
use super::auth::OFFERED;
use super::request::{Answer, Request};
use crate::decision::{Decision, DropReason};
use crate::event::Event;
use crate::reject::Reject;
use crate::wire::{Class, LongTermKey, MessageWriter};

impl Server {
    /// Refuses a request; `key` is the one that authenticated it. A sender who has proved nothing is answered within the
    /// reflection budget only.
    pub(super) fn refuse(
        &mut self,
        request: &Request<'_>,
        reject: Reject,
        key: Option<&LongTermKey>,
        reply: &mut Vec<u8>,
    ) -> Decision {
        self.counters.count_reject(request.method, reject);
        let answered = key.is_some() || self.may_challenge(request);
        if key.is_none() {
            self.note_stranger(request, reject);
        }
        if !answered {
            return Decision::Drop(DropReason::ReflectionBudget);
        }
        if request.is_notable(key.is_some()) {
            let username = request.message.username().and_then(Result::ok);
            self.push_event(Event::Refused {
                client: request.from,
                username: username.map(Into::into),
                code: reject.code(),
            });
        }
        if reject == Reject::TryAlternate {
            self.count_redirect();
        }
        let answer = request.answer();
        answer.error(reject, key, reply, |writer| match reject {
            // RFC 8489 §9.2.4: what the sender needs to try again.
            Reject::Unauthenticated | Reject::StaleNonce => {
                writer.realm(request.realm(&self.policy));
                writer.nonce(&self.nonces.mint(request.now.unix, request.from.client));
                writer.password_algorithms(&OFFERED);
            }
            // RFC 8489 §6.3.1.
            Reject::UnknownAttribute => {
                writer.unknown_attributes(self.unknown_in_request(request));
            }
            Reject::TryAlternate => {
                let chosen = self.alternate_for(&request.from, answer.closing.integrity);
                if let Some(alternate) = chosen {
                    alternate.write(&request.from, writer);
                }
            }
            Reject::BadRequest
            | Reject::Forbidden
            | Reject::AllocationMismatch
            | Reject::AddressFamilyNotSupported
            | Reject::WrongCredentials
            | Reject::UnsupportedTransport
            | Reject::PeerAddressFamilyMismatch
            | Reject::ConnectionExists
            | Reject::ConnectionFailed
            | Reject::AllocationQuotaReached
            | Reject::InsufficientCapacity => {}
        });
        Decision::Reply
    }
}

impl Answer {
    /// Writes an error response with what `attributes` adds; `key` is the one that authenticated the request.
    pub(super) fn error(
        self,
        reject: Reject,
        key: Option<&LongTermKey>,
        out: &mut Vec<u8>,
        attributes: impl FnOnce(&mut MessageWriter<'_>),
    ) {
        let mut writer = self.begin(Class::ErrorResponse, out);
        // An answer to a sender who has proved nothing is kept short: no reason phrase.
        let reason = if key.is_some() { reject.reason() } else { "" };
        writer.error_code(reject.error_code(), reason);
        attributes(&mut writer);
        self.finish(writer, key);
    }
}
