//! `/v1/operations`: long work, and `/v1/users/{user_id}`, whose deletion is long work.

use std::time::Duration;

use actix_web::{
    HttpResponse, delete, get,
    http::{StatusCode, header},
    post,
    web::{self, Bytes, Query},
};
use futures_util::{Stream, stream};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    State,
    answers::{answer_about, page, send},
    authentication::{Admin, Caller, Read, Write},
    body::{Nothing, OptionalBody},
    history::PageQuery,
    problem::{
        Problem,
        responses::{BodyProblems, IdempotencyProblems, NoSuchOperation, OperationProblems, Problems},
    },
};
use crate::{
    domain::{
        Access, Limit, Operation, OperationId, OperationStatus, OperationsRequest, UserId, limits::EVENTS_MAX,
    },
    error::{Error, Result},
    service::Service,
};

page! {
    /// Operations, newest first.
    OperationPage of Operation
}

/// One event of an operation.
#[derive(utoipa::ToSchema)]
#[expect(dead_code, reason = "only its description is used, in the OpenAPI document")]
pub struct OperationEvent {
    /// `operation`.
    event: String,
    /// The operation, as JSON.
    data: String,
}

/// List operations, newest first
///
/// Imports and erasures of the tenant; with a key that is bound to a user, of that user.
#[utoipa::path(
    tag = "operations",
    operation_id = "list_operations",
    security(("api_key" = ["read"])),
    params(PageQuery),
    responses((status = 200, description = "A page.", body = OperationPage),
        Problems)
)]
#[get("/v1/operations")]
pub async fn list_operations(
    caller: Caller<Read>,
    state: web::Data<State>,
    query: Query<PageQuery>,
) -> Result<HttpResponse, Problem> {
    let limit = Limit::new(query.limit)?;
    let cursor = query.into_inner().cursor.map(|cursor| cursor.parse()).transpose()?;
    let page = state.service.list_operations(caller.access(), &OperationsRequest { limit, cursor }).await?;
    Ok(HttpResponse::Ok().json(OperationPage::from(page)))
}

/// Get an operation
///
/// How far it is, and its `result` when it has succeeded.
#[utoipa::path(
    tag = "operations",
    operation_id = "get_operation",
    security(("api_key" = ["read"])),
    params(("id" = Uuid, Path, description = "The operation's id.")),
    responses((status = 200, description = "The operation.", body = Operation),
        Problems, NoSuchOperation)
)]
#[get("/v1/operations/{id}")]
pub async fn get_operation(
    caller: Caller<Read>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(state.service.get_operation(caller.access(), OperationId(*id)).await?))
}

/// Follow an operation
///
/// Server-sent events: the operation as it is, and again whenever it changes, each as an event `operation` with the
/// operation as JSON. The stream ends with the operation, or after five minutes; then ask again.
#[utoipa::path(
    tag = "operations",
    operation_id = "follow_operation",
    security(("api_key" = ["read"])),
    params(("id" = Uuid, Path, description = "The operation's id.")),
    responses(
        (status = 200, description = "Events.", body = OperationEvent, content_type = "text/event-stream"),
        Problems, NoSuchOperation
    )
)]
#[get("/v1/operations/{id}/events")]
pub async fn follow_operation(
    caller: Caller<Read>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    let (access, id) = (caller.access(), OperationId(*id));
    // Asked first, so that what is not there is a 404 and no empty stream.
    let operation = state.service.get_operation(access, id).await?;
    let follower = Follower {
        service: state.service.clone(),
        access,
        id,
        seen: None,
        next: Some(operation),
        ends_at: Instant::now() + EVENTS_MAX,
    };
    Ok(HttpResponse::Ok()
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .streaming(events(follower)))
}

/// Between two looks at an operation that somebody follows.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A comment in between keeps proxies from closing a silent stream.
const COMMENT_EVERY: u32 = 15;

struct Follower {
    service: Service,
    access: Access,
    id: OperationId,
    /// As it was sent last.
    seen: Option<String>,
    /// As it was read just now.
    next: Option<Operation>,
    ends_at: Instant,
}

fn events(follower: Follower) -> impl Stream<Item = Result<Bytes>> {
    stream::try_unfold(follower, |mut follower| async move {
        for _ in 0..COMMENT_EVERY {
            if follower.seen.is_some() && follower.next.is_none() {
                if Instant::now() >= follower.ends_at {
                    return Ok(None);
                }
                tokio::time::sleep(LOOK_EVERY).await;
                follower.next = Some(follower.service.get_operation(follower.access, follower.id).await?);
            }
            let Some(operation) = follower.next.take() else { continue };
            let json = serde_json::to_string(&operation).map_err(Error::internal)?;
            if follower.seen.as_ref() == Some(&json) {
                continue;
            }
            let event = Bytes::from(format!("event: operation\ndata: {json}\n\n"));
            follower.seen = Some(json);
            if operation.status.is_final() {
                // Nothing more to say: the next turn ends the stream.
                follower.ends_at = Instant::now();
            }
            return Ok(Some((event, follower)));
        }
        Ok(Some((Bytes::from_static(b": still there\n\n"), follower)))
    })
}

/// Cancel an operation
///
/// One that waits is cancelled at once, one that runs at its next step. What it has done stays done.
#[utoipa::path(
    tag = "operations",
    operation_id = "cancel_operation",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The operation's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")
    ),
    responses(
        (status = 200, description = "The operation.", body = Operation),
        Problems, BodyProblems, IdempotencyProblems, OperationProblems, NoSuchOperation
    )
)]
#[post("/v1/operations/{id}/cancel")]
pub async fn cancel_operation(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    body: OptionalBody<Nothing>,
) -> Result<HttpResponse, Problem> {
    let (id, request) = (OperationId(*id), body.idempotent.as_ref());
    let answered = state
        .service
        .cancel_operation(&caller.principal, &caller.actor(), id, request, |operation| {
            answer_about(StatusCode::OK, operation, operation.user_id.into_iter().collect())
        })
        .await?;
    Ok(send(answered)?)
}

/// Retry an operation
///
/// Queues one again that has failed or was cancelled. An import is retried by sending its request again.
#[utoipa::path(
    tag = "operations",
    operation_id = "retry_operation",
    security(("api_key" = ["write"])),
    params(
        ("id" = Uuid, Path, description = "The operation's id."),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")
    ),
    responses(
        (status = 200, description = "The operation.", body = Operation),
        Problems, BodyProblems, IdempotencyProblems, OperationProblems, NoSuchOperation
    )
)]
#[post("/v1/operations/{id}/retry")]
pub async fn retry_operation(
    caller: Caller<Write>,
    state: web::Data<State>,
    id: web::Path<Uuid>,
    body: OptionalBody<Nothing>,
) -> Result<HttpResponse, Problem> {
    let (id, request) = (OperationId(*id), body.idempotent.as_ref());
    let answered = state
        .service
        .retry_operation(&caller.principal, &caller.actor(), id, request, |operation| {
            answer_about(StatusCode::OK, operation, operation.user_id.into_iter().collect())
        })
        .await?;
    Ok(send(answered)?)
}

/// Erase a user
///
/// Everything: contexts, deleted ones, too, their versions, chunks and embeddings, kept answers, operations; keys that are
/// bound to the user are revoked. Answers with the operation, whose `result` is the receipt once it has succeeded. It goes
/// on when it takes longer than the answer waits.
#[utoipa::path(
    tag = "operations",
    operation_id = "erase_user",
    security(("api_key" = ["admin"])),
    params(("user_id" = Uuid, Path, description = "The user's id.")),
    responses(
        (status = 200, description = "Erased; `result` is the receipt.", body = Operation),
        (status = 202, description = "Under way, or it could not be done so far: `status` says.", body = Operation,
         headers(("Location" = String, description = "Where the operation is."))),
        Problems
    )
)]
#[delete("/v1/users/{user_id}")]
pub async fn erase_user(
    caller: Caller<Admin>,
    state: web::Data<State>,
    user_id: web::Path<Uuid>,
) -> Result<HttpResponse, Problem> {
    let operation = state.service.erase_user(&caller.actor(), UserId(*user_id)).await?;
    if operation.status == OperationStatus::Succeeded {
        return Ok(HttpResponse::Ok().json(operation));
    }
    let location = (header::LOCATION, format!("/v1/operations/{}", operation.id));
    Ok(HttpResponse::Accepted().insert_header(location).json(operation))
}
