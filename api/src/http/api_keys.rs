//! `/v1/api-keys`: who may come in, for admins.

use actix_web::{
    HttpResponse, delete, get,
    http::StatusCode,
    post,
    web::{self, Query},
};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    State,
    answers::{answer_about, page, send},
    authentication::{Admin, Caller},
    body::{Body, OptionalBody},
    history::PageQuery,
    problem::{
        Problem,
        responses::{BodyProblems, IdempotencyProblems, NoSuchApiKey, OperatorProblems, Problems},
    },
};
use crate::{
    domain::{
        ApiKeyInfo, KeptAnswer, Limit, NewApiKey, Scope, TenantId, UserId,
        limits::ROTATION_OVERLAP_SECONDS_MAX, whole,
    },
    error::{Error, Result},
    service::{NewKey, Once},
};

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateApiKey {
    /// What it is for.
    #[schema(min_length = 1, max_length = 100, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    name: String,
    /// What it may do. `admin` does not include the others.
    #[schema(min_items = 1, max_items = 3)]
    scopes: Vec<Scope>,
    /// The one user whose contexts it reaches, with `read` and `write`; all of the tenant when left out.
    user_id: Option<Uuid>,
    /// When it stops working by itself; never when left out.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// For operators: the tenant that it is for, when it is not their own.
    tenant_id: Option<Uuid>,
}

/// How to rotate a key.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RotateApiKey {
    /// Seconds for which the old secret works on, at most a week; 0 ends it at once.
    #[serde(default, deserialize_with = "whole")]
    #[schema(maximum = 604_800)]
    overlap_seconds: u32,
}

/// A key that was just made.
#[derive(Serialize, ToSchema)]
pub struct CreatedApiKey {
    #[serde(flatten)]
    info: ApiKeyInfo,
    /// The secret. It is shown in this answer only: an answer that is repeated for an `Idempotency-Key` has null here.
    #[schema(required)]
    key: Option<String>,
}

page! {
    /// API keys, newest first.
    ApiKeyPage of ApiKeyInfo
}

/// The answer as it is kept: without the secret.
fn kept(new: &NewKey) -> Result<KeptAnswer> {
    let users = new.info.user_id.into_iter().collect();
    answer_about(StatusCode::CREATED, &CreatedApiKey { info: new.info.clone(), key: None }, users)
}

fn shown(once: Once<NewKey>) -> Result<HttpResponse> {
    match once {
        Once::Before(answer) => send(answer),
        Once::Now(new, _) => {
            let key = Some(new.secret.expose().to_owned());
            Ok(HttpResponse::Created().json(CreatedApiKey { info: new.info, key }))
        }
    }
}

/// Make an API key
///
/// An operator may make one for another tenant.
#[utoipa::path(
    tag = "api-keys",
    operation_id = "create_api_key",
    security(("api_key" = ["admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once.")),
    request_body = CreateApiKey,
    responses(
        (status = 201, description = "Made. The secret is shown only this once.", body = CreatedApiKey),
        Problems, BodyProblems, OperatorProblems, IdempotencyProblems
    )
)]
#[post("/v1/api-keys")]
pub async fn create_api_key(
    caller: Caller<Admin>,
    state: web::Data<State>,
    body: Body<CreateApiKey>,
) -> Result<HttpResponse, Problem> {
    let CreateApiKey { name, scopes, user_id, expires_at, tenant_id } = body.value;
    let new = NewApiKey::new(&name, scopes, user_id.map(UserId), expires_at)?;
    let (actor, request) = (caller.actor(), body.idempotent.as_ref());
    let tenant = tenant_id.map_or(actor.tenant(), TenantId);
    if tenant != actor.tenant() {
        caller.principal.require_operator()?;
        if !state.service.tenants().exists(tenant).await? {
            return Err(Error::invalid("/tenant_id", "there is no such tenant").into());
        }
    }
    let once = state.service.keys().create(&actor, tenant, &new, request, kept).await?;
    Ok(shown(once)?)
}

/// List API keys
///
/// Revoked and expired ones, too, without their secrets.
#[utoipa::path(
    tag = "api-keys",
    operation_id = "list_api_keys",
    security(("api_key" = ["admin"])),
    params(PageQuery),
    responses((status = 200, description = "A page, newest first; no secrets.", body = ApiKeyPage),
        Problems)
)]
#[get("/v1/api-keys")]
pub async fn list_api_keys(
    caller: Caller<Admin>,
    state: web::Data<State>,
    query: Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let limit = Limit::new(query.limit)?;
    let cursor = query.into_inner().cursor.map(|cursor| cursor.parse()).transpose()?;
    let page = state.service.keys().list(caller.access().tenant, limit, cursor).await?;
    Ok(HttpResponse::Ok().json(ApiKeyPage::from(page)))
}

/// Rotate an API key
///
/// Makes a new key with the same name, scopes, user and expiry, and ends the old one.
#[utoipa::path(
    tag = "api-keys",
    operation_id = "rotate_api_key",
    security(("api_key" = ["admin"])),
    params(
        ("id" = Uuid, Path, description = "The key's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once.")
    ),
    request_body(content = Option<RotateApiKey>),
    responses(
        (status = 201, description = "The new key. Its secret is shown only this once.", body = CreatedApiKey),
        Problems, BodyProblems, IdempotencyProblems, NoSuchApiKey
    )
)]
#[post("/v1/api-keys/{id}/rotate")]
pub async fn rotate_api_key(
    caller: Caller<Admin>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    body: OptionalBody<RotateApiKey>,
) -> Result<HttpResponse, Problem> {
    let overlap = body.value.overlap_seconds;
    if overlap > ROTATION_OVERLAP_SECONDS_MAX {
        return Err(Error::invalid(
            "/overlap_seconds",
            format!("must be 0 to {ROTATION_OVERLAP_SECONDS_MAX}"),
        )
        .into());
    }
    let request = body.idempotent.as_ref();
    let once = state.service.keys().rotate(&caller.actor(), *id, overlap, request, kept).await?;
    Ok(shown(once)?)
}

/// Revoke an API key
///
/// It stops working within a second, on every server.
#[utoipa::path(
    tag = "api-keys",
    operation_id = "revoke_api_key",
    security(("api_key" = ["admin"])),
    params(("id" = Uuid, Path, description = "The key's id.")),
    responses((status = 204, description = "Revoked."),
        Problems, NoSuchApiKey)
)]
#[delete("/v1/api-keys/{id}")]
pub async fn revoke_api_key(
    caller: Caller<Admin>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    state.service.keys().revoke(&caller.actor(), *id).await?;
    Ok(HttpResponse::NoContent().finish())
}
