//! Whose user a request is of, which secrets are tried for it, and what a snapshot may say of tenants and bans.

use turnfleet_proto::fleet::ban::Whom;
use turnfleet_turn::TenantId;
use turnfleet_turn::bans::BanKind;
use turnfleet_turn::peer_filter::PeerDenied;

use super::*;

const FLEET: &str = "turnfleet.local";
const ACME: u32 = 7;
const BETA: u32 = 8;

/// Acme with a realm and two secrets of its own, and Beta with neither; the fleet has two secrets.
fn with_tenants() -> fleet::Snapshot {
    let acme = fleet::Tenant {
        realm: "acme.example".into(),
        tls_names: vec!["TURN.acme.example.".into()],
        secrets: vec![secret(11, "east", 0), secret(12, "west", 1000)],
        allow_peers: vec!["10.0.0.0/8".into()],
        deny_peers: vec!["10.9.0.0/16".into()],
        rules: Some(fleet::TenantRules {
            tcp_relaying: true,
            ..fleet::TenantRules::default()
        }),
        allocations_per_user: 5,
        ..tenant(ACME, "acme")
    };
    let beta = fleet::Tenant {
        tls_names: vec!["turn.beta.example".into()],
        suspended: true,
        ..tenant(BETA, "beta")
    };
    fleet::Snapshot {
        tenants: vec![acme, beta],
        ..snapshot()
    }
}

fn tenant(id: u32, name: &str) -> fleet::Tenant {
    fleet::Tenant {
        id,
        name: name.into(),
        ..fleet::Tenant::default()
    }
}

fn ban(whom: Whom, until: u64) -> fleet::Ban {
    fleet::Ban {
        whom: Some(whom),
        until,
    }
}

/// Whose user somebody may be: tenant and home with the user, by the secrets with these ids.
type Found = (u32, u32, Option<String>, Vec<u32>);

fn found(
    snapshot: &fleet::Snapshot,
    username: &str,
    realm: &str,
    server_name: Option<&str>,
) -> Vec<Found> {
    let identity = Identity {
        username,
        realm,
        server_name,
    };
    let mut found: Vec<Found> = Vec::new();
    for it in candidates_for(PasswordAlgorithm::Md5, snapshot, identity, 1) {
        // What is tried in the place of a secret.
        if it.expires_at == Some(0) {
            continue;
        }
        let user = it.user.map(|user| username[user].to_owned());
        let (tenant, home) = (it.tenant.0, it.home.0);
        match found.last_mut() {
            Some(last) if (last.0, last.1, &last.2) == (tenant, home, &user) => {
                last.3.push(it.key_id);
            }
            _ => found.push((tenant, home, user, vec![it.key_id])),
        }
    }
    found
}

fn of(tenant: u32, home: u32, user: &str, secrets: &[u32]) -> Found {
    (tenant, home, Some(user.into()), secrets.to_vec())
}

#[test]
fn a_username_may_name_the_tenant_whose_own_secrets_are_tried_first() {
    let snapshot = with_tenants();
    let found = |username| found(&snapshot, username, FLEET, None);
    let all = [11, 12, 2, 1];
    assert_eq!(found("1500:acme/ann"), [of(ACME, ACME, "ann", &all)]);
    assert_eq!(found("1500:acme/a/b"), [of(ACME, ACME, "a/b", &all)]);
    assert_eq!(found("1500:beta/ann"), [of(BETA, BETA, "ann", &[2, 1])]);
    let nobody = (ACME, ACME, None, all.to_vec());
    assert_eq!(found("1500:acme/"), [nobody]);
}

#[test]
fn a_username_with_a_name_that_nobody_has_is_the_default_tenants_as_it_is() {
    let snapshot = with_tenants();
    for username in ["1500:gamma/ann", "1500:ann", "1500:Acme/ann"] {
        let user = username.strip_prefix("1500:").unwrap();
        let found = found(&snapshot, username, FLEET, None);
        assert_eq!(found, [of(0, 0, user, &[2, 1])]);
    }
}

#[test]
fn the_name_of_the_server_tells_the_tenant_and_the_fleets_secret_says_whose_user_it_was() {
    let snapshot = with_tenants();
    let acme = Some("turn.acme.example");
    let found = |username, name| found(&snapshot, username, FLEET, name);
    let both = [
        of(ACME, ACME, "ann", &[11, 12]),
        of(ACME, 0, "ann", &[2, 1]),
    ];
    assert_eq!(found("1500:ann", acme), both);
    let all = [11, 12, 2, 1];
    assert_eq!(found("1500:acme/ann", acme), [of(ACME, ACME, "ann", &all)]);
    let elsewhere = Some("turn.example");
    assert_eq!(found("1500:ann", elsewhere), [of(0, 0, "ann", &[2, 1])]);
}

#[test]
fn a_username_of_one_tenant_is_nobodys_at_the_server_of_another() {
    let snapshot = with_tenants();
    for (username, name) in [
        ("1500:beta/bob", "turn.acme.example"),
        ("1500:acme/ann", "turn.beta.example"),
    ] {
        assert_eq!(found(&snapshot, username, FLEET, Some(name)), []);
    }
}

#[test]
fn a_realm_tells_the_tenant_where_nothing_else_does() {
    let snapshot = with_tenants();
    let found = |username| found(&snapshot, username, "acme.example", None);
    let both = [
        of(ACME, ACME, "ann", &[11, 12]),
        of(ACME, 0, "ann", &[2, 1]),
    ];
    assert_eq!(found("1500:ann"), both);
    assert_eq!(found("1500:beta/bob"), [of(BETA, BETA, "bob", &[2, 1])]);
}

#[test]
fn a_node_that_is_bound_to_a_tenant_takes_everybody_for_its_user() {
    let snapshot = fleet::Snapshot {
        own_tenant: ACME,
        // A node that is bound is told the secrets of its tenant among all of its own.
        secrets: vec![secret(11, "east", 0), secret(2, "north", 0)],
        ..with_tenants()
    };
    let both = [of(ACME, ACME, "ann", &[11, 12]), of(ACME, 0, "ann", &[2])];
    for name in [None, Some("turn.beta.example")] {
        assert_eq!(found(&snapshot, "1500:ann", FLEET, name), both);
        assert_eq!(found(&snapshot, "1500:beta/ann", FLEET, name), []);
    }
}

#[test]
fn a_controller_that_tries_the_node_is_nobodys_user_whosever_the_node_is() {
    let probe = TenantId::PROBE.0;
    // A controller may be a rotation of the nonce keys ahead, or behind.
    for nonce_key in &snapshot().nonce_keys {
        let mut snapshot = with_tenants();
        let user = ProbeKey::of_nonce_key(&nonce_key.key).user(1500);
        let username = format!("1500:{user}");
        let found = |snapshot: &fleet::Snapshot, name| found(snapshot, &username, FLEET, name);
        let nobody = || (probe, 0, None, vec![2, 1]);
        assert_eq!(found(&snapshot, None), [nobody()]);
        // Whoever has a secret of a tenant alone stays that one's user, whatever the name.
        let at_acmes = [of(ACME, ACME, &user, &[11, 12]), nobody()];
        assert_eq!(found(&snapshot, Some("turn.acme.example")), at_acmes);
        snapshot.own_tenant = ACME;
        assert_eq!(found(&snapshot, None), at_acmes);
    }
}

#[test]
fn who_only_calls_himself_a_controller_is_a_user_like_others() {
    let made_by = |key: [u8; 32], end| ProbeKey::of_nonce_key(&key).user(end);
    for user in [
        "turnfleet-probe",
        "turnfleet-probe:",
        &made_by([9; 32], 1500),
        // It has ended, and the time before it was written anew.
        &made_by([1; 32], 900),
    ] {
        let username = format!("1500:{user}");
        let found = found(&with_tenants(), &username, FLEET, None);
        assert_eq!(found, [of(0, 0, user, &[2, 1])]);
    }
}

#[test]
fn credentials_of_a_tenants_realm_are_made_with_it() {
    let identity = Identity {
        username: "1500:ann",
        realm: "acme.example",
        server_name: Some("turn.acme.example"),
    };
    let found = candidates_for(PasswordAlgorithm::Md5, &with_tenants(), identity, 1);
    let password = SharedSecret::new("east").password("1500:ann");
    let expected = LongTermKey::derive("1500:ann", "acme.example", &password);
    assert_eq!(found[0].key, expected);
}

#[test]
fn static_users_are_the_default_tenants_in_the_fleets_realm_only() {
    let mut snapshot = with_tenants();
    snapshot.users[0].username = "ann".into();
    let found = |realm, name| found(&snapshot, "ann", realm, name);
    let default = [of(0, 0, "ann", &[0])];
    assert_eq!(found(FLEET, None), default);
    assert_eq!(found(FLEET, Some("turn.beta.example")), default);
    assert_eq!(found("acme.example", None), []);
}

#[test]
fn as_many_keys_are_tried_whoever_is_asked_for() {
    let snapshot = with_tenants();
    for (username, server_name) in [
        ("1500:ann", None),
        ("1500:acme/ann", None),
        ("1500:beta/ann", None),
        ("1500:gamma/ann", None),
        ("1500:ann", Some("turn.acme.example")),
        ("1500:beta/ann", Some("turn.acme.example")),
    ] {
        let identity = Identity {
            username,
            realm: FLEET,
            server_name,
        };
        let tried = candidates_for(PasswordAlgorithm::Md5, &snapshot, identity, 1);
        assert_eq!(tried.len(), 4, "{username} at {server_name:?}");
    }
}

#[test]
fn what_is_tried_in_the_place_of_a_secret_is_another_thing_each_time() {
    let decoy = || candidates_by(PasswordAlgorithm::Md5, &with_tenants(), "1500:ann", 1)[2].clone();
    assert_eq!(decoy().expires_at, Some(0));
    assert_ne!(decoy().key, decoy().key);
}

#[test]
fn the_most_secrets_that_there_may_be_are_all_tried() {
    let many = |first: u32, count: u32| {
        let ids = first..first + count;
        ids.map(|id| secret(id, "secret", 0)).collect::<Vec<_>>()
    };
    let username = "1500:acme/ann";
    let mut snapshot = with_tenants();
    snapshot.secrets = many(1, 64);
    snapshot.tenants[0].secrets = many(100, 32);
    snapshot.users[0].username = username.into();
    let tried = candidates_by(PasswordAlgorithm::Md5, &snapshot, username, 1);
    assert_eq!(tried.len(), Candidates::MAX);
}

#[test]
fn the_realm_of_a_challenge_is_that_of_the_server_or_the_one_that_was_asked_for() {
    let realm_of = |snapshot: &fleet::Snapshot, name, asked| {
        let keys = compile(snapshot, &local()).unwrap().policy.keys;
        keys.realm(name, asked).map(str::to_owned)
    };
    let mut snapshot = with_tenants();
    let acmes = Some("acme.example".to_owned());
    let (acme, beta) = (Some("turn.acme.example"), Some("turn.beta.example"));
    assert_eq!(realm_of(&snapshot, acme, None), acmes);
    assert_eq!(realm_of(&snapshot, acme, Some(FLEET)), acmes);
    assert_eq!(realm_of(&snapshot, beta, None), None);
    assert_eq!(realm_of(&snapshot, None, Some("acme.example")), acmes);
    for asked in [None, Some(FLEET), Some("elsewhere")] {
        assert_eq!(realm_of(&snapshot, None, asked), None);
    }
    snapshot.own_tenant = BETA;
    assert_eq!(realm_of(&snapshot, acme, Some("acme.example")), None);
}

#[test]
fn a_realm_that_is_the_fleets_tells_nobody_apart() {
    let mut snapshot = with_tenants();
    snapshot.tenants[0].realm = FLEET.into();
    let ann = found(&snapshot, "1500:ann", FLEET, None);
    assert_eq!(ann, [of(0, 0, "ann", &[2, 1])]);
}

#[test]
fn a_tenants_rules_are_compiled_beside_the_fleets() {
    let mut local = local();
    local.tcp_low_peer_ports = true;
    let policy = compile(&with_tenants(), &local).unwrap().policy;
    let acme = policy.server.tenants.of(TenantId(ACME)).unwrap();
    assert_eq!(acme.allocations_per_user, Some(5));
    assert_eq!(acme.tcp_relaying, TcpRelaying::OnWithLowPorts);
    assert!(!acme.suspended);
    let beta = policy.server.tenants.of(TenantId(BETA)).unwrap();
    assert_eq!(beta.allocations_per_user, None);
    assert_eq!(beta.tcp_relaying, TcpRelaying::Off);
    assert!(beta.suspended);
    let names = [0, ACME, BETA, 9].map(|id| policy.tenants.of(TenantId(id)));
    assert_eq!(names, [None, Some("acme"), Some("beta"), None]);
}

#[test]
fn no_rule_opens_the_node_or_its_controllers() {
    let policy = compile(&with_tenants(), &local()).unwrap().policy;
    let own = "10.0.0.1:22".parse().unwrap();
    let checked = policy.server.peer_filter.check(own);
    assert_eq!(checked, Err(PeerDenied::OwnAddress));
}

#[test]
fn what_a_tenants_secret_has_made_is_reported_with_the_others() {
    let local = local();
    let used = |snapshot: &fleet::Snapshot| {
        let compiled = compile(snapshot, &local).unwrap();
        let now = Now {
            unix: 1000,
            ..Now::default()
        };
        compiled.policy.keys.used(11, now);
        let uses = local.secret_uses.report(&mut Default::default());
        uses.iter().map(|it| it.id).collect::<Vec<_>>()
    };
    let mut snapshot = with_tenants();
    assert_eq!(used(&snapshot), [11]);
    snapshot.tenants.clear();
    assert!(used(&snapshot).is_empty());
}

#[test]
fn bans_are_compiled_and_what_a_later_version_bans_is_passed_over() {
    let user = fleet::BannedUser {
        tenant: ACME,
        user: "ann".into(),
    };
    let snapshot = fleet::Snapshot {
        bans: vec![
            ban(Whom::User(user), 0),
            ban(Whom::Tenant(9), 50),
            ban(Whom::Source("192.0.2.0/24".into()), 0),
            ban(Whom::Peer("2001:db8::/32".into()), 0),
            fleet::Ban::default(),
        ],
        ..with_tenants()
    };
    let server = compile(&snapshot, &local()).unwrap().policy.server;
    let bans = &server.bans;
    let ann = |tenant| bans.of_user(TenantId(tenant), Some("ann"), 49);
    assert_eq!(ann(ACME), Some(BanKind::User));
    assert_eq!(ann(9), Some(BanKind::Tenant));
    assert_eq!(bans.of_user(TenantId(9), Some("ann"), 50), None);
    assert_eq!(ann(0), None);
    assert!(bans.of_source("192.0.2.9".parse().unwrap(), 49));
    assert!(bans.of_peer("2001:db8::9".parse().unwrap(), 49));
}

/// What is said of Beta is refused.
#[track_caller]
fn refused_tenant(change: impl FnOnce(&mut fleet::Tenant), expected: &str) {
    let mut snapshot = with_tenants();
    change(&mut snapshot.tenants[1]);
    refused(|it| *it = snapshot, expected);
}

#[test]
fn what_does_not_fit_of_a_tenant_is_refused_with_its_field() {
    refused_tenant(|it| it.id = 0, "tenants.id: above zero");
    refused_tenant(|it| it.id = ACME, "an id twice");
    for name in ["", "-beta", "Beta", "be/ta", &"b".repeat(64)] {
        refused_tenant(|it| it.name = name.into(), "tenants.name");
    }
    refused_tenant(|it| it.name = "acme".into(), "named twice");
    let names = |names: &[String]| {
        let names = names.to_vec();
        move |it: &mut fleet::Tenant| it.tls_names = names
    };
    let taken = "tenants.tls_names: \"turn.acme.example\": named twice";
    refused_tenant(names(&["turn.ACME.example".into()]), taken);
    refused_tenant(names(&["a".repeat(254)]), "tenants.tls_names");
    refused_tenant(names(&vec!["a".into(); 65]), "65 entries");
    refused_tenant(|it| it.realm = "a\nb".into(), "tenants.realm");
    refused_tenant(|it| it.realm = "acme.example".into(), "named twice");
    let secrets = |text: &'static str, count: usize| {
        move |it: &mut fleet::Tenant| it.secrets = vec![secret(1, text, 0); count]
    };
    refused_tenant(secrets("", 1), "tenants.secrets");
    refused_tenant(secrets("a", 33), "33 entries");
    let allow = |it: &mut fleet::Tenant| it.allow_peers = vec!["10.0.0.0/33".into()];
    refused_tenant(allow, "tenants.allow_peers");
    let deny = |it: &mut fleet::Tenant| it.deny_peers = vec!["everybody".into()];
    refused_tenant(deny, "tenants.deny_peers");
    let many = (1..=1001).map(|id| tenant(id, &format!("t{id}")));
    refused(|it| it.tenants = many.collect(), "1001 entries");
}

#[test]
fn what_does_not_fit_of_a_ban_is_refused_with_its_field() {
    let source = |text: &str| ban(Whom::Source(text.into()), 0);
    let peer = ban(Whom::Peer("x".into()), 0);
    let nobody = ban(Whom::User(fleet::BannedUser::default()), 0);
    refused(|it| it.bans = vec![source("10.0.0.1/8")], "bans.source");
    refused(|it| it.bans = vec![peer], "bans.peer");
    refused(|it| it.bans = vec![nobody], "bans.user");
    let many = vec![source("10.0.0.0/8"); 10_001];
    refused(|it| it.bans = many, "10001 entries");
}
