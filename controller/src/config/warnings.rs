//! What is allowed in a configuration, and seldom meant.

use turnfleet_proto::ConfigWarning;
use turnfleet_turn::peer_filter::{PeerFilter, PeerRules};

use super::{Config, ProbeMode};
use crate::fleet::WEAK_SECRET_BYTES;

impl Config {
    /// What an operator should know of this configuration before it is served.
    #[must_use]
    pub fn warnings(&self) -> Vec<ConfigWarning> {
        let mut warnings = Vec::new();
        let mut warn = |key: &str, message: String| {
            let key = key.to_owned();
            warnings.push(ConfigWarning { key, message });
        };
        let address = self.http.address;
        if self.http.tls.is_none() && !address.ip().is_loopback() {
            let message = format!(
                "API tokens and credentials cross the network in the clear, because {address} is no loopback address \
                 and http.tls is not set"
            );
            warn("http.address", message);
        }
        if self.probe.mode == ProbeMode::Off {
            let message = "relays are listed without a probe, by their control session alone";
            warn("probe.mode", message.to_owned());
        }
        let secret = self.shared_secret.as_ref();
        if let Some(secret) = secret.filter(|it| it.as_bytes().len() < WEAK_SECRET_BYTES) {
            let message = format!(
                "{} bytes are few enough to be guessed from one captured credential: take {WEAK_SECRET_BYTES} or more",
                secret.as_bytes().len()
            );
            warn("shared_secret", message);
        }
        if let Some(matrix) = self.matrix.as_ref().filter(|it| it.is_overheard()) {
            let message = format!(
                "access tokens of users cross the network in the clear, because {} is not https and not on this machine",
                matrix.homeserver
            );
            warn("matrix.homeserver", message);
        }
        for webhook in self.webhooks.iter().filter(|it| it.is_overheard()) {
            let message = format!(
                "events cross the network in the clear on their way to {:?}, which is not https and not on this machine",
                webhook.name
            );
            warn("webhooks.url", message);
        }
        self.vain_networks(|message| warn("peers.allow", message));
        warnings
    }

    /// Says which networks of `peers.allow` open nothing, because no operator can open them.
    fn vain_networks(&self, mut warn: impl FnMut(String)) {
        let filter = PeerFilter::new(PeerRules {
            danger_allow_loopback: self.policy.danger_allow_loopback,
            ..PeerRules::default()
        });
        let closed = |ip| {
            let refused = filter.check_ip(ip).err();
            refused.filter(|rule| rule.permitted_by(ip).is_none())
        };
        for network in &self.policy.allow_peers {
            let (first, last) = (closed(network.network()), closed(network.broadcast()));
            if let Some(rule) = first.filter(|_| first == last) {
                let rule = rule.name();
                warn(format!(
                    "{network} opens nothing: such peers are always refused ({rule})"
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::RawConfig;

    #[test]
    fn what_weakens_a_fleet_is_said() {
        let keys = |change: &dyn Fn(&mut RawConfig)| {
            let mut raw = RawConfig::default();
            change(&mut raw);
            let warnings = Config::try_from(raw).unwrap().warnings();
            let keys: Vec<_> = warnings.into_iter().map(|warning| warning.key).collect();
            keys.join(" ")
        };
        assert_eq!(keys(&|_| {}), "");
        assert_eq!(
            keys(&|raw| raw.http.address = "0.0.0.0:8080".into()),
            "http.address"
        );
        assert_eq!(keys(&|raw| raw.probe.mode = ProbeMode::Off), "probe.mode");
        assert_eq!(
            keys(&|raw| raw.shared_secret = Some("north".into())),
            "shared_secret"
        );
        assert_eq!(
            keys(&|raw| raw.matrix.homeserver = Some("http://synapse:8008".into())),
            "matrix.homeserver"
        );
        assert_eq!(
            keys(&|raw| raw.matrix.homeserver = Some("http://[::1]:8008".into())),
            ""
        );
        let vain =
            |raw: &mut RawConfig| raw.peers.allow = vec!["127.0.0.0/8".into(), "10.0.0.0/8".into()];
        assert_eq!(keys(&vain), "peers.allow");
    }
}
