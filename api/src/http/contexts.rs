//! `/v1/contexts`: storing contexts and getting them back.

use actix_web::{
    HttpResponse, delete, get,
    http::{StatusCode, header},
    patch, post, put,
    web::{self, Query},
};
use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::IntoParams;
use uuid::Uuid;

use super::{
    State,
    answers::{context_answer, page, send},
    authentication::{Caller, Read, Write},
    body::{Body, RawBody},
    conditions::{Condition, KnownVersions, etag},
    freshness::{Wanted, made, tell},
    problem::{
        Problem,
        responses::{
            BodyProblems, ConditionProblems, FilterProblems, NoSuchContext, Problems, UserProblems,
            WriteOnceProblems, WriteProblems,
        },
    },
    waiting::WaitQuery,
};
use crate::{
    domain::{
        Access, Context, ContextId, ContextInput, ContextPatch, ContextType, Filter, Limit, ListRequest,
        Question, QuestionKind, Selection, UserId, time_parameter,
    },
    error::{Error, Result},
};

/// Which contexts to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of this kind.
    #[param(min_length = 1, max_length = 50, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    context_type: Option<String>,
    /// A filter as JSON, such as `{"metadata.source": "manual"}`; see the guide.
    #[param(max_length = 8192)]
    filter: Option<String>,
    /// As it was then, as far back as history is kept.
    #[param(format = DateTime)]
    as_of: Option<String>,
    /// Only what holds then, by `valid_from` and `valid_to`.
    #[param(format = DateTime)]
    valid_at: Option<String>,
    /// Contexts per page; 50 when left out.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl ListQuery {
    fn check(self, access: Access) -> Result<ListRequest> {
        let filter = self.filter.map(|json| filter_of_parameter(&json)).transpose()?;
        let selection = Selection {
            user_id: access.confine(self.user_id.map(UserId))?,
            context_type: self.context_type.map(context_type_parameter).transpose()?,
            filter,
            as_of: self.as_of.map(|at| time_parameter("as_of", &at)).transpose()?,
            valid_at: self.valid_at.map(|at| time_parameter("valid_at", &at)).transpose()?,
        };
        Ok(ListRequest {
            selection,
            limit: Limit::new(self.limit)?,
            cursor: self.cursor.map(|cursor| cursor.parse()).transpose()?,
        })
    }
}

pub(super) fn context_type_parameter(text: String) -> Result<ContextType> {
    ContextType::new(text)
        .map_err(|error| Error::parameter("context_type", error.violations[0].detail.clone()))
}

pub(super) fn filter_of_parameter(json: &str) -> Result<Filter> {
    let raw: &RawValue = serde_json::from_str(json)
        .map_err(|error| Error::parameter("filter", format!("is not JSON: {error}")))?;
    Filter::parse(raw).map_err(|error| error.at("/filter"))
}

page! {
    /// One page of contexts, newest first.
    ContextPage of Context
}

/// When to look.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct GetQuery {
    /// As it was then, as far back as history is kept.
    #[param(format = DateTime)]
    as_of: Option<String>,
}

/// How to delete.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DeleteQuery {
    /// Remove it for good, with its history, instead of hiding it; also what was deleted before.
    #[serde(default)]
    purge: bool,
}

/// Create a context, or update the one of its key
///
/// When this answers, the context is stored and search finds it by its words. It is found by its meaning as soon as
/// `embedding_status` is `ready`, usually within a second. An update that changes nothing is none: the version stays.
#[utoipa::path(
    tag = "contexts",
    operation_id = "create_context",
    security(("api_key" = ["write"])),
    params(
        WaitQuery,
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same."),
        ("If-Match" = Option<String>, Header, description = "Only if the context of this key is in this version."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: only if there is no context of this key yet.")
    ),
    request_body = ContextInput,
    responses(
        (status = 201, description = "Created.", body = Context, headers(
            ("Location" = String, description = "Where the context is."),
            ("ETag" = String, description = "The context's version.")
        )),
        (status = 200, description = "The key existed: updated, or left alone when nothing differs.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        Problems, BodyProblems, UserProblems, WriteOnceProblems, ConditionProblems
    )
)]
#[post("/v1/contexts")]
pub async fn create_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    wait: Query<WaitQuery>,
    condition: Condition,
    body: Body<ContextInput>,
) -> Result<HttpResponse, Problem> {
    let new = body.value.check()?;
    let (actor, request) = (caller.actor(), body.idempotent.as_ref());
    let answered = state.service.create_context(&actor, &new, &condition.0, request, |written| {
        context_answer(if written.created { StatusCode::CREATED } else { StatusCode::OK }, &written.context)
    });
    Ok(send(wait.after(&state.service, caller.access(), answered.await?).await?)?)
}

/// Get a context
///
/// Reading a context with `sliding_ttl_seconds` lets it live on.
#[utoipa::path(
    tag = "contexts",
    operation_id = "get_context",
    security(("api_key" = ["read"])),
    params(
        ("id" = Uuid, Path, description = "The context's id."),
        GetQuery,
        ("If-None-Match" = Option<String>, Header, description = "The versions that you have."),
        ("Cache-Control" = Option<String>, Header, description = "`no-cache`: an answer that is made for this request.")
    ),
    responses(
        (status = 200, description = "The context.", body = Context, headers(
            ("ETag" = String, description = "The context's version."),
            ("Cache-Status" = String, description = "Whether the answer was given before and is still true (RFC 9211).")
        )),
        (status = 304, description = "You have it.", headers(("ETag" = String, description = "The context's version."))),
        Problems, NoSuchContext
    )
)]
#[get("/v1/contexts/{id}")]
pub async fn get_context(
    caller: Caller<Read>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    query: Query<GetQuery>,
    wanted: Wanted,
    known: KnownVersions,
) -> Result<HttpResponse, Problem> {
    let (access, id) = (caller.access(), ContextId(*id));
    let as_of = query.into_inner().as_of.map(|at| time_parameter("as_of", &at)).transpose()?;
    let then = as_of.map_or(i128::MAX, OffsetDateTime::unix_timestamp_nanos);
    let request = [id.0.as_bytes().as_slice(), &then.to_le_bytes()].concat();
    let question = Question::new(QuestionKind::Context, access, &request);
    let make = async || {
        let context = state.service.get_context(access, id, as_of).await?;
        // What reads let live on has to be read.
        made(&context, Some(context.version), context.sliding_ttl_seconds.is_none())
    };
    let (answer, provenance) = state.service.answer(access, &question, wanted.0, make).await?;
    let version = answer.version.ok_or_else(|| Error::internal("an answer without its version"))?;
    let mut response = if known.contain(version) { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    response.insert_header((header::ETAG, etag(version)));
    tell(&mut response, &wanted, provenance);
    if known.contain(version) {
        return Ok(response.finish());
    }
    Ok(response.content_type("application/json").body(answer.body))
}

/// List contexts, newest first
///
/// In pages of `limit`, narrowed by a user, a type and a filter, as they are or as they were at `as_of`.
#[utoipa::path(
    tag = "contexts",
    operation_id = "list_contexts",
    security(("api_key" = ["read"])),
    params(ListQuery),
    responses((status = 200, description = "A page.", body = ContextPage),
        Problems, UserProblems, FilterProblems)
)]
#[get("/v1/contexts")]
pub async fn list_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    query: Query<ListQuery>,
) -> Result<HttpResponse, Problem> {
    let request = query.into_inner().check(caller.access())?;
    let page = state.service.list_contexts(caller.access(), &request).await?;
    Ok(HttpResponse::Ok().json(ContextPage::from(page)))
}

/// Replace a context
///
/// What the body leaves out is gone; the user stays.
#[utoipa::path(
    tag = "contexts",
    operation_id = "replace_context",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The context's id."),
        WaitQuery,
        ("If-Match" = Option<String>, Header, description = "Only if it is in this version.")
    ),
    request_body = ContextInput,
    responses(
        (status = 200, description = "Replaced, or left alone when nothing differs.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        Problems, BodyProblems, UserProblems, WriteProblems, ConditionProblems, NoSuchContext
    )
)]
#[put("/v1/contexts/{id}")]
pub async fn replace_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    wait: Query<WaitQuery>,
    condition: Condition,
    body: Body<ContextInput>,
) -> Result<HttpResponse, Problem> {
    let new = body.value.check()?;
    let context = state.service.replace_context(&caller.actor(), ContextId(*id), &new, &condition.0).await?;
    let answer = context_answer(StatusCode::OK, &context)?;
    Ok(send(wait.after(&state.service, caller.access(), answer).await?)?)
}

/// Change some fields of a context
///
/// A JSON merge patch (RFC 7396) of the fields that a create takes: `null` removes a field or a member of `content` or
/// `metadata`. When `content` changes and no `text` was ever given, the text is extracted anew.
#[utoipa::path(
    tag = "contexts",
    operation_id = "patch_context",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The context's id."),
        WaitQuery,
        ("If-Match" = Option<String>, Header, description = "Only if it is in this version.")
    ),
    request_body(
        content((Object = "application/merge-patch+json"), (Object = "application/json")),
        description = "Fields to change."
    ),
    responses(
        (status = 200, description = "Changed, or left alone when nothing differs.", body = Context,
         headers(("ETag" = String, description = "The context's version."))),
        Problems, BodyProblems, WriteProblems, ConditionProblems, NoSuchContext
    )
)]
#[patch("/v1/contexts/{id}")]
pub async fn patch_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    wait: Query<WaitQuery>,
    condition: Condition,
    body: RawBody,
) -> Result<HttpResponse, Problem> {
    let patch = ContextPatch::parse(&body.0)?;
    let context = state.service.patch_context(&caller.actor(), ContextId(*id), &patch, &condition.0).await?;
    let answer = context_answer(StatusCode::OK, &context)?;
    Ok(send(wait.after(&state.service, caller.access(), answer).await?)?)
}

/// Delete a context
///
/// It is invisible at once, to reads and to search, and can be restored as long as history is kept; with `purge` it is
/// gone for good.
#[utoipa::path(
    tag = "contexts",
    operation_id = "delete_context",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The context's id."),
        DeleteQuery,
        ("If-Match" = Option<String>, Header, description = "Only if it is in this version.")
    ),
    responses(
        (status = 204, description = "Deleted."),
        Problems, ConditionProblems, NoSuchContext
    )
)]
#[delete("/v1/contexts/{id}")]
pub async fn delete_context(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    query: Query<DeleteQuery>,
    condition: Condition,
) -> Result<HttpResponse, Problem> {
    state.service.delete_context(&caller.actor(), ContextId(*id), &condition.0, query.purge).await?;
    Ok(HttpResponse::NoContent().finish())
}
