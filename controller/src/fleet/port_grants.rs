//! Which node may use which ports of a public address. Ranges of one address never overlap, each relay of an address gets
//! an equal share, and a node keeps its share over restarts.

use std::collections::BTreeMap;
use std::net::IpAddr;

use turnfleet_proto::{NodeId, PortRange};

use super::record::PortGrant;
use crate::config::PortPlan;
use crate::error::FleetError;

/// Every grant, by address and first port.
pub(super) type Grants = BTreeMap<(IpAddr, u16), PortGrant>;

/// What a node that registers needs changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) grants: Vec<PortGrant>,
    pub(super) releases: Vec<PortGrant>,
}

/// What has to change so that `node` has its share of each of `public_ips`. `may_move` says that it has no allocations, so
/// that shares which no longer fit the plan, or addresses that are no longer its own, can be given up.
///
/// # Errors
/// [`FleetError::PortsExhausted`] when an address has no share left.
pub(super) fn register(
    grants: &Grants,
    plan: PortPlan,
    node: &NodeId,
    public_ips: &[IpAddr],
    may_move: bool,
) -> Result<Changes, FleetError> {
    let mut changes = Changes::default();
    for ip in public_ips {
        let own = of_address(grants, *ip).find(|grant| grant.node == *node);
        if let Some(own) = own
            && (!may_move || plan.fits(own.range))
        {
            continue;
        }
        let taken = of_address(grants, *ip).filter(|grant| grant.node != *node);
        let free = first_fit(plan, taken.map(|grant| grant.range));
        match (free, own) {
            (Some(range), _) => {
                changes.releases.extend(own.cloned());
                let (node, public_ip) = (node.clone(), *ip);
                changes.grants.push(PortGrant {
                    node,
                    public_ip,
                    range,
                });
            }
            (None, Some(own)) if plan.holds(own.range) => {}
            (None, _) => return Err(exhausted(grants, plan, node, *ip)),
        }
    }
    if may_move {
        let foreign =
            |grant: &&PortGrant| grant.node == *node && !public_ips.contains(&grant.public_ip);
        changes
            .releases
            .extend(grants.values().filter(foreign).cloned());
    }
    Ok(changes)
}

fn of_address(grants: &Grants, ip: IpAddr) -> impl Iterator<Item = &PortGrant> {
    grants
        .range((ip, 0)..=(ip, u16::MAX))
        .map(|(_, grant)| grant)
}

/// The lowest free share; `taken` comes in the order of ports.
fn first_fit(plan: PortPlan, taken: impl Iterator<Item = PortRange>) -> Option<PortRange> {
    let share = plan.share();
    let mut first = plan.first();
    for range in taken {
        if first + share <= u32::from(range.first()) {
            break;
        }
        first = first.max(plan.align(u32::from(range.last()) + 1));
    }
    let last = first + share - 1;
    if last > u32::from(plan.range.last()) {
        return None;
    }
    PortRange::new(u16::try_from(first).ok()?, u16::try_from(last).ok()?).ok()
}

fn exhausted(grants: &Grants, plan: PortPlan, node: &NodeId, ip: IpAddr) -> FleetError {
    FleetError::PortsExhausted {
        node: node.clone(),
        public_ip: ip,
        relay_ports: plan.range,
        relays_per_address: plan.relays_per_address,
        holders: of_address(grants, ip)
            .filter(|grant| grant.node != *node)
            .count(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(range: &str, relays_per_address: u32) -> PortPlan {
        PortPlan {
            range: range.parse().unwrap(),
            relays_per_address,
        }
    }

    fn node(number: usize) -> NodeId {
        format!("relay-{number}").parse().unwrap()
    }

    fn ip(number: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, number])
    }

    fn apply(grants: &mut Grants, changes: &Changes) {
        for grant in &changes.releases {
            grants.remove(&(grant.public_ip, grant.range.first()));
        }
        for grant in &changes.grants {
            let before = grants.insert((grant.public_ip, grant.range.first()), grant.clone());
            assert_eq!(before, None);
        }
    }

    fn join(grants: &mut Grants, plan: PortPlan, number: usize) -> Result<String, FleetError> {
        let changes = register(grants, plan, &node(number), &[ip(1)], true)?;
        apply(grants, &changes);
        let own = grants
            .values()
            .find(|grant| grant.node == node(number))
            .unwrap();
        Ok(own.range.to_string())
    }

    #[test]
    fn relays_of_one_address_get_equal_even_aligned_shares() {
        let mut grants = Grants::new();
        let plan = plan("49152-65535", 3);
        assert_eq!(join(&mut grants, plan, 0).unwrap(), "49152-54611");
        assert_eq!(join(&mut grants, plan, 1).unwrap(), "54612-60071");
        assert_eq!(join(&mut grants, plan, 2).unwrap(), "60072-65531");
    }

    #[test]
    fn a_sole_relay_gets_the_whole_range_as_it_is() {
        assert_eq!(
            join(&mut Grants::new(), plan("50001-50001", 1), 0).unwrap(),
            "50001-50001"
        );
    }

    #[test]
    fn an_odd_beginning_costs_one_port_and_no_relay() {
        let mut grants = Grants::new();
        let plan = plan("50001-50008", 2);
        assert_eq!(join(&mut grants, plan, 0).unwrap(), "50002-50003");
        assert_eq!(join(&mut grants, plan, 1).unwrap(), "50004-50005");
    }

    #[test]
    fn a_node_keeps_its_share_and_takes_no_second_one() {
        let mut grants = Grants::new();
        let plan = plan("50000-50019", 2);
        let first = join(&mut grants, plan, 0).unwrap();
        join(&mut grants, plan, 1).unwrap();
        assert_eq!(join(&mut grants, plan, 0).unwrap(), first);
        assert_eq!(grants.len(), 2);
    }

    #[test]
    fn an_address_without_a_share_left_is_an_error_that_names_the_setting() {
        let mut grants = Grants::new();
        let plan = plan("50000-50019", 2);
        join(&mut grants, plan, 0).unwrap();
        join(&mut grants, plan, 1).unwrap();
        let error = join(&mut grants, plan, 2).unwrap_err();
        assert!(matches!(
            error,
            FleetError::PortsExhausted { holders: 2, .. }
        ));
        let text = error.to_string();
        assert!(
            text.contains("relays_per_address = 2") && text.contains("192.0.2.1"),
            "{text}"
        );
    }

    #[test]
    fn a_node_without_allocations_moves_to_the_configured_share() {
        let mut grants = Grants::new();
        join(&mut grants, plan("50000-50019", 1), 0).unwrap();
        let shared = plan("50000-50019", 2);
        let held = register(&grants, shared, &node(0), &[ip(1)], false).unwrap();
        assert_eq!(
            held,
            Changes::default(),
            "live allocations hold their ports"
        );
        assert_eq!(join(&mut grants, shared, 0).unwrap(), "50000-50009");
        assert_eq!(join(&mut grants, shared, 1).unwrap(), "50010-50019");
    }

    #[test]
    fn a_larger_share_that_does_not_fit_leaves_the_node_its_own() {
        let mut grants = Grants::new();
        let halves = plan("50000-50019", 2);
        join(&mut grants, halves, 0).unwrap();
        join(&mut grants, halves, 1).unwrap();
        assert_eq!(
            join(&mut grants, plan("50000-50019", 1), 1).unwrap(),
            "50010-50019"
        );
    }

    #[test]
    fn an_address_that_a_node_no_longer_has_is_given_up() {
        let mut grants = Grants::new();
        let plan = plan("50000-50019", 1);
        join(&mut grants, plan, 0).unwrap();
        let changes = register(&grants, plan, &node(0), &[ip(2)], true).unwrap();
        apply(&mut grants, &changes);
        let addresses: Vec<_> = grants.values().map(|grant| grant.public_ip).collect();
        assert_eq!(addresses, [ip(2)]);
    }

    proptest! {
        #[test]
        fn grants_of_one_address_never_overlap(
            steps in proptest::collection::vec(
                (0usize..12, 1u32..9, any::<bool>(), proptest::collection::btree_set(1u8..4, 1..3)),
                1..60,
            ),
        ) {
            let mut grants = Grants::new();
            for (number, relays, may_move, addresses) in steps {
                let plan = plan("50000-50127", relays);
                let addresses: Vec<_> = addresses.into_iter().map(ip).collect();
                match register(&grants, plan, &node(number), &addresses, may_move) {
                    Ok(changes) => apply(&mut grants, &changes),
                    Err(error) => {
                        let exhausted = matches!(error, FleetError::PortsExhausted { .. });
                        prop_assert!(exhausted);
                        continue;
                    }
                }
                for address in addresses {
                    let own = of_address(&grants, address).filter(|g| g.node == node(number));
                    prop_assert_eq!(own.count(), 1);
                }
                let all: Vec<_> = grants.values().collect();
                for pair in all.windows(2) {
                    prop_assert!(
                        pair[0].public_ip != pair[1].public_ip
                            || pair[0].range.last() < pair[1].range.first()
                    );
                }
            }
        }
    }
}
