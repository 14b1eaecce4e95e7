//! How a node becomes a member and stays one: what it is bound to by its join token or its certificate, and credentials that
//! follow each other.

use turnfleet_proto::NodeId;

use super::admission::Certified;
use super::record::{JoinToken, NodeRecord, Record, RecordKey, TokenHash, token_hash};
use super::tokens::TokenError;
use super::{Fleet, Plan};
use crate::error::FleetError;

/// Seconds after which a node is given another credential. The old one does not end by time: controllers may be away.
const CREDENTIAL_SECONDS: u64 = 86_400;
/// The most join tokens.
const MAX_JOIN_TOKENS: usize = 1000;

impl Fleet {
    /// Lets nodes enrol by the token whose hash is given, until it is revoked or ends.
    ///
    /// # Errors
    /// When a token of that name is there, there are too many, or nothing knows its tenant.
    pub fn plan_join_token(&self, hash: TokenHash, token: JoinToken) -> Result<Plan, FleetError> {
        if self.join_tokens.values().any(|it| it.name == token.name) {
            return Err(TokenError::Taken(token.name).into());
        }
        if let Some(tenant) = &token.tenant {
            self.require_tenant(tenant)?;
        }
        if self.join_tokens.len() >= MAX_JOIN_TOKENS {
            let limit = MAX_JOIN_TOKENS;
            return Err(TokenError::TooMany { limit }.into());
        }
        let token = JoinToken {
            by_operator: true,
            ..token
        };
        Ok(self.plan(vec![Record::JoinToken(hash, token)], Vec::new()))
    }

    /// Enrols nobody by the token of that name any more. Its nodes stay members.
    ///
    /// # Errors
    /// When there is none, or it is the configuration's.
    pub fn plan_revoke_join_token(&self, name: &str) -> Result<Plan, FleetError> {
        let named = self.join_tokens.iter().find(|(_, it)| it.name == name);
        match named {
            Some((hash, token)) if token.by_operator => {
                Ok(self.plan(Vec::new(), vec![RecordKey::JoinToken(*hash)]))
            }
            Some(_) => Err(TokenError::Configured(name.to_owned()).into()),
            None => Err(TokenError::Unknown(name.to_owned()).into()),
        }
    }

    /// The token that `text` is, if it enrols at `unix`.
    ///
    /// # Errors
    /// When it is nobody's, or has ended.
    pub(super) fn join_token(&self, text: &str, unix: u64) -> Result<&JoinToken, FleetError> {
        let token = self.join_tokens.get(&token_hash(text));
        let token = token.ok_or(FleetError::JoinToken)?;
        match token.expires_at {
            Some(end) if unix >= end => Err(FleetError::JoinTokenEnded),
            Some(_) | None => Ok(token),
        }
    }

    /// The region that `node` is bound to by what it became a member by.
    #[must_use]
    pub fn bound_region(&self, node: &NodeId) -> Option<&str> {
        self.member(node)?.membership.region.as_deref()
    }

    /// The tenant that `node` is bound to.
    #[must_use]
    pub fn bound_tenant(&self, node: &NodeId) -> Option<&str> {
        self.member(node)?.membership.tenant.as_deref()
    }

    /// Whether `node` shall have another credential.
    #[must_use]
    pub fn is_credential_due(&self, node: &NodeId, unix: u64) -> bool {
        let since = self.member(node).map(|node| node.membership.since);
        since.is_some_and(|since| unix >= since.saturating_add(CREDENTIAL_SECONDS))
    }

    /// Accepts the credential of that hash of `node` too, beside the one that it uses.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn plan_next_credential(&self, node: &NodeId, next: TokenHash) -> Result<Plan, FleetError> {
        let record = self.member(node);
        let mut record = record
            .ok_or_else(|| FleetError::UnknownNode(node.clone()))?
            .clone();
        record.membership.next = Some(next);
        Ok(self.plan(vec![Record::Node(record)], Vec::new()))
    }

    /// `node` has used the credential of that hash: if that is the later one, the earlier one ends. What its certificate says,
    /// where it showed one, holds from here on.
    #[must_use]
    pub fn plan_admitted(
        &self,
        node: &NodeId,
        used: TokenHash,
        certified: Option<&Certified>,
        unix: u64,
    ) -> Plan {
        let Some(known) = self.member(node) else {
            return Plan::default();
        };
        let mut record = known.clone();
        if record.membership.next == Some(used) {
            record.credential = used;
            record.membership.next = None;
            record.membership.since = unix;
        }
        if let Some(certified) = certified {
            record.membership = record.membership.certified(certified);
        }
        if record == *known {
            return Plan::default();
        }
        let rebound = self.is_rebound(self.nodes.get(node), &record);
        self.plan_seen(vec![Record::Node(record)], Vec::new(), rebound)
    }

    /// Whether `node` is a member by its certificate.
    pub(super) fn is_certified(&self, node: &NodeId) -> bool {
        let record = self.member(node);
        record.is_some_and(|record| record.membership.certified)
    }

    fn member(&self, node: &NodeId) -> Option<&NodeRecord> {
        self.nodes.get(node)?.record.as_ref()
    }
}
