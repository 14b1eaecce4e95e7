use super::super::Place;
use super::*;

const FLEET: SecretScope = SecretScope::Fleet;
const NORTH: Place<'_> = Place {
    region: "north",
    tenant: None,
};
const SOUTH: Place<'_> = Place {
    region: "south",
    tenant: None,
};

fn secret(text: &str) -> SharedSecret {
    SharedSecret::new(text)
}

fn at(unix: u64) -> Moment {
    Moment {
        unix,
        generation: unix,
    }
}

fn apply(secrets: &mut Secrets, changes: Changes) {
    for key in changes.deletes {
        let RecordKey::Secret(_, id) = key else {
            panic!("{key:?} is no secret");
        };
        assert!(secrets.find(id).is_some(), "{id} is there to be deleted");
        secrets.remove(id);
    }
    for record in changes.puts {
        let Record::Secret(generation) = record else {
            panic!("{record:?} is no secret");
        };
        secrets.insert(turnfleet_turn::Instant::default(), generation);
    }
}

fn give(secrets: &mut Secrets, text: &str, unix: u64) {
    let changes = secrets.adopt(at(unix), Some(&secret(text)), || panic!("one is given"));
    apply(secrets, changes);
}

fn rotate(secrets: &mut Secrets, text: &str, unix: u64) -> u32 {
    let (id, changes) = secrets.rotate(at(unix), &FLEET, secret(text)).unwrap();
    apply(secrets, changes);
    let staged = secrets.find(id).unwrap().clone();
    let promoted = secrets.promote(at(unix), &staged);
    apply(secrets, promoted);
    id
}

fn accepts(secrets: &Secrets) -> Vec<&str> {
    let accepted = secrets.accepted(NORTH).into_iter();
    accepted
        .map(|it| std::str::from_utf8(it.secret.as_bytes()).unwrap())
        .collect()
}

fn minted(secrets: &Secrets) -> u32 {
    secrets.minting(&FLEET).unwrap().id
}

#[test]
fn one_secret_is_made_and_kept() {
    let mut secrets = Secrets::default();
    let made = secrets.adopt(at(1), None, || secret("made"));
    apply(&mut secrets, made);
    assert_eq!(accepts(&secrets), ["made"]);
    let again = secrets.adopt(at(9), None, || panic!("there is one"));
    assert_eq!(again, Changes::default());
}

#[test]
fn a_replaced_secret_is_accepted_until_its_credentials_have_ended() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    give(&mut secrets, "one", 1001);
    give(&mut secrets, "two", 2000);
    assert_eq!(accepts(&secrets), ["two", "one"]);
    assert!(secrets.end(2000 + RETIRING_SECONDS - 1).is_empty());
    let over = secrets.end(2000 + RETIRING_SECONDS);
    apply(&mut secrets, over);
    assert_eq!(accepts(&secrets), ["two"]);
}

#[test]
fn a_secret_that_comes_back_is_active_again() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    give(&mut secrets, "two", 2000);
    give(&mut secrets, "one", 3000);
    assert_eq!(accepts(&secrets), ["one", "two"]);
}

#[test]
fn configured_secrets_make_room_for_each_other() {
    let mut secrets = Secrets::default();
    for number in 0..100 {
        give(&mut secrets, &number.to_string(), number);
    }
    assert_eq!(accepts(&secrets).len(), MAX_ACCEPTED);
    assert_eq!(accepts(&secrets)[..2], ["99", "98"]);
}

#[test]
fn a_rotation_stages_first_and_mints_later() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    let (id, changes) = secrets.rotate(at(2000), &FLEET, secret("two")).unwrap();
    apply(&mut secrets, changes);
    assert_eq!(accepts(&secrets), ["one", "two"]);
    assert_eq!(minted(&secrets), 1);
    let busy = secrets.rotate(at(2001), &FLEET, secret("three"));
    assert!(matches!(busy, Err(SecretError::Rotating { id: 2, .. })));
    let staged = secrets.find(id).unwrap().clone();
    let promoted = secrets.promote(at(3000), &staged);
    apply(&mut secrets, promoted);
    assert_eq!(
        (minted(&secrets), accepts(&secrets)),
        (2, vec!["two", "one"])
    );
    let retiring = SecretState::Retiring {
        accept_until: 3000 + RETIRING_SECONDS,
    };
    assert_eq!(secrets.find(1).unwrap().state, retiring);
    let again = secrets.rotate(at(4000), &FLEET, secret("one"));
    assert_eq!(again, Err(SecretError::Known(1)));
}

#[test]
fn a_rotation_never_ends_a_secret_whose_credentials_may_live() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "0", 0);
    for number in 1..32 {
        rotate(&mut secrets, &number.to_string(), number);
    }
    let full = secrets.rotate(at(40), &FLEET, secret("32"));
    assert!(matches!(full, Err(SecretError::TooMany { most: 32, .. })));
    let region = SecretScope::Region("north".into());
    assert!(secrets.rotate(at(40), &region, secret("32")).is_ok());
}

#[test]
fn a_pinned_secret_outlives_fifty_rotations() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "0", 0);
    let (id, changes) = secrets
        .pin(at(1), &Pin::Secret(FLEET, secret("synapse")))
        .unwrap();
    apply(&mut secrets, changes);
    for day in 1..=50 {
        let unix = day * 86_400;
        let over = secrets.end(unix);
        apply(&mut secrets, over);
        rotate(&mut secrets, &day.to_string(), unix);
        assert_eq!(accepts(&secrets)[1], "synapse");
        assert_ne!(minted(&secrets), id);
    }
    let unpinned = secrets.unpin(at(51 * 86_400), id).unwrap();
    apply(&mut secrets, unpinned);
    let over = secrets.end(51 * 86_400 + RETIRING_SECONDS);
    apply(&mut secrets, over);
    assert_eq!(accepts(&secrets), ["50"]);
}

#[test]
fn what_is_known_is_pinned_where_it_is() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    give(&mut secrets, "two", 2000);
    let one = Pin::Secret(FLEET, secret("one"));
    let (id, changes) = secrets.pin(at(3000), &one).unwrap();
    apply(&mut secrets, changes);
    assert_eq!((id, accepts(&secrets)), (1, vec!["two", "one"]));
    assert_eq!(secrets.pin(at(3000), &one), Ok((1, Changes::default())));
    let missing = secrets.pin(at(3000), &Pin::Generation(9));
    assert_eq!(missing, Err(SecretError::Unknown(9)));
}

#[test]
fn eight_secrets_are_pinned_at_most() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    let pin = |number: u64| Pin::Secret(FLEET, secret(&format!("synapse {number}")));
    for number in 0..8 {
        let (_, changes) = secrets.pin(at(number), &pin(number)).unwrap();
        apply(&mut secrets, changes);
    }
    let more = secrets.pin(at(9), &pin(9));
    assert!(matches!(
        more,
        Err(SecretError::TooManyPinned { most: 8, .. })
    ));
}

#[test]
fn a_pinned_secret_is_minted_with_only_where_no_other_is() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    let (_, changes) = secrets.pin(at(1001), &Pin::Generation(1)).unwrap();
    apply(&mut secrets, changes);
    assert_eq!(minted(&secrets), 1);
    assert_eq!(secrets.unpin(at(1002), 1), Err(SecretError::Minting(1)));
    let id = rotate(&mut secrets, "two", 1003);
    assert_eq!(
        (minted(&secrets), accepts(&secrets)),
        (id, vec!["two", "one"])
    );
}

#[test]
fn what_is_minted_with_is_revoked_only_for_another() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    let bare = Revocation::default();
    assert_eq!(
        secrets.revoke(at(1), 1, &bare),
        Err(SecretError::Minting(1))
    );
    let replaced = Revocation {
        cut: true,
        replacement: Some(secret("two")),
    };
    let (id, changes) = secrets.revoke(at(1001), 1, &replaced).unwrap();
    apply(&mut secrets, changes);
    assert_eq!((id, accepts(&secrets)), (Some(2), vec!["two"]));
    let tombstone = secrets.wire_revoked(NORTH);
    assert_eq!((tombstone[0].id, tombstone[0].cut), (1, true));
    assert!(secrets.find(1).unwrap().secret.as_bytes().is_empty());
    let again = secrets.revoke(at(1002), 1, &bare);
    assert!(matches!(again, Err(SecretError::State { id: 1, .. })));
    // An id is not given twice while relays may remember it.
    assert_eq!(rotate(&mut secrets, "three", 1003), 3);
    let over = secrets.end(1001 + TOMBSTONE_SECONDS);
    apply(&mut secrets, over);
    assert!(secrets.find(1).is_none());
}

#[test]
fn a_cut_may_follow_a_revocation() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    rotate(&mut secrets, "two", 1001);
    for cut in [false, true] {
        let revocation = Revocation {
            cut,
            replacement: None,
        };
        let (_, changes) = secrets.revoke(at(1002), 1, &revocation).unwrap();
        apply(&mut secrets, changes);
        assert_eq!(secrets.wire_revoked(NORTH)[0].cut, cut);
    }
}

#[test]
fn a_region_has_secrets_of_its_own_and_falls_back_to_the_fleets() {
    let mut secrets = Secrets::default();
    give(&mut secrets, "one", 1000);
    let north = SecretScope::Region("north".into());
    let (id, changes) = secrets.rotate(at(1001), &north, secret("north")).unwrap();
    apply(&mut secrets, changes);
    let staged = secrets.find(id).unwrap().clone();
    let promoted = secrets.promote(at(1002), &staged);
    apply(&mut secrets, promoted);
    assert_eq!(secrets.accepted(NORTH).len(), 2);
    assert_eq!(secrets.accepted(SOUTH).len(), 1);
    assert_eq!(
        (
            secrets.latest().required(NORTH),
            secrets.latest().required(SOUTH)
        ),
        (1001, 1000)
    );
    let (replaced, changes) = secrets
        .revoke(at(1003), id, &Revocation::default())
        .unwrap();
    apply(&mut secrets, changes);
    assert_eq!((replaced, secrets.parts().count()), (None, 0));
    assert_eq!(secrets.wire_revoked(SOUTH), []);
    let tenant = SecretScope::Tenant("acme".into());
    let (id, changes) = secrets.rotate(at(1004), &tenant, secret("acme")).unwrap();
    apply(&mut secrets, changes);
    let theirs = Place {
        tenant: Some("acme"),
        ..SOUTH
    };
    assert_eq!(secrets.accepted(theirs).last().unwrap().id, id);
    assert_eq!(secrets.accepted(SOUTH).len(), 1);
    assert!(secrets.differ(SOUTH, theirs));
}
