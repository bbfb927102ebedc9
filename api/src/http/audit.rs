//! `/v1/audit-log`: who did what to which thing, for admins.

use actix_web::{
    HttpResponse, get,
    web::{self, Query},
};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    State,
    answers::page,
    authentication::{Admin, Caller},
    problem::{Problem, responses::Problems},
};
use crate::domain::{AuditEntry, AuditRequest, Limit};

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// Only what was done to the context, user, key, tenant or operation of this id.
    target_id: Option<Uuid>,
    /// Entries per page; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

page! {
    /// Entries, newest first.
    AuditPage of AuditEntry
}

/// List the audit log
///
/// Every write, newest first: who, what, to which id, when. Nobody can change an entry; they are removed when they are
/// older than the operator keeps them.
#[utoipa::path(
    tag = "audit",
    operation_id = "list_audit_log",
    security(("api_key" = ["admin"])),
    params(AuditQuery),
    responses((status = 200, description = "A page.", body = AuditPage),
        Problems)
)]
#[get("/v1/audit-log")]
pub async fn list_audit_log(
    caller: Caller<Admin>,
    state: web::Data<State>,
    query: Query<AuditQuery>,
) -> Result<HttpResponse, Problem> {
    let AuditQuery { target_id, limit, cursor } = query.into_inner();
    let cursor = cursor.map(|cursor| cursor.parse()).transpose()?;
    let request = AuditRequest { target_id, limit: Limit::new(limit)?, cursor };
    let page = state.service.list_audit_log(caller.access().tenant, &request).await?;
    Ok(HttpResponse::Ok().json(AuditPage::from(page)))
}
