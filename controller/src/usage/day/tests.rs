use super::*;

const ACME: u32 = 7;
const TODAY: u64 = 20_000;

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn carried(bytes: u64) -> BTreeMap<u32, u64> {
    BTreeMap::from([(ACME, bytes)])
}

fn limits(all: u64, each: u64) -> BTreeMap<u32, Limits> {
    let limits = Limits {
        bytes_per_day: all,
        user_bytes_per_day: each,
        ..Limits::default()
    };
    BTreeMap::from([(ACME, limits)])
}

/// A report that says how much Alice has carried since the relay watches her, and how much within the last hour.
fn report(number: u64, total: u64, hour: u64) -> wire::Usage {
    let volume = wire::Volume {
        to_peers: total,
        hour_to_clients: hour,
        ..wire::Volume::default()
    };
    wire::Usage {
        number,
        begun_millis: 1,
        users: vec![wire::UserUsage {
            tenant: ACME,
            user: "alice".to_owned(),
            volume: Some(volume),
            ..wire::UserUsage::default()
        }],
        ..wire::Usage::default()
    }
}

/// A book that has begun, and watches users of the tenant.
fn book() -> DayBook {
    let mut book = DayBook::default();
    book.begin(TODAY, None, &carried(0));
    book.look(&limits(0, 1000), &carried(0));
    book
}

fn hear(book: &mut DayBook, name: &str, usage: &wire::Usage) {
    let node = node(name);
    let is_first = book.is_first(&node, usage.number);
    book.hear(&node, usage, is_first);
}

fn bytes(book: &DayBook) -> u64 {
    let kept = book.kept(&BTreeMap::new()).unwrap();
    kept.users.first().map_or(0, |(.., bytes)| *bytes)
}

#[test]
fn a_tenant_is_at_its_end_for_the_rest_of_the_day_and_the_next_one_begins_at_zero() {
    let mut book = DayBook::default();
    assert_eq!(book.carried_by(ACME, &carried(900)), 0, "it has not begun");
    book.begin(TODAY, None, &carried(900));
    assert_eq!(book.carried_by(ACME, &carried(1400)), 500);
    assert!(book.look(&limits(501, 0), &carried(1400)).is_empty());
    let used_up = book.look(&limits(500, 0), &carried(1400));
    let acme = Subject {
        tenant: ACME,
        user: None,
    };
    assert_eq!(used_up, BTreeSet::from([acme]));
    book.turn_to(TODAY, &carried(1500));
    assert_eq!(book.carried_by(ACME, &carried(1500)), 600);
    book.turn_to(TODAY + 1, &carried(1500));
    assert!(book.look(&limits(500, 0), &carried(1999)).is_empty());
    book.turn_to(TODAY, &carried(1999));
    assert_eq!(book.carried_by(ACME, &carried(1999)), 499);
}

#[test]
fn a_user_is_counted_by_what_the_counters_of_relays_rise() {
    let mut book = book();
    hear(&mut book, "a", &report(1, 5000, 5000));
    hear(&mut book, "b", &report(1, 0, 0));
    assert_eq!(bytes(&book), 0, "nobody knows of which day it is");
    hear(&mut book, "a", &report(2, 5300, 5300));
    hear(&mut book, "a", &report(2, 5300, 5300));
    hear(&mut book, "a", &report(1, 5000, 5000));
    hear(&mut book, "b", &report(2, 300, 300));
    assert_eq!(bytes(&book), 600);
    // The relay has forgotten her, and watches her anew.
    hear(&mut book, "a", &report(3, 100, 100));
    assert_eq!(bytes(&book), 700);
    assert!(book.look(&limits(0, 701), &carried(0)).is_empty());
    let used_up = book.look(&limits(0, 700), &carried(0));
    assert_eq!(used_up.first().unwrap().user.as_deref(), Some("alice"));
    book.turn_to(TODAY + 1, &carried(0));
    hear(&mut book, "a", &report(4, 150, 150));
    assert_eq!(bytes(&book), 50);
}

#[test]
fn who_comes_among_the_largest_counts_with_the_last_hour() {
    let mut book = book();
    hear(&mut book, "a", &wire::Usage::default());
    hear(&mut book, "a", &report(2, 9000, 400));
    assert_eq!(bytes(&book), 400);
}

#[test]
fn users_of_tenants_without_such_a_limit_and_nobodys_are_not_counted() {
    let mut book = book();
    book.look(&limits(1, 0), &carried(0));
    hear(&mut book, "a", &report(1, 0, 0));
    hear(&mut book, "a", &report(2, 500, 500));
    assert_eq!((bytes(&book), book.user_count), (0, 0));
}

#[test]
fn users_beyond_the_bound_are_not_counted_which_is_counted() {
    let mut book = book();
    hear(&mut book, "a", &wire::Usage::default());
    let mut number = 1;
    for first in (0..MAX_USERS + 100).step_by(200) {
        number += 1;
        let mut usage = report(number, 10, 10);
        let user = usage.users.remove(0);
        usage.users = (first..first + 200)
            .map(|id| wire::UserUsage {
                user: id.to_string(),
                ..user.clone()
            })
            .collect();
        hear(&mut book, "a", &usage);
    }
    assert_eq!(book.user_count, MAX_USERS);
    assert!(book.missed() >= 100);
    book.turn_to(TODAY + 1, &carried(0));
    book.turn_to(TODAY + 2, &carried(0));
    assert_eq!((book.user_count, book.counter_count), (0, 0));
}

#[test]
fn a_book_goes_on_with_what_was_kept_of_the_same_day() {
    let mut before = book();
    hear(&mut before, "a", &report(1, 0, 0));
    hear(&mut before, "a", &report(2, 800, 800));
    let kept = before.kept(&carried(700)).unwrap();

    let mut after = DayBook::default();
    after.begin(TODAY, Some(&kept), &carried(700));
    assert_eq!(after.carried_by(ACME, &carried(750)), 750);
    assert!(!after.passes_over(), "what came meanwhile is of this day");
    after.look(&limits(0, 1000), &carried(750));
    assert_eq!(bytes(&after), 800);
    hear(&mut after, "a", &report(3, 900, 900));
    hear(&mut after, "a", &report(4, 1100, 1100));
    assert_eq!(bytes(&after), 1000);

    let mut tomorrow = DayBook::default();
    tomorrow.begin(TODAY + 1, Some(&kept), &carried(700));
    assert_eq!(tomorrow.carried_by(ACME, &carried(700)), 0);
    assert_eq!(bytes(&tomorrow), 0);
    assert!(tomorrow.passes_over());
}

#[test]
fn another_leader_takes_over_what_was_kept_and_forgets_nothing() {
    let mut book = book();
    hear(&mut book, "a", &report(1, 0, 0));
    hear(&mut book, "a", &report(2, 800, 800));
    let kept = KeptDay {
        day: TODAY,
        tenants: vec![(ACME, 100)],
        users: vec![(ACME, "alice".into(), 750), (ACME, "bob".into(), 5)],
    };
    book.begin(TODAY, Some(&kept), &carried(1000));
    assert_eq!(book.carried_by(ACME, &carried(1000)), 900);
    assert_eq!(bytes(&book), 800);
    assert_eq!(book.kept(&carried(1000)).unwrap().users.len(), 2);
}
