//! `/v1/usage`, and what one does about embeddings that failed.

use actix_web::{HttpResponse, get, http::StatusCode, post, web};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    State,
    answers::{answer, send},
    authentication::{Caller, Read, Write},
    body::OptionalBody,
    problem::{
        Problem,
        responses::{BodyProblems, IdempotencyProblems, Problems, UserProblems},
    },
};
use crate::domain::{ContextType, Filter, Retried, Selection, Usage, UserId};

/// How much is stored, and how much of it still waits
///
/// Of the tenant; with a key that is bound to a user, of that user.
#[utoipa::path(
    tag = "usage",
    operation_id = "get_usage",
    security(("api_key" = ["read"])),
    responses((status = 200, description = "As it is now.", body = Usage),
        Problems)
)]
#[get("/v1/usage")]
pub async fn get_usage(caller: Caller<Read>, state: web::Data<State>) -> Result<HttpResponse, Problem> {
    Ok(HttpResponse::Ok().json(state.service.usage(caller.access()).await?))
}

/// Which failed embeddings to try again; all of them when it is empty.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryEmbeddings {
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of this kind.
    #[schema(min_length = 1, max_length = 50, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    context_type: Option<String>,
    /// See the guide.
    #[schema(value_type = Option<Object>)]
    filter: Option<Box<RawValue>>,
}

/// Try failed embeddings again
///
/// Those that match are `pending` again: after the provider was mended, say, or was given a model that takes longer texts. At
/// most 10,000 at once.
#[utoipa::path(
    tag = "usage",
    operation_id = "retry_embeddings",
    security(("api_key" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")),
    request_body(content = Option<RetryEmbeddings>),
    responses(
        (status = 200, description = "How many wait again.", body = Retried),
        Problems, BodyProblems, UserProblems, IdempotencyProblems
    )
)]
#[post("/v1/contexts/retry-embeddings")]
pub async fn retry_embeddings(
    caller: Caller<Write>,
    state: web::Data<State>,
    body: OptionalBody<RetryEmbeddings>,
) -> Result<HttpResponse, Problem> {
    let RetryEmbeddings { user_id, context_type, filter } = body.value;
    let filter = filter.filter(|raw| raw.get() != "null");
    let selection = Selection {
        user_id: caller.access().confine(user_id.map(UserId))?,
        context_type: context_type.map(ContextType::new).transpose()?,
        filter: filter.map(|raw| Filter::parse(&raw).map_err(|error| error.at("/filter"))).transpose()?,
        ..Selection::default()
    };
    let request = body.idempotent.as_ref();
    let kept = |retried: &Retried| answer(StatusCode::OK, retried);
    let answered = state.service.retry_embeddings(&caller.actor(), &selection, request, kept).await?;
    Ok(send(answered)?)
}
