//! stub
use std::net::SocketAddr;

use crate::peer_filter::Cidr;
use crate::time::Instant;
use crate::wire::TransactionId;

/// What kind of answer a request without verified integrity asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// 401, 438, 400, 420: every error without verified integrity.
    Challenge,
    /// A Binding response.
    Binding,
}

/// Budget.
#[derive(Debug)]
pub struct ReflectionBudget {}

impl ReflectionBudget {
    /// A budget for one of `shards` shards.
    #[must_use]
    pub fn new(_shards: u8, _trusted_sources: Vec<Cidr>, _seed: [u8; 32]) -> Self {
        Self {}
    }

    /// Whether an answer may be sent.
    pub fn answer_allowed(
        &mut self,
        _now: Instant,
        _source: SocketAddr,
        _kind: AnswerKind,
        _id: TransactionId,
    ) -> bool {
        true
    }

    /// A request of `source` was authenticated.
    pub fn authenticated(&mut self, _now: Instant, _source: SocketAddr) {}
}
