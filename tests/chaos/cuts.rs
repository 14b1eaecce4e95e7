//! Cuts in the network of a fleet, by nftables.
//!
//! Every process of the fleet runs under a group of its own. What it sends carries the number of the group as its mark, and so
//! do the packets of both directions of a control session that a relay opened. Packets are dropped where they arrive, so that
//! their sender learns nothing, as on a real network.

use std::collections::BTreeSet;

use crate::netns::Namespace;

/// The port of controllers that relays and other controllers connect to.
pub(crate) const GRPC: u16 = 8081;

/// The packet filter of one namespace.
pub(crate) struct Cuts<'n>(&'n Namespace);

impl<'n> Cuts<'n> {
    /// Marks what the processes of `groups` send from here on.
    #[track_caller]
    pub(crate) fn new(namespace: &'n Namespace, groups: impl Iterator<Item = u32>) -> Self {
        let mut script =
            "table inet chaos {\n chain marks {\n type filter hook output priority -100;\n"
                .to_owned();
        for group in groups {
            script += &format!(" meta skgid {group} meta mark set {group}\n");
            script += &format!(" meta mark {group} tcp dport {GRPC} ct mark set {group}\n");
        }
        script += " }\n chain cuts {\n type filter hook input priority 0;\n }\n}";
        namespace.nft(&script);
        Self(namespace)
    }

    /// Drops the packets that a rule of nftables matches.
    #[track_caller]
    pub(crate) fn drop(&self, matching: &str) {
        let rule = format!("add rule inet chaos cuts {matching} counter drop");
        self.0.nft(&rule);
    }

    /// Lets everything through again.
    #[track_caller]
    pub(crate) fn heal(&self) {
        self.0.nft("flush chain inet chaos cuts");
    }

    /// Packets that the rules with `matching` in them have dropped.
    #[track_caller]
    pub(crate) fn dropped(&self, matching: &str) -> u64 {
        let rules = self.0.nft("list chain inet chaos cuts");
        let rules = rules.lines().filter(|rule| rule.contains(matching));
        let packets = rules.filter_map(|rule| rule.split("counter packets ").nth(1));
        let packets = packets.map(|rest| rest.split(' ').next().unwrap().parse::<u64>().unwrap());
        packets.sum()
    }
}

/// A set as nftables writes it.
pub(crate) fn set<T: ToString>(members: impl Iterator<Item = T>) -> String {
    let members: BTreeSet<String> = members.map(|member| member.to_string()).collect();
    let members: Vec<String> = members.into_iter().collect();
    format!("{{ {} }}", members.join(", "))
}
