use super::*;

fn ban(whom: Whom, since: u64) -> Ban {
    Ban {
        whom,
        reason: String::new(),
        by: "night".to_owned(),
        since,
        until: None,
        automatic: false,
    }
}

fn user(name: &str) -> Whom {
    Whom::User {
        tenant: DEFAULT_TENANT,
        user: name.to_owned(),
    }
}

#[test]
fn a_network_is_read_as_it_is_meant() {
    for (text, meant) in [
        ("192.0.2.7", Some("192.0.2.7/32")),
        ("192.0.2.7/24", Some("192.0.2.0/24")),
        ("2001:db8::1/64", Some("2001:db8::/64")),
        ("::ffff:192.0.2.7", Some("192.0.2.7/32")),
        ("::ffff:192.0.2.0/120", Some("192.0.2.0/24")),
        ("::ffff:0:0/90", None),
        ("192.0.2.0/33", None),
        ("example.org", None),
        ("", None),
    ] {
        let read = network(text).map(|network| network.to_string());
        assert_eq!(read.as_deref(), meant, "{text}");
    }
}

#[test]
fn the_latest_ban_comes_first_and_a_page_goes_on_behind_the_one_before() {
    let mut bans = Bans::default();
    for number in 0..10 {
        bans.insert(ban(user(&format!("user-{number}")), number / 2));
    }
    let mut seen = Vec::new();
    let mut after = None;
    loop {
        let page: Vec<_> = bans.latest_first(after).take(3).cloned().collect();
        let Some(last) = page.last() else { break };
        after = Some((last.since, last.whom.hash()));
        seen.extend(page.iter().map(|it| it.since));
    }
    assert_eq!(seen, [4, 4, 3, 3, 2, 2, 1, 1, 0, 0]);
}

#[test]
fn a_ban_is_found_by_the_first_digits_of_its_id() {
    let mut bans = Bans::default();
    for number in 0..100 {
        bans.insert(ban(user(&format!("user-{number}")), 0));
    }
    for known in bans.latest_first(None) {
        let id = known.id();
        for length in [8, 9, 17, 63, 64] {
            assert_eq!(bans.by_id(&id[..length]), Ok(known), "{length}");
        }
        assert_eq!(bans.by_id(&id.to_uppercase()), Ok(known));
        assert_eq!(bans.by_id(&id[..7]), Err(BanError::Unknown));
        assert_eq!(bans.by_id(&format!("{id}0")), Err(BanError::Unknown));
    }
    for digits in [
        "",
        "zzzzzzzz",
        "ffffffffffffffff",
        "\u{e9}\u{e9}\u{e9}\u{e9}",
    ] {
        assert_eq!(bans.by_id(digits), Err(BanError::Unknown), "{digits}");
    }
}

#[test]
fn one_that_is_placed_again_is_there_once() {
    let mut bans = Bans::default();
    let ends = Ban {
        until: Some(9),
        automatic: true,
        ..ban(user("alice"), 1)
    };
    bans.insert(ends);
    bans.insert(ban(user("alice"), 2));
    assert_eq!(bans.len(), 1);
    assert_eq!((bans.ends.len(), bans.automatic.len()), (0, 0));
    assert_eq!(bans.by_age.len(), 1);
    bans.remove(&user("alice").hash());
    assert_eq!(
        bans,
        Bans {
            changes: bans.changes,
            ..Bans::default()
        }
    );
}
