//! Every route of the HTTP API, each defined once: the router and the document are made of this list.

use ::http::Method;

use super::route::{Access, Draft, Route};
use super::values::{Field, Kind};
use super::{
    abuse, attention, audit, bans, capacity, capacity_history, certificates, dashboard, events,
    explain, http, ice_servers, join_tokens, matrix, node_actions, nodes, own_token,
    policy_actions, ports, secrets, tenant_usage, tenants, tokens, trace, turn_rest, usage,
    webhooks,
};
use crate::fleet::record::Scope;

const VIEWER: Access = Access::Scope(Scope::Viewer);
const OPERATOR: Access = Access::Scope(Scope::Operator);
const OWN: Access = Access::Own(Scope::Viewer);
const ADMIN: Access = Access::Scope(Scope::Admin);

/// What a request for a credential may say, by either path.
const USER: Field = Field::new(
    "username",
    Kind::Text(497),
    "Whom the credential is for; it becomes a part of the username.",
);
const TTL: Field = Field::new(
    "ttl",
    Kind::Whole(1, u64::MAX),
    "Seconds that the credential is good for; below 300 it counts as 300, above 86400 as 86400.",
);
const COUNT: Field = Field::new(
    "count",
    Kind::Whole(1, u64::MAX),
    "The most URIs; there is a bound of the controller's own.",
);
const REGION: Field = Field::new("region", Kind::Name, "The region to prefer.");
const ROOM: Field = Field::new(
    "room",
    Kind::Text(255),
    "The room, whose users all get the same relays.",
);
const NAMES: Field = Field::new(
    "names",
    Kind::OneOf(&["turns", "all"]),
    "Which URIs carry names: those of `turns:`, or all.",
);

const TURN: &[Field] = &[
    Field::required("service", Kind::OneOf(&["turn"]), "Always turn."),
    USER,
    TTL,
    Field::new(
        "transports",
        Kind::Some(&["udp", "tcp", "tls"]),
        "The transports, the preferred one first.",
    ),
    COUNT,
    REGION,
    ROOM,
    NAMES,
    Field::new(
        "key",
        Kind::Text(512),
        "The API token, where no header carries it.",
    ),
];

const ICE: &[Field] = &[
    Field::new(
        "user",
        Kind::Text(497),
        "Whom the credential is for; it becomes a part of the username.",
    ),
    USER,
    TTL,
    Field::new(
        "transports",
        Kind::Any(&["stun", "udp", "tcp", "tls"]),
        "The transports, the preferred one first.",
    ),
    COUNT,
    REGION,
    ROOM,
    NAMES,
];

/// All of them.
pub(super) fn routes() -> Vec<Route> {
    [
        open(),
        page(),
        minting(),
        homeserver(),
        fleet(),
        standing(),
        traffic(),
        ports(),
        secrets(),
        tokens(),
        tenants(),
        bans(),
        suspects(),
        document(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn open() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/livez", "livez", Access::Open)
            .calls(http::livez)
            .answers::<http::Live>()
            .says("Whether the process runs", ""),
        Draft::new(Method::GET, "/readyz", "readyz", Access::Open)
            .calls(http::readyz)
            .answers::<http::Ready>()
            .says("Whether requests are answered", "503 while the controller starts. It does not wait for a relay: relays may reach the controller through a balancer that asks here first."),
        Draft::new(Method::GET, "/metrics", "metrics", Access::Metrics)
            .serves(http::metrics)
            .answers_text("text/plain")
            .says("Metrics in the text format of Prometheus", "They need no token where only this machine reaches the listener."),
    ]
}

fn page() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/", "dashboard_at_root", Access::Open)
            .serves(dashboard::page)
            .answers_text("text/html")
            .says("The dashboard", "The same as /dashboard."),
        Draft::new(Method::GET, "/dashboard", "dashboard", Access::Open)
            .serves(dashboard::page)
            .answers_text("text/html")
            .says("The dashboard", "A page that asks for an API token and shows the fleet by what this API tells its bearer. It changes nothing."),
        Draft::new(Method::GET, "/dashboard/style.css", "dashboard_style", Access::Open)
            .serves(dashboard::style)
            .answers_text("text/css")
            .says("How the dashboard looks", ""),
        Draft::new(Method::GET, "/dashboard/icon.svg", "dashboard_icon", Access::Open)
            .serves(dashboard::icon)
            .answers_text("image/svg+xml")
            .says("The icon of the dashboard", ""),
        Draft::new(Method::GET, "/dashboard/{module}", "dashboard_module", Access::Open)
            .calls(dashboard::module)
            .answers_text("text/javascript")
            .says("What the dashboard does", "Its modules, each a file."),
    ]
}

fn minting() -> Vec<Route> {
    let turn = |method, id| {
        Draft::new(method, "/turn", id, Access::Minting)
            .query(TURN)
            .serves(turn_rest::turn)
            .answers::<turn_rest::Answer<'_>>()
    };
    vec![
        turn(Method::GET, "turn")
            .says("A credential in the form of the TURN REST API", "Parameters of other names are left alone, as callers of the TURN REST API add their own."),
        turn(Method::POST, "turn_by_post")
            .says("The same by POST", "The parameters may also stand in a form, `application/x-www-form-urlencoded`."),
        Draft::new(Method::POST, "/v1/ice-servers", "ice_servers", Access::Minting)
            .body(ICE)
            .serves(ice_servers::ice_servers)
            .answers_with::<ice_servers::Answer<'_>>(201)
            .says("A credential with a list of healthy relays", "The answer is what `RTCPeerConnection` takes as its configuration."),
    ]
}

fn homeserver() -> Vec<Route> {
    let turn_server = |path, id| {
        Draft::new(Method::GET, path, id, Access::Homeserver)
            .serves(matrix::turn_server)
            .answers::<turn_rest::Answer<'_>>()
    };
    vec![
        turn_server(matrix::V3, "matrix_turn_server")
            .says("A credential for a user of the homeserver", "As Matrix clients ask their homeserver for it, whose reverse proxy sends the path here; `M_UNRECOGNIZED` where no homeserver is configured. Whose token it is, the homeserver is asked. Old clients have it in the query, as `access_token`."),
        turn_server(matrix::R0, "matrix_turn_server_r0")
            .says("The same at the path of older clients", ""),
    ]
}

fn fleet() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/nodes", "nodes", VIEWER)
            .query(nodes::QUERY)
            .calls(nodes::nodes)
            .answers::<nodes::Answer<'_>>()
            .says("Every relay node, and why lists name it or do not", "By pages and in an order of the caller's where the query says so."),
        Draft::new(Method::GET, "/v1/nodes/{node}", "node", VIEWER)
            .calls(nodes::node)
            .answers::<nodes::Node<'_>>()
            .says("One relay node", ""),
        Draft::new(Method::DELETE, "/v1/nodes/{node}", "forget", OPERATOR)
            .calls(node_actions::forget)
            .answers::<node_actions::Done<'_>>()
            .says("Forgets a node that is gone for good", "Its ports are others' after a quarantine; it may enrol again, and has them back at once. A node whose session is live is not forgotten."),
        Draft::new(Method::POST, "/v1/nodes/{node}/drain", "drain", OPERATOR)
            .body(node_actions::DRAIN)
            .calls(node_actions::drain)
            .answers::<node_actions::Done<'_>>()
            .says("Takes a node out of the lists", "It opens no more allocations and names other relays to those who ask; live allocations go on."),
        Draft::new(Method::POST, "/v1/nodes/{node}/undrain", "undrain", OPERATOR)
            .calls(node_actions::undrain)
            .answers::<node_actions::Done<'_>>()
            .says("Takes a drain back", ""),
        Draft::new(Method::POST, "/v1/nodes/{node}/kill", "kill", OPERATOR)
            .calls(policy_actions::kill)
            .answers::<node_actions::Done<'_>>()
            .says("Ends the process of a node", "Its allocations end with it. A service manager may start it again."),
        Draft::new(Method::GET, "/v1/rollout", "rollout", VIEWER)
            .calls(policy_actions::rollout)
            .answers::<policy_actions::Progress<'_>>()
            .says("How far a changed policy has come", "And whether the store is older than what relays run."),
        Draft::new(Method::POST, "/v1/rollout/force", "force_rollout", OPERATOR)
            .calls(policy_actions::force)
            .answers::<policy_actions::Taken>()
            .says("Gives every relay the policy", "Whatever the first one said of it."),
        Draft::new(Method::POST, "/v1/restore/confirm", "confirm_restore", OPERATOR)
            .calls(policy_actions::confirm_restore)
            .answers::<policy_actions::Taken>()
            .says("Follows a store that was restored from an older backup", "As another epoch: relays then take a lower generation."),
        Draft::new(Method::GET, "/v1/nodes/{node}/explain", "explain_node", VIEWER)
            .query(explain::QUERY)
            .calls(explain::node)
            .answers::<explain::Answer<'_>>()
            .says("Why a node is, or is not, in somebody's list", ""),
        Draft::new(Method::GET, "/v1/explain", "explain", VIEWER)
            .query(explain::QUERY)
            .calls(explain::fleet)
            .answers::<explain::Answer<'_>>()
            .says("Why relay nodes are, or are not, in somebody's list", "They stand in the order of the list."),
        Draft::new(Method::GET, "/v1/certificates", "certificates", VIEWER)
            .calls(certificates::certificates)
            .answers::<certificates::Answer>()
            .says("The fleet's certificate, and what each relay shows", "With the order of the next one, and why the last one failed. No key is told."),
        Draft::new(Method::POST, "/v1/trace", "trace", OPERATOR)
            .body(trace::TRACE)
            .calls(trace::trace)
            .answers::<trace::Answer>()
            .says("Who had a relayed address at a time", "By the journals of the relay nodes that have it, wherever their sessions are. What no journal knows is a gap, and a node that did not answer is named. Written to the audit log."),
        Draft::new(Method::GET, "/v1/webhooks", "webhooks", VIEWER)
            .calls(webhooks::webhooks)
            .answers::<webhooks::Answer>()
            .says("How the receivers of events stand", "As the controller sees it that answers: each delivers what it hears of."),
        Draft::new(Method::GET, "/v1/events", "events", OWN)
            .query(events::QUERY)
            .calls(events::stream)
            .answers_text("text/event-stream")
            .says("What happens in the fleet, as Server-Sent Events", "The data of each is an object with `id`, `at_milliseconds`, `kind`, `node`, `tenant` and `fields`. A token that is bound to a tenant sees what concerns that tenant."),
    ]
}

fn standing() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/capacity", "capacity", VIEWER)
            .query(capacity::QUERY)
            .calls(capacity::capacity)
            .answers::<capacity::Answer>()
            .says("What the fleet, its regions and zones can hold, and what they hold", ""),
        Draft::new(Method::GET, "/v1/capacity/history", "capacity_history", VIEWER)
            .query(capacity_history::QUERY)
            .calls(capacity_history::history)
            .answers::<capacity_history::Answer>()
            .says("How use has gone within a quarter of an hour, or a day", "As the controller that answers has seen it since it started. What was carried is at /v1/usage/history, over restarts."),
        Draft::new(Method::GET, "/v1/attention", "attention", VIEWER)
            .calls(attention::attention)
            .answers::<attention::Answer>()
            .says("What somebody should look at, the worst first", "By what the controller that answers knows at this moment."),
        Draft::new(Method::GET, "/v1/token", "token", OWN)
            .calls(own_token::show)
            .answers::<own_token::Answer>()
            .says("Whose token the request carries, and what it opens", ""),
    ]
}

fn traffic() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/usage", "usage", VIEWER)
            .query(usage::TOTALS)
            .calls(usage::totals)
            .answers::<usage::Answer>()
            .says("What the fleet has carried, for whom and where", "Sums since counting began, over restarts of relays and controllers, with what forgotten nodes carried."),
        Draft::new(Method::GET, "/v1/usage/history", "usage_history", VIEWER)
            .query(usage::HISTORY)
            .calls(usage::history)
            .answers::<usage::Past>()
            .says("The same within each minute of a day, or each hour of a month", "Every byte is told in one span. What was counted while no controller could write is told by the first span after it."),
        Draft::new(Method::GET, "/v1/usage/top", "usage_top", VIEWER)
            .query(usage::TOP)
            .calls(usage::top)
            .answers::<usage::Largest>()
            .says("The largest users and networks", "Over all relays, as of their last reports, which come every five seconds."),
    ]
}

fn ports() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/ports", "ports", VIEWER)
            .calls(ports::ports)
            .answers::<ports::Answer<'_>>()
            .says("Who holds which ports of which public address", ""),
        Draft::new(Method::DELETE, "/v1/ports/{public_ip}/{range}", "release_ports", OPERATOR)
            .calls(ports::release)
            .answers::<ports::Released>()
            .says("Takes the word that nobody uses these ports", "Whoever holds them loses them to a quarantine; asked again, the quarantine ends. A node whose session is live keeps its ports."),
    ]
}

fn secrets() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/secrets", "secrets", VIEWER)
            .calls(secrets::secrets)
            .answers::<secrets::Answer>()
            .says("The shared secrets, and how far relays have them", "No answer holds a secret."),
        Draft::new(Method::POST, "/v1/secrets/rotate", "rotate_secret", ADMIN)
            .body(secrets::ROTATE)
            .calls(secrets::rotate)
            .answers::<secrets::Changed>()
            .says("Begins a rotation", "Credentials are minted with the secret once every relay of the lists accepts it; the one before it retires then."),
        Draft::new(Method::POST, "/v1/secrets/pin", "pin_given_secret", ADMIN)
            .body(secrets::PIN)
            .calls(secrets::pin_given)
            .answers::<secrets::Changed>()
            .says("Pins a secret that an application has", "Relays accept it until it is unpinned and has retired."),
        Draft::new(Method::POST, "/v1/secrets/{id}/pin", "pin_secret", ADMIN)
            .body(&[])
            .calls(secrets::pin)
            .answers::<secrets::Changed>()
            .says("Keeps a generation accepted until it is unpinned", ""),
        Draft::new(Method::POST, "/v1/secrets/{id}/unpin", "unpin_secret", ADMIN)
            .body(&[])
            .calls(secrets::unpin)
            .answers::<secrets::Changed>()
            .says("Lets a pinned generation retire", ""),
        Draft::new(Method::POST, "/v1/secrets/{id}/revoke", "revoke_secret", ADMIN)
            .body(secrets::REVOKE)
            .calls(secrets::revoke)
            .answers::<secrets::Revoked>()
            .says("Has every relay refuse a generation at once", "One that credentials are minted with is revoked with a replacement only."),
    ]
}

fn tokens() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/tokens", "tokens", ADMIN)
            .calls(tokens::list)
            .answers::<tokens::Answer<'_>>()
            .says("Who may use this API", ""),
        Draft::new(Method::POST, "/v1/tokens", "create_token", ADMIN)
            .body(tokens::CREATE)
            .calls(tokens::create)
            .answers_with::<tokens::Made<'_>>(201)
            .says(
                "Makes an API token",
                "It is shown in this answer alone; the store keeps its SHA-256.",
            ),
        Draft::new(Method::DELETE, "/v1/tokens/{name}", "revoke_token", ADMIN)
            .calls(tokens::revoke)
            .answers::<tokens::Revoked<'_>>()
            .says("Revokes an API token", "It opens nothing from then on."),
        Draft::new(Method::GET, "/v1/join-tokens", "join_tokens", ADMIN)
            .calls(join_tokens::list)
            .answers::<join_tokens::Answer<'_>>()
            .says("What lets relays into the fleet", ""),
        Draft::new(Method::POST, "/v1/join-tokens", "create_join_token", ADMIN)
            .body(join_tokens::CREATE)
            .calls(join_tokens::create)
            .answers_with::<join_tokens::Made<'_>>(201)
            .says(
                "Makes a join token",
                "It is shown in this answer alone; the store keeps its SHA-256.",
            ),
        Draft::new(
            Method::DELETE,
            "/v1/join-tokens/{name}",
            "revoke_join_token",
            ADMIN,
        )
        .calls(join_tokens::revoke)
        .answers::<join_tokens::Revoked<'_>>()
        .says(
            "Revokes a join token",
            "It enrols nobody from then on; its relays stay members.",
        ),
        Draft::new(Method::GET, "/v1/audit", "audit", ADMIN)
            .query(audit::QUERY)
            .calls(audit::audit)
            .answers::<audit::Answer>()
            .says(
                "Who changed what, the latest first",
                "The log holds 30 days and 10,000 entries at most.",
            ),
    ]
}

fn tenants() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/tenants", "tenants", VIEWER)
            .calls(tenants::list)
            .answers::<tenants::Answer<'_>>()
            .says("Whoever has users of their own", ""),
        Draft::new(Method::GET, "/v1/tenants/{name}", "tenant", VIEWER)
            .calls(tenants::show)
            .answers::<tenants::Shown<'_>>()
            .says("One tenant", ""),
        Draft::new(Method::GET, "/v1/tenants/{name}/usage", "tenant_usage", VIEWER)
            .calls(tenant_usage::show)
            .answers::<tenant_usage::Answer<'_>>()
            .says("What a tenant takes of its quotas", "Over the whole fleet, as relays told within the last seconds."),
        Draft::new(Method::PUT, "/v1/tenants/{name}", "set_tenant", ADMIN)
            .body(tenants::SET)
            .calls(tenants::set)
            .answers::<tenants::Shown<'_>>()
            .says("Makes a tenant, or changes it", "The body is all that holds from then on: what is left out is as in a tenant that nothing is said of."),
        Draft::new(Method::DELETE, "/v1/tenants/{name}", "remove_tenant", ADMIN)
            .calls(tenants::remove)
            .answers::<tenants::Removed<'_>>()
            .says("Removes a tenant", "Its secrets and bans go with it. One that a token names is not removed: its users would be the default tenant's."),
    ]
}

fn bans() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/bans", "bans", VIEWER)
            .query(bans::QUERY)
            .calls(bans::list)
            .answers::<bans::Answer<'_>>()
            .says("Who is not let in, the latest first", "There are at most 10,000."),
        Draft::new(Method::POST, "/v1/bans", "place_ban", OPERATOR)
            .body(bans::PLACE)
            .calls(bans::place)
            .answers_with::<bans::Shown<'_>>(201)
            .says("Bans a user, a tenant, a source or peers", "Every relay refuses them, and ends what they have, within two seconds. A ban of the same that is there is replaced."),
        Draft::new(Method::DELETE, "/v1/bans", "lift_ban", OPERATOR)
            .query(bans::WHOM)
            .calls(bans::lift)
            .answers::<bans::Shown<'_>>()
            .says("Lifts the ban of what the query names", ""),
        Draft::new(Method::DELETE, "/v1/bans/{id}", "lift_ban_by_id", OPERATOR)
            .calls(bans::lift_one)
            .answers::<bans::Shown<'_>>()
            .says("Lifts the ban of that id", ""),
    ]
}

fn suspects() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/v1/abuse", "abuse", VIEWER)
            .query(abuse::QUERY)
            .calls(abuse::show)
            .answers::<abuse::Answer>()
            .says("Who is suspected of abuse, and what would be done", "Rules find them in what relays report every five seconds. Under privacy, users and networks are hashes."),
    ]
}

fn document() -> Vec<Route> {
    vec![
        Draft::new(Method::GET, "/openapi.json", "openapi", Access::Open)
            .calls(http::openapi)
            .answers::<serde_json::Value>()
            .says("This document", ""),
    ]
}
