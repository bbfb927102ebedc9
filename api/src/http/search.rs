//! `/v1/contexts/search`.

use actix_web::{HttpResponse, post, web};

use super::{
    State,
    authentication::{Caller, Read},
    body::RawBody,
    freshness::{Wanted, made, send},
    problem::{
        Problem,
        responses::{BodyProblems, Problems, SearchProblems, UserProblems},
    },
};
use crate::domain::{Question, QuestionKind, SearchInput, SearchResponse, from_json};

/// Find contexts by meaning, by words, or by both
///
/// `hybrid` runs both legs and fuses their scores, or with `"fusion": "rank"` their ranks (k = 60). When the embedding service is
/// away the keyword leg answers alone, and `degraded` says so.
#[utoipa::path(
    tag = "search",
    operation_id = "search_contexts",
    security(("api_key" = ["read"])),
    params(
        ("Cache-Control" = Option<String>, Header, description = "`no-cache`: an answer that is made for this request.")
    ),
    request_body = SearchInput,
    responses(
        (status = 200, description = "The hits, best first.", body = SearchResponse, headers(
            ("Cache-Status" = String, description = "Whether the answer was given before and is still true (RFC 9211).")
        )),
        Problems, BodyProblems, UserProblems, SearchProblems
    )
)]
#[post("/v1/contexts/search")]
pub async fn search_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    wanted: Wanted,
    body: RawBody,
) -> Result<HttpResponse, Problem> {
    let access = caller.access();
    let question = Question::new(QuestionKind::Search, access, &body.0);
    // What was answered before was in order.
    let make = async || {
        let request = from_json::<SearchInput>(&body.0)?.check(access)?;
        let response = state.service.search(access, &request).await?;
        made(&response, None, request.is_lasting() && response.is_lasting())
    };
    let (answer, provenance) = state.service.answer(access, &question, wanted.0, make).await?;
    Ok(send(answer, &wanted, provenance))
}
