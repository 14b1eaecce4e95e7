//! The labels of metrics, with the bounds of their values. No address, user, node or token is ever one.

/// What the values of each label are, whichever metric has it.
pub const METRIC_LABELS: &[(&str, &str)] = &[
    ("direction", "`to_peer`, `to_client`"),
    ("health", "the states of a node's health"),
    ("how", "`reset`, `goodbye`"),
    ("level", "`warn`, `out`"),
    ("listener", "`http`, `grpc`, `dns`"),
    ("operation", "the operations of the store: six"),
    ("outcome", "what can become of it, named in the code"),
    ("rcode", "response codes of DNS that the responder gives"),
    ("reason", "the reasons that are named in the code"),
    (
        "region",
        "the regions of nodes: as many as the operator names",
    ),
    ("resource", "`allocations`, `relayed_ports`"),
    (
        "route",
        "the paths of the API, as its document has them, and one for all others",
    ),
    ("rule", "the rules of abuse"),
    ("scope", "`fleet`"),
    ("stage", "the stages of a rollout"),
    ("state", "the states that are named in the code"),
    ("status", "the HTTP status codes that the API answers with"),
    (
        "tenant",
        "a hundred tenants by name, and `*` for the others",
    ),
    (
        "type",
        "the types of DNS records that the responder knows, and one for all others",
    ),
    ("verdict", "the verdicts of rules of abuse"),
    ("what", "the quotas by name"),
];

#[cfg(test)]
mod tests {
    use super::super::metric_reference;
    use super::*;

    #[test]
    fn the_values_of_every_label_are_told_of() {
        let reference = metric_reference();
        let mut used: Vec<&str> = reference
            .iter()
            .flat_map(|metric| metric.labels.iter().map(String::as_str))
            .collect();
        used.sort_unstable();
        used.dedup();
        let told: Vec<&str> = METRIC_LABELS.iter().map(|(label, _)| *label).collect();
        assert_eq!(used, told);
    }
}
