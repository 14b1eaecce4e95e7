//! API tokens that operators make and revoke, beside those that the configuration names.

use super::record::{ApiToken, Record, RecordKey, TokenHash};
use super::{Fleet, Plan};
use crate::error::FleetError;

/// The most API tokens that operators may make.
pub const MAX_API_TOKENS: usize = 1000;

/// Why a token is not made or not revoked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// There is one of that name.
    #[error("there is a token of the name {0} already")]
    Taken(String),
    /// There is none of that name.
    #[error("there is no token of the name {0}")]
    Unknown(String),
    /// The configuration names it, and would bring it back at the next start.
    #[error("the token {0} is the configuration's, and goes when it is taken out there")]
    Configured(String),
    /// There are as many as there can be.
    #[error("there are {limit} tokens, which is as many as operators may make; revoke some")]
    TooMany {
        /// The bound.
        limit: usize,
    },
}

impl Fleet {
    /// Keeps an API token that an operator has made.
    ///
    /// # Errors
    /// When its name is taken, there are too many, or nothing knows its tenant.
    pub fn plan_api_token(&self, hash: TokenHash, token: ApiToken) -> Result<Plan, FleetError> {
        if self
            .api_tokens
            .values()
            .any(|known| known.name == token.name)
        {
            return Err(TokenError::Taken(token.name).into());
        }
        if let Some(tenant) = &token.tenant {
            self.require_tenant(tenant)?;
        }
        let made = self.api_tokens.values().filter(|known| known.by_operator);
        if made.count() >= MAX_API_TOKENS {
            let limit = MAX_API_TOKENS;
            return Err(TokenError::TooMany { limit }.into());
        }
        Ok(self.plan(vec![Record::ApiToken(hash, token)], Vec::new()))
    }

    /// Revokes the API tokens of that name that operators have made.
    ///
    /// # Errors
    /// When there is none, or it is the configuration's.
    pub fn plan_revoke_api_token(&self, name: &str) -> Result<Plan, FleetError> {
        let named = || {
            self.api_tokens
                .iter()
                .filter(move |(_, token)| token.name == name)
        };
        let made = named().filter(|(_, token)| token.by_operator);
        let deletes: Vec<_> = made.map(|(hash, _)| RecordKey::ApiToken(*hash)).collect();
        if !deletes.is_empty() {
            return Ok(self.plan(Vec::new(), deletes));
        }
        Err(match named().next() {
            Some(_) => TokenError::Configured(name.to_owned()),
            None => TokenError::Unknown(name.to_owned()),
        }
        .into())
    }
}
