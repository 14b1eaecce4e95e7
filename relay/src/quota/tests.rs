use turnfleet_turn::ledger::Holder;
use turnfleet_turn::policy::Limits;

use super::*;

const ACME: TenantId = TenantId(7);

fn limited(allocations: u64) -> fleet::Snapshot {
    let quotas = fleet::Quotas {
        allocations,
        ..fleet::Quotas::default()
    };
    let rules = fleet::TenantRules {
        quotas: Some(quotas),
        ..fleet::TenantRules::default()
    };
    let tenant = fleet::Tenant {
        id: ACME.0,
        rules: Some(rules),
        ..fleet::Tenant::default()
    };
    fleet::Snapshot {
        tenants: vec![tenant],
        ..fleet::Snapshot::default()
    }
}

fn shares(term: u64, number: u64, allocations: u64) -> fleet::Shares {
    let share = fleet::Share {
        tenant: ACME.0,
        allocations: Some(allocations),
        ..fleet::Share::default()
    };
    fleet::Shares {
        term,
        number,
        shares: vec![share],
    }
}

/// How many allocations of the tenant's the node takes.
fn room(ledger: &Ledger) -> usize {
    let holder = Holder {
        tenant: ACME,
        user: Some("alice"),
    };
    let limits = Limits {
        allocations_per_user: u32::MAX,
        ..Limits::default()
    };
    let admitted = (0..1000).take_while(|_| ledger.admit(holder, &limits).is_ok());
    let count = admitted.count();
    for _ in 0..count {
        ledger.leave(holder);
    }
    count
}

fn node() -> (NodeQuotas, Arc<Ledger>) {
    let ledger = Arc::new(Ledger::new([0; 32]));
    (NodeQuotas::new(Arc::clone(&ledger)), ledger)
}

#[test]
fn a_node_that_was_never_told_takes_an_eighth_and_then_what_it_is_told() {
    let (quotas, ledger) = node();
    quotas.limit(&limited(100));
    assert_eq!(room(&ledger), 12);
    quotas.limit(&limited(3));
    assert_eq!(room(&ledger), 1);
    quotas.take(shares(5, 1, 40));
    assert_eq!(room(&ledger), 40);
    quotas.limit(&limited(100));
    assert_eq!(room(&ledger), 40);
}

#[test]
fn words_of_an_earlier_leader_and_late_ones_change_nothing() {
    let (quotas, ledger) = node();
    quotas.take(shares(5, 7, 40));
    quotas.take(shares(5, 6, 90));
    quotas.take(shares(4, 9, 90));
    assert_eq!(room(&ledger), 40);
    quotas.take(shares(6, 1, 10));
    assert_eq!(room(&ledger), 10);
}

#[test]
fn a_controller_hears_at_once_what_was_taken_and_what_is_short() {
    let (quotas, ledger) = node();
    let mut now = Instant::now();
    let mut look = |millis| {
        now += Duration::from_millis(millis);
        quotas.look(now)
    };
    assert_eq!(look(0), None, "nothing is limited");
    quotas.limit(&limited(100));
    assert!(look(250).is_some());
    assert_eq!(look(250), None, "nothing has changed");
    quotas.take(shares(5, 1, 4));
    let said = look(1).unwrap();
    assert_eq!((said.term, said.number), (5, 1));
    assert_eq!(said.uses[0].held_allocations, 4);
    let holder = Holder {
        tenant: ACME,
        user: Some("alice"),
    };
    let admit = || ledger.admit(holder, &Limits::default());
    assert!(admit().is_ok());
    assert_eq!(look(250), None, "there is enough for a second");
    for _ in 0..3 {
        assert!(admit().is_ok());
    }
    assert_eq!(look(250).unwrap().uses[0].allocations, 4);
    assert!(admit().is_err());
    assert!(look(250).unwrap().uses[0].refused);
}
