//! `/v1/contexts/search`.

use actix_web::{HttpResponse, post, web};

use super::{
    State,
    authentication::{Caller, Read},
    body::Body,
    problem::{BodyProblems, Problem, ProblemDetails, Problems},
};
use crate::domain::{SearchInput, SearchResponse};

/// Find contexts by meaning, by words, or by both
///
/// `hybrid` runs both legs and fuses their scores, or with `"fusion": "rank"` their ranks (k = 60). When the embedding service is
/// away the keyword leg answers alone, and `degraded` says so.
#[utoipa::path(
    tag = "search",
    operation_id = "search_contexts",
    security(("api_key" = ["read"])),
    request_body = SearchInput,
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
    body: Body<SearchInput>,
) -> Result<HttpResponse, Problem> {
    let access = caller.access();
    let request = body.value.check(access)?;
    let response = state.service.search(access, &request).await?;
    Ok(HttpResponse::Ok().json(response))
}
