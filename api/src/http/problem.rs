//! Errors as problem details (RFC 9457): the one place where a code gets a status and a title.

pub(super) mod responses;

use std::fmt;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    body::{BoxBody, MessageBody},
    dev::{ResourceDef, ServiceRequest, ServiceResponse},
    error::{PathError, QueryPayloadError},
    http::{Method, StatusCode, header},
    middleware::Next,
    web,
};
use serde::Serialize;
use utoipa::{ToSchema, openapi::OpenApi};

use super::routed_path;
use crate::error::{Code, Error, Violation};

/// The media type of an error's body.
pub(super) const PROBLEM_JSON: &str = "application/problem+json";
pub(super) const REQUEST_ID: &str = "x-request-id";
const DOCUMENTATION: &str = include_str!("../../../docs/errors.md");

/// An [`Error`] on its way to a client.
#[derive(Debug)]
pub struct Problem {
    pub(super) error: Error,
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        Self { error }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// The body of every error, after RFC 9457.
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDetails {
    /// Where the code is explained.
    #[serde(rename = "type")]
    #[schema(format = "uri-reference")]
    kind: String,
    /// The same for every error of this code.
    title: &'static str,
    /// The HTTP status again.
    #[schema(minimum = 400, maximum = 599)]
    status: u16,
    /// What happened this time, for people.
    detail: String,
    /// What happened, for programs: stable. Go by the status when you meet one that you do not know.
    code: Code,
    /// What is wrong with which field; left out when there is nothing to point at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<FieldProblem>,
    /// Tells operators which request it was; also in the header `X-Request-ID`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<String>,
}

impl ProblemDetails {
    pub(super) fn of(error: &Error, request_id: Option<&str>) -> Self {
        Self {
            kind: format!("/errors/{}", error.code),
            title: title(error.code),
            status: status(error.code).as_u16(),
            detail: error.detail.clone().into_owned(),
            code: error.code,
            errors: error.violations.iter().map(FieldProblem::from).collect(),
            request_id: request_id.map(str::to_owned),
        }
    }
}

/// One thing that is wrong with a request.
#[derive(Debug, Serialize, ToSchema)]
pub struct FieldProblem {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter.
    pointer: String,
    /// What is wrong there and what to do, for people.
    detail: String,
}

impl From<&Violation> for FieldProblem {
    fn from(violation: &Violation) -> Self {
        Self { pointer: violation.pointer.clone(), detail: violation.detail.clone() }
    }
}

/// The status of a code.
pub(super) fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidJson | Code::InvalidRequest | Code::InvalidParameter => StatusCode::BAD_REQUEST,
        Code::MissingApiKey | Code::InvalidApiKey => StatusCode::UNAUTHORIZED,
        Code::MissingScope | Code::UserNotAllowed | Code::NotOperator | Code::StorageQuotaExceeded => {
            StatusCode::FORBIDDEN
        }
        Code::ContextNotFound
        | Code::VersionNotFound
        | Code::OperationNotFound
        | Code::ApiKeyNotFound
        | Code::EmbeddingSpaceNotFound
        | Code::RouteNotFound => StatusCode::NOT_FOUND,
        Code::KeyConflict
        | Code::TenantExists
        | Code::OperationConflict
        | Code::EmbeddingSpaceConflict
        | Code::EmbeddingSpaceIncomplete
        | Code::IdempotencyKeyInFlight => StatusCode::CONFLICT,
        Code::PreconditionFailed => StatusCode::PRECONDITION_FAILED,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::BodyTooLarge | Code::TextTooLong => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidVector | Code::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RateLimited | Code::TooManySearches => StatusCode::TOO_MANY_REQUESTS,
        Code::NoEmbeddingSpace
        | Code::EmbeddingProviderUnavailable
        | Code::Overloaded
        | Code::DatabaseUnavailable
        | Code::DatabaseBusy
        | Code::DeadlineExceeded => StatusCode::SERVICE_UNAVAILABLE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What a code means, in a few words.
pub(super) fn title(code: Code) -> &'static str {
    match code {
        Code::InvalidJson => "The body is not usable JSON",
        Code::InvalidRequest => "A field is not acceptable",
        Code::InvalidParameter => "A parameter is not acceptable",
        Code::MissingApiKey => "No API key",
        Code::InvalidApiKey => "Unknown API key",
        Code::MissingScope => "The API key lacks a scope",
        Code::UserNotAllowed => "The API key is bound to another user",
        Code::NotOperator => "Only operators may do this",
        Code::StorageQuotaExceeded => "The tenant has no room left",
        Code::ContextNotFound => "No such context",
        Code::VersionNotFound => "No such version",
        Code::OperationNotFound => "No such operation",
        Code::ApiKeyNotFound => "No such API key",
        Code::EmbeddingSpaceNotFound => "No such embedding space",
        Code::RouteNotFound => "No such route",
        Code::MethodNotAllowed => "Wrong method",
        Code::KeyConflict => "The key belongs to another context",
        Code::TenantExists => "The name of the tenant is taken",
        Code::OperationConflict => "The operation is in another state",
        Code::EmbeddingSpaceConflict => "The embedding space is in another state",
        Code::EmbeddingSpaceIncomplete => "The embedding space lacks something",
        Code::IdempotencyKeyInFlight => "The same request is under way",
        Code::IdempotencyKeyReused => "The idempotency key belongs to another request",
        Code::PreconditionFailed => "The context has changed",
        Code::BodyTooLarge => "The body is too large",
        Code::TextTooLong => "The text is too long",
        Code::UnsupportedMediaType => "Not JSON",
        Code::InvalidVector => "The vector is not usable",
        Code::NoEmbeddingSpace => "No embedding space yet",
        Code::EmbeddingProviderUnavailable => "The embedding provider is away",
        Code::RateLimited => "Too many requests",
        Code::TooManySearches => "Too many searches",
        Code::Overloaded => "Too much at once",
        Code::DatabaseUnavailable => "The database is away",
        Code::DatabaseBusy => "Another write is in the way",
        Code::DeadlineExceeded => "Out of time",
        Code::Internal => "The service failed",
    }
}

/// What the documentation says of a code: its section of the page on errors.
pub(super) fn documentation(code: Code) -> Option<&'static str> {
    let heading = format!("## {code}\n");
    let section = &DOCUMENTATION[DOCUMENTATION.find(&heading)?..];
    let end = section[3..].find("\n## ").map_or(section.len(), |end| end + 4);
    Some(&section[3..end])
}

impl Problem {
    /// The response, with the id of the request when it is known.
    pub(super) fn response(&self, request_id: Option<&str>) -> HttpResponse<BoxBody> {
        let error = &self.error;
        let status = status(error.code);
        let mut response = HttpResponse::build(status);
        response.content_type(PROBLEM_JSON);
        if let Some(after) = error.retry_after {
            // Who comes a moment too early is refused again.
            response.insert_header((header::RETRY_AFTER, after.as_secs_f64().ceil().max(1.0).to_string()));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        if let (Code::MethodNotAllowed, Some(allowed)) = (error.code, error.violations.first()) {
            response.insert_header((header::ALLOW, allowed.detail.clone()));
        }
        if let Some(id) = request_id {
            response.insert_header((REQUEST_ID, id));
        }
        let details = ProblemDetails::of(error, request_id);
        // Strings and numbers always serialise.
        response.body(serde_json::to_vec(&details).unwrap_or_default())
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        status(self.error.code)
    }

    fn error_response(&self) -> HttpResponse<BoxBody> {
        self.response(None)
    }
}

pub(super) fn path_error(error: PathError, _: &HttpRequest) -> actix_web::Error {
    let error = Error::new(Code::InvalidParameter, "A part of the path is malformed.")
        .with_violation("path", error.to_string());
    Problem::from(error).into()
}

pub(super) fn query_error(error: QueryPayloadError, _: &HttpRequest) -> actix_web::Error {
    let error = Error::new(Code::InvalidParameter, "A query parameter is malformed.")
        .with_violation("query", error.to_string());
    Problem::from(error).into()
}

/// The documented routes, to tell a wrong path from a wrong method.
pub(super) struct Routes(Vec<Route>);

struct Route {
    /// What stands before its first parameter. Most routes are told apart by that, for less than a match costs.
    begins: String,
    pattern: ResourceDef,
    methods: Vec<Method>,
}

impl Routes {
    pub(super) fn new(document: &OpenApi) -> Self {
        let routes = document.paths.paths.iter().map(|(path, item)| {
            let methods = [
                (&item.get, Method::GET),
                (&item.post, Method::POST),
                (&item.put, Method::PUT),
                (&item.patch, Method::PATCH),
                (&item.delete, Method::DELETE),
            ];
            let methods =
                methods.into_iter().filter(|(operation, _)| operation.is_some()).map(|(_, method)| method);
            (path, methods.collect())
        });
        let mut routes: Vec<(&String, Vec<Method>)> = routes.collect();
        // A path as it is written wins over one with a parameter that could be the same.
        routes.sort_by_key(|(path, _)| path.contains('{'));
        let route = |(path, methods): (&String, _)| {
            let begins = path.split('{').next().unwrap_or_default().to_owned();
            Route { begins, pattern: ResourceDef::new(path.as_str()), methods }
        };
        Self(routes.into_iter().map(route).collect())
    }

    fn methods(&self, path: &str) -> Option<&[Method]> {
        let mut routes = self.0.iter();
        let found = routes.find(|route| path.starts_with(&route.begins) && route.pattern.is_match(path));
        found.map(|route| route.methods.as_slice())
    }
}

/// Refuses the wrong method before a handler is looked for: `GET /v1/contexts/search` would find that of
/// `/v1/contexts/{id}`.
pub(super) async fn check_method(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let routes = request.app_data::<web::Data<Routes>>();
    let allowed = routes.and_then(|routes| routes.methods(routed_path(&request)));
    let Some(allowed) = allowed.filter(|allowed| !allowed.contains(request.method())) else {
        return Ok(next.call(request).await?.map_into_boxed_body());
    };
    let allowed = allowed.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    let error = Error::new(Code::MethodNotAllowed, format!("This route takes {allowed}."))
        .with_violation("method", allowed);
    Ok(request.error_response(Problem::from(error)))
}

/// What no route takes.
pub(super) async fn no_route() -> Result<HttpResponse, Problem> {
    Err(Error::new(Code::RouteNotFound, "There is no such route; /docs lists those that there are.").into())
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn every_code_has_a_status_a_title_and_a_section_in_the_documentation() {
        for code in Code::iter() {
            assert!(status(code).is_client_error() || status(code).is_server_error(), "{code}");
            let section =
                documentation(code).unwrap_or_else(|| panic!("docs/errors.md lacks a section for {code}"));
            let says = format!("{}: {}", status(code).as_u16(), title(code));
            assert!(section.contains(&says), "docs/errors.md does not say `{says}` of {code}");
            assert_eq!(section.matches("\n## ").count(), 0);
        }
    }
}
