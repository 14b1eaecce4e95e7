//! Who asks: the API token of a request, what it opens, and how often it may ask.
//!
//! Tokens are known by their SHA-256 only, and looked up by it, so the time of a look-up tells nothing about them. A token is
//! never logged and never part of an error.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Instant;

use http::HeaderMap;
use http::header::AUTHORIZATION;

use super::rate::TokenBucket;
use super::status::ApiError;
use crate::fleet::FleetView;
use crate::fleet::record::Scope;
use crate::metrics::Metrics;
use crate::wall_clock::since_epoch;

/// Requests a second of one API token, beyond what one controller answers on two cores: it keeps a runaway caller from
/// the others, and is no quota.
const RATE: u32 = 100_000;
/// Longer tokens are not looked at.
const MAX_TOKEN_BYTES: usize = 512;

/// More than there are API tokens at once.
const MAX_BUCKETS: usize = 16 * 1024;

/// Who was let in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bearer {
    /// The name of the token.
    pub(crate) name: String,
    /// The tenant that it is bound to.
    pub(crate) tenant: Option<String>,
}

/// Checks tokens against the fleet's, and counts requests by token.
#[derive(Debug)]
pub(crate) struct Guard {
    metrics: Arc<Metrics>,
    rate: u32,
    /// By the name of the token's bearer.
    buckets: RwLock<HashMap<String, Arc<TokenBucket>>>,
}

impl Guard {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Self {
        Self::with_rate(metrics, RATE)
    }

    fn with_rate(metrics: Arc<Metrics>, rate: u32) -> Self {
        Self {
            metrics,
            rate,
            buckets: RwLock::default(),
        }
    }

    /// Lets the bearer of `token` through.
    ///
    /// # Errors
    /// 401 without a known token, 403 without the scope, 429 above the rate.
    pub(crate) fn admit(
        &self,
        view: &FleetView,
        token: Option<&str>,
        scope: Scope,
    ) -> Result<Bearer, ApiError> {
        let refused = |error| {
            self.metrics.authentication_failures.inc();
            Err(error)
        };
        let Some(token) = token else {
            return refused(ApiError::unauthenticated("there is no API token"));
        };
        let bearer = Some(token).filter(|token| token.len() <= MAX_TOKEN_BYTES);
        let Some(bearer) = bearer.and_then(|token| view.bearer(token)) else {
            return refused(ApiError::unauthenticated("the API token is not known"));
        };
        if bearer.expires_at.is_some() && bearer.has_ended(since_epoch().as_secs()) {
            return refused(ApiError::unauthenticated(
                "the API token has come to its end",
            ));
        }
        if !bearer.opens(scope) {
            return refused(ApiError::forbidden(scope.name()));
        }
        self.bucket(&bearer.name)
            .take(Instant::now())
            .map_err(|wait| {
                self.metrics.rate_limited.inc();
                ApiError::too_many_requests(wait)
            })?;
        Ok(Bearer {
            name: bearer.name.clone(),
            tenant: bearer.tenant.clone(),
        })
    }

    /// The same for what concerns the whole fleet, which a token that is bound to a tenant does not open.
    ///
    /// # Errors
    /// As [`Self::admit`], and 403 with such a token.
    pub(crate) fn admit_to_fleet(
        &self,
        view: &FleetView,
        token: Option<&str>,
        scope: Scope,
    ) -> Result<Bearer, ApiError> {
        let bearer = self.admit(view, token, scope)?;
        if bearer.tenant.is_some() {
            self.metrics.authentication_failures.inc();
            return Err(ApiError::bound_to_tenant());
        }
        Ok(bearer)
    }

    fn bucket(&self, name: &str) -> Arc<TokenBucket> {
        let known = self.buckets.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = known.get(name) {
            return Arc::clone(bucket);
        }
        drop(known);
        let mut buckets = self.buckets.write().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            // Most are of tokens that have been revoked; the others begin anew with a full one.
            buckets.clear();
        }
        let fresh = || Arc::new(TokenBucket::new(self.rate, self.rate, Instant::now()));
        Arc::clone(buckets.entry(name.to_owned()).or_insert_with(fresh))
    }
}

/// The token of `Authorization: Bearer …` (RFC 6750 §2.1).
///
/// # Errors
/// 401 when the header is there and of another form.
pub(crate) fn bearer_token(headers: &HeaderMap) -> Result<Option<&str>, ApiError> {
    let Some(value) = headers.get(AUTHORIZATION) else {
        return Ok(None);
    };
    let other_form = || ApiError::unauthenticated("the header is not of the form Bearer TOKEN");
    let text = value.to_str().map_err(|_| other_form())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(other_form)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        Ok(Some(token.trim()))
    } else {
        Err(other_form())
    }
}
