//! What a controller cannot change while it runs.

use super::Config;

impl Config {
    /// The keys by which `other` differs from what a controller was started with, and which it keeps until it is started again.
    pub(crate) fn kept_until_restart(&self, other: &Self) -> impl Iterator<Item = &'static str> {
        let keys = [
            ("state_dir", self.state_dir == other.state_dir),
            ("http.address", self.http.address == other.http.address),
            ("http.tls", self.http.tls == other.http.tls),
            ("http.cors_origins", self.cors_origins == other.cors_origins),
            (
                "http.trusted_proxies",
                self.trusted_proxies == other.trusted_proxies,
            ),
            ("grpc.address", self.grpc.address == other.grpc.address),
            ("grpc.tls", self.grpc.tls == other.grpc.tls),
            (
                "grpc.client_ca",
                self.relay_certificates == other.relay_certificates,
            ),
            ("region", self.region == other.region),
            ("relay_ports", self.ports == other.ports),
            (
                "credentials.ttl_seconds",
                self.credential_ttl == other.credential_ttl,
            ),
            ("probe", self.probe == other.probe),
            ("store", self.store == other.store),
            ("lists", self.lists == other.lists),
            ("dns", self.dns == other.dns),
            ("acme", self.acme == other.acme),
            ("matrix", self.matrix == other.matrix),
            ("controller", self.controller == other.controller),
            (
                "secrets.rotate_every_seconds",
                self.rotate_secrets_every == other.rotate_secrets_every,
            ),
            ("webhooks", self.webhooks == other.webhooks),
            ("privacy", self.privacy == other.privacy),
            ("log.format", self.log.format == other.log.format),
            (
                "telemetry.otlp_endpoint",
                self.otlp_endpoint == other.otlp_endpoint,
            ),
        ];
        let differing = keys.into_iter().filter(|(_, same)| !same);
        differing.map(|(key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Config, RawConfig};

    #[test]
    fn a_listener_that_changes_is_named_by_its_key_and_the_level_of_the_log_is_not() {
        let config = |change: fn(&mut RawConfig)| {
            let mut raw = RawConfig::default();
            change(&mut raw);
            Config::try_from(raw).expect("a good configuration")
        };
        let before = config(|_| {});
        let after = config(|raw| {
            raw.http.address = "127.0.0.1:1".to_owned();
            raw.grpc.address = "127.0.0.1:2".to_owned();
            raw.log.filter = "debug".to_owned();
            raw.realm = "example.org".to_owned();
        });
        let keys: Vec<_> = before.kept_until_restart(&after).collect();
        assert_eq!(keys, ["http.address", "grpc.address"]);
    }
}
