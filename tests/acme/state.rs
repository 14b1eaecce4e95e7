//! What the authority knows, and how it answers requests.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use super::https::{Answer, Request};
use super::issue::Issuer;
use super::jose::{self, Key, Signed};
use super::{Manner, Seen, validation};

/// Everything, in memory.
pub(super) struct State {
    base: String,
    issuer: Issuer,
    pub(super) manner: Manner,
    pub(super) seen: Seen,
    nonces: BTreeSet<String>,
    /// By URL.
    accounts: BTreeMap<String, Key>,
    orders: Vec<Order>,
    names: Vec<Authorization>,
}

struct Order {
    names: Vec<String>,
    /// The places of its authorizations.
    authorizations: Vec<usize>,
    chain: Option<String>,
}

struct Authorization {
    name: String,
    token: String,
    /// Of the account that ordered.
    thumb: String,
    status: &'static str,
    /// The challenge that is to be looked at.
    waiting: Option<String>,
    error: Option<String>,
}

/// A problem document (RFC 7807) with its status.
struct Problem(u16, &'static str, String);

impl State {
    pub(super) fn new(base: String, issuer: Issuer, manner: Manner) -> Self {
        Self {
            base,
            issuer,
            manner,
            seen: Seen::default(),
            nonces: BTreeSet::new(),
            accounts: BTreeMap::new(),
            orders: Vec::new(),
            names: Vec::new(),
        }
    }

    fn nonce(&mut self) -> String {
        let mut bytes = [0; 16];
        ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes).unwrap();
        let nonce = jose::encode(bytes);
        self.nonces.insert(nonce.clone());
        nonce
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.base)
    }

    fn directory(&self) -> Value {
        json!({
            "newNonce": self.url("/nonce"),
            "newAccount": self.url("/account"),
            "newOrder": self.url("/order"),
            "revokeCert": self.url("/revoke"),
            "keyChange": self.url("/key"),
        })
    }

    /// The key of whoever has signed the request, and what it says.
    fn authenticate(&mut self, request: &Request) -> Result<(Key, Signed), Problem> {
        let malformed = |text: &str| Problem(400, "malformed", text.to_owned());
        let kind = request.headers.get("content-type").map(String::as_str);
        if kind != Some("application/jose+json") {
            return Err(malformed("another content type"));
        }
        let signed = Signed::read(&request.body).ok_or_else(|| malformed("no signed request"))?;
        let nonce = signed.header["nonce"].as_str().unwrap_or("");
        if !self.nonces.remove(nonce) {
            return Err(Problem(
                400,
                "badNonce",
                "not a nonce of this server".to_owned(),
            ));
        }
        if signed.header["url"] != self.url(&request.path) {
            return Err(Problem(
                401,
                "unauthorized",
                "signed for another URL".to_owned(),
            ));
        }
        let key = match (&signed.header["jwk"], signed.header["kid"].as_str()) {
            (jwk, None) if request.path == "/account" => Key::read(jwk),
            (Value::Null, Some(account)) => self.accounts.get(account).cloned(),
            _ => None,
        };
        let unknown = || {
            Problem(
                400,
                "accountDoesNotExist",
                "nobody is known by it".to_owned(),
            )
        };
        let key = key.ok_or_else(unknown)?;
        match signed.is_of(&key) {
            true => Ok((key, signed)),
            false => Err(malformed("the signature is wrong")),
        }
    }

    fn open_account(&mut self, key: Key, payload: &Value) -> Result<Answer, Problem> {
        if payload["termsOfServiceAgreed"] != true {
            return Err(Problem(403, "userActionRequired", "the terms".to_owned()));
        }
        let known = self.accounts.iter().find(|(_, known)| **known == key);
        let url = match known {
            Some((url, _)) => url.clone(),
            None => {
                self.seen.accounts += 1;
                self.url(&format!("/account/{}", self.seen.accounts))
            }
        };
        self.accounts.insert(url.clone(), key);
        let body = json!({"status": "valid"});
        Ok(answer_with(201, &body, vec![("Location", url)]))
    }

    fn open_order(&mut self, key: &Key, payload: &Value) -> Result<Answer, Problem> {
        if let Some(kind) = self.manner.refuses {
            return Err(Problem(429, kind, "not now".to_owned()));
        }
        let names = payload["identifiers"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let names = names.iter().filter_map(|it| it["value"].as_str());
        let names: Vec<_> = names.map(str::to_owned).collect();
        if names.is_empty() {
            return Err(Problem(400, "malformed", "no names".to_owned()));
        }
        self.seen.orders += 1;
        let mut authorizations = Vec::new();
        for name in &names {
            authorizations.push(self.names.len());
            let token = self.nonce();
            self.nonces.remove(&token);
            self.names.push(Authorization {
                name: name.clone(),
                token,
                thumb: key.thumb.clone(),
                status: "pending",
                waiting: None,
                error: None,
            });
        }
        self.orders.push(Order {
            names,
            authorizations,
            chain: None,
        });
        let number = self.orders.len() - 1;
        let url = self.url(&format!("/order/{number}"));
        let body = self.order(number);
        Ok(answer_with(201, &body, vec![("Location", url)]))
    }

    fn order(&self, number: usize) -> Value {
        let order = &self.orders[number];
        let names = order.names.iter();
        let names: Vec<_> = names
            .map(|name| json!({"type": "dns", "value": name}))
            .collect();
        let parts = order.authorizations.iter();
        let urls: Vec<_> = parts
            .map(|part| self.url(&format!("/authorization/{part}")))
            .collect();
        let all = |status| {
            let mut parts = order.authorizations.iter();
            parts.all(|part| self.names[*part].status == status)
        };
        let any_invalid = order
            .authorizations
            .iter()
            .any(|part| self.names[*part].status == "invalid");
        let status = match (&order.chain, any_invalid, all("valid")) {
            (Some(_), _, _) => "valid",
            (None, true, _) => "invalid",
            (None, false, true) => "ready",
            (None, false, false) => "pending",
        };
        let mut body = json!({
            "status": status,
            "identifiers": names,
            "authorizations": urls,
            "finalize": self.url(&format!("/finalize/{number}")),
        });
        if order.chain.is_some() {
            body["certificate"] = self.url(&format!("/certificate/{number}")).into();
        }
        body
    }

    fn challenge(&self, number: usize, kind: &str) -> Value {
        let authorization = &self.names[number];
        let mut body = json!({
            "type": kind,
            "url": self.url(&format!("/challenge/{number}/{kind}")),
            "token": authorization.token,
            "status": match (authorization.status, &authorization.waiting) {
                ("pending", Some(_)) => "processing",
                (status, _) => status,
            },
        });
        if let Some(error) = &authorization.error {
            let kind = "urn:ietf:params:acme:error:incorrectResponse";
            body["error"] = json!({"type": kind, "detail": error});
        }
        body
    }

    fn authorization(&self, number: usize) -> Value {
        let authorization = &self.names[number];
        let offers = self.manner.offers.iter();
        let challenges: Vec<_> = offers.map(|kind| self.challenge(number, kind)).collect();
        json!({
            "identifier": {"type": "dns", "value": authorization.name},
            "status": match authorization.status {
                "processing" => "pending",
                status => status,
            },
            "challenges": challenges,
        })
    }

    fn finalize(&mut self, number: usize, payload: &Value) -> Result<Value, Problem> {
        if self.order(number)["status"] != "ready" {
            return Err(Problem(
                403,
                "orderNotReady",
                "answers are missing".to_owned(),
            ));
        }
        let request = payload["csr"].as_str().and_then(jose::decode);
        let names = self.orders[number].names.clone();
        let chain = request.and_then(|it| self.issuer.sign(&it, &names, &self.manner));
        let bad = || Problem(400, "badCSR", "not signed, or other names".to_owned());
        self.orders[number].chain = Some(chain.ok_or_else(bad)?);
        self.seen.certificates += 1;
        Ok(self.order(number))
    }
}

/// Answers one request.
pub(super) fn answer(state: &Arc<Mutex<State>>, request: &Request) -> Answer {
    let mut known = state.lock().unwrap();
    let mut answer = match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/directory") => answer_with(200, &known.directory(), Vec::new()),
        ("HEAD" | "GET", "/nonce") => answer_with(200, &Value::Null, Vec::new()),
        ("POST", _) => post(&mut known, request).unwrap_or_else(answer_problem),
        _ => answer_problem(Problem(404, "malformed", "nothing is here".to_owned())),
    };
    let nonce = known.nonce();
    drop(known);
    look_again(state);
    answer.headers.push(("Replay-Nonce", nonce));
    answer
}

fn post(known: &mut State, request: &Request) -> Result<Answer, Problem> {
    let (key, signed) = known.authenticate(request)?;
    let payload = signed.payload;
    let mut parts = request.path.trim_start_matches('/').split('/');
    let kind = parts.next().unwrap_or("");
    let number = parts.next().map(str::parse::<usize>);
    let missing = || Problem(404, "malformed", "nothing is here".to_owned());
    let Some(number) = number else {
        return match kind {
            "account" => known.open_account(key, &payload),
            "order" => known.open_order(&key, &payload),
            _ => Err(missing()),
        };
    };
    let number = number.map_err(|_| missing())?;
    let count = match kind {
        "order" | "finalize" | "certificate" => known.orders.len(),
        "authorization" | "challenge" => known.names.len(),
        _ => 0,
    };
    if number >= count {
        return Err(missing());
    }
    let body = match kind {
        "order" => known.order(number),
        "authorization" => known.authorization(number),
        "finalize" => known.finalize(number, &payload)?,
        "challenge" => {
            let challenge = parts.next().unwrap_or("").to_owned();
            let authorization = &mut known.names[number];
            if authorization.status == "pending" && authorization.waiting.is_none() {
                authorization.waiting = Some(challenge.clone());
                known.seen.asked += 1;
            }
            known.challenge(number, &challenge)
        }
        _ => {
            let chain = known.orders[number].chain.clone().ok_or_else(missing)?;
            return Ok(Answer {
                status: 200,
                headers: vec![(
                    "Content-Type",
                    "application/pem-certificate-chain".to_owned(),
                )],
                body: chain,
            });
        }
    };
    Ok(answer_with(200, &body, Vec::new()))
}

/// Looks for the answers that it was told of, unless it puts that off.
pub(super) fn look_again(state: &Arc<Mutex<State>>) {
    let mut known = state.lock().unwrap();
    if known.manner.waits {
        return;
    }
    let manner = known.manner.clone();
    let waiting = known.names.iter().enumerate();
    let waiting: Vec<_> = waiting
        .filter(|(_, it)| it.status == "pending")
        .filter_map(|(number, it)| Some((number, it.waiting.clone()?)))
        .collect();
    for (number, challenge) in waiting {
        let authorization = &mut known.names[number];
        // Once is enough.
        authorization.status = "processing";
        let (name, token) = (authorization.name.clone(), authorization.token.clone());
        let text = format!("{token}.{}", authorization.thumb);
        let (shared, manner) = (Arc::clone(state), manner.clone());
        thread::spawn(move || {
            let found = match challenge.as_str() {
                _ if manner.believes => Ok(()),
                "tls-alpn-01" => validation::tls_alpn(manner.place, &name, &text),
                "http-01" => validation::http(manner.place, &name, &token, &text),
                other => Err(format!("{other} is not offered")),
            };
            let mut known = shared.lock().unwrap();
            match found {
                Ok(()) => {
                    known.seen.right += 1;
                    known.names[number].status = "valid";
                }
                Err(error) => {
                    known.seen.wrong += 1;
                    known.names[number].status = "invalid";
                    known.names[number].error = Some(error);
                }
            }
        });
    }
}

fn answer_with(status: u16, body: &Value, mut headers: Vec<(&'static str, String)>) -> Answer {
    headers.push(("Content-Type", "application/json".to_owned()));
    Answer {
        status,
        headers,
        body: body.to_string(),
    }
}

fn answer_problem(Problem(status, kind, detail): Problem) -> Answer {
    let kind = format!("urn:ietf:params:acme:error:{kind}");
    let body = json!({"type": kind, "detail": detail, "status": status});
    Answer {
        status,
        headers: vec![("Content-Type", "application/problem+json".to_owned())],
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::*;

    const BASE: &str = "https://localhost:1";

    /// A client of the authority, as it is asked without a network.
    struct Client {
        state: Arc<Mutex<State>>,
        key: EcdsaKeyPair,
        account: Option<String>,
    }

    impl Client {
        fn new() -> Self {
            let manner = Manner {
                place: "127.0.0.1:9".parse().unwrap(),
                offers: &["http-01"],
                backdate: Duration::ZERO,
                life: Duration::from_secs(60),
                refuses: None,
                waits: true,
                believes: false,
            };
            let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
            let random = SystemRandom::new();
            let bytes = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
            let state = State::new(BASE.to_owned(), Issuer::new(), manner);
            Self {
                state: Arc::new(Mutex::new(state)),
                key: EcdsaKeyPair::from_pkcs8(algorithm, bytes.as_ref(), &random).unwrap(),
                account: None,
            }
        }

        fn nonce(&self) -> String {
            self.state.lock().unwrap().nonce()
        }

        /// What is answered to a request that is signed for `url`.
        fn post(&self, path: &str, url: &str, nonce: &str, payload: &Value) -> Answer {
            let point = self.key.public_key().as_ref();
            let (x, y) = (jose::encode(&point[1..33]), jose::encode(&point[33..]));
            let mut header = json!({"alg": "ES256", "nonce": nonce, "url": format!("{BASE}{url}")});
            match &self.account {
                Some(account) => header["kid"] = account.as_str().into(),
                None => header["jwk"] = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y}),
            }
            let protected = jose::encode(header.to_string());
            let payload = jose::encode(payload.to_string());
            let input = format!("{protected}.{payload}");
            let signature = self.key.sign(&SystemRandom::new(), input.as_bytes());
            let signature = jose::encode(signature.unwrap());
            let body = json!({"protected": protected, "payload": payload, "signature": signature});
            let kind = (
                "content-type".to_owned(),
                "application/jose+json".to_owned(),
            );
            let request = Request {
                method: "POST".to_owned(),
                path: path.to_owned(),
                headers: BTreeMap::from([kind]),
                body: body.to_string().into_bytes(),
            };
            answer(&self.state, &request)
        }
    }

    #[test]
    fn a_request_counts_once_for_its_own_place_and_a_known_account() {
        let mut client = Client::new();
        let terms = json!({"termsOfServiceAgreed": true});
        let refused = client.post("/account", "/account", &client.nonce(), &json!({}));
        assert_eq!(refused.status, 403);
        let nonce = client.nonce();
        let opened = client.post("/account", "/account", &nonce, &terms);
        assert_eq!(opened.status, 201);
        let again = client.post("/account", "/account", &nonce, &terms);
        assert!(again.status == 400 && again.body.contains("badNonce"));

        let order = json!({"identifiers": [{"type": "dns", "value": "turn.example.org"}]});
        let stranger = client.post("/order", "/order", &client.nonce(), &order);
        assert!(stranger.body.contains("accountDoesNotExist"));
        let mut headers = opened.headers.into_iter();
        let location = headers.find(|(name, _)| *name == "Location");
        client.account = location.map(|(_, url)| url);
        let elsewhere = client.post("/order", "/account", &client.nonce(), &order);
        assert_eq!(elsewhere.status, 401);
        let ordered = client.post("/order", "/order", &client.nonce(), &order);
        assert!(ordered.status == 201 && ordered.body.contains("pending"));
        let hasty = client.post("/finalize/0", "/finalize/0", &client.nonce(), &json!({}));
        assert!(hasty.status == 403 && hasty.body.contains("orderNotReady"));
        let missing = client.post("/order/1", "/order/1", &client.nonce(), &json!({}));
        assert_eq!(missing.status, 404);
        let seen = client.state.lock().unwrap().seen;
        assert_eq!((seen.accounts, seen.orders, seen.certificates), (1, 1, 0));
    }
}
