//! Questions to a controller, and to the metrics of anything.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;

use crate::client::Credential;

/// The API token of the fleet's operator.
pub(crate) const TOKEN: &str = "the-token-of-the-operator";

/// An HTTP server that answers soon or not at all. Clones share their connections.
#[derive(Clone)]
pub(crate) struct Api {
    base: String,
    agent: ureq::Agent,
}

/// A status with the answer's body, or why there is none.
pub(crate) type Answer = Result<(u16, Value), String>;

impl Api {
    pub(crate) fn new(address: &str) -> Self {
        let config = ureq::Agent::config_builder()
            .proxy(None)
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(5)))
            .build();
        Self {
            base: format!("http://{address}"),
            agent: config.into(),
        }
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        let request = self.agent.get(format!("{}{path}", self.base));
        let request = request.header("Authorization", format!("Bearer {TOKEN}"));
        read(request.call())
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self.agent.post(format!("{}{path}", self.base));
        let request = request.header("Authorization", format!("Bearer {TOKEN}"));
        read(request.send_json(body))
    }

    pub(crate) fn put(&self, path: &str, body: &Value) -> Answer {
        let request = self.agent.put(format!("{}{path}", self.base));
        let request = request.header("Authorization", format!("Bearer {TOKEN}"));
        read(request.send_json(body))
    }

    /// What is asked for, where the answer is 200.
    pub(crate) fn ask(&self, path: &str) -> Result<Value, String> {
        match self.get(path)? {
            (200, body) => Ok(body),
            (status, body) => Err(format!("{path}: {status} {body}")),
        }
    }

    /// The nodes by name.
    pub(crate) fn nodes(&self) -> Result<Vec<Value>, String> {
        let mut answer = self.ask("/v1/nodes")?;
        let nodes = answer["nodes"].take();
        nodes.as_array().cloned().ok_or_else(|| nodes.to_string())
    }

    /// One node; `null` where there is none.
    pub(crate) fn node(&self, name: &str) -> Value {
        let found = self.ask(&format!("/v1/nodes/{name}"));
        found.unwrap_or(Value::Null)
    }

    /// The names of the relays that lists may hold.
    pub(crate) fn listed(&self) -> Result<BTreeSet<String>, String> {
        let nodes = self.nodes()?.into_iter();
        let listed = nodes.filter(|node| node["listed"] == true);
        Ok(listed.map(|node| text(&node["node"])).collect())
    }

    /// A credential, and where the list that comes with it leads by UDP, the first choice first.
    pub(crate) fn credential(&self, user: &str) -> Result<(Credential, Vec<SocketAddr>), String> {
        let path = format!("/turn?service=turn&transports=udp&count=8&username={user}");
        let answer = self.ask(&path)?;
        let uris = answer["uris"]
            .as_array()
            .ok_or_else(|| answer.to_string())?;
        let server = |uri: &Value| -> SocketAddr {
            let uri = text(uri);
            let place = uri.trim_start_matches("turn:").split('?').next().unwrap();
            place.parse().unwrap()
        };
        let credential = Credential {
            username: text(&answer["username"]),
            password: text(&answer["password"]),
        };
        Ok((credential, uris.iter().map(server).collect()))
    }

    /// The sum of a metric over the label sets that hold `label`; `None` where nobody answers.
    pub(crate) fn metric(&self, name: &str, label: &str) -> Option<f64> {
        let request = self.agent.get(format!("{}/metrics", self.base)).call();
        let page = request.ok()?.body_mut().read_to_string().ok()?;
        let values = page.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = rest.rsplit_once(' ')?;
            let whole = labels.is_empty() || labels.starts_with('{');
            (whole && labels.contains(label)).then(|| value.parse::<f64>().unwrap())
        });
        Some(values.sum())
    }
}

fn read(answer: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut answer = answer.map_err(|error| error.to_string())?;
    let status = answer.status().as_u16();
    let body = answer.body_mut().read_to_string();
    let body = body.map_err(|error| error.to_string())?;
    Ok((status, serde_json::from_str(&body).unwrap_or(Value::Null)))
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
