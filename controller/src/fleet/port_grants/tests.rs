use proptest::prelude::*;

use super::*;

const DAY: u64 = 86_400;
const START: u64 = 1_700_000_000;

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

/// Grants with the clock and the generation that they are planned by.
struct Book {
    grants: Grants,
    plan: PortPlan,
    generation: u64,
    unix: u64,
    away: Vec<NodeId>,
}

impl Book {
    fn new(range: &str, relays_per_address: u32) -> Self {
        Self {
            grants: Grants::new(),
            plan: plan(range, relays_per_address),
            generation: 1,
            unix: START,
            away: Vec::new(),
        }
    }

    fn planned(&self, plan: impl FnOnce(&Sharing<'_>) -> Changes) -> Changes {
        let is_away = |node: &NodeId| self.away.contains(node);
        plan(&Sharing {
            grants: &self.grants,
            plan: self.plan,
            generation: self.generation,
            unix: self.unix,
            is_away: &is_away,
        })
    }

    fn write(&mut self, plan: impl FnOnce(&Sharing<'_>) -> Changes) -> Changes {
        let changes = self.planned(plan);
        for grant in &changes.releases {
            let gone = self.grants.remove(&(grant.public_ip, grant.range.first()));
            assert!(gone.is_some());
        }
        for grant in &changes.grants {
            let key = (grant.public_ip, grant.range.first());
            self.grants.insert(key, grant.clone());
        }
        self.generation += u64::from(!changes.is_empty());
        changes
    }

    /// Registers a process without allocations.
    fn join(&mut self, number: usize) -> Vec<String> {
        self.write(|sharing| sharing.register(&node(number), &[ip(1)], true));
        self.open(number)
    }

    /// What a node may open on the first address.
    fn open(&self, number: usize) -> Vec<String> {
        self.ranges(number)
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    fn ranges(&self, number: usize) -> Vec<PortRange> {
        let own = of_address(&self.grants, ip(1)).filter(|grant| grant.node == node(number));
        own.filter_map(PortGrant::open_range).collect()
    }

    /// A node reports that it runs and keeps the present policy, with so many ports in use and these of withdrawn ones.
    fn report(&mut self, number: usize, used: u32, withdrawn: &[&str]) -> Changes {
        let report = PortReport {
            kept_generation: self.generation,
            uses: vec![PortUse {
                public_ip: ip(1),
                used,
                open: self.ranges(number),
                withdrawn: withdrawn
                    .iter()
                    .map(|range| range.parse().unwrap())
                    .collect(),
            }],
        };
        self.write(|sharing| sharing.look_after(&node(number), &[ip(1)], &report))
    }

    fn of(&self, number: usize) -> &PortGrant {
        self.grants
            .values()
            .find(|grant| grant.node == node(number))
            .unwrap()
    }

    #[track_caller]
    fn assert_apart(&self) {
        let all: Vec<_> = self.grants.values().collect();
        for pair in all.windows(2) {
            let apart = pair[0].public_ip != pair[1].public_ip
                || pair[0].range.last() < pair[1].range.first();
            assert!(apart, "{pair:?}");
        }
    }
}

#[test]
fn relays_of_one_address_get_equal_even_aligned_shares() {
    let mut book = Book::new("49152-65535", 3);
    assert_eq!(book.join(0), ["49152-54611"]);
    assert_eq!(book.join(1), ["54612-60071"]);
    assert_eq!(book.join(2), ["60072-65531"]);
    assert!(book.join(3).is_empty());
}

#[test]
fn a_sole_relay_gets_the_whole_range_as_it_is_and_without_an_end() {
    for relays_per_address in [0, 1] {
        let mut book = Book::new("50001-50001", relays_per_address);
        assert_eq!(book.join(0), ["50001-50001"]);
        assert_eq!(book.of(0).not_after, None);
    }
    assert_eq!(Book::new("49152-65535", 0).join(0), ["49152-65535"]);
}

#[test]
fn an_odd_beginning_costs_one_port_and_no_relay() {
    let mut book = Book::new("50001-50008", 2);
    assert_eq!(book.join(0), ["50002-50003"]);
    assert_eq!(book.join(1), ["50004-50005"]);
}

#[test]
fn a_node_keeps_its_share_and_takes_no_second_one() {
    let mut book = Book::new("50000-50019", 2);
    let first = book.join(0);
    book.join(1);
    assert_eq!(book.join(0), first);
    assert_eq!(book.grants.len(), 2);
}

#[test]
fn a_node_without_allocations_moves_to_the_configured_share_once_it_has_said_so() {
    let mut book = Book::new("50000-50019", 1);
    book.join(0);
    book.plan.relays_per_address = 2;
    let held = book.planned(|sharing| sharing.register(&node(0), &[ip(1)], false));
    assert_eq!(
        held,
        Changes::default(),
        "live allocations hold their ports"
    );
    assert_eq!(book.join(0), ["50000-50009"]);
    assert!(
        book.join(1).is_empty(),
        "the other half is not yet known to be unused"
    );
    book.report(0, 0, &[]);
    assert_eq!(book.join(1), ["50010-50019"]);
}

#[test]
fn a_larger_share_that_does_not_fit_leaves_the_node_its_own() {
    let mut book = Book::new("50000-50019", 2);
    book.join(0);
    book.join(1);
    book.plan.relays_per_address = 1;
    assert_eq!(book.join(1), ["50010-50019"]);
}

#[test]
fn an_address_that_a_node_no_longer_has_is_given_up_when_nothing_uses_it() {
    let mut book = Book::new("50000-50019", 0);
    book.join(0);
    book.write(|sharing| sharing.register(&node(0), &[ip(2)], true));
    assert!(book.open(0).is_empty());
    assert_eq!(book.grants.len(), 2);
    book.report(0, 1, &["50004-50004"]);
    assert_eq!(
        book.grants[&(ip(1), 50000)].range.to_string(),
        "50000-50005"
    );
    let report = PortReport {
        kept_generation: book.generation,
        uses: Vec::new(),
    };
    book.write(|sharing| sharing.look_after(&node(0), &[ip(2)], &report));
    let addresses: Vec<_> = book.grants.values().map(|grant| grant.public_ip).collect();
    assert_eq!(addresses, [ip(2)]);
}

#[test]
fn a_relay_that_comes_to_a_held_address_gets_the_upper_half_as_it_falls_idle() {
    let mut book = Book::new("49152-65535", 0);
    book.join(0);
    assert!(book.join(1).is_empty());
    assert_eq!(book.open(0), ["49152-57343"]);
    assert_eq!(
        book.planned(|sharing| sharing.register(&node(1), &[ip(1)], true)),
        Changes::default()
    );
    let old = PortReport {
        kept_generation: book.generation - 1,
        uses: Vec::new(),
    };
    let early = book.planned(|sharing| sharing.look_after(&node(0), &[ip(1)], &old));
    assert_eq!(early, Changes::default(), "it has not heard of it");
    book.report(0, 3, &["60000-60001"]);
    assert_eq!(
        book.open(1),
        ["60416-65535"],
        "down to the block that is in use"
    );
    assert_eq!(book.of(0).range.last(), 60415);
    book.report(0, 1, &[]);
    assert_eq!(book.join(1), ["57344-65535"]);
    assert_eq!(book.open(0), ["49152-57343"]);
    assert!(book.of(0).not_after.is_some() && book.of(1).not_after.is_some());
}

#[test]
fn ports_that_a_policy_of_another_store_speaks_of_are_not_handed_over() {
    let mut book = Book::new("50000-50063", 0);
    book.join(0);
    book.join(1);
    let report = PortReport {
        kept_generation: book.generation + 400,
        uses: Vec::new(),
    };
    book.write(|sharing| sharing.look_after(&node(0), &[ip(1)], &report));
    assert!(book.open(1).is_empty());
}

#[test]
fn many_relays_of_one_address_end_up_with_fair_parts() {
    let mut book = Book::new("49152-65535", 0);
    for number in 0..8 {
        while book.join(number).is_empty() {
            for other in 0..number {
                book.report(other, 0, &[]);
            }
        }
        book.assert_apart();
    }
    let ports = |number| {
        book.ranges(number)
            .iter()
            .map(|range| range.len())
            .sum::<u32>()
    };
    let ports: Vec<u32> = (0..8).map(ports).collect();
    assert!(
        ports.iter().all(|ports| (1024..=4096).contains(ports)),
        "{ports:?}"
    );
}

#[test]
fn a_relay_that_runs_short_of_ports_gets_free_ones() {
    let mut book = Book::new("50000-50063", 0);
    book.join(0);
    book.join(1);
    book.report(0, 0, &[]);
    assert_eq!(book.open(1), ["50032-50063"]);
    book.write(|sharing| sharing.forget(&node(0)));
    book.unix += QUARANTINE_SECONDS + 7 * DAY;
    book.write(|sharing| sharing.ended_quarantines());
    book.join(2);
    assert_eq!(book.open(2), ["50000-50031"]);
    book.write(|sharing| sharing.forget(&node(2)));
    book.report(1, 30, &[]);
    assert_eq!(
        book.open(1),
        ["50032-50063"],
        "quarantined ports are nobody's"
    );
    book.unix += 8 * DAY;
    book.write(|sharing| sharing.ended_quarantines());
    book.report(1, 30, &[]);
    assert_eq!(book.open(1), ["50000-50063"]);
    assert_eq!(book.of(1).not_after, None, "it is alone again");
}

#[test]
fn a_shared_grant_is_renewed_when_less_than_half_of_it_is_left() {
    let mut book = Book::new("50000-50063", 2);
    book.join(0);
    book.join(1);
    book.report(0, 0, &[]);
    book.report(1, 0, &[]);
    let end = book.of(0).not_after.unwrap();
    assert_eq!(end, START + 7 * DAY);
    book.unix += 3 * DAY;
    assert!(
        book.report(0, 0, &[]).is_empty(),
        "no store write for nothing"
    );
    book.unix += DAY;
    book.report(0, 0, &[]);
    assert_eq!(book.of(0).not_after, Some(START + 11 * DAY));
}

#[test]
fn a_grant_that_has_ended_is_lost_by_a_node_that_is_away_and_by_no_other() {
    let mut book = Book::new("50000-50019", 2);
    for number in 0..2 {
        book.join(number);
    }
    for number in 0..2 {
        book.report(number, 0, &[]);
    }
    book.unix += 7 * DAY + 61;
    assert!(book.join(2).is_empty(), "both still answer");
    book.away = vec![node(0)];
    assert_eq!(book.join(2), ["50000-50009"]);
    book.assert_apart();
    assert_eq!(book.open(1), ["50010-50019"]);
}

#[test]
fn an_end_that_the_node_has_not_heard_of_takes_nothing_away() {
    let mut book = Book::new("50000-50019", 2);
    book.join(0);
    book.join(1);
    book.away = vec![node(0)];
    book.unix += 8 * DAY;
    assert!(book.join(2).is_empty());
    assert_eq!(book.open(0), ["50000-50009"]);
}

#[test]
fn a_forgotten_nodes_ports_rest_until_it_can_use_them_no_longer_and_are_its_own_at_once() {
    let mut book = Book::new("50000-50019", 2);
    book.join(0);
    book.join(1);
    book.report(0, 0, &[]);
    book.unix += DAY;
    book.write(|sharing| sharing.forget(&node(0)));
    assert!(book.join(2).is_empty());
    book.unix += QUARANTINE_SECONDS;
    book.write(|sharing| sharing.ended_quarantines());
    assert!(
        book.join(2).is_empty(),
        "it may be cut off, and goes on until its grant ends"
    );
    assert_eq!(book.join(0), ["50000-50009"]);
    book.write(|sharing| sharing.forget(&node(0)));
    book.unix += 7 * DAY + MARGIN_SECONDS;
    book.write(|sharing| sharing.ended_quarantines());
    assert_eq!(book.join(2), ["50000-50009"]);
}

#[test]
fn an_address_of_a_forgotten_sole_relay_is_free_after_the_quarantine() {
    let mut book = Book::new("50000-50019", 0);
    book.join(0);
    book.write(|sharing| sharing.forget(&node(0)));
    book.unix += QUARANTINE_SECONDS - 1;
    assert!(book.join(1).is_empty());
    book.unix += 1;
    assert_eq!(book.join(1), ["50000-50019"]);
}

#[test]
fn an_operator_releases_ports_into_a_quarantine_and_ends_it() {
    let mut book = Book::new("50000-50019", 2);
    book.join(0);
    book.join(1);
    let range = "50000-50009".parse().unwrap();
    let wrong = "50000-50008".parse().unwrap();
    let is_known = |book: &Book, range| {
        let mut known = false;
        book.planned(|sharing| {
            known = sharing.release(ip(1), range).is_some();
            Changes::default()
        });
        known
    };
    assert!(!is_known(&book, wrong));
    book.write(|sharing| sharing.release(ip(1), range).unwrap());
    assert!(book.open(0).is_empty());
    assert!(book.join(2).is_empty());
    book.write(|sharing| sharing.release(ip(1), range).unwrap());
    assert_eq!(book.join(2), ["50000-50009"]);
}

#[derive(Clone, Debug)]
enum Step {
    Register(usize, bool, Vec<u8>),
    Report(usize, u32, Option<u16>),
    Forget(usize),
    Away(usize, bool),
    Shares(u32),
    Wait(u64),
    Upkeep,
}

fn step() -> impl Strategy<Value = Step> {
    let addresses = proptest::collection::btree_set(1u8..3, 1..3);
    let node = 0usize..8;
    prop_oneof![
        4 => (node.clone(), any::<bool>(), addresses)
            .prop_map(|(node, may_move, ips)| Step::Register(node, may_move, ips.into_iter().collect())),
        4 => (node.clone(), 0u32..200, proptest::option::of(50_000u16..50_128))
            .prop_map(|(node, used, port)| Step::Report(node, used, port)),
        1 => node.clone().prop_map(Step::Forget),
        1 => (node, any::<bool>()).prop_map(|(node, away)| Step::Away(node, away)),
        1 => prop_oneof![3 => Just(0u32), 1 => 1u32..9].prop_map(Step::Shares),
        1 => (0u64..9).prop_map(|days| Step::Wait(days * DAY)),
        1 => Just(Step::Upkeep),
    ]
}

proptest! {
    #[test]
    fn grants_of_one_address_never_overlap_and_nobody_loses_what_is_in_use(
        steps in proptest::collection::vec(step(), 1..80),
    ) {
        let mut book = Book::new("50000-50127", 0);
        for step in steps {
            match step {
                Step::Register(number, may_move, ips) => {
                    let ips: Vec<_> = ips.into_iter().map(ip).collect();
                    book.write(|sharing| sharing.register(&node(number), &ips, may_move));
                }
                Step::Report(number, used, port) => {
                    let port = port.map(|port| format!("{port}-{port}"));
                    let held = |book: &Book| {
                        let own = of_address(&book.grants, ip(1)).filter(|grant| grant.node == node(number));
                        own.map(|grant| grant.range).collect::<Vec<_>>()
                    };
                    let before = held(&book);
                    let used_range: Option<PortRange> = port.as_ref().map(|port| port.parse().unwrap());
                    book.report(number, used, port.as_deref().as_slice());
                    if let Some(used) = used_range && before.iter().any(|range| range.overlaps(used)) {
                        prop_assert!(held(&book).iter().any(|range| range.overlaps(used)));
                    }
                }
                Step::Forget(number) => drop(book.write(|sharing| sharing.forget(&node(number)))),
                Step::Away(number, away) => {
                    book.away.retain(|other| *other != node(number));
                    if away {
                        book.away.push(node(number));
                    }
                }
                Step::Shares(shares) => book.plan.relays_per_address = shares,
                Step::Wait(seconds) => book.unix += seconds,
                Step::Upkeep => drop(book.write(|sharing| sharing.ended_quarantines())),
            }
            book.assert_apart();
        }
    }
}

/// What a node says of ports of the first address.
fn says(open: &[&str], withdrawn: &[&str]) -> PortReport {
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    PortReport {
        kept_generation: 100,
        uses: vec![PortUse {
            public_ip: ip(1),
            used: 0,
            open: ranges(open),
            withdrawn: ranges(withdrawn),
        }],
    }
}

#[test]
fn a_store_that_was_set_back_gives_nobody_what_another_node_holds() {
    let mut book = Book::new("50100-50299", 2);
    assert_eq!(book.join(0), ["50100-50199"]);
    assert_eq!(book.join(1), ["50200-50299"]);
    assert!(book.join(2).is_empty());
    // Since the backup the second has got a part of the first one's, which has some of it in use yet, and the third another.
    let reports = [
        (node(0), says(&["50100-50149"], &["50160-50163"])),
        (node(1), says(&["50164-50289"], &[])),
        (
            node(2),
            says(&["50290-50299", "50150-50159"], &["50289-50295"]),
        ),
    ];
    let reporters: Vec<_> = reports
        .iter()
        .map(|(node, report)| (node, report))
        .collect();
    book.write(|sharing| sharing.as_reported(&reporters));
    book.assert_apart();
    assert_eq!(book.open(0), ["50100-50149", "50160-50163"]);
    assert_eq!(book.open(1), ["50164-50199", "50200-50289"]);
    assert_eq!(book.open(2), ["50150-50159", "50290-50299"]);
    let again = book.planned(|sharing| sharing.as_reported(&reporters));
    assert_eq!(again, Changes::default(), "it is as they say");
}

#[test]
fn ports_that_a_node_has_in_use_and_may_open_no_longer_are_nobodys_until_they_are_free() {
    let mut book = Book::new("50100-50299", 2);
    book.join(0);
    let reports = [(node(1), says(&["50200-50289"], &["50150-50153"]))];
    let reporters: Vec<_> = reports
        .iter()
        .map(|(node, report)| (node, report))
        .collect();
    book.write(|sharing| sharing.as_reported(&reporters));
    book.assert_apart();
    assert_eq!(book.open(0), ["50100-50149", "50154-50199"]);
    assert_eq!(book.open(1), ["50200-50289"]);
    let held = book.grants.get(&(ip(1), 50150)).unwrap();
    assert_eq!((&held.node, held.open_range()), (&node(1), None));
}
