//! A configuration that is read again while the node runs.

use std::sync::atomic::{AtomicU64, Ordering};

use turnfleet_turn::policy::RelayedHost;

use super::{BoundListener, Node, NodeError, bound_listeners, direct};
use crate::addressing::Addressing;
use crate::config::{Config, Fixed, PublicIp};
use crate::machine::Machine;
use crate::policy::LocalPolicy;

/// Configurations that were read again.
#[derive(Debug)]
pub(super) struct Reloads {
    /// What the node started with.
    started_with: Fixed,
    public_ips: Vec<PublicIp>,
    /// Where relayed sockets are opened.
    hosts: Vec<RelayedHost>,
    /// Whether TLS is passed on to HTTPS servers.
    passes_on: bool,
    pub(super) good: AtomicU64,
    pub(super) refused: AtomicU64,
}

impl Reloads {
    pub(super) fn of(config: &Config, hosts: Vec<RelayedHost>) -> Self {
        Self {
            started_with: Fixed::of(config),
            public_ips: config.public_ips.clone(),
            hosts,
            passes_on: passes_on(config),
            good: AtomicU64::new(0),
            refused: AtomicU64::new(0),
        }
    }

    /// Names what waits for the next start.
    fn name_what_waits(&self, config: &Config, addressing: &Addressing) {
        let waits = |key: &str| tracing::warn!(key, "takes effect at the next start");
        self.started_with
            .differences(&Fixed::of(config))
            .for_each(waits);
        if passes_on(config) && !self.passes_on {
            waits("listeners.https_backend");
        }
        if addressing.hosts != self.hosts {
            let hosts = &self.hosts;
            tracing::warn!(
                ?hosts,
                "relayed addresses stay as they are until the next start"
            );
        }
    }
}

impl Node {
    /// Takes over what `config` says of listeners, limits, nonces and low ports of peers, while allocations live: those that
    /// came by a listener that goes included. What else differs from the start is named in the log and waits for the next one.
    ///
    /// # Errors
    /// When a listener cannot be opened, or the running policy does not fit; everything stays as it was then.
    pub fn reload(&self, config: &Config) -> Result<(), NodeError> {
        // External addresses are those of the start.
        let addressed = Config {
            public_ips: self.reloads.public_ips.clone(),
            ..config.clone()
        };
        let addressing = Addressing::resolve(&addressed, &Machine::read())?;
        let mut listeners = addressing.listeners.iter();
        if let Some(listener) = listeners.find(|it| self.certificate.is_none() && it.takes_tls()) {
            return Err(NodeError::NoCertificate(Box::new(listener.clone())));
        }
        let change = |local: &mut LocalPolicy| {
            local.limits = config.limits;
            local.nonce_lifetime = config.nonce_lifetime;
            local.tcp_low_peer_ports = config.tcp_low_peer_ports;
            for listener in &addressing.listeners {
                let own = listener.address.ip();
                if !local.own_ips.contains(&own) {
                    local.own_ips.push(own);
                }
            }
        };
        let wrong = |error: &dyn std::error::Error| NodeError::Reload(error.to_string());
        let before = self.serving.reconfigure(change);
        let before = before.map_err(|error| wrong(&error))?;
        match self.serving.listen(&addressing.listeners) {
            Ok(Some(opened)) => {
                self.listen_on(bound_listeners(&opened, &addressing));
            }
            Ok(None) => tracing::warn!("listeners stay as they are until there is a policy"),
            Err(error) => {
                let back = self.serving.reconfigure(|local| *local = before);
                back.map_err(|error| wrong(&error))?;
                return Err(error.into());
            }
        }
        self.reloads.name_what_waits(config, &addressing);
        Ok(())
    }

    /// The controller hears of it where it concerns clients.
    fn listen_on(&self, listeners: Vec<BoundListener>) {
        let introduced = direct(&listeners);
        self.listeners.send_replace(listeners);
        self.introduced.send_if_modified(|known| {
            let changed = *known != introduced;
            *known = introduced;
            changed
        });
    }

    /// Counts a configuration that was read again.
    pub fn reloaded(&self, good: bool) {
        let counter = match good {
            true => &self.reloads.good,
            false => &self.reloads.refused,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn passes_on(config: &Config) -> bool {
    let mut listeners = config.listeners.iter();
    listeners.any(|listener| listener.front.https_backend.is_some())
}
