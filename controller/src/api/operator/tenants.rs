//! Tenants, and who is banned.

use tonic::Status;
use turnfleet_proto::operator as wire;

use super::{Call, asked, shown};
use crate::api::values::Values;
use crate::api::{bans, tenant_usage, tenants};

pub(super) async fn list_tenants(
    call: Call<'_, wire::ListTenantsRequest>,
) -> Result<wire::ListTenantsResponse, Status> {
    let view = call.handle.view();
    let tenants = tenants::in_order(&view).into_iter().map(wire::Tenant::from);
    Ok(wire::ListTenantsResponse {
        tenants: tenants.collect(),
    })
}

pub(super) async fn show_tenant(
    call: Call<'_, wire::TenantRequest>,
) -> Result<wire::Tenant, Status> {
    let view = call.handle.view();
    let found = tenants::found(&view, &call.asked.name)?;
    Ok(found.into())
}

pub(super) async fn show_tenant_usage(
    call: Call<'_, wire::TenantRequest>,
) -> Result<wire::TenantUsage, Status> {
    let view = call.handle.view();
    let usage = tenant_usage::of(call.handle, &view, &call.asked.name)?;
    Ok(usage.into())
}

pub(super) async fn set_tenant(
    call: Call<'_, wire::SetTenantRequest>,
) -> Result<wire::Tenant, Status> {
    let asked = call.asked;
    let name = asked.name.clone();
    let asked = Values::of_json(tenants::SET, &asked::tenant(asked))?;
    tenants::put(call.handle, &call.actor, &name, &asked).await?;
    let view = call.handle.view();
    Ok(tenants::found(&view, &name)?.into())
}

pub(super) async fn remove_tenant(
    call: Call<'_, wire::TenantRequest>,
) -> Result<wire::RemoveTenantResponse, Status> {
    tenants::take_away(call.handle, &call.actor, &call.asked.name).await?;
    Ok(wire::RemoveTenantResponse {})
}

pub(super) async fn list_bans(
    call: Call<'_, wire::ListBansRequest>,
) -> Result<wire::ListBansResponse, Status> {
    let asked = Values::of_json(bans::QUERY, &asked::bans(call.asked))?;
    let view = call.handle.view();
    let page = bans::page(&view, &asked);
    Ok(shown::bans(page, view.bans.len()))
}

pub(super) async fn place_ban(call: Call<'_, wire::PlaceBanRequest>) -> Result<wire::Ban, Status> {
    let asked = Values::of_json(bans::PLACE, &asked::ban(call.asked))?;
    let ban = bans::put(call.handle, &call.actor, &asked).await?;
    let view = call.handle.view();
    Ok(bans::shown(&ban, &view.tenants).into())
}

pub(super) async fn lift_ban(call: Call<'_, wire::LiftBanRequest>) -> Result<wire::Ban, Status> {
    let asked = call.asked;
    let ban = if asked.id.is_empty() {
        let whom = Values::of_json(bans::WHOM, &asked::whom(asked))?;
        bans::lift_of(call.handle, &call.actor, &whom).await?
    } else {
        bans::lift_by_id(call.handle, &call.actor, &asked.id).await?
    };
    let view = call.handle.view();
    Ok(bans::shown(&ban, &view.tenants).into())
}
