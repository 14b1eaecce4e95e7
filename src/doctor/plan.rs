//! What there is to look at: the arguments, and the files that they name, read before anything is looked at.

use anyhow::{Result, ensure};
use turnfleet_proto::credentials::SharedSecret;
use turnfleet_proto::{PortRange, TurnUri};

use super::Args;
use super::homeserver::Homeserver;
use super::identity::Source;
use super::tls::Trust;
use crate::fleet::call::{Client, ControllerArgs};

/// Everything that a run needs.
pub(super) struct Plan {
    /// The URIs of the arguments.
    pub(super) uris: Vec<TurnUri>,
    /// The secret of the arguments, or of the environment.
    pub(super) secret: Option<SharedSecret>,
    /// The username and password of the arguments.
    pub(super) user: Option<(String, String)>,
    /// The homeserver.
    pub(super) homeserver: Option<Homeserver>,
    /// The controller.
    pub(super) controller: Option<Client>,
    /// Whom to trust.
    pub(super) trust: Trust,
    /// The relay ports of this machine, where it is the relay.
    pub(super) host: Option<PortRange>,
}

impl Plan {
    /// Reads every file.
    ///
    /// # Errors
    /// When there is nothing to look at, or a file cannot be read.
    pub(super) fn new(args: &Args) -> Result<Self> {
        let has_work = !args.uris.is_empty()
            || args.homeserver.is_some()
            || !args.controller.is_empty()
            || args.on_relay;
        ensure!(
            has_work,
            "there is nothing to look at: name a TURN URI, --homeserver, --controller or --on-relay"
        );
        let homeserver = args.homeserver.as_deref().map(Homeserver::read);
        let controller = (!args.controller.is_empty()).then(|| {
            Client::new(&ControllerArgs::new(
                args.controller.clone(),
                args.token_file.clone(),
                args.ca.clone(),
            ))
        });
        let ports = args.relay_ports.unwrap_or(PortRange::DYNAMIC);
        Ok(Self {
            uris: args.uris.clone(),
            secret: args.secret.read()?,
            user: args.username.clone().zip(args.password.clone()),
            homeserver: homeserver.transpose()?,
            controller: controller.transpose()?,
            trust: Trust::new(args.ca.as_deref())?,
            host: args.on_relay.then_some(ports),
        })
    }

    /// As whom to ask, by what is known without asking anybody: what a person has said goes before what a homeserver would
    /// say.
    pub(super) fn source(&self) -> Option<Source> {
        if let Some((username, password)) = &self.user {
            return Some(fixed(username, password));
        }
        let of_homeserver = || self.homeserver.as_ref()?.secret().ok().flatten();
        if let Some(secret) = self.secret.clone().or_else(of_homeserver) {
            return Some(Source::Secret(secret));
        }
        let (username, password) = self.homeserver.as_ref()?.user()?;
        Some(fixed(username, password))
    }
}

fn fixed(username: &str, password: &str) -> Source {
    Source::Fixed {
        username: username.to_owned(),
        password: password.to_owned(),
    }
}
