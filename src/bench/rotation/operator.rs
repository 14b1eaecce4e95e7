//! What an operator and an application ask of the controller.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value as Json, json};
use turnfleet_proto::TurnUri;
use turnfleet_proto::credentials::EphemeralCredential;

use crate::fleet::call::{Call, Client, ControllerArgs, encoded};

/// Asks for both. Clones share their connections.
#[derive(Clone, Debug)]
pub(super) struct Operator(Arc<Client>);

/// A generation of the secret, as the controller shows it.
#[derive(Clone, Debug)]
pub(super) struct Secret {
    pub(super) id: u64,
    pub(super) state: String,
    pub(super) minted: bool,
    /// Whether every relay that serves knows of it.
    pub(super) is_known: bool,
}

impl Operator {
    /// # Errors
    /// When a file of the arguments cannot be read.
    pub(super) fn new(args: &ControllerArgs) -> Result<Self> {
        Ok(Self(Arc::new(Client::new(args)?)))
    }

    /// The answer, which threads of their own wait for.
    async fn ask(&self, call: Call) -> Result<Json> {
        let client = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || client.ask(&call)).await?
    }

    /// A credential for `user`, and the relays that it is for.
    ///
    /// # Errors
    /// When no controller answers, or the answer has no relay.
    pub(super) async fn credential(
        &self,
        user: &str,
    ) -> Result<(EphemeralCredential, Vec<SocketAddr>)> {
        let path = format!(
            "/turn?service=turn&transports=udp&names=turns&username={}",
            encoded(user)
        );
        let answer = self.ask(Call::get(path)).await?;
        let text = |name: &str| {
            let text = answer[name].as_str();
            let text = text.with_context(|| format!("a credential without {name}"));
            text.map(str::to_owned)
        };
        let (username, password) = (text("username")?, text("password")?);
        let uris = answer["uris"].as_array().into_iter().flatten();
        let relays: Vec<_> = uris.filter_map(address).collect();
        ensure!(!relays.is_empty(), "a list without a relay's address");
        let credential = EphemeralCredential {
            username,
            password,
            expires_at: 0,
        };
        Ok((credential, relays))
    }

    /// Where each relay that lists may name takes UDP.
    ///
    /// # Errors
    /// When no controller answers.
    pub(super) async fn relays(&self) -> Result<Vec<SocketAddr>> {
        let answer = self.ask(Call::get("/v1/nodes")).await?;
        let nodes = answer["nodes"].as_array().into_iter().flatten();
        let listed = nodes.filter(|node| node["listed"] == true);
        let place = |node: &Json| -> Option<SocketAddr> {
            let mut listeners = node["listeners"].as_array()?.iter();
            let udp = listeners.find(|it| it["transport"] == "udp" && it["works"] == true);
            udp?["address"].as_str()?.parse().ok()
        };
        Ok(listed.filter_map(place).collect())
    }

    /// Every generation.
    ///
    /// # Errors
    /// When no controller answers.
    pub(super) async fn secrets(&self) -> Result<Vec<Secret>> {
        let answer = self.ask(Call::get("/v1/secrets")).await?;
        let secrets = answer["secrets"].as_array().into_iter().flatten();
        let read = |secret: &Json| {
            Some(Secret {
                id: secret["id"].as_u64()?,
                state: secret["state"].as_str()?.to_owned(),
                minted: secret["minted"] == true,
                is_known: secret["acknowledged"] == secret["of"] && secret["of"] != 0,
            })
        };
        Ok(secrets.filter_map(read).collect())
    }

    /// Begins a rotation; gives the generation that is staged.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) async fn rotate(&self) -> Result<u64> {
        let call = Call::post("/v1/secrets/rotate").with(json!({}));
        id(&self.ask(call).await?)
    }

    /// Pins `secret`; gives its generation.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) async fn pin(&self, secret: &str) -> Result<u64> {
        let call = Call::post("/v1/secrets/pin").with(json!({ "secret": secret }));
        id(&self.ask(call).await?)
    }

    /// Revokes a generation; allocations that were made with it live on.
    ///
    /// # Errors
    /// When the controller refuses.
    pub(super) async fn revoke(&self, id: u64) -> Result<()> {
        let call = Call::post(format!("/v1/secrets/{id}/revoke"));
        self.ask(call.with(json!({}))).await.map(drop)
    }
}

fn id(answer: &Json) -> Result<u64> {
    answer["id"]
        .as_u64()
        .context("the controller names no generation")
}

/// The address of a URI; `None` where it has a name.
fn address(uri: &Json) -> Option<SocketAddr> {
    let uri: TurnUri = uri.as_str()?.parse().ok()?;
    let port = uri.port.unwrap_or_else(|| uri.scheme.default_port());
    Some(SocketAddr::new(uri.host.parse().ok()?, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stands_in_a_uri() {
        let found = |uri: &str| address(&json!(uri));
        let v6 = "turn:[2001:db8::1]:3479?transport=udp";
        assert_eq!(found(v6), "[2001:db8::1]:3479".parse().ok());
        assert_eq!(found("turn:192.0.2.1"), "192.0.2.1:3478".parse().ok());
        assert_eq!(found("turn:relay.example.org"), None);
    }
}
