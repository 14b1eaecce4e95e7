//! The client of the HTTP API: it asks one controller after the other until one answers.

use std::env::VarError;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Args;
use serde_json::Value as Json;
use ureq::http::{Method, Request, Response};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use super::table::cell;
use crate::credentials::read_line;
use crate::proxy;

/// How long a controller may take to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an answer that goes on and on may take: a day, and then it is asked for again.
const LONG: Duration = Duration::from_secs(86_400);
/// How long it may take to let the connection in, before the next one is asked.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Where every command finds the API token that no flag names.
pub(crate) const TOKEN: &str = "TURNFLEET_API_TOKEN";
/// Where it finds the name of a file that holds one.
pub(crate) const TOKEN_FILE: &str = "TURNFLEET_API_TOKEN_FILE";

/// Which controllers to ask, and by what right.
#[derive(Args, Debug)]
pub(crate) struct ControllerArgs {
    /// The HTTP API of a controller; given several times or with commas, the next is asked where one cannot be reached
    #[arg(
        long,
        global = true,
        value_name = "URL",
        value_delimiter = ',',
        env = "TURNFLEET_CONTROLLER_URL",
        default_value = "http://127.0.0.1:8080"
    )]
    controller: Vec<String>,
    /// An API token with the scope that the command needs: viewer to see, operator to change, admin for tokens and secrets
    /// [env: TURNFLEET_API_TOKEN, where no flag names another]
    #[arg(long, global = true, allow_hyphen_values = true)]
    token: Option<String>,
    /// A file that holds the API token, read where --token gives none [env: TURNFLEET_API_TOKEN_FILE, where neither a flag nor
    /// TURNFLEET_API_TOKEN has one]
    #[arg(long, global = true, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// The certificate authority, PEM, that an https controller is checked against instead of the public ones
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl ControllerArgs {
    /// The arguments of a command that has some of them as flags of its own.
    pub(crate) fn new(
        controller: Vec<String>,
        token_file: Option<PathBuf>,
        ca: Option<PathBuf>,
    ) -> Self {
        Self {
            controller,
            token: None,
            token_file,
            ca,
        }
    }

    /// The token of a flag, or of the environment; empty where neither has one.
    ///
    /// # Errors
    /// When the file that is named cannot be read.
    fn token(&self) -> anyhow::Result<String> {
        let given = self.token.clone().filter(|token| !token.is_empty());
        match (given, &self.token_file) {
            (Some(token), _) => return Ok(token),
            (None, Some(file)) => return read_line(file).context("--token-file"),
            (None, None) => {}
        }
        match std::env::var(TOKEN) {
            Ok(token) if !token.is_empty() => return Ok(token),
            Ok(_) | Err(VarError::NotPresent) => {}
            // The error would show it.
            Err(VarError::NotUnicode(_)) => bail!("{TOKEN}: expected UTF-8"),
        }
        match std::env::var_os(TOKEN_FILE).filter(|file| !file.is_empty()) {
            Some(file) => read_line(Path::new(&file)).context(TOKEN_FILE),
            None => Ok(String::new()),
        }
    }
}

/// What the HTTP API is asked.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    method: Method,
    path: String,
    body: Option<Json>,
}

impl Call {
    pub(crate) fn get(path: impl Into<String>) -> Self {
        Self::new(Method::GET, path)
    }

    pub(crate) fn post(path: impl Into<String>) -> Self {
        Self::new(Method::POST, path)
    }

    pub(crate) fn put(path: impl Into<String>) -> Self {
        Self::new(Method::PUT, path)
    }

    pub(crate) fn delete(path: impl Into<String>) -> Self {
        Self::new(Method::DELETE, path)
    }

    fn new(method: Method, path: impl Into<String>) -> Self {
        Self {
            method,
            path: path.into(),
            body: None,
        }
    }

    /// Sends `body` with it.
    pub(crate) fn with(self, body: Json) -> Self {
        Self {
            body: Some(body),
            ..self
        }
    }
}

/// `text` as a part of a path or a query, percent-encoded.
pub(crate) fn encoded(text: &str) -> String {
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                encoded.push(char::from(byte));
            } else {
                write!(encoded, "%{byte:02X}").expect("a String takes every text");
            }
            encoded
        })
}

/// Asks controllers. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    agent: Agent,
    /// At least one, without a slash at the end.
    controllers: Vec<String>,
    token: String,
}

impl Client {
    /// # Errors
    /// When a file of the arguments cannot be read.
    pub(crate) fn new(args: &ControllerArgs) -> anyhow::Result<Self> {
        let mut config = Agent::config_builder()
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .http_status_as_error(false);
        if let Some(ca) = &args.ca {
            let pem = std::fs::read(ca)
                .with_context(|| format!("cannot read {} (--ca)", ca.display()))?;
            let certificate = Certificate::from_pem(&pem).context("--ca holds no certificate")?;
            let roots = RootCerts::new_with_certs(&[certificate]);
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        let token = args.token()?;
        let controllers = args.controller.iter();
        Ok(Self {
            agent: config.build().new_agent(),
            controllers: controllers
                .map(|url| url.trim_end_matches('/').to_owned())
                .collect(),
            token,
        })
    }

    /// The answer of the first controller that can be reached.
    ///
    /// # Errors
    /// When none can be reached, or the one that was reached refuses.
    pub(crate) fn ask(&self, call: &Call) -> anyhow::Result<Json> {
        let (response, url) = self.send(call, TIMEOUT)?;
        read(response, &url)
    }

    /// As [`Self::ask`], within `patience`, and with the `Date` of the answer.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn ask_dated(
        &self,
        call: &Call,
        patience: Duration,
    ) -> anyhow::Result<(Json, Option<String>)> {
        let (response, url) = self.send(call, patience)?;
        let date = response.headers().get("date");
        let date = date.and_then(|date| date.to_str().ok()).map(str::to_owned);
        Ok((read(response, &url)?, date))
    }

    /// The answer of the first controller that can be reached, as it comes.
    ///
    /// # Errors
    /// As [`Self::ask`].
    pub(crate) fn stream(&self, path: &str) -> anyhow::Result<impl BufRead> {
        let (response, _) = self.send(&Call::get(path), LONG)?;
        let body = accepted(response)?.into_body();
        let lines = body.into_with_config().limit(u64::MAX);
        Ok(BufReader::new(lines.reader()))
    }

    /// Asks one controller after the other, until one answers. `patience` is for the whole answer.
    fn send(&self, call: &Call, patience: Duration) -> anyhow::Result<(Response<Body>, String)> {
        let mut unreachable = Vec::new();
        for controller in &self.controllers {
            let url = format!("{controller}{}", call.path);
            let request = self.request(call, &url)?;
            let proxy = proxy::of(request.uri());
            let request = self.agent.configure_request(request).proxy(proxy);
            let request = request.timeout_global(Some(patience)).build();
            match self.agent.run(request) {
                Ok(response) => return Ok((response, url)),
                Err(error) if is_safe_elsewhere(&error, &call.method) => {
                    unreachable.push(format!("{controller}: {error}"));
                }
                Err(error) => {
                    return Err(error).with_context(|| format!("{controller} gave no answer"));
                }
            }
        }
        bail!(
            "cannot reach a controller (--controller): {}",
            unreachable.join("; ")
        )
    }

    fn request(&self, call: &Call, url: &str) -> anyhow::Result<Request<String>> {
        let mut request = Request::builder().method(call.method.clone()).uri(url);
        if !self.token.is_empty() {
            request = request.header("Authorization", format!("Bearer {}", self.token));
        }
        if call.body.is_some() {
            request = request.header("Content-Type", "application/json");
        }
        let body = call.body.as_ref().map_or_else(String::new, Json::to_string);
        request
            .body(body)
            .with_context(|| format!("--controller: {url} is no URL such as http://127.0.0.1:8080"))
    }
}

/// Whether the call can go to another controller: the first cannot have done it, or it changes nothing.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the list of what can be asked again is closed, that of what can go wrong is not"
)]
fn is_safe_elsewhere(error: &ureq::Error, method: &Method) -> bool {
    use ureq::Error::{ConnectionFailed, HostNotFound, Io, Timeout as TimedOut};
    match error {
        HostNotFound | ConnectionFailed | TimedOut(Timeout::Resolve | Timeout::Connect) => true,
        Io(error) if error.kind() == ErrorKind::ConnectionRefused => true,
        Io(_) | TimedOut(_) => *method == Method::GET,
        _ => false,
    }
}

fn read(response: Response<Body>, url: &str) -> anyhow::Result<Json> {
    let answer: Result<Json, _> = accepted(response)?.body_mut().read_json();
    answer.with_context(|| format!("{url} is not the API of a controller"))
}

/// `response`, if it is no refusal.
fn accepted(mut response: Response<Body>) -> anyhow::Result<Response<Body>> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let told: Json = response.body_mut().read_json().unwrap_or_default();
    let part = |name: &str| cell(&told, &format!("/error/{name}"));
    let (what, place, expected) = (part("what"), part("where"), part("expected"));
    if what.is_empty() {
        bail!(
            "what --controller names answers {status}, and not as the HTTP API of a controller does"
        );
    }
    let place = match status.as_u16() {
        400 | 404 if !place.is_empty() => format!("{place}: "),
        _ => String::new(),
    };
    let hint = match status.as_u16() {
        401 => format!("; give an API token of this controller by --token-file, or in {TOKEN}"),
        400 | 403 | 404 | 409 if !expected.is_empty() => format!("; expected {expected}"),
        _ => String::new(),
    };
    bail!("the controller refused with {status}: {place}{what}{hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_sent_once_unless_it_cannot_have_arrived() {
        let io = |kind: ErrorKind| ureq::Error::Io(kind.into());
        assert!(is_safe_elsewhere(
            &io(ErrorKind::ConnectionRefused),
            &Method::POST
        ));
        assert!(is_safe_elsewhere(
            &ureq::Error::HostNotFound,
            &Method::DELETE
        ));
        assert!(!is_safe_elsewhere(
            &io(ErrorKind::ConnectionReset),
            &Method::POST
        ));
        assert!(is_safe_elsewhere(
            &io(ErrorKind::ConnectionReset),
            &Method::GET
        ));
        let late = ureq::Error::Timeout(Timeout::RecvResponse);
        assert!(!is_safe_elsewhere(&late, &Method::DELETE));
    }
    #[test]
    fn what_a_path_cannot_hold_is_encoded() {
        assert_eq!(encoded("a/b c:ü"), "a%2Fb%20c%3A%C3%BC");
    }
}
