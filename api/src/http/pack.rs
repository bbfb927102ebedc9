//! `/v1/contexts/pack`.

use actix_web::{HttpResponse, post, web};

use super::{
    State,
    authentication::{Caller, Read},
    body::RawBody,
    problem::{
        Problem,
        responses::{BodyProblems, Problems, SearchProblems, UserProblems},
    },
};
use crate::domain::{PackBody, PackInput, PackResponse, SearchInput, from_json, limits::PACK_LIMIT_DEFAULT};

/// Find contexts and pack them into one text, within a budget of tokens
///
/// Takes what a search takes, and packs its hits, best first; `limit` is 100 when left out. The same hits and the same request
/// make the same text.
#[utoipa::path(
    tag = "search",
    operation_id = "pack_contexts",
    security(("api_key" = ["read"])),
    request_body = PackInput,
    responses(
        (status = 200, description = "The text, and where each piece of it comes from.", body = PackResponse),
        Problems, BodyProblems, UserProblems, SearchProblems
    )
)]
#[post("/v1/contexts/pack")]
pub async fn pack_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    body: RawBody,
) -> Result<HttpResponse, Problem> {
    let body = PackBody::read(&body.0)?;
    let access = caller.access();
    let mut search = from_json::<SearchInput>(body.search.as_bytes())?.check(access)?;
    if !body.has_limit {
        search.limit = PACK_LIMIT_DEFAULT;
    }
    let response = state.service.pack(access, search, body.pack.check()?).await?;
    Ok(HttpResponse::Ok().json(response))
}
