//! `GET`, `POST` and `DELETE /v1/bans`, `DELETE /v1/bans/{id}`: who is not let in. A ban is lifted by its id, or by what is
//! banned.

use std::net::IpAddr;

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::actor::Actor;
use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use super::values::{Field, Kind, Values};
use crate::FleetError;
use crate::fleet::FleetView;
use crate::fleet::bans::{Ban, BanError, Bans, MAX_REASON_BYTES, MAX_USER_BYTES, Whom, network};
use crate::fleet::record::TokenHash;
use crate::fleet::tenants::Tenants;
use crate::reconcile::Handle;
use crate::store::keys::unhex;
use crate::wall_clock::since_epoch;

/// Bans of an answer, where the request does not say how many.
const LIMIT: u64 = 100;
/// The most bans of an answer.
const MAX_LIMIT: u64 = 1000;
/// The longest ban that has an end: ten years.
const MAX_SECONDS: u64 = 10 * 366 * 86_400;

const USER: Field = Field::new(
    "user",
    Kind::Text(MAX_USER_BYTES),
    "A username without its time; `TENANT/USER` where the tenant is not named beside it.",
);
const TENANT: Field = Field::new(
    "tenant",
    Kind::TenantName,
    "The user's tenant; without a user, all users of it.",
);
const SOURCE: Field = Field::new(
    "source",
    Kind::Network,
    "Clients from this address or network.",
);
const PEER: Field = Field::new(
    "peer",
    Kind::Network,
    "Peers at this address or in this network.",
);

/// What the query of a list may say.
pub(super) const QUERY: &[Field] = &[
    Field::new(
        "kind",
        Kind::OneOf(&Whom::KINDS),
        "Only those of what is named.",
    ),
    Field::new(
        "limit",
        Kind::Whole(1, MAX_LIMIT),
        "How many, the latest first; 100 where it is left out.",
    ),
    Field::new(
        "after",
        Kind::Cursor,
        "What the answer before had as `next`: it goes on from there.",
    ),
];

/// What the query says of a ban that is lifted.
pub(super) const WHOM: &[Field] = &[USER, TENANT, SOURCE, PEER];

/// What the body says of a ban.
pub(super) const PLACE: &[Field] = &[
    USER,
    TENANT,
    SOURCE,
    PEER,
    Field::new(
        "seconds",
        Kind::Whole(1, MAX_SECONDS),
        "It ends after so many; without it it has no end.",
    ),
    Field::new(
        "reason",
        Kind::Text(MAX_REASON_BYTES),
        "Why, for whoever lists bans.",
    ),
    Field::new(
        "force",
        Kind::Flag,
        "Also where it is so wide, or covers what is the fleet's own or the caller's, that it may be a mistake, or names a username and not the user in it.",
    ),
];

/// Who is not let in, the latest first.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Bans")]
pub(super) struct Answer<'v> {
    bans: Vec<Shown<'v>>,
    /// What goes on from here as `after`; `null` where this is all.
    next: Option<String>,
    /// How many there are, of whatever kind.
    total: usize,
}

/// A ban.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Ban")]
pub(super) struct Shown<'v> {
    /// 64 hexadecimal digits; the first eight or more name it, too, where no other begins with them.
    pub(super) id: String,
    /// `user`, `tenant`, `source` or `peer`.
    pub(super) kind: &'static str,
    /// Of a banned user or tenant.
    pub(super) tenant: Option<&'v str>,
    pub(super) user: Option<&'v str>,
    /// Of banned clients or peers.
    pub(super) network: Option<String>,
    pub(super) reason: &'v str,
    /// The name of the API token, or of the rule.
    pub(super) by: &'v str,
    /// Unix seconds.
    pub(super) since: u64,
    /// Unix seconds; `null` without an end.
    pub(super) until: Option<u64>,
    /// Whether a rule placed it, and not an operator.
    pub(super) automatic: bool,
}

/// One page of bans.
pub(super) struct Page<'v> {
    pub(super) bans: Vec<Shown<'v>>,
    pub(super) next: Option<String>,
}

/// The bans that are `asked` for in the fields of [`QUERY`].
pub(super) fn page<'v>(view: &'v FleetView, asked: &Values) -> Page<'v> {
    let kind = asked.text("kind");
    let limit = usize::try_from(asked.whole("limit").unwrap_or(LIMIT)).unwrap_or(usize::MAX);
    let after = asked.text("after").and_then(cursor);
    let wanted = |ban: &&std::sync::Arc<Ban>| kind.is_none_or(|kind| ban.whom.kind() == kind);
    let mut bans = view.bans.latest_first(after).filter(wanted).peekable();
    let page: Vec<_> = bans.by_ref().take(limit).collect();
    let last = page.last().filter(|_| bans.peek().is_some());
    Page {
        next: last.map(|ban| format!("{}-{}", ban.since, ban.id())),
        bans: page.iter().map(|ban| shown(ban, &view.tenants)).collect(),
    }
}

/// Where a page begins, by the time and the hash of the last ban of the page before.
pub(super) fn cursor(text: &str) -> Option<(u64, TokenHash)> {
    let (since, id) = text.split_once('-')?;
    let hash = unhex(id)?;
    Some((since.parse().ok()?, hash))
}

pub(super) fn shown<'v>(ban: &'v Ban, tenants: &'v Tenants) -> Shown<'v> {
    let user = match &ban.whom {
        Whom::User { user, .. } => Some(user.as_str()),
        Whom::Tenant(_) | Whom::Source(_) | Whom::Peer(_) => None,
    };
    Shown {
        id: ban.id(),
        kind: ban.whom.kind(),
        tenant: ban.whom.tenant().and_then(|it| tenants.name(it)),
        user,
        network: ban.whom.network().map(|it| it.to_string()),
        reason: &ban.reason,
        by: &ban.by,
        since: ban.since,
        until: ban.until,
        automatic: ban.automatic,
    }
}

/// What the fields of [`WHOM`] say.
fn whom(asked: &Values, tenants: &Tenants) -> Result<Whom, ApiError> {
    let text = |name| asked.text(name).filter(|text: &&str| !text.is_empty());
    let unclear = || {
        let expected = "one of user, tenant, source and peer; a tenant may stand beside a user";
        ApiError::conflict("ban", "it does not say what is banned".to_owned(), expected)
    };
    let net = |text: &str| network(text).ok_or_else(unclear);
    match (text("user"), text("tenant"), text("source"), text("peer")) {
        (Some(user), tenant, None, None) => {
            let whom = tenants.banned_user(user, tenant);
            Ok(whom.map_err(FleetError::from)?)
        }
        (None, Some(name), None, None) => {
            Ok(Whom::Tenant(tenants.known(name).map_err(FleetError::from)?))
        }
        (None, None, Some(source), None) => Ok(Whom::Source(net(source)?)),
        (None, None, None, Some(peer)) => Ok(Whom::Peer(net(peer)?)),
        (_, _, _, _) => Err(unclear()),
    }
}

/// Places a ban, as `asked` in the fields of [`PLACE`], and gives it.
pub(super) async fn put(handle: &Handle, actor: &Actor, asked: &Values) -> Result<Ban, ApiError> {
    let view = handle.view();
    let since = since_epoch().as_secs();
    let ban = Ban {
        whom: whom(asked, &view.tenants)?,
        reason: asked.text("reason").unwrap_or_default().to_owned(),
        by: actor.name.clone(),
        since,
        until: asked.whole("seconds").map(|life| since + life),
        automatic: false,
    };
    let mut detail = ban.reason.clone();
    if let Some(end) = ban.until {
        detail = format!("until {end}, {detail}");
    }
    let target = ban.whom.shown(&view.tenants).to_string();
    let changing = actor.changing(handle, "ban", &target, detail)?;
    let (force, asker): (_, Option<IpAddr>) = (asked.flag("force"), actor.from);
    let placed = ban.clone();
    changing
        .change(move |fleet, _| fleet.plan_ban(placed.clone(), force, asker))
        .await?;
    Ok(ban)
}

/// Lifts the ban of what is `asked` in the fields of [`WHOM`], and gives it.
pub(super) async fn lift_of(
    handle: &Handle,
    actor: &Actor,
    asked: &Values,
) -> Result<Ban, ApiError> {
    let view = handle.view();
    let whom = whom(asked, &view.tenants)?;
    let known = view.bans.of(&whom).ok_or(BanError::Unknown);
    let ban = Ban::clone(known.map_err(FleetError::from)?);
    take_away(handle, actor, ban, &view.tenants).await
}

/// Lifts the ban whose id begins with `digits`, and gives it.
pub(super) async fn lift_by_id(
    handle: &Handle,
    actor: &Actor,
    digits: &str,
) -> Result<Ban, ApiError> {
    let view = handle.view();
    let ban = Bans::by_id(&view.bans, digits);
    let ban = Ban::clone(ban.map_err(FleetError::from)?);
    take_away(handle, actor, ban, &view.tenants).await
}

async fn take_away(
    handle: &Handle,
    actor: &Actor,
    ban: Ban,
    tenants: &Tenants,
) -> Result<Ban, ApiError> {
    let target = ban.whom.shown(tenants).to_string();
    let handle = actor.changing(handle, "lift ban", &target, String::new())?;
    let whom = ban.whom.clone();
    handle
        .change(move |fleet, _| fleet.plan_lift(&whom))
        .await?;
    Ok(ban)
}

/// `GET /v1/bans`.
pub(crate) async fn list(call: Call) -> Result<Response, ApiError> {
    let Page { bans, next } = page(&call.view, &call.query);
    let total = call.view.bans.len();
    Ok(answer_json(&Answer { bans, next, total }))
}

/// `POST /v1/bans`.
pub(crate) async fn place(call: Call) -> Result<Response, ApiError> {
    let ban = put(&call.app.handle, &call.actor, &call.body).await?;
    let answer = answer_json(&shown(&ban, &call.app.handle.view().tenants));
    Ok((StatusCode::CREATED, answer).into_response())
}

/// `DELETE /v1/bans`, of what the query names.
pub(crate) async fn lift(call: Call) -> Result<Response, ApiError> {
    let ban = lift_of(&call.app.handle, &call.actor, &call.query).await?;
    Ok(answer_json(&shown(&ban, &call.view.tenants)))
}

/// `DELETE /v1/bans/{id}`.
pub(crate) async fn lift_one(call: Call) -> Result<Response, ApiError> {
    let ban = lift_by_id(&call.app.handle, &call.actor, call.part("id")).await?;
    Ok(answer_json(&shown(&ban, &call.view.tenants)))
}
