//! `/v1/contexts/{id}/versions` and `…/restore`: what a context was, and making it that again.

use actix_web::{
    HttpResponse, get,
    http::StatusCode,
    post,
    web::{self, Query},
};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    State,
    answers::{context_answer, page, send},
    authentication::{Caller, Read, Write},
    body::OptionalBody,
    conditions::Condition,
    problem::{
        Problem,
        responses::{
            BodyProblems, ConditionProblems, NoSuchContext, NoSuchVersion, Problems, RestoreProblems,
        },
    },
};
use crate::domain::{Context, ContextId, ContextVersion, Limit, optional_whole};

/// A page of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// Rows per page; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    pub(super) limit: Option<u32>,
    /// `next_cursor` of the page before.
    pub(super) cursor: Option<String>,
}

page! {
    /// Superseded versions, newest first.
    ContextVersionPage of ContextVersion
}

/// What to restore.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Restore {
    /// The version to go back to. Left out: a deleted context comes back as it was.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1)]
    version: Option<i64>,
}

/// List the versions that a context had before
///
/// Every version that another one superseded, newest first; the present one is not among them. Works for a deleted
/// context, too. Versions are kept for as long and as many as the operator has decided.
#[utoipa::path(
    tag = "contexts",
    operation_id = "list_versions",
    security(("api_key" = ["read"])),
    params(("id" = Uuid, Path, description = "The context's id."), PageQuery),
    responses((status = 200, description = "A page.", body = ContextVersionPage),
        Problems, NoSuchContext)
)]
#[get("/v1/contexts/{id}/versions")]
pub async fn list_versions(
    caller: Caller<Read>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    query: Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let limit = Limit::new(query.limit)?;
    let cursor = query.into_inner().cursor.map(|cursor| cursor.parse()).transpose()?;
    let page = state.service.list_versions(caller.access(), ContextId(*id), limit, cursor).await?;
    Ok(HttpResponse::Ok().json(ContextVersionPage::from(page)))
}

/// Restore a context
///
/// Makes it again what it was in a version, or brings a deleted one back. This is a new version: nothing is lost by it.
/// When it expires is not restored but stays as it is.
#[utoipa::path(
    tag = "contexts",
    operation_id = "restore_context",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The context's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same."),
        ("If-Match" = Option<String>, Header, description = "Only if it is in this version.")
    ),
    request_body(content = Option<Restore>),
    responses(
        (status = 200, description = "The context, restored.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        Problems, BodyProblems, RestoreProblems, ConditionProblems, NoSuchVersion
    )
)]
#[post("/v1/contexts/{id}/restore")]
pub async fn restore_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    condition: Condition,
    body: OptionalBody<Restore>,
) -> Result<HttpResponse, Problem> {
    let (id, version, request) = (ContextId(*id), body.value.version, body.idempotent.as_ref());
    let answered = state
        .service
        .restore_context(&caller.actor(), id, version, &condition.0, request, |context| {
            context_answer(StatusCode::OK, context)
        })
        .await?;
    Ok(send(answered)?)
}
