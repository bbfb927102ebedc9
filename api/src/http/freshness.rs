//! Whether a caller takes an answer that was given before (RFC 9111, section 5.2.1), and whether it was (RFC 9211).

use std::future::{Ready, ready};

use actix_web::{
    FromRequest, HttpRequest, HttpResponse, HttpResponseBuilder,
    dev::Payload,
    http::header::{self, HeaderMap, HeaderName},
};
use serde::Serialize;

use super::problem::Problem;
use crate::{
    domain::{Answer, Freshness, MadeAnswer, Provenance},
    error::{Error, Result},
};

const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the request's `Cache-Control` says.
pub(super) struct Wanted(pub Freshness);

impl FromRequest for Wanted {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        ready(Ok(Self(if insists_on_new(request.headers()) { Freshness::New } else { Freshness::True })))
    }
}

pub(super) fn insists_on_new(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::CACHE_CONTROL).filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|directive| {
        let directive = directive.trim();
        ["no-cache", "no-store", "max-age=0"].iter().any(|word| directive.eq_ignore_ascii_case(word))
    })
}

/// An answer with this body.
pub(super) fn made(body: &impl Serialize, version: Option<i64>, may_be_kept: bool) -> Result<MadeAnswer> {
    let body = serde_json::to_vec(body).map_err(Error::internal)?.into();
    Ok(MadeAnswer { answer: Answer { body, version }, may_be_kept })
}

/// Adds where the answer comes from.
pub(super) fn tell(response: &mut HttpResponseBuilder, wanted: &Wanted, provenance: Provenance) {
    let status = match (provenance, wanted.0) {
        (Provenance::Hit, _) => "context-api; hit",
        (Provenance::Miss, _) => "context-api; fwd=miss",
        (Provenance::Bypass, Freshness::New) => "context-api; fwd=request",
        (Provenance::Bypass, Freshness::True) => "context-api; fwd=bypass",
    };
    response.insert_header((CACHE_STATUS, status));
}

pub(super) fn send(answer: Answer, wanted: &Wanted, provenance: Provenance) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    tell(&mut response, wanted, provenance);
    response.content_type("application/json").body(answer.body)
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[tokio::test]
    async fn a_caller_may_insist() {
        for (value, wanted) in [
            ("no-cache", Freshness::New),
            ("No-Store", Freshness::New),
            ("max-stale=5, max-age=0", Freshness::New),
            ("max-age=60", Freshness::True),
            ("", Freshness::True),
        ] {
            let request = TestRequest::default().insert_header((header::CACHE_CONTROL, value));
            let found = Wanted::extract(&request.to_http_request()).await.map(|found| found.0);
            assert_eq!(found.ok(), Some(wanted), "{value}");
        }
    }
}
