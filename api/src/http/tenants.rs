//! `/v1/tenants`: who owns everything else, for operators.

use actix_web::{
    HttpResponse, get,
    http::StatusCode,
    post,
    web::{self, Query},
};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    State,
    answers::{answer, page, send},
    authentication::{Admin, Caller, Operator},
    body::Body,
    history::PageQuery,
    problem::{
        Problem,
        responses::{BodyProblems, IdempotencyProblems, OperatorProblems, Problems, TenantProblems},
    },
};
use crate::{
    domain::{Limit, Tenant, TenantName},
    service::Once,
};

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// Unique.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    name: String,
}

page! {
    /// Tenants, oldest first.
    TenantPage of Tenant
}

/// Make a tenant
///
/// For operators: admins of the tenant `default`. Make a key for it next, with its `tenant_id`.
#[utoipa::path(
    tag = "tenants",
    operation_id = "create_tenant",
    security(("api_key" = ["admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")),
    request_body = CreateTenant,
    responses((status = 201, description = "Made.", body = Tenant),
        Problems, BodyProblems, OperatorProblems, IdempotencyProblems, TenantProblems)
)]
#[post("/v1/tenants")]
pub async fn create_tenant(
    caller: Caller<Operator>,
    state: web::Data<State>,
    body: Body<CreateTenant>,
) -> Result<HttpResponse, Problem> {
    let name = TenantName::new(&body.value.name)?;
    let request = body.idempotent.as_ref();
    let kept = |tenant: &Tenant| answer(StatusCode::CREATED, tenant);
    let once = state.service.tenants().create(&caller.actor(), &name, request, kept).await?;
    Ok(send(Once::answer(once))?)
}

/// List tenants
///
/// Operators see all of them, everybody else their own.
#[utoipa::path(
    tag = "tenants",
    operation_id = "list_tenants",
    security(("api_key" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page, oldest first.", body = TenantPage),
        Problems)
)]
#[get("/v1/tenants")]
pub async fn list_tenants(
    caller: Caller<Admin>,
    state: web::Data<State>,
    query: Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let limit = Limit::new(query.limit)?;
    let cursor = query.into_inner().cursor.map(|cursor| cursor.parse()).transpose()?;
    let all = caller.principal.is_operator();
    let page = state.service.tenants().list(caller.access(), all, limit, cursor).await?;
    Ok(HttpResponse::Ok().json(TenantPage::from(page)))
}
