//! The OpenAPI document, made from the handlers.

use std::str::FromStr;

use actix_web::{App, HttpResponse, get, web};
use serde_json::Value;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
};
use utoipa_actix_web::AppExt;

use super::{
    configure,
    problem::{self, Problem, responses::NoSuchErrorCode},
    schemas,
};
use crate::error::{Code, Error};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Context API",
        description = "Stores and finds the context that AI applications feed to their models.\n\n\
            Send an API key as a bearer token. An error is problem details (RFC 9457) with a stable `code`, which \
            `/errors/{code}` explains. A list comes in pages: pass `next_cursor` as `cursor` until `has_more` is false.",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    servers((url = "/", description = "The server that this document was fetched from.")),
    tags(
        (name = "contexts", description = "Storing contexts and getting them back."),
        (name = "operations", description = "Long work: seeing it, stopping it, starting it again."),
        (name = "api-keys", description = "Who may come in. For keys with the scope `admin`."),
        (name = "tenants", description = "Who owns everything else. For operators."),
        (name = "audit", description = "Who did what. For keys with the scope `admin`."),
        (name = "search", description = "Finding contexts by meaning and by words."),
        (name = "embedding-spaces", description = "Changing the embedding model while everything goes on. For operators."),
        (name = "usage", description = "How much is stored, and how far its embedding is."),
        (name = "health", description = "How the service is."),
        (name = "meta", description = "The service about itself."),
    ),
    modifiers(&ApiKeyScheme),
)]
struct Base;

struct ApiKeyScheme;

impl Modify for ApiKeyScheme {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .bearer_format("ctx_…")
            .description(Some(
                "An API key, made by `context-api keys create`. Scopes: `read`, `write`, `admin`.",
            ))
            .build();
        openapi
            .components
            .get_or_insert_with(Default::default)
            .add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The document. Needs no configuration and no database.
pub fn document() -> Value {
    let mut document = serde_json::to_value(routes()).unwrap_or_default();
    schemas::complete(&mut document);
    document
}

/// What the handlers say of themselves.
pub(super) fn routes() -> utoipa::openapi::OpenApi {
    let (_, document) =
        App::new().into_utoipa_app().openapi(Base::openapi()).configure(configure).split_for_parts();
    document
}

/// This document
///
/// Made from the code that serves it.
#[utoipa::path(tag = "meta", operation_id = "get_openapi", security(()), responses(
    (status = 200, description = "OpenAPI 3.1.", body = Object)
))]
#[get("/openapi.json")]
pub async fn get_openapi(document: web::Data<Value>) -> HttpResponse {
    HttpResponse::Ok().json(document.as_ref())
}

/// What an error code means
///
/// As plain text. The `type` of a problem leads here.
#[utoipa::path(tag = "meta", operation_id = "get_error_code", security(()),
    params(("code" = String, Path, description = "The `code` of an error.")),
    responses(
        (status = 200, description = "Its status and meaning, and what to do.", body = String, content_type = "text/plain"),
        NoSuchErrorCode
    )
)]
#[get("/errors/{code}")]
pub async fn get_error_code(code: web::Path<String>) -> Result<HttpResponse, Problem> {
    let unknown = || Error::new(Code::RouteNotFound, "There is no such error code.");
    let code = Code::from_str(&code).map_err(|_| unknown())?;
    let section = problem::documentation(code).ok_or_else(unknown)?;
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(section))
}
