//! `/v1/contexts/search`.

use actix_web::{HttpResponse, post, web};
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    State,
    authentication::{Caller, Read},
    body::Body,
    problem::{BodyProblems, Problem, ProblemDetails, Problems},
};
use crate::{
    domain::{Mode, SearchRequest, SearchResponse, UserId, optional_whole},
    error::{Error, Result},
};

/// What to look for. Give `query` or `vector`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"query": "play chess against the computer", "limit": 3}))]
pub struct Search {
    /// Words or a question, at most 8 KiB.
    #[schema(min_length = 1, max_length = 8192)]
    query: Option<String>,
    /// A vector of the active embedding space; with `mode: semantic` only.
    #[schema(min_items = 1, max_items = 4000)]
    vector: Option<Vec<f32>>,
    #[serde(default)]
    mode: Mode,
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of these types; all when left out.
    #[serde(default)]
    #[schema(max_items = 20)]
    context_types: Vec<String>,
    /// Hits wanted; 10 when left out.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 100)]
    limit: Option<u32>,
}

impl TryFrom<Search> for SearchRequest {
    type Error = Error;

    fn try_from(body: Search) -> Result<Self> {
        Self::new(
            body.query,
            body.vector,
            body.mode,
            body.user_id.map(UserId),
            body.context_types,
            body.limit,
        )
    }
}

/// Find contexts by meaning, by words, or by both
///
/// `hybrid` runs both legs and fuses them by reciprocal rank (k = 60). When the embedding service is away the keyword
/// leg answers alone, and `degraded` says so.
#[utoipa::path(
    tag = "search",
    operation_id = "search_contexts",
    security(("api_key" = ["read"])),
    request_body = Search,
    responses(
        (status = 200, description = "The hits, best first.", body = SearchResponse),
        (status = 422, description = "The vector is not of the active space.", body = ProblemDetails,
         content_type = "application/problem+json"),
        Problems,
        BodyProblems
    )
)]
#[post("/v1/contexts/search")]
pub async fn search_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    body: Body<Search>,
) -> Result<HttpResponse, Problem> {
    let request = SearchRequest::try_from(body.value)?;
    let response = state.service.search(caller.access(), &request).await?;
    Ok(HttpResponse::Ok().json(response))
}
