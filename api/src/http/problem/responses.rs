//! The refusals that the OpenAPI document promises: each stands in it once, with its codes and an answer for each of
//! them as an example, and operations refer to it.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};
use utoipa::{
    IntoResponses,
    openapi::{Ref, RefOr, Response},
};

use super::{PROBLEM_JSON, ProblemDetails, status};
use crate::error::{Code, Error};

/// A response of `components/responses`, by its name there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, IntoStaticStr)]
enum Refusal {
    BadParameter,
    BadRequest,
    BadLines,
    Unauthorized,
    MissingScope,
    UserNotAllowed,
    NotOperator,
    ContextNotFound,
    VersionNotFound,
    OperationNotFound,
    ApiKeyNotFound,
    EmbeddingSpaceNotFound,
    ErrorCodeNotFound,
    KeyConflict,
    KeyConflictOrInFlight,
    RequestInFlight,
    TenantExists,
    ImportConflict,
    OperationConflict,
    EmbeddingSpaceConflict,
    EmbeddingSpaceConflictOrInFlight,
    EmbeddingSpaceIncomplete,
    PreconditionFailed,
    BodyTooLarge,
    ContextTooLarge,
    UnsupportedMediaType,
    InvalidVector,
    InvalidVectorOrReused,
    IdempotencyKeyReused,
    RateLimited,
    TooManySearches,
    Internal,
    Unavailable,
    NoEmbeddingSpace,
    EmbeddingProviderUnavailable,
}

/// What any request may meet at the database.
const UNAVAILABLE: [Code; 4] =
    [Code::DatabaseUnavailable, Code::DatabaseBusy, Code::Overloaded, Code::DeadlineExceeded];

impl Refusal {
    /// When it is given, and with which codes; all of them have one status.
    fn describe(self) -> (&'static str, Vec<Code>) {
        use Code as C;
        match self {
            Self::BadParameter => ("A parameter is malformed.", vec![C::InvalidParameter]),
            Self::BadRequest => (
                "The body or a parameter is malformed.",
                vec![C::InvalidRequest, C::InvalidJson, C::InvalidParameter],
            ),
            Self::BadLines => (
                "The body broke off, or a parameter is malformed.",
                vec![C::InvalidJson, C::InvalidParameter],
            ),
            Self::Unauthorized => {
                ("The API key is missing or not valid.", vec![C::MissingApiKey, C::InvalidApiKey])
            }
            Self::MissingScope => ("The API key lacks the scope.", vec![C::MissingScope]),
            Self::UserNotAllowed => (
                "The API key lacks the scope, or is bound to another user.",
                vec![C::MissingScope, C::UserNotAllowed],
            ),
            Self::NotOperator => (
                "The API key lacks the scope, or is not one of the tenant `default`, whose admins are the operators.",
                vec![C::MissingScope, C::NotOperator],
            ),
            Self::ContextNotFound => {
                ("There is no such context that this key can reach.", vec![C::ContextNotFound])
            }
            Self::VersionNotFound => (
                "There is no such context that this key can reach, or it has no such version.",
                vec![C::ContextNotFound, C::VersionNotFound],
            ),
            Self::OperationNotFound => {
                ("There is no such operation that this key can reach.", vec![C::OperationNotFound])
            }
            Self::ApiKeyNotFound => ("The tenant has no such API key.", vec![C::ApiKeyNotFound]),
            Self::EmbeddingSpaceNotFound => {
                ("There is no such embedding space.", vec![C::EmbeddingSpaceNotFound])
            }
            Self::ErrorCodeNotFound => ("There is no such code.", vec![C::RouteNotFound]),
            Self::KeyConflict => ("Another context of the user has the key.", vec![C::KeyConflict]),
            Self::KeyConflictOrInFlight => (
                "Another context of the user has the key, or the same request is under way.",
                vec![C::KeyConflict, C::IdempotencyKeyInFlight],
            ),
            Self::RequestInFlight => ("The same request is under way.", vec![C::IdempotencyKeyInFlight]),
            Self::TenantExists => (
                "There is a tenant of this name, or the same request is under way.",
                vec![C::TenantExists, C::IdempotencyKeyInFlight],
            ),
            Self::ImportConflict => {
                ("It was cancelled, or the same import was sent again.", vec![C::OperationConflict])
            }
            Self::OperationConflict => (
                "The operation is in a state in which this cannot be done, or the same request is under way.",
                vec![C::OperationConflict, C::IdempotencyKeyInFlight],
            ),
            Self::EmbeddingSpaceConflict => (
                "The embedding space is in a state in which this cannot be done.",
                vec![C::EmbeddingSpaceConflict],
            ),
            Self::EmbeddingSpaceConflictOrInFlight => (
                "There is no other model to make a space for, or the same request is under way.",
                vec![C::EmbeddingSpaceConflict, C::IdempotencyKeyInFlight],
            ),
            Self::EmbeddingSpaceIncomplete => (
                "The embedding space lacks something, or the same request is under way.",
                vec![C::EmbeddingSpaceIncomplete, C::EmbeddingSpaceConflict, C::IdempotencyKeyInFlight],
            ),
            Self::PreconditionFailed => (
                "The context is not in the version that the request is meant for.",
                vec![C::PreconditionFailed],
            ),
            Self::BodyTooLarge => ("The body is too large.", vec![C::BodyTooLarge]),
            Self::ContextTooLarge => {
                ("The body, or the text in it, is too large.", vec![C::BodyTooLarge, C::TextTooLong])
            }
            Self::UnsupportedMediaType => {
                ("The body is not declared as what the operation takes.", vec![C::UnsupportedMediaType])
            }
            Self::InvalidVector => (
                "The vector has no direction or is not of the active embedding space.",
                vec![C::InvalidVector],
            ),
            Self::InvalidVectorOrReused => (
                "The embedding is not of the active space, or the idempotency key belongs to another request.",
                vec![C::InvalidVector, C::IdempotencyKeyReused],
            ),
            Self::IdempotencyKeyReused => {
                ("The idempotency key belongs to another request.", vec![C::IdempotencyKeyReused])
            }
            Self::RateLimited => {
                ("The key or its tenant has sent more requests than it may.", vec![C::RateLimited])
            }
            Self::TooManySearches => (
                "The key or its tenant has sent more requests than it may, or has too many searches under way.",
                vec![C::RateLimited, C::TooManySearches],
            ),
            Self::Internal => ("A defect of the service.", vec![C::Internal]),
            Self::Unavailable => {
                ("The database is away or too slow, or there is too much to do.", UNAVAILABLE.to_vec())
            }
            Self::NoEmbeddingSpace => (
                "The database is away or too slow, there is too much to do, or there is no embedding space yet that a given \
                 embedding could be of.",
                [&UNAVAILABLE[..], &[C::NoEmbeddingSpace]].concat(),
            ),
            Self::EmbeddingProviderUnavailable => (
                "The database or the embedding provider is away or too slow, or there is too much to do.",
                [&UNAVAILABLE[..], &[C::EmbeddingProviderUnavailable]].concat(),
            ),
        }
    }

    fn status(self) -> String {
        self.describe().1.first().map_or_else(String::new, |code| status(*code).as_str().to_owned())
    }

    fn to_json(self) -> Value {
        let (description, codes) = self.describe();
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
    /// One for operators.
    OperatorProblems: NotOperator;
    /// One that takes a body.
    BodyProblems: BadRequest BodyTooLarge UnsupportedMediaType;
    /// One that takes an `Idempotency-Key`.
    IdempotencyProblems: RequestInFlight IdempotencyKeyReused;
    /// One that takes a context.
    WriteProblems: KeyConflict ContextTooLarge InvalidVector NoEmbeddingSpace;
    /// One that takes a context and an `Idempotency-Key`.
    WriteOnceProblems: KeyConflictOrInFlight ContextTooLarge InvalidVectorOrReused NoEmbeddingSpace;
    /// One that makes a context again what it was, with an `Idempotency-Key`.
    RestoreProblems: KeyConflictOrInFlight IdempotencyKeyReused;
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
            let codes = refusal.describe().1;
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
