//! `GET /_matrix/client/v3/voip/turnServer` of the Matrix client-server API: a credential and live URIs for the user of
//! a homeserver, whose reverse proxy sends this one path here.
//!
//! Users are known by their access tokens, about which the [homeserver](homeserver) is asked and whose word is
//! [kept](users) for a while. Answers and [refusals](refusal) have the form that Matrix clients know, and any web page may
//! ask, as with every homeserver: a token stands in a header or the query, and never in a cookie.

mod homeserver;
mod refusal;
mod users;
mod words;

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, USER_AGENT,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::app::{App, answer_json, caller};
use super::auth::bearer_token;
use super::credentials::CredentialRequest;
use super::parameters::Parameters;
use super::turn_rest::Answer;
use crate::StartError;
use crate::config::MatrixConfig;
use crate::metrics::Metrics;
use homeserver::{Client, Homeserver};
pub(super) use refusal::Body as RefusalBody;
use refusal::Refusal;
use users::Users;

/// The path as clients of today have it.
pub(super) const V3: &str = "/_matrix/client/v3/voip/turnServer";
/// The same before Matrix 1.1.
pub(super) const R0: &str = "/_matrix/client/r0/voip/turnServer";

/// The parameter that carries the token of old clients.
const ACCESS_TOKEN: &str = "access_token";

/// Answers the users of one homeserver.
pub(crate) struct Matrix {
    users: Arc<Users>,
    tenant: Option<String>,
    allow_guests: bool,
    /// Seconds.
    ttl: u64,
}

impl Matrix {
    /// Asks the homeserver of `config`, which need not be there yet.
    ///
    /// # Errors
    /// When `matrix.ca` cannot be used, or the system has no randomness to give.
    pub(super) fn new(config: &MatrixConfig, metrics: Arc<Metrics>) -> Result<Self, StartError> {
        let users = Users::new(Homeserver::new(config)?, metrics);
        let no_randomness =
            |_| StartError::System(std::io::Error::other("the system has no randomness"));
        Ok(Self {
            users: Arc::new(users.map_err(no_randomness)?),
            tenant: config.tenant.clone(),
            allow_guests: config.allow_guests,
            ttl: config.ttl.as_secs(),
        })
    }

    /// Reads the file that `config` names.
    ///
    /// # Errors
    /// When it cannot be used.
    pub(super) fn check(config: &MatrixConfig) -> Result<(), StartError> {
        Homeserver::new(config).map(drop)
    }
}

/// `GET` of [`V3`] and [`R0`].
pub(super) async fn turn_server(
    State(app): State<App>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = caller(&request);
    let (head, _) = request.into_parts();
    let client = Client {
        // Without a proxy's word, all that is known is the proxy's own address.
        ip: caller.and_then(|caller| app.proxies.spoken_for(caller, &head.headers)),
        agent: head.headers.get(USER_AGENT).cloned(),
    };
    let answer = answer(&app, client, &head.headers, head.uri.query()).await;
    answer.inspect_err(|refusal| {
        if refusal.is_of_token() {
            app.metrics.authentication_failures.inc();
        }
    })
}

async fn answer(
    app: &App,
    client: Client,
    headers: &HeaderMap,
    query: Option<&str>,
) -> Result<Response, Refusal> {
    let token = access_token(headers, query)?;
    let matrix = app.matrix.as_ref().ok_or_else(Refusal::unrecognized)?;
    let ip = client.ip;
    let user = matrix.users.identify(&token, client).await?;
    if user.is_guest && !matrix.allow_guests {
        return Err(Refusal::guest());
    }
    let mut asked = CredentialRequest::turn_only();
    let named = asked.user(&user.id, "user_id");
    let named = named.and_then(|()| asked.of_tenant(matrix.tenant.as_deref()));
    named.map_err(|_| Refusal::strange())?;
    let view = app.handle.view();
    let minted = asked.mint(&view, &app.minting, matrix.ttl, ip);
    let minted = minted.map_err(|error| match error.later() {
        Some(wait) if error.is_rate_limit() => Refusal::too_many(wait),
        Some(_) | None => Refusal::no_relay(),
    })?;
    app.metrics.credentials_minted.inc();
    let credential = minted.credential;
    Ok(answer_json(&Answer {
        username: credential.username,
        password: credential.password,
        ttl: minted.ttl,
        uris: &minted.uris,
    }))
}

/// The token of `Authorization: Bearer …`, or of the query where there is no such header.
fn access_token(headers: &HeaderMap, query: Option<&str>) -> Result<String, Refusal> {
    let other_form = |_| Refusal::missing_token("the Authorization header is no Bearer token");
    let parameters = Parameters::parse(query.unwrap_or(""), "query").ok();
    let token = match bearer_token(headers).map_err(other_form)? {
        Some(token) => Some(token),
        None => parameters
            .as_ref()
            .and_then(|all| all.value(ACCESS_TOKEN).ok()?),
    };
    let missing = || Refusal::missing_token("there is no access token");
    let token = token.filter(|token| !token.is_empty());
    token.map(str::to_owned).ok_or_else(missing)
}

/// Whether a request for `path` is one of Matrix clients.
pub(super) fn is_path(path: &str) -> bool {
    path == V3 || path == R0
}

/// Answers preflights of any origin, and lets any page read every other answer, as the specification asks of homeservers
/// ("Web Browser Clients").
pub(super) async fn cors(request: Request, next: Next) -> Response {
    let mut response = if request.method() == Method::OPTIONS {
        StatusCode::NO_CONTENT.into_response()
    } else {
        next.run(request).await
    };
    open(response.headers_mut());
    response
}

/// What these paths say to requests that are no GET.
pub(super) fn wrong_method() -> Response {
    Refusal::wrong_method().into_response()
}

/// What these paths say while the controller starts.
pub(super) fn starting() -> Response {
    let mut response = Refusal::starting().into_response();
    open(response.headers_mut());
    response
}

fn open(headers: &mut HeaderMap) {
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            ACCESS_CONTROL_ALLOW_METHODS,
            "GET, POST, PUT, DELETE, OPTIONS",
        ),
        (
            ACCESS_CONTROL_ALLOW_HEADERS,
            "X-Requested-With, Content-Type, Authorization",
        ),
        (ACCESS_CONTROL_EXPOSE_HEADERS, "Retry-After"),
        (ACCESS_CONTROL_MAX_AGE, "86400"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

#[cfg(test)]
mod tests {
    use http::header::AUTHORIZATION;

    use super::*;

    #[track_caller]
    fn check(header: Option<&'static str>, query: Option<&str>, token: Option<&str>) {
        let mut headers = HeaderMap::new();
        if let Some(header) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_static(header));
        }
        let found = access_token(&headers, query).ok();
        assert_eq!(found.as_deref(), token, "{header:?} {query:?}");
    }

    #[test]
    fn a_token_stands_in_the_header_or_else_in_the_query() {
        check(Some("Bearer syt_a"), None, Some("syt_a"));
        check(None, Some("access_token=syt_b&x=1"), Some("syt_b"));
        check(
            Some("Bearer syt_a"),
            Some("access_token=syt_b"),
            Some("syt_a"),
        );
        check(None, Some("access_token=%73yt"), Some("syt"));
        check(Some("Basic YTpi"), Some("access_token=syt_b"), None);
        check(None, Some("access_token=a&access_token=b"), None);
        check(None, Some("access_token=%zz"), None);
        check(None, Some("access_token="), None);
        check(Some("Bearer "), Some("access_token=syt_b"), None);
        check(None, None, None);
    }
}
