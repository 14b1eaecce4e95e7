//! What the controller does about quotas by itself: credentials a minute, bytes a day, the events of both, and what it shows.

use std::cell::Cell;

use serde_json::{Value, json};
use tonic::metadata::MetadataValue;
use tonic::transport::Endpoint;
use tonic::{Code, Request};
use turnfleet_controller::config::{ProbeMode, RawApiToken};
use turnfleet_proto::fleet::controller_message::Message as Down;
use turnfleet_proto::fleet::listener::Transport;
use turnfleet_proto::fleet::node_message::Message as Up;
use turnfleet_proto::fleet::{Demand, LegUsage, ShareUse, TenantUsage, Usage};
use turnfleet_proto::operator as wire;

use crate::stage::calls::{Answer, ask};
use crate::stage::{Node, Stage, any_hello};

const ACME: &str = "0123456789abcdef-of-acme";
const GLOBEX: &str = "0123456789abcdef-globex";

/// A controller with a relay, and tokens of two tenants.
fn staged() -> (Stage, Node) {
    let token = |name: &str, token: &str| RawApiToken {
        name: name.to_owned(),
        token: Some(token.to_owned()),
        token_file: None,
        scopes: vec!["mint".to_owned()],
        tenant: Some(name.to_owned()),
    };
    let stage = Stage::with(|raw| {
        raw.probe.mode = ProbeMode::Off;
        raw.api_tokens = vec![token("acme", ACME), token("globex", GLOBEX)];
    });
    let node = stage.node(any_hello("relay-0"));
    stage.wait_for("relay-0", |node| node.listed);
    (stage, node)
}

#[track_caller]
fn admin(stage: &Stage, method: &str, path: &str, body: &str) -> Answer {
    let answer = ask(
        stage,
        method,
        path,
        &[("authorization", &stage.admin())],
        body,
    );
    assert!(answer.status < 300, "{method} {path} {}", answer.body);
    answer
}

/// Makes a tenant with these quotas; gives its number.
#[track_caller]
fn set(stage: &Stage, name: &str, quotas: &Value) -> u32 {
    let body = json!({ "quotas": quotas }).to_string();
    let made = admin(stage, "PUT", &format!("/v1/tenants/{name}"), &body).json();
    u32::try_from(made["id"].as_u64().unwrap()).unwrap()
}

fn usage_of(stage: &Stage, name: &str) -> Value {
    admin(stage, "GET", &format!("/v1/tenants/{name}/usage"), "").json()
}

fn minted(stage: &Stage, token: &str, user: &str) -> Answer {
    let path = format!("/turn?service=turn&username={user}&key={token}");
    ask(stage, "GET", &path, &[], "")
}

/// Every `quota.exceeded` that was told: tenant, quota, limit and user.
fn told(stage: &Stage) -> Vec<(Value, Value, Value, Value)> {
    let stream = admin(
        stage,
        "GET",
        "/v1/events?once=true&after=start&kinds=quota",
        "",
    );
    let data = stream
        .body
        .lines()
        .filter_map(|line| line.strip_prefix("data:"));
    data.map(|data| {
        let event: Value = serde_json::from_str(data).unwrap();
        let field = |name: &str| event["fields"][name].clone();
        (
            event["tenant"].clone(),
            field("quota"),
            field("limit"),
            field("username"),
        )
    })
    .collect()
}

#[track_caller]
fn assert_counted(stage: &Stage, tenant: &str, what: &str) {
    let metrics = admin(stage, "GET", "/metrics", "").body;
    let line = format!(
        "turnfleet_controller_quota_exceeded_total{{tenant=\"{tenant}\",what=\"{what}\"}} 1"
    );
    assert!(metrics.lines().any(|it| it == line), "{metrics}");
}

#[test]
fn a_tenant_has_as_many_credentials_a_minute_as_it_may_and_others_do_not_feel_it() {
    let (stage, _node) = staged();
    set(&stage, "acme", &json!({ "credentials_per_minute": 3 }));
    set(&stage, "globex", &json!({ "credentials_per_minute": 1000 }));
    assert_eq!(minted(&stage, ACME, "alice").status, 200);
    let bearer = format!("Bearer {ACME}");
    let header = ("authorization", bearer.as_str());
    assert_eq!(
        ask(&stage, "POST", "/v1/ice-servers", &[header], "").status,
        201
    );
    // The same tenant's user, by a token that is bound to none.
    let whole = |user| minted(&stage, stage.controller().api_token(), user);
    assert_eq!(whole("acme/bob").status, 200);
    let refused = [
        minted(&stage, ACME, "alice"),
        ask(&stage, "POST", "/v1/ice-servers", &[header], ""),
        whole("acme/bob"),
    ];
    for answer in refused {
        assert_eq!(answer.status, 429, "{}", answer.body);
        let wait: u64 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=21).contains(&wait), "{wait}");
        assert_eq!(answer.json()["error"]["code"], "quota_exceeded");
    }
    assert_eq!(minted(&stage, GLOBEX, "carol").status, 200);
    assert_eq!(whole("carol").status, 200);
    let quota = (
        json!("acme"),
        json!("credentials_per_minute"),
        json!(3),
        Value::Null,
    );
    assert_eq!(told(&stage), [quota], "once");
    assert_counted(&stage, "acme", "credentials_per_minute");
    set(&stage, "acme", &json!({}));
    assert_eq!(minted(&stage, ACME, "alice").status, 200);
}

/// A report by which the tenant has carried so many bytes since the relay began to count.
fn report(number: u64, tenant: u32, bytes: u64) -> Usage {
    let leg = LegUsage {
        transport: Transport::Udp.into(),
        bytes_to_clients: bytes,
        ..LegUsage::default()
    };
    Usage {
        epoch: vec![1; 16],
        begun_millis: 1,
        number,
        tenants: vec![TenantUsage {
            tenant,
            legs: vec![leg],
            open: 4,
            ..TenantUsage::default()
        }],
        ..Usage::default()
    }
}

#[test]
fn a_tenant_whose_bytes_of_the_day_are_used_up_is_told_to_relays_and_to_whoever_watches() {
    let (stage, mut node) = staged();
    let acme = set(&stage, "acme", &json!({ "bytes_per_day": 1500 }));
    let say = |up| stage.runtime.block_on(node.say(up));
    say(Up::Demand(Demand::default()));
    let number = Cell::new(0);
    stage.within("the end of the day's bytes", || {
        number.set(number.get() + 1);
        say(Up::Usage(report(number.get(), acme, 100 * number.get())));
        usage_of(&stage, "acme")["bytes_per_day"]["exceeded"] == true
    });
    let usage = usage_of(&stage, "acme");
    let bytes = &usage["bytes_per_day"];
    assert_eq!(bytes["limit"], 1500);
    assert!(bytes["used"].as_u64().unwrap() >= 1500, "{usage}");
    assert_eq!(usage["allocations"]["used"], 4);
    assert_eq!(usage["bits_per_second"]["used"], Value::Null);
    assert_eq!(usage["day_began"].as_u64().unwrap() % 86_400, 0);
    stage.runtime.block_on(async {
        loop {
            let Some(Down::Shares(shares)) = node.hear().await.unwrap() else {
                continue;
            };
            let mut told = shares.shares.iter();
            if told.any(|it| it.tenant == acme && it.exhausted) {
                return;
            }
            // It has one word under way at a time.
            let holds = Demand {
                term: shares.term,
                number: shares.number,
                ..Demand::default()
            };
            node.say(Up::Demand(holds)).await;
        }
    });
    let quota = (
        json!("acme"),
        json!("bytes_per_day"),
        json!(1500),
        Value::Null,
    );
    stage.within("its event", || told(&stage) == [quota.clone()]);
    assert_counted(&stage, "acme", "bytes_per_day");
}

#[test]
fn what_relays_refuse_and_drop_is_told_and_shown() {
    let (stage, node) = staged();
    let quotas = json!({
        "allocations": 10,
        "bits_per_second": 1000,
        "allocations_per_user": 2,
    });
    let acme = set(&stage, "acme", &quotas);
    let of_all = ShareUse {
        tenant: acme,
        allocations: 7,
        to_peers: 900,
        to_clients: 1100,
        ..ShareUse::default()
    };
    let of_alice = ShareUse {
        tenant: acme,
        user: "alice".to_owned(),
        allocations: 2,
        refused: true,
        ..ShareUse::default()
    };
    let demand = Demand {
        uses: vec![of_all, of_alice],
        ..Demand::default()
    };
    stage.runtime.block_on(node.say(Up::Demand(demand)));
    stage.within("what is used", || {
        usage_of(&stage, "acme")["allocations"]["used"] == 7
    });
    let usage = usage_of(&stage, "acme");
    let shown = |quota: &str| {
        let quota = &usage[quota];
        (
            quota["limit"].clone(),
            quota["used"].clone(),
            quota["exceeded"].clone(),
        )
    };
    assert_eq!(shown("allocations"), (json!(10), json!(7), json!(false)));
    assert_eq!(
        shown("bits_per_second"),
        (json!(1000), json!(1100), json!(true))
    );
    let quota = |name: &str, limit: u64, user| (json!("acme"), json!(name), json!(limit), user);
    stage.within("both events", || told(&stage).len() == 2);
    let told = told(&stage);
    assert!(
        told.contains(&quota("bits_per_second", 1000, Value::Null)),
        "{told:?}"
    );
    let alice = quota("allocations_per_user", 2, json!("acme/alice"));
    assert!(told.contains(&alice), "{told:?}");
}

#[test]
fn grpc_shows_the_same_of_the_default_tenant_too_and_of_no_unknown_one() {
    let stage = Stage::new();
    set(&stage, "default", &json!({ "bytes_per_day": 9 }));
    assert_eq!(usage_of(&stage, "default")["bytes_per_day"]["limit"], 9);
    let unknown = ask(
        &stage,
        "GET",
        "/v1/tenants/nobody/usage",
        &[("authorization", &stage.admin())],
        "",
    );
    assert_eq!(unknown.status, 404);
    let address = stage.controller().grpc_address();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let asked = |name: &str| {
        let mut request = Request::new(wire::TenantRequest {
            name: name.to_owned(),
        });
        let bearer: MetadataValue<_> = stage.admin().parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    };
    stage.runtime.block_on(async {
        let channel = endpoint.connect().await.unwrap();
        let mut client = wire::operator_client::OperatorClient::new(channel);
        let shown = client.show_tenant_usage(asked("default")).await;
        let shown = shown.unwrap().into_inner();
        let bytes = shown.bytes_per_day.unwrap();
        assert_eq!(
            (bytes.limit, bytes.used, bytes.exceeded),
            (9, Some(0), false)
        );
        assert_eq!(shown.bits_per_second.unwrap().used, None);
        let unknown = client.show_tenant_usage(asked("nobody")).await;
        assert_eq!(unknown.unwrap_err().code(), Code::NotFound);
    });
}
