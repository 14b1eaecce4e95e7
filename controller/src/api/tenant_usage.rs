//! `GET /v1/tenants/{name}/usage`: what a tenant takes of its quotas.

use axum::response::Response;
use schemars::JsonSchema;
use serde::Serialize;

use super::app::answer_json;
use super::route::Call;
use super::status::ApiError;
use crate::FleetError;
use crate::fleet::FleetView;
use crate::fleet::quota::Subject;
use crate::reconcile::Handle;
use crate::usage::UsageDesk;
use crate::usage::aggregate::{By, Filter};
use crate::usage::day;
use crate::wall_clock::since_epoch;

/// What a tenant takes of its quotas, over the whole fleet.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TenantUsage")]
pub(super) struct Answer<'v> {
    pub(super) tenant: &'v str,
    pub(super) allocations: Use,
    /// In the direction that has more; what is dropped counts.
    pub(super) bits_per_second: Use,
    pub(super) bytes_per_day: Use,
    /// Unix seconds: the beginning of the day in UTC.
    pub(super) day_began: u64,
}

/// One quota.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[schemars(rename = "QuotaUsage")]
pub(super) struct Use {
    /// 0 is no limit.
    pub(super) limit: u64,
    /// `null` where nobody counts, as with rates without a limit.
    pub(super) used: Option<u64>,
    /// Whether something is refused, dropped or slowed down for it.
    pub(super) exceeded: bool,
}

/// What the tenant `name` takes, which may be the default one.
pub(super) fn of<'v>(
    handle: &Handle,
    view: &'v FleetView,
    name: &'v str,
) -> Result<Answer<'v>, ApiError> {
    let tenant = view.tenants.known(name).map_err(FleetError::from)?;
    let quotas = view.tenants.quotas(tenant);
    let state = view.quotas.get(&Subject { tenant, user: None });
    let limited = state.filter(|state| state.limit[0] > 0);
    let shaped = state.filter(|state| state.limit[1] > 0);
    let rate = shaped.map(|state| state.used[1].max(state.used[2]));
    let at_an_end = state.map_or([false; 3], |state| state.exceeded);
    Ok(Answer {
        tenant: name,
        allocations: Use {
            limit: quotas.allocations,
            used: match limited {
                Some(state) => Some(state.used[0]),
                None => Some(open(handle.usage(), view, tenant)),
            },
            exceeded: at_an_end[0],
        },
        bits_per_second: Use {
            limit: quotas.bits_per_second,
            used: rate,
            exceeded: at_an_end[1] || at_an_end[2],
        },
        bytes_per_day: Use {
            limit: quotas.bytes_per_day,
            used: Some(handle.usage().bytes_of_day(tenant)),
            exceeded: state.is_some_and(|state| state.exhausted),
        },
        day_began: since_epoch().as_secs() / day::SECONDS * day::SECONDS,
    })
}

/// The live allocations of a tenant, as relays reported them last.
fn open(usage: &UsageDesk, view: &FleetView, tenant: u32) -> u64 {
    let filter = Filter {
        tenant: Some(tenant),
        ..Filter::default()
    };
    let sums = usage.look(view, |aggregate| aggregate.sums(By::Fleet, &filter));
    sums.values().map(|sum| sum.open).sum()
}

/// `GET /v1/tenants/{name}/usage`.
pub(crate) async fn show(call: Call) -> Result<Response, ApiError> {
    let answer = of(&call.app.handle, &call.view, call.part("name"))?;
    Ok(answer_json(&answer))
}
