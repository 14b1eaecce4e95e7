//! What a node cannot change while it runs.

use super::Config;

/// The settings that a node keeps from its start to its end, as texts beside their keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Fixed(Vec<(&'static str, String)>);

impl Fixed {
    /// Those of `config`.
    pub(crate) fn of(config: &Config) -> Self {
        let files = config.tls.as_ref();
        Self(vec![
            ("node_id", config.node_id.to_string()),
            ("region", config.region.clone()),
            ("zone", config.zone.clone()),
            ("hostname", config.hostnames.join(" ")),
            ("state_dir", config.state_dir.display().to_string()),
            (
                "controller.endpoints",
                format!("{:?}", config.controller.endpoints),
            ),
            (
                "controller.certificate",
                format!("{:?}", config.controller.certificate),
            ),
            ("public_ips", format!("{:?}", config.public_ips)),
            ("tls", format!("{files:?} {:?}", config.fleet_tls)),
            ("shards", config.shards.to_string()),
            (
                "rfc5766_channel_numbers",
                config.rfc5766_channel_numbers.to_string(),
            ),
            ("short_cut", config.short_cut.to_string()),
            ("trusted_sources", format!("{:?}", config.trusted_sources)),
            ("stream", format!("{:?}", config.stream)),
            (
                "drain_deadline_seconds",
                format!("{:?}", config.drain_deadline),
            ),
            ("journal", format!("{:?}", config.journal)),
            ("metrics.address", format!("{:?}", config.metrics_address)),
            ("log.format", format!("{:?}", config.log.format)),
            (
                "telemetry.otlp_endpoint",
                format!("{:?}", config.otlp_endpoint),
            ),
            ("log.privacy", config.log.privacy.to_string()),
        ])
    }

    /// The keys whose values differ in `other`.
    pub(crate) fn differences<'a>(
        &'a self,
        other: &'a Self,
    ) -> impl Iterator<Item = &'static str> + 'a {
        let pairs = self.0.iter().zip(&other.0);
        pairs
            .filter(|(one, other)| one != other)
            .map(|((key, _), _)| *key)
    }
}
