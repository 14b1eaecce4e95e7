//! Tenants: how they come and go, what relays hear of them, and which secret their users' credentials are minted with.

use turnfleet_controller::FleetError;
use turnfleet_controller::fleet::record::{
    ApiToken, Quotas, Record, Scope, SecretGeneration, SecretScope, SecretState, Terms,
};
use turnfleet_controller::fleet::tenants::TenantError;
use turnfleet_controller::fleet::{Ask, Fresh, Load, NodePolicies, Revocation, Wishes};
use turnfleet_proto::credentials::SharedSecret;

use crate::stage::{Stage, id, identity};

fn set(stage: &mut Stage, name: &str, terms: Terms) {
    let plan = stage.fleet.plan_tenant(name, terms, stage.now.unix);
    stage.carry_out(plan.unwrap());
}

fn remove(stage: &mut Stage, name: &str) {
    let plan = stage.fleet.plan_remove_tenant(name).unwrap();
    stage.carry_out(plan);
}

/// Every node says that it runs what the fleet has.
fn follow(stage: &mut Stage, nodes: u8) {
    let generation = stage.fleet.generation();
    for node in 0..nodes {
        stage.heartbeat(node, generation, Load::default());
    }
}

fn secret(id: u32, state: SecretState, since_generation: u64) -> Record {
    Record::Secret(SecretGeneration {
        id,
        scope: SecretScope::Tenant("acme".into()),
        secret: SharedSecret::new(format!("acme's {id}")),
        state,
        created_at: 0,
        since_generation,
    })
}

fn minted(stage: &Stage, tenant: &str) -> String {
    let view = stage.view();
    let (_, secret) = view.offer(&Ask {
        tenant,
        user: "alice",
        ..Ask::default()
    });
    String::from_utf8(secret.as_bytes().to_vec()).unwrap()
}

#[test]
fn a_tenant_is_told_to_relays_in_a_section_of_its_own() {
    let mut stage = Stage::of(2);
    let mut policies = NodePolicies::default();
    set(&mut stage, "beta", Terms::default());
    let before = policies.of(&stage.fleet, &id(0)).unwrap();
    let terms = Terms {
        realm: Some("acme.example".to_owned()),
        tls_names: vec!["Turn.ACME.example".to_owned()],
        deny_peers: vec!["198.51.100.7/24".parse().unwrap()],
        tcp_relaying: true,
        ..Terms::default()
    };
    set(&mut stage, "acme", terms.clone());
    let policy = policies.of(&stage.fleet, &id(0)).unwrap();
    let numbers: Vec<_> = policy
        .since(&before)
        .sections
        .iter()
        .map(|it| it.number)
        .collect();
    assert_eq!(numbers, [102]);
    let told = policy.snapshot().tenants;
    let names: Vec<_> = told.iter().map(|it| (it.id, it.name.as_str())).collect();
    assert_eq!(names, [(1, "beta"), (2, "acme")]);
    let acme = &told[1];
    assert_eq!(acme.realm, "acme.example");
    assert_eq!(acme.tls_names, ["turn.acme.example"]);
    assert_eq!(acme.deny_peers, ["198.51.100.0/24"]);
    assert!(acme.rules.unwrap().tcp_relaying && !acme.suspended);
    // What is there already is not written again.
    let again = stage.fleet.plan_tenant("acme", terms, 9).unwrap();
    assert!(again.is_empty());
    let suspended = Terms {
        suspended: true,
        ..Terms::default()
    };
    set(&mut stage, "acme", suspended);
    let told = policies
        .of(&stage.fleet, &id(0))
        .unwrap()
        .snapshot()
        .tenants;
    assert!(told[1].suspended && told[1].realm.is_empty());
}

#[test]
fn the_number_of_a_tenant_is_never_used_again() {
    let mut stage = Stage::of(1);
    for round in 1..=3 {
        set(&mut stage, "acme", Terms::default());
        assert_eq!(stage.fleet.tenants().id("acme"), Some(round));
        remove(&mut stage, "acme");
    }
    assert!(stage.fleet.tenants().is_empty());
    assert_eq!(stage.fleet.snapshot(&id(0)).unwrap().tenants, []);
}

#[test]
fn what_tells_tenants_apart_is_one_tenants() {
    let mut stage = Stage::of(1);
    let terms = |realm: &str, tls_name: &str| Terms {
        realm: Some(realm.to_owned()),
        tls_names: vec![tls_name.to_owned()],
        ..Terms::default()
    };
    set(
        &mut stage,
        "acme",
        terms("acme.example", "turn.acme.example"),
    );
    for (realm, tls_name) in [
        ("acme.example", "turn.beta.example"),
        ("beta.example", "TURN.acme.example"),
        // That of the fleet.
        ("example.org", "turn.beta.example"),
    ] {
        let refused = stage.fleet.plan_tenant("beta", terms(realm, tls_name), 0);
        let is_taken = matches!(refused, Err(FleetError::Tenant(TenantError::Taken { .. })));
        assert!(is_taken, "{realm} {tls_name} {refused:?}");
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let stage = Stage::of(1);
    let suspended = Terms {
        suspended: true,
        ..Terms::default()
    };
    let long_realm = Terms {
        realm: Some("x".repeat(128)),
        ..Terms::default()
    };
    let no_name = Terms {
        tls_names: vec!["turn..example".to_owned()],
        ..Terms::default()
    };
    for (name, terms) in [
        ("", Terms::default()),
        ("Acme", Terms::default()),
        ("-acme", Terms::default()),
        ("a/b", Terms::default()),
        (&"x".repeat(64), Terms::default()),
        ("default", suspended),
        ("acme", long_realm),
        ("acme", no_name),
    ] {
        let refused = stage.fleet.plan_tenant(name, terms, 0);
        let is_unfit = matches!(refused, Err(FleetError::Tenant(TenantError::Unfit { .. })));
        assert!(is_unfit, "{name} {refused:?}");
    }
}

#[test]
fn the_default_tenant_has_quotas_and_relays_are_not_told_of_it() {
    let mut stage = Stage::of(1);
    let quotas = Quotas {
        allocations: 7,
        ..Quotas::default()
    };
    let terms = Terms {
        quotas,
        ..Terms::default()
    };
    set(&mut stage, "default", terms);
    let tenants = stage.fleet.tenants();
    assert_eq!(tenants.get(0).unwrap().terms.quotas, quotas);
    assert_eq!(stage.fleet.snapshot(&id(0)).unwrap().tenants, []);
    set(&mut stage, "acme", Terms::default());
    assert_eq!(stage.fleet.tenants().id("acme"), Some(1));
    remove(&mut stage, "default");
    assert!(stage.fleet.tenants().get(0).is_none());
}

#[test]
fn a_tenant_that_a_token_is_bound_to_is_not_removed() {
    let mut stage = Stage::of(1);
    set(&mut stage, "acme", Terms::default());
    let token = ApiToken {
        name: "acme's".to_owned(),
        scopes: vec![Scope::Mint],
        tenant: Some("acme".to_owned()),
        expires_at: None,
        by_operator: true,
    };
    let plan = stage.fleet.plan_api_token([1; 32], token).unwrap();
    stage.carry_out(plan);
    let refused = stage.fleet.plan_remove_tenant("acme").unwrap_err();
    assert!(refused.to_string().contains("acme's"), "{refused}");
    let plan = stage.fleet.plan_revoke_api_token("acme's").unwrap();
    stage.carry_out(plan);
    remove(&mut stage, "acme");
}

#[test]
fn users_of_a_tenant_are_minted_for_with_its_own_secret_once_every_relay_has_it() {
    let mut stage = Stage::kept_up(3);
    set(&mut stage, "acme", Terms::default());
    follow(&mut stage, 3);
    let (_, plan) = stage
        .fleet
        .plan_rotation(
            0,
            &SecretScope::Tenant("acme".into()),
            &SharedSecret::new("acme's own"),
        )
        .unwrap();
    stage.carry_out(plan);
    let told = stage.fleet.snapshot(&id(0)).unwrap();
    assert_eq!(told.tenants[0].secrets.len(), 1);
    assert_eq!(
        told.secrets.len(),
        1,
        "the others' users are not verified with it"
    );
    follow(&mut stage, 2);
    assert!(
        !stage.fleet.is_upkeep_due(stage.now),
        "one relay does not have it"
    );
    assert_eq!(minted(&stage, "acme"), "north");
    follow(&mut stage, 3);
    assert!(stage.fleet.is_upkeep_due(stage.now));
    let plan = stage.fleet.plan_upkeep(stage.now, [0; 32]);
    stage.carry_out(plan);
    assert_eq!(minted(&stage, "acme"), "acme's own");
    assert_eq!(minted(&stage, "beta"), "north");
    assert_eq!(minted(&stage, ""), "north");
    // No probe is made with it: its user could be banned.
    let view = stage.view();
    let trial = view.trial_secret(view.node(&id(0)).unwrap());
    assert_eq!(trial.0.as_bytes(), b"north");
}

#[test]
fn a_secret_from_before_the_tenant_is_minted_with_when_the_relays_know_the_tenant() {
    let mut stage = Stage::of(2);
    stage.store(secret(2, SecretState::Active, 7));
    assert_eq!(minted(&stage, "acme"), "north");
    set(&mut stage, "acme", Terms::default());
    assert_eq!(minted(&stage, "acme"), "north");
    follow(&mut stage, 2);
    assert_eq!(minted(&stage, "acme"), "acme's 2");
}

#[test]
fn every_relay_hears_that_the_secret_of_a_tenant_is_revoked_and_it_goes_with_the_tenant() {
    let mut stage = Stage::of(2);
    stage.store(secret(2, SecretState::Active, 7));
    set(&mut stage, "acme", Terms::default());
    follow(&mut stage, 2);
    let revocation = Revocation {
        cut: true,
        replacement: None,
    };
    let (_, plan) = stage.fleet.plan_revocation(9, 2, &revocation).unwrap();
    stage.carry_out(plan);
    let told = stage.fleet.snapshot(&id(1)).unwrap();
    let revoked: Vec<_> = told
        .revoked_secrets
        .iter()
        .map(|it| (it.id, it.cut))
        .collect();
    assert_eq!(revoked, [(2, true)]);
    assert_eq!(told.tenants[0].secrets, []);
    assert_eq!(minted(&stage, "acme"), "north");
    remove(&mut stage, "acme");
    assert_eq!(stage.view().secrets.len(), 1);
}

#[test]
fn a_tenant_of_the_configuration_is_changed_there_alone_and_stays_when_it_is_taken_out() {
    let mut stage = Stage::of(1);
    let start = |stage: &mut Stage, tenants: &[(&str, Terms)]| {
        let tenants = tenants
            .iter()
            .map(|(name, terms)| ((*name).to_owned(), terms.clone()));
        let wishes = Wishes {
            policy: Stage::policy(),
            users: Vec::new(),
            shared_secret: None,
            join_token: None,
            api_tokens: Vec::new(),
            tenants: tenants.collect(),
        };
        let fresh = Fresh {
            shared_secret: SharedSecret::new("fresh"),
            api_token: "api".to_owned(),
            join_token: "join".to_owned(),
            nonce_key: [3; 32],
        };
        let plan = stage.fleet.plan_start(&wishes, fresh, stage.now);
        let is_settled = plan.is_empty();
        stage.carry_out(plan);
        is_settled
    };
    set(&mut stage, "beta", Terms::default());
    let strict = Terms {
        deny_peers: vec!["198.51.100.0/24".parse().unwrap()],
        ..Terms::default()
    };
    start(
        &mut stage,
        &[("acme", strict.clone()), ("beta", strict.clone())],
    );
    assert!(start(
        &mut stage,
        &[("acme", strict.clone()), ("beta", strict.clone())]
    ));
    let ids = ["beta", "acme"].map(|name| stage.fleet.tenants().id(name));
    assert_eq!(ids, [Some(1), Some(2)]);
    for refused in [
        stage.fleet.plan_tenant("acme", Terms::default(), 0),
        stage.fleet.plan_remove_tenant("acme"),
    ] {
        let is_configured = matches!(refused, Err(FleetError::Tenant(TenantError::Configured(_))));
        assert!(is_configured, "{refused:?}");
    }
    // What two of them claim is the first one's: relays would refuse it.
    let same = Terms {
        realm: Some("same.example".to_owned()),
        tls_names: vec!["same.example".to_owned()],
        ..Terms::default()
    };
    start(&mut stage, &[("acme", same.clone()), ("beta", same)]);
    let told = stage.fleet.snapshot(&id(0)).unwrap().tenants;
    let told = told
        .iter()
        .map(|it| (it.realm.as_str(), it.tls_names.len()));
    assert_eq!(told.collect::<Vec<_>>(), [("same.example", 1), ("", 0)]);
    start(&mut stage, &[("acme", strict.clone())]);
    start(&mut stage, &[("beta", strict.clone())]);
    assert_eq!(stage.fleet.tenants().named("acme").unwrap().terms, strict);
    remove(&mut stage, "acme");
}

#[test]
fn a_relay_that_is_bound_to_a_tenant_is_told_its_number() {
    let mut stage = Stage::empty();
    stage.join_for(0, identity(0), Some("acme"));
    stage.join(1, identity(1));
    let own =
        |stage: &Stage| [0, 1].map(|node| stage.fleet.snapshot(&id(node)).unwrap().own_tenant);
    assert_eq!(own(&stage), [0, 0]);
    set(&mut stage, "beta", Terms::default());
    set(&mut stage, "acme", Terms::default());
    assert_eq!(own(&stage), [2, 0]);
    let mut policies = NodePolicies::default();
    let sent = [0, 1].map(|node| policies.of(&stage.fleet, &id(node)).unwrap().snapshot());
    assert_eq!(sent.map(|it| it.own_tenant), [2, 0]);
}
