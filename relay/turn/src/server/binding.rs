//! Binding (RFC 8489 §6.3.1.1): tells a client its server-reflexive address, without authentication.

use super::Server;
use super::request::Request;
use crate::decision::{Decision, DropReason};
use crate::reject::Reject;

impl Server {
    /// The answer is kept as small as it can be, because its sender's address may be forged.
    pub(super) fn handle_binding(
        &mut self,
        request: &Request<'_>,
        reply: &mut Vec<u8>,
    ) -> Decision {
        // RFC 8489 §6.3.1: unknown comprehension-required attributes get 420.
        if request.message.unknown_required().next().is_some() {
            return self.refuse(request, Reject::UnknownAttribute, None, reply);
        }
        if !self.may_answer_binding(request) {
            self.note_withheld(request);
            return Decision::Drop(DropReason::ReflectionBudget);
        }
        let answer = request.answer();
        let mut writer = answer.success(reply);
        writer.xor_mapped_address(request.from.client);
        answer.finish(writer, None);
        Decision::Reply
    }
}
