//! The refusals that the OpenAPI document promises: each stands in it once, with its codes and an answer for each of
//! them as an example, and operations refer to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::{EnumIter, EnumMessage, IntoEnumIterator, IntoStaticStr};
use utoipa::{
    IntoResponses,
    openapi::{Ref, RefOr, Response},
};

use super::{PROBLEM_JSON, ProblemDetails, status};
use crate::error::{Code, Error};

/// A response of `components/responses`, by its name there, and with these words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumMessage, IntoStaticStr)]
enum Refusal {
    /// A parameter is malformed.
    BadParameter,
    /// The body or a parameter is malformed.
    BadRequest,
    /// A parameter, or something in the filter, is malformed.
    BadFilter,
    /// The body broke off, or a parameter is malformed.
    BadLines,
    /// The API key is missing or not valid.
    Unauthorized,
    /// The API key lacks the scope.
    MissingScope,
    /// The API key lacks the scope, or is bound to another user.
    UserNotAllowed,
    /// The API key lacks the scope, or is bound to another user, or the tenant has as much stored as it may.
    NotToBeStored,
    /// The API key lacks the scope, or is not one of the tenant `default`, whose admins are the operators.
    NotOperator,
    /// There is no such context that this key can reach.
    ContextNotFound,
    /// There is no such context that this key can reach, or it has no such version.
    VersionNotFound,
    /// There is no such operation that this key can reach.
    OperationNotFound,
    /// The tenant has no such API key.
    ApiKeyNotFound,
    /// There is no such embedding space.
    EmbeddingSpaceNotFound,
    /// There is no such code.
    ErrorCodeNotFound,
    /// Another context of the user has the key.
    KeyConflict,
    /// Another context of the user has the key, or the same request is under way.
    KeyConflictOrInFlight,
    /// The same request is under way.
    RequestInFlight,
    /// There is a tenant of this name, or the same request is under way.
    TenantExists,
    /// It was cancelled, or the same import was sent again.
    ImportConflict,
    /// The operation is in a state in which this cannot be done, or the same request is under way.
    OperationConflict,
    /// The embedding space is in a state in which this cannot be done.
    EmbeddingSpaceConflict,
    /// There is no other model to make a space for, or the same request is under way.
    EmbeddingSpaceConflictOrInFlight,
    /// The embedding space lacks something, or the same request is under way.
    EmbeddingSpaceIncomplete,
    /// The context is not in the version that the request is meant for.
    PreconditionFailed,
    /// The body is too large.
    BodyTooLarge,
    /// The body, or the text in it, is too large.
    ContextTooLarge,
    /// The body is not declared as what the operation takes.
    UnsupportedMediaType,
    /// The vector has no direction or is not of the active embedding space.
    InvalidVector,
    /// The embedding is not of the active space, or the idempotency key belongs to another request.
    InvalidVectorOrReused,
    /// The idempotency key belongs to another request.
    IdempotencyKeyReused,
    /// The key or its tenant has sent more requests than it may.
    RateLimited,
    /// The key or its tenant has sent more requests than it may, or has too many searches under way.
    TooManySearches,
    /// A defect of the service.
    Internal,
    /// The database is away or too slow, or there is too much to do.
    Unavailable,
    /// The database is away or too slow, there is too much to do, or there is no embedding space yet.
    NoEmbeddingSpace,
    /// The database or the embedding provider is away or too slow, or there is too much to do.
    EmbeddingProviderUnavailable,
}

impl Refusal {
    /// All of them have one status.
    fn codes(self) -> &'static [Code] {
        use Code as C;
        match self {
            Self::BadParameter => &[C::InvalidParameter],
            Self::BadRequest => &[C::InvalidRequest, C::InvalidJson, C::InvalidParameter],
            Self::BadFilter => &[C::InvalidParameter, C::InvalidRequest, C::InvalidJson],
            Self::BadLines => &[C::InvalidJson, C::InvalidParameter],
            Self::Unauthorized => &[C::MissingApiKey, C::InvalidApiKey],
            Self::MissingScope => &[C::MissingScope],
            Self::UserNotAllowed => &[C::MissingScope, C::UserNotAllowed],
            Self::NotToBeStored => &[C::MissingScope, C::UserNotAllowed, C::StorageQuotaExceeded],
            Self::NotOperator => &[C::MissingScope, C::NotOperator],
            Self::ContextNotFound => &[C::ContextNotFound],
            Self::VersionNotFound => &[C::ContextNotFound, C::VersionNotFound],
            Self::OperationNotFound => &[C::OperationNotFound],
            Self::ApiKeyNotFound => &[C::ApiKeyNotFound],
            Self::EmbeddingSpaceNotFound => &[C::EmbeddingSpaceNotFound],
            Self::ErrorCodeNotFound => &[C::RouteNotFound],
            Self::KeyConflict => &[C::KeyConflict],
            Self::KeyConflictOrInFlight => &[C::KeyConflict, C::IdempotencyKeyInFlight],
            Self::RequestInFlight => &[C::IdempotencyKeyInFlight],
            Self::TenantExists => &[C::TenantExists, C::IdempotencyKeyInFlight],
            Self::ImportConflict => &[C::OperationConflict],
            Self::OperationConflict => &[C::OperationConflict, C::IdempotencyKeyInFlight],
            Self::EmbeddingSpaceConflict => &[C::EmbeddingSpaceConflict],
            Self::EmbeddingSpaceConflictOrInFlight => &[C::EmbeddingSpaceConflict, C::IdempotencyKeyInFlight],
            Self::EmbeddingSpaceIncomplete => {
                &[C::EmbeddingSpaceIncomplete, C::EmbeddingSpaceConflict, C::IdempotencyKeyInFlight]
            }
            Self::PreconditionFailed => &[C::PreconditionFailed],
            Self::BodyTooLarge => &[C::BodyTooLarge],
            Self::ContextTooLarge => &[C::BodyTooLarge, C::TextTooLong],
            Self::UnsupportedMediaType => &[C::UnsupportedMediaType],
            Self::InvalidVector => &[C::InvalidVector],
            Self::InvalidVectorOrReused => &[C::InvalidVector, C::IdempotencyKeyReused],
            Self::IdempotencyKeyReused => &[C::IdempotencyKeyReused],
            Self::RateLimited => &[C::RateLimited],
            Self::TooManySearches => &[C::RateLimited, C::TooManySearches],
            Self::Internal => &[C::Internal],
            Self::Unavailable => {
                &[C::DatabaseUnavailable, C::DatabaseBusy, C::Overloaded, C::DeadlineExceeded]
            }
            Self::NoEmbeddingSpace => &[
                C::DatabaseUnavailable,
                C::DatabaseBusy,
                C::Overloaded,
                C::DeadlineExceeded,
                C::NoEmbeddingSpace,
            ],
            Self::EmbeddingProviderUnavailable => &[
                C::DatabaseUnavailable,
                C::DatabaseBusy,
                C::Overloaded,
                C::DeadlineExceeded,
                C::EmbeddingProviderUnavailable,
            ],
        }
    }

    fn status(self) -> String {
        self.codes().first().map_or_else(String::new, |code| status(*code).as_str().to_owned())
    }

    fn to_json(self) -> Value {
        let (description, codes) = (self.get_documentation().unwrap_or_default(), self.codes());
        let named = codes.iter().map(|code| format!("`{code}`")).collect::<Vec<_>>().join(", ");
        let examples: Map<String, Value> =
            codes.iter().map(|code| (code.to_string(), json!({"value": example(*code)}))).collect();
        json!({
            "description": format!("{description} Codes: {named}."),
            "headers": headers(&self.status()),
            "content": {PROBLEM_JSON: {
                "schema": {"$ref": "#/components/schemas/ProblemDetails"},
                "examples": examples,
            }},
        })
    }
}

/// What a client was told for this code one day.
fn example(code: Code) -> ProblemDetails {
    let error = match code {
        Code::InvalidRequest => Error::invalid("/ttl_seconds", "must be 1 to 316224000 seconds"),
        Code::InvalidParameter => Error::parameter("limit", "must be 1 to 200"),
        Code::Internal => Error::internal("what nobody is told"),
        _ => Error::new(code, super::title(code).to_owned() + "."),
    };
    ProblemDetails::of(&error, Some("01a1fbf9-8a7a-7346-a5d5-cac747a6a6db"))
}

fn headers(status: &str) -> Value {
    let mut headers = json!({"X-Request-ID": {"$ref": "#/components/headers/RequestId"}});
    match status {
        "401" => headers["WWW-Authenticate"] = json!({"$ref": "#/components/headers/Authenticate"}),
        "429" | "503" => headers["Retry-After"] = json!({"$ref": "#/components/headers/RetryAfter"}),
        _ => {}
    }
    headers
}

/// Adds all refusals that some operation refers to.
pub(in crate::http) fn add_to(components: &mut Value) {
    components["responses"] =
        Refusal::iter().map(|refusal| (<&str>::from(refusal).to_owned(), refusal.to_json())).collect();
    components["headers"] = json!({
        "RequestId": {
            "description": "Which request it was: your own `X-Request-ID`, or a new one.",
            "required": true,
            "schema": {"type": "string", "minLength": 1, "maxLength": 64, "pattern": "^[A-Za-z0-9._-]+$"},
        },
        "RetryAfter": {
            "description": "In how many seconds to try again.",
            "required": true,
            "schema": {"type": "integer", "format": "int32", "minimum": 1},
        },
        "Authenticate": {
            "description": "How to send a key: `Bearer`.",
            "required": true,
            "schema": {"type": "string", "enum": ["Bearer"]},
        },
    });
}

fn refer_to(refusals: &[Refusal]) -> BTreeMap<String, RefOr<Response>> {
    let reference = |refusal: &Refusal| Ref::from_response_name(<&str>::from(refusal));
    refusals.iter().map(|refusal| (refusal.status(), RefOr::Ref(reference(refusal)))).collect()
}

/// Refusals that operations have in common, by what they do. Where several groups have one status, the last one that an
/// operation names wins: so the particular comes after the general.
macro_rules! groups {
    ($($(#[$doc:meta])* $group:ident: $($refusal:ident)+;)+) => {$(
        $(#[$doc])*
        pub(in crate::http) struct $group;

        impl IntoResponses for $group {
            fn responses() -> BTreeMap<String, RefOr<Response>> {
                refer_to(&[$(Refusal::$refusal),+])
            }
        }
    )+};
}

groups! {
    /// Any operation with a key.
    Problems: BadParameter Unauthorized MissingScope RateLimited Internal Unavailable;
    /// One that names a user.
    UserProblems: UserNotAllowed;
    /// One that takes a filter as a parameter.
    FilterProblems: BadFilter;
    /// One for operators.
    OperatorProblems: NotOperator;
    /// One that takes a body.
    BodyProblems: BadRequest BodyTooLarge UnsupportedMediaType;
    /// One that takes an `Idempotency-Key`.
    IdempotencyProblems: RequestInFlight IdempotencyKeyReused;
    /// One that takes a context.
    WriteProblems: NotToBeStored KeyConflict ContextTooLarge InvalidVector NoEmbeddingSpace;
    /// One that takes a context and an `Idempotency-Key`.
    WriteOnceProblems: NotToBeStored KeyConflictOrInFlight ContextTooLarge InvalidVectorOrReused NoEmbeddingSpace;
    /// One that makes a context again what it was, with an `Idempotency-Key`.
    RestoreProblems: NotToBeStored KeyConflictOrInFlight IdempotencyKeyReused;
    /// One that takes `If-Match`.
    ConditionProblems: PreconditionFailed;
    /// One that searches.
    SearchProblems: InvalidVector TooManySearches;
    /// An import.
    ImportProblems: BadLines ImportConflict UnsupportedMediaType NoEmbeddingSpace;
    NoSuchContext: ContextNotFound;
    NoSuchVersion: VersionNotFound;
    NoSuchOperation: OperationNotFound;
    NoSuchApiKey: ApiKeyNotFound;
    NoSuchErrorCode: ErrorCodeNotFound;
    NoSuchSpace: EmbeddingSpaceNotFound;
    TenantProblems: TenantExists;
    OperationProblems: OperationConflict;
    /// What is done to an embedding space in the wrong state.
    SpaceProblems: EmbeddingSpaceConflict;
    SpaceCreationProblems: EmbeddingSpaceConflictOrInFlight EmbeddingProviderUnavailable;
    SpaceComparisonProblems: EmbeddingSpaceConflict EmbeddingProviderUnavailable;
    SpaceActivationProblems: EmbeddingSpaceIncomplete EmbeddingProviderUnavailable;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_has_one_status_and_every_code_is_one_of_a_refusal() {
        let mut seen = vec![Code::MethodNotAllowed];
        for refusal in Refusal::iter() {
            assert!(refusal.get_documentation().is_some_and(|said| said.ends_with('.')), "{refusal:?}");
            let codes = refusal.codes();
            assert!(codes.iter().all(|code| status(*code).as_str() == refusal.status()), "{refusal:?}");
            seen.extend(codes);
        }
        for code in Code::iter() {
            assert!(seen.contains(&code), "no operation is said to answer {code}");
        }
    }

    #[test]
    fn every_refusal_is_one_of_an_operation() {
        let paths = crate::http::document()["paths"].to_string();
        for refusal in Refusal::iter() {
            let name: &str = refusal.into();
            assert!(paths.contains(&format!("#/components/responses/{name}\"")), "{name}");
        }
    }
}
