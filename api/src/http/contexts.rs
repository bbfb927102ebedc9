//! `/v1/contexts`: storing contexts and getting them back.

use actix_web::{
    HttpResponse, delete, get,
    http::header,
    post,
    web::{self, Query},
};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::{
    State,
    extract::{Body, Caller, Read, Write},
    problem::{BodyProblems, Problem, ProblemDetails, Problems},
};
use crate::{
    domain::{
        Context, ContextId, ContextKey, ContextType, Expiry, Limit, ListRequest, NewContext, Page, UserId,
    },
    error::{Error, Result},
};

/// A context to be written.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "user_id": "0190d5a0-0000-7000-8000-000000000001",
    "context_type": "note",
    "key": "gnuchess",
    "content": {"title": "GNU Chess", "body": "Plays a full game of chess against you."},
    "metadata": {"source": "manual"}
}))]
pub struct CreateContext {
    /// The end user that it belongs to.
    user_id: Uuid,
    /// Its kind, in your own words.
    #[schema(min_length = 1, max_length = 50)]
    context_type: String,
    /// Your own name for it, unique per user. When it exists already, its context is updated.
    #[schema(min_length = 1, max_length = 255, nullable)]
    key: Option<String>,
    /// Any JSON.
    #[schema(value_type = Value)]
    content: Box<RawValue>,
    /// An object of at most 16 KiB.
    #[schema(value_type = Option<Object>)]
    metadata: Option<Box<RawValue>>,
    /// What search reads, at most 256 KiB. Left out: every string in `content`, in the order sent.
    #[schema(max_length = 262_144)]
    text: Option<String>,
    /// From when on it is not visible any more.
    #[serde(default, with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// The same, in seconds from now: up to ten years.
    #[schema(minimum = 1, maximum = 316_224_000)]
    ttl_seconds: Option<i64>,
}

impl TryFrom<CreateContext> for NewContext {
    type Error = Error;

    fn try_from(body: CreateContext) -> Result<Self> {
        Self::new(
            UserId(body.user_id),
            ContextType::new(body.context_type)?,
            body.key.map(ContextKey::new).transpose()?,
            body.content,
            body.metadata.filter(|raw| raw.get() != "null"),
            body.text,
            Expiry::new(body.expires_at, body.ttl_seconds)?,
        )
    }
}

/// Which contexts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    user_id: Option<Uuid>,
    #[param(min_length = 1, max_length = 50)]
    context_type: Option<String>,
    /// Contexts per page; 50 when left out.
    #[param(minimum = 1, maximum = 200)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of contexts, newest first.
#[derive(Serialize, ToSchema)]
pub struct ContextPage {
    data: Vec<Context>,
    /// Pass it as `cursor` to get the next page; null on the last one.
    #[schema(required)]
    next_cursor: Option<String>,
    has_more: bool,
}

impl From<Page<Context>> for ContextPage {
    fn from(page: Page<Context>) -> Self {
        Self { data: page.data, next_cursor: page.next_cursor, has_more: page.has_more }
    }
}

/// Create a context, or update the one of its key
///
/// When this answers, the context is stored and search finds it by its words. It is found by its meaning as soon as
/// `embedding_status` is `ready`, usually within a second.
#[utoipa::path(
    tag = "contexts",
    operation_id = "create_context",
    security(("api_key" = ["write"])),
    request_body = CreateContext,
    responses(
        (status = 201, description = "Created.", body = Context, headers(
            ("Location" = String, description = "Where the context is."),
            ("ETag" = String, description = "The context's version.")
        )),
        (status = 200, description = "The key existed: updated, or left alone when nothing differs.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        Problems,
        BodyProblems
    )
)]
#[post("/v1/contexts")]
pub async fn create_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    body: Body<CreateContext>,
) -> Result<HttpResponse, Problem> {
    let new = NewContext::try_from(body.0)?;
    let written = state.service.create_context(caller.principal.tenant, &new).await?;
    let mut response = if written.created { HttpResponse::Created() } else { HttpResponse::Ok() };
    if written.created {
        response.insert_header((header::LOCATION, format!("/v1/contexts/{}", written.context.id)));
    }
    Ok(response.insert_header(etag(&written.context)).json(&written.context))
}

/// Get a context
#[utoipa::path(
    tag = "contexts",
    operation_id = "get_context",
    security(("api_key" = ["read"])),
    params(("id" = Uuid, Path, description = "The context's id.")),
    responses(
        (status = 200, description = "The context.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        (status = 404, description = "No such context.", body = ProblemDetails, content_type = "application/problem+json"),
        Problems
    )
)]
#[get("/v1/contexts/{id}")]
pub async fn get_context(
    caller: Caller<Read>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    let context = state.service.get_context(caller.principal.tenant, ContextId(*id)).await?;
    Ok(HttpResponse::Ok().insert_header(etag(&context)).json(&context))
}

/// List contexts, newest first
#[utoipa::path(
    tag = "contexts",
    operation_id = "list_contexts",
    security(("api_key" = ["read"])),
    params(ListQuery),
    responses((status = 200, description = "A page.", body = ContextPage), Problems)
)]
#[get("/v1/contexts")]
pub async fn list_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    query: Query<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let query = query.into_inner();
    let request = ListRequest {
        user_id: query.user_id.map(UserId),
        context_type: query.context_type.map(ContextType::new).transpose()?,
        limit: Limit::new(query.limit)?,
        cursor: query.cursor.map(|cursor| cursor.parse()).transpose()?,
    };
    let page = state.service.list_contexts(caller.principal.tenant, &request).await?;
    Ok(HttpResponse::Ok().json(ContextPage::from(page)))
}

/// Delete a context
///
/// It is invisible at once, to reads and to search.
#[utoipa::path(
    tag = "contexts",
    operation_id = "delete_context",
    security(("api_key" = ["write"])),
    params(("id" = Uuid, Path, description = "The context's id.")),
    responses(
        (status = 204, description = "Deleted."),
        (status = 404, description = "No such context.", body = ProblemDetails, content_type = "application/problem+json"),
        Problems
    )
)]
#[delete("/v1/contexts/{id}")]
pub async fn delete_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    state.service.delete_context(caller.principal.tenant, ContextId(*id)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// RFC 9110, section 8.8.3: the version in quotes.
fn etag(context: &Context) -> (header::HeaderName, String) {
    (header::ETAG, format!("\"{}\"", context.version))
}
