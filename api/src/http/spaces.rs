//! `/v1/embedding-spaces`: changing the embedding model while everything goes on.

use actix_web::{HttpResponse, delete, get, http::StatusCode, patch, post, web};
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use super::{
    State,
    answers::{answer, send},
    authentication::{Caller, Operator},
    body::{Body, Nothing, OptionalBody},
    problem::{
        Problem,
        responses::{
            BodyProblems, IdempotencyProblems, NoSuchSpace, OperatorProblems, Problems,
            SpaceActivationProblems, SpaceComparisonProblems, SpaceCreationProblems, SpaceProblems,
        },
    },
};
use crate::domain::{
    BackfillChange, Comparison, ComparisonRequest, EmbeddingSpace, Pace, SpaceFailure, SpaceId,
    optional_whole,
};

/// How a new space is to be filled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateEmbeddingSpace {
    /// Contexts a second at most, all workers together; null or left out for as fast as they can.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 100_000)]
    contexts_per_second: Option<i32>,
    /// Whether only what is written from now on is embedded, until this is changed.
    #[serde(default)]
    is_paused: bool,
}

/// What is to be changed; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeEmbeddingSpace {
    /// Whether only what is written from now on is embedded, until this is changed.
    is_paused: Option<bool>,
    /// Contexts a second at most, all workers together; null for as fast as they can.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 1, maximum = 100_000)]
    contexts_per_second: Pace,
}

/// Of a field that is there: null is none.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Pace, D::Error> {
    optional_whole(deserializer).map(pace)
}

fn pace(contexts_per_second: Option<i32>) -> Pace {
    contexts_per_second.map_or(Pace::Unlimited, Pace::AtMost)
}

/// How to activate.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ActivateEmbeddingSpace {
    /// Also when the space lacks something or its provider is away.
    #[serde(default)]
    force: bool,
}

/// What to compare by.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareEmbeddingSpace {
    /// Left out or empty: the beginnings of the 20 newest contexts.
    #[serde(default)]
    #[schema(max_items = 50)]
    queries: Vec<String>,
    /// Hits for each query.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: Option<u32>,
}

/// All embedding spaces, the oldest first.
#[derive(Serialize, ToSchema)]
pub struct EmbeddingSpaceList {
    /// The spaces.
    data: Vec<EmbeddingSpace>,
}

/// Contexts that a model cannot do anything with, at most 100.
#[derive(Serialize, ToSchema)]
pub struct SpaceFailureList {
    /// The contexts, with the reasons.
    data: Vec<SpaceFailure>,
}

/// Make an embedding space for another model
///
/// For operators. The model is that of the configured provider that has no space yet (`NEXT_EMBEDDING_…`). The new space is
/// filled in the background; writes go to both; search goes on in the active one.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "create_embedding_space",
    security(("api_key" = ["admin"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")),
    request_body(content = Option<CreateEmbeddingSpace>),
    responses(
        (status = 201, description = "Made; it is being filled.", body = EmbeddingSpace),
        Problems, BodyProblems, OperatorProblems, IdempotencyProblems, SpaceCreationProblems
    )
)]
#[post("/v1/embedding-spaces")]
pub async fn create_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    body: OptionalBody<CreateEmbeddingSpace>,
) -> Result<HttpResponse, Problem> {
    let backfill = BackfillChange::new(Some(body.value.is_paused), pace(body.value.contexts_per_second))?;
    let request = body.idempotent.as_ref();
    let kept = |space: &EmbeddingSpace| answer(StatusCode::CREATED, space);
    let created = state.service.create_space(&caller.actor(), backfill, request, kept).await?;
    Ok(send(created)?)
}

/// List embedding spaces
///
/// For operators. With how far each is.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "list_embedding_spaces",
    security(("api_key" = ["admin"])),
    responses((status = 200, description = "All of them, the oldest first.", body = EmbeddingSpaceList),
        Problems, OperatorProblems)
)]
#[get("/v1/embedding-spaces")]
pub async fn list_embedding_spaces(
    _: Caller<Operator>,
    state: web::Data<State>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(EmbeddingSpaceList { data: state.service.list_spaces().await? }))
}

/// Get an embedding space
///
/// For operators.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "get_embedding_space",
    security(("api_key" = ["admin"])),
    params(("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647)),
    responses(
        (status = 200, description = "The space, and how far it is.", body = EmbeddingSpace),
        Problems, OperatorProblems, NoSuchSpace
    )
)]
#[get("/v1/embedding-spaces/{id}")]
pub async fn get_embedding_space(
    _: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(state.service.get_space(SpaceId(*id)).await?))
}

/// Pause a backfill, let it go on, or change its pace
///
/// For operators. What is written now is embedded all the same.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "change_embedding_space",
    security(("api_key" = ["admin"])),
    params(("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647)),
    request_body = ChangeEmbeddingSpace,
    responses(
        (status = 200, description = "As it is now.", body = EmbeddingSpace),
        Problems, BodyProblems, OperatorProblems, NoSuchSpace
    )
)]
#[patch("/v1/embedding-spaces/{id}")]
pub async fn change_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: Body<ChangeEmbeddingSpace>,
) -> Result<HttpResponse, Problem> {
    let change = BackfillChange::new(body.value.is_paused, body.value.contexts_per_second)?;
    Ok(HttpResponse::Ok().json(state.service.change_space(&caller.actor(), SpaceId(*id), change).await?))
}

/// Delete an embedding space
///
/// For operators. Not the active one. Its embeddings are dropped some seconds later.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "delete_embedding_space",
    security(("api_key" = ["admin"])),
    params(("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647)),
    responses(
        (status = 204, description = "Deleted."),
        Problems, OperatorProblems, SpaceProblems, NoSuchSpace
    )
)]
#[delete("/v1/embedding-spaces/{id}")]
pub async fn delete_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
) -> Result<HttpResponse, Problem> {
    state.service.delete_space(&caller.actor(), SpaceId(*id)).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// List what a space's model cannot embed
///
/// For operators. Contexts of your own tenant, with the provider's reason. In the active space it is the contexts whose
/// `embedding_status` is `failed`.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "list_embedding_space_failures",
    security(("api_key" = ["admin"])),
    params(("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647)),
    responses(
        (status = 200, description = "At most 100 of them.", body = SpaceFailureList),
        Problems, OperatorProblems, NoSuchSpace
    )
)]
#[get("/v1/embedding-spaces/{id}/failures")]
pub async fn list_embedding_space_failures(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
) -> Result<HttpResponse, Problem> {
    let data = state.service.list_space_failures(caller.access().tenant, SpaceId(*id)).await?;
    Ok(HttpResponse::Ok().json(SpaceFailureList { data }))
}

/// Look once more for what a space lacks
///
/// For operators. All contexts are looked at again, and what failed is tried again.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "retry_embedding_space",
    security(("api_key" = ["admin"])),
    params(
        ("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")
    ),
    responses(
        (status = 200, description = "It is being looked at.", body = EmbeddingSpace),
        Problems, BodyProblems, OperatorProblems, IdempotencyProblems, NoSuchSpace
    )
)]
#[post("/v1/embedding-spaces/{id}/retry")]
pub async fn retry_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: OptionalBody<Nothing>,
) -> Result<HttpResponse, Problem> {
    let request = body.idempotent.as_ref();
    let kept = |space: &EmbeddingSpace| answer(StatusCode::OK, space);
    Ok(send(state.service.retry_space(&caller.actor(), SpaceId(*id), request, kept).await?)?)
}

/// Compare a space with the active one
///
/// For operators. Runs queries in both, by meaning alone, over the contexts that your key reaches, and answers the hits side by side with
/// the share that both have. It only reads.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "compare_embedding_space",
    security(("api_key" = ["admin"])),
    params(("id" = i32, Path, description = "The id of the other space.", minimum = 1, maximum = 2_147_483_647)),
    request_body(content = Option<CompareEmbeddingSpace>),
    responses(
        (status = 200, description = "Both answers to each query.", body = Comparison),
        Problems, BodyProblems, OperatorProblems, SpaceComparisonProblems, NoSuchSpace
    )
)]
#[post("/v1/embedding-spaces/{id}/compare")]
pub async fn compare_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: OptionalBody<CompareEmbeddingSpace>,
) -> Result<HttpResponse, Problem> {
    let request = ComparisonRequest::new(body.value.queries, body.value.limit)?;
    Ok(HttpResponse::Ok().json(state.service.compare_space(caller.access(), SpaceId(*id), &request).await?))
}

/// Let search read a space
///
/// For operators. From now on this is the active space. The one before it stands by: it is written to, and can be activated
/// again at any time until it is deleted. Refused while the space lacks something that was there when it was made, does not
/// keep up with what is written, or could not embed all, unless `force` is true.
#[utoipa::path(
    tag = "embedding-spaces",
    operation_id = "activate_embedding_space",
    security(("api_key" = ["admin"])),
    params(
        ("id" = i32, Path, description = "The space's id.", minimum = 1, maximum = 2_147_483_647),
        ("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")
    ),
    request_body(content = Option<ActivateEmbeddingSpace>),
    responses(
        (status = 200, description = "Search reads it.", body = EmbeddingSpace),
        Problems, BodyProblems, OperatorProblems, IdempotencyProblems, SpaceActivationProblems, NoSuchSpace
    )
)]
#[post("/v1/embedding-spaces/{id}/activate")]
pub async fn activate_embedding_space(
    caller: Caller<Operator>,
    state: web::Data<State>,
    id: web::Path<i32>,
    body: OptionalBody<ActivateEmbeddingSpace>,
) -> Result<HttpResponse, Problem> {
    let (force, request) = (body.value.force, body.idempotent.as_ref());
    let kept = |space: &EmbeddingSpace| answer(StatusCode::OK, space);
    let activated = state.service.activate_space(&caller.actor(), SpaceId(*id), force, request, kept).await?;
    Ok(send(activated)?)
}
