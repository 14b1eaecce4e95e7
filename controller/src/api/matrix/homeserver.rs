//! The homeserver's word on an access token: `GET /_matrix/client/v3/account/whoami`.
//!
//! Homeservers show users where their devices were seen last, so they are told of the client as its proxy would tell them.
//!
//! It asks and understands; it remembers no word and decides nothing about lists. A token goes into the one header, and into no
//! log or error.

use std::error::Error;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::body::{Body, to_bytes};
use http::header::{AUTHORIZATION, USER_AGENT};
use http::{HeaderValue, Request, StatusCode, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::refusal::Refusal;
use crate::StartError;
use crate::api::forwarded::X_FORWARDED_FOR;
use crate::config::MatrixConfig;
use crate::error::chain;
use crate::roots::roots;

const PATH: &str = "/_matrix/client/v3/account/whoami";
/// Requests at once.
const CONCURRENT: usize = 32;
/// For a turn among those, and for an answer from the connection on.
const PATIENCE: Duration = Duration::from_secs(5);
/// For a connection, without TLS.
const CONNECTION_PATIENCE: Duration = Duration::from_secs(2);
/// The longest answer.
const MAX_ANSWER_BYTES: usize = 16 * 1024;
/// How long a connection rests before it is closed.
const REST: Duration = Duration::from_secs(15);
/// The longest user id of the Matrix specification.
const MAX_USER_ID_BYTES: usize = 255;
/// The longest error code of a homeserver.
const MAX_ERRCODE_BYTES: usize = 64;
/// What a client waits where a homeserver limits requests and does not say how long.
const LIMITED: Duration = Duration::from_secs(1);
/// The longest that a homeserver may have clients wait.
const MAX_LIMITED: Duration = Duration::from_secs(300);

/// Who bears a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct User {
    /// `@localpart:server`.
    pub(super) id: String,
    pub(super) is_guest: bool,
}

/// Who shows a token.
#[derive(Debug, Default)]
pub(super) struct Client {
    /// Where it is, as far as that is known.
    pub(super) ip: Option<IpAddr>,
    /// What it calls itself.
    pub(super) agent: Option<HeaderValue>,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// Whose token it is.
    User(User),
    /// The homeserver refuses the token.
    Refused(Refusal),
    /// It wants to be asked later.
    Limited(Duration),
    /// It was not asked, because others were before.
    Busy,
    /// Its answer says nothing of the token.
    Strange,
    /// There was no answer.
    Unreachable,
}

impl Word {
    /// Its name in metrics.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Self::User(_) => "user",
            Self::Refused(_) => "refused",
            Self::Limited(_) => "limited",
            Self::Busy => "busy",
            Self::Strange => "strange",
            Self::Unreachable => "unreachable",
        }
    }
}

/// A homeserver that is asked by HTTP.
pub(super) struct Homeserver {
    connections: legacy::Client<HttpsConnector<HttpConnector>, Body>,
    whoami: Uri,
    turns: Semaphore,
    /// Whether it answered as a homeserver when it was asked last.
    is_well: AtomicBool,
}

impl Homeserver {
    /// The one of `config`; the first question connects.
    ///
    /// # Errors
    /// When `matrix.ca` cannot be used.
    pub(super) fn new(config: &MatrixConfig) -> Result<Self, StartError> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(CONNECTION_PATIENCE));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls(config)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let connections = legacy::Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(REST)
            .pool_max_idle_per_host(CONCURRENT)
            .http1_max_buf_size(MAX_ANSWER_BYTES)
            .build(connector);
        let base = config.homeserver.to_string();
        let whoami = format!("{}{PATH}", base.trim_end_matches('/'));
        Ok(Self {
            connections,
            whoami: whoami
                .parse()
                .expect("a checked URL with a plain path behind it is a URL"),
            turns: Semaphore::new(CONCURRENT),
            is_well: AtomicBool::new(true),
        })
    }

    /// Asks about the token in `bearer`, an `Authorization` header, that `client` shows.
    pub(super) async fn whoami(&self, bearer: HeaderValue, client: Client) -> Word {
        let Ok(Ok(_turn)) = timeout(PATIENCE, self.turns.acquire()).await else {
            return Word::Busy;
        };
        match timeout(PATIENCE, self.answer(bearer, client)).await {
            Ok(Ok((status, body))) => self.understand(status, &body),
            Ok(Err(error)) => {
                self.is_ill(&chain(&*error));
                Word::Unreachable
            }
            Err(_) => {
                self.is_ill("no answer in time");
                Word::Unreachable
            }
        }
    }

    async fn answer(
        &self,
        bearer: HeaderValue,
        client: Client,
    ) -> Result<(StatusCode, axum::body::Bytes), Box<dyn Error + Send + Sync>> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = self.whoami.clone();
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, bearer);
        if let Some(agent) = client.agent {
            headers.insert(USER_AGENT, agent);
        }
        if let Some(ip) = client.ip {
            let ip = HeaderValue::try_from(ip.to_string());
            headers.insert(X_FORWARDED_FOR, ip.expect("an address is plain text"));
        }
        let answer = self.connections.request(request).await?;
        let status = answer.status();
        let body = to_bytes(Body::new(answer.into_body()), MAX_ANSWER_BYTES).await?;
        Ok((status, body))
    }

    fn understand(&self, status: StatusCode, body: &[u8]) -> Word {
        let Some(word) = understood(status, body) else {
            self.is_ill(&format!(
                "it answered {status} with what is no word on a token"
            ));
            return Word::Strange;
        };
        if !self.is_well.swap(true, Ordering::Relaxed) {
            tracing::info!(homeserver = %self.whoami, "the homeserver answers again");
        }
        word
    }

    /// Said once, and not for every request.
    fn is_ill(&self, error: &str) {
        if self.is_well.swap(false, Ordering::Relaxed) {
            tracing::warn!(homeserver = %self.whoami, error, "the homeserver does not say whose tokens they are");
        }
    }
}

fn tls(config: &MatrixConfig) -> Result<ClientConfig, StartError> {
    let roots = match &config.ca {
        Some(ca) => roots(ca, "matrix.ca")?,
        None => RootCertStore::from_iter(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has the cipher suites of TLS 1.2 and 1.3");
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

/// The answer to whoami.
#[derive(Deserialize)]
struct WhoAmI {
    user_id: String,
    #[serde(default)]
    is_guest: bool,
}

/// A standard error response.
#[derive(Deserialize)]
struct Complaint {
    errcode: String,
    #[serde(default)]
    error: String,
    soft_logout: Option<bool>,
    retry_after_ms: Option<u64>,
}

/// The word of an answer; `None` where it says nothing of the token. A refusal has to be the homeserver's own: one of something
/// that stands before it would log users out.
fn understood(status: StatusCode, body: &[u8]) -> Option<Word> {
    match status {
        StatusCode::OK => {
            let who: WhoAmI = read(body)?;
            is_user_id(&who.user_id).then_some(Word::User(User {
                id: who.user_id,
                is_guest: who.is_guest,
            }))
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            let complaint: Complaint = read(body)?;
            // There was a token: something took it away.
            let is_its_own =
                complaint.errcode != "M_MISSING_TOKEN" && is_errcode(&complaint.errcode);
            let error: String = complaint.error.chars().take(200).collect();
            is_its_own.then(|| {
                let (errcode, soft_logout) = (complaint.errcode, complaint.soft_logout);
                Word::Refused(Refusal::of_homeserver(status, errcode, error, soft_logout))
            })
        }
        StatusCode::TOO_MANY_REQUESTS => {
            let complaint: Option<Complaint> = read(body);
            let wait = complaint.and_then(|it| it.retry_after_ms);
            let wait = wait.map_or(LIMITED, Duration::from_millis);
            Some(Word::Limited(wait.min(MAX_LIMITED)))
        }
        _ => None,
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Option<T> {
    serde_json::from_slice(body).ok()
}

fn is_user_id(text: &str) -> bool {
    let named = text
        .strip_prefix('@')
        .is_some_and(|rest| rest.contains(':'));
    named && text.len() <= MAX_USER_ID_BYTES && !text.chars().any(char::is_control)
}

fn is_errcode(text: &str) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphanumeric() || b"_.".contains(&byte);
    (1..=MAX_ERRCODE_BYTES).contains(&text.len()) && text.bytes().all(letter)
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::TcpListener;

    use super::*;

    /// One that takes connections and never answers, as long as the listener is held.
    pub(in crate::api::matrix) async fn silent() -> (TcpListener, Homeserver) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let config = MatrixConfig {
            homeserver: format!("http://{address}").parse().unwrap(),
            ca: None,
            tenant: None,
            allow_guests: true,
            ttl: Duration::from_secs(3600),
        };
        (listener, Homeserver::new(&config).unwrap())
    }

    #[track_caller]
    fn check(status: u16, body: &str, word: Option<Word>) {
        let status = StatusCode::from_u16(status).expect("a status");
        assert_eq!(understood(status, body.as_bytes()), word, "{status} {body}");
    }

    fn user(is_guest: bool) -> Option<Word> {
        let id = "@alice:example.org".to_owned();
        Some(Word::User(User { id, is_guest }))
    }

    fn refused(status: StatusCode, errcode: &str, soft_logout: Option<bool>) -> Option<Word> {
        let (errcode, error) = (errcode.to_owned(), "no".to_owned());
        let refusal = Refusal::of_homeserver(status, errcode, error, soft_logout);
        Some(Word::Refused(refusal))
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_homeserver_is_waited_for_no_longer_than_it_may_take() {
        let (_listener, homeserver) = silent().await;
        let began = tokio::time::Instant::now();
        let word = homeserver
            .whoami(HeaderValue::from_static("Bearer syt_a"), Client::default())
            .await;
        assert_eq!(word, Word::Unreachable);
        assert!(began.elapsed() <= PATIENCE + Duration::from_millis(10));
    }

    #[test]
    fn a_user_is_named_by_a_whole_user_id() {
        check(
            200,
            r#"{"user_id":"@alice:example.org","device_id":"A"}"#,
            user(false),
        );
        check(
            200,
            r#"{"user_id":"@alice:example.org","is_guest":true}"#,
            user(true),
        );
        for id in ["", "alice", "@alice", "alice:example.org", "@a\\n:b"] {
            check(200, &format!(r#"{{"user_id":"{id}"}}"#), None);
        }
        let long = "a".repeat(256);
        check(200, &format!(r#"{{"user_id":"@{long}:b"}}"#), None);
        check(200, "<html>", None);
        check(201, r#"{"user_id":"@alice:example.org"}"#, None);
    }

    #[test]
    fn only_the_homeserver_itself_ends_a_session() {
        let denied = StatusCode::UNAUTHORIZED;
        let body = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no","soft_logout":true}"#;
        check(401, body, refused(denied, "M_UNKNOWN_TOKEN", Some(true)));
        let body = r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#;
        check(401, body, refused(denied, "M_UNKNOWN_TOKEN", None));
        let body = r#"{"errcode":"M_USER_DEACTIVATED","error":"no"}"#;
        let forbidden = StatusCode::FORBIDDEN;
        check(403, body, refused(forbidden, "M_USER_DEACTIVATED", None));
        check(401, "401 Authorization Required", None);
        check(401, r#"{"message":"no"}"#, None);
        check(401, r#"{"errcode":"M_MISSING_TOKEN","error":"no"}"#, None);
        check(403, r#"{"errcode":"M <b>"}"#, None);
        for status in [302, 404, 500, 502, 503] {
            check(
                status,
                r#"{"errcode":"M_UNKNOWN_TOKEN","error":"no"}"#,
                None,
            );
        }
    }

    #[test]
    fn a_limit_is_passed_on_within_bounds() {
        let limited = |seconds| Some(Word::Limited(Duration::from_secs(seconds)));
        check(
            429,
            r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":7000}"#,
            limited(7),
        );
        check(
            429,
            r#"{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":9999999999}"#,
            limited(300),
        );
        check(429, "slow down", limited(1));
    }
}
