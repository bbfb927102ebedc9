//! The one error of the service and its stable codes. Knows no HTTP: `http/problem.rs` alone turns a code into a
//! status. Imports nothing of ours, so that every layer can fail with it.

use std::{borrow::Cow, error::Error as StdError, fmt, sync::Arc, time::Duration};

use serde::Serialize;
use strum::{EnumIter, EnumString, IntoStaticStr};
use utoipa::ToSchema;

/// `Result` with the service's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, as clients see it in `code`. Names are stable: clients branch on them.
///
/// Each code has a section in `docs/errors.md`; a test walks this enum and fails when one is missing.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, EnumIter, EnumString, IntoStaticStr, Serialize, ToSchema,
)]
#[strum(serialize_all = "snake_case")]
#[serde(rename_all = "snake_case")]
#[schema(as = ErrorCode, description = "What went wrong, for programs. `/errors/{code}` explains each.")]
pub enum Code {
    /// The body is not JSON, or holds what JSON allows and a database cannot keep.
    InvalidJson,
    /// The JSON is fine, a value in it is not: a missing, unknown, badly typed or out-of-range field.
    InvalidRequest,
    /// A query parameter or a part of the path is malformed.
    InvalidParameter,
    /// No `Authorization: Bearer` header.
    MissingApiKey,
    /// The key is unknown, revoked or expired.
    InvalidApiKey,
    /// The key is valid but lacks the scope that the route needs.
    MissingScope,
    /// The key is bound to one user, and the request names another.
    UserNotAllowed,
    /// Only those who operate the whole service may do this.
    NotOperator,
    /// The tenant has as much stored as it may.
    StorageQuotaExceeded,
    /// No such context for this key.
    ContextNotFound,
    /// The context has no such version, or not any more.
    VersionNotFound,
    /// No such operation for this key.
    OperationNotFound,
    /// No such API key in this key's tenant.
    ApiKeyNotFound,
    /// No such embedding space.
    EmbeddingSpaceNotFound,
    /// No such route.
    RouteNotFound,
    /// The route exists, but not with this method.
    MethodNotAllowed,
    /// Another context of the user has the key.
    KeyConflict,
    /// There is a tenant of this name.
    TenantExists,
    /// The operation is not in a state in which this could be done.
    OperationConflict,
    /// The embedding space is not in a state in which this could be done, or there is one of this model already.
    EmbeddingSpaceConflict,
    /// The embedding space lacks something that the active one has.
    EmbeddingSpaceIncomplete,
    /// A request with this `Idempotency-Key` is under way.
    IdempotencyKeyInFlight,
    /// The `Idempotency-Key` belongs to another request.
    IdempotencyKeyReused,
    /// The context is not in the version that the request is meant for.
    PreconditionFailed,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// The text of one context is longer than the limit.
    TextTooLong,
    /// The body is not declared as `application/json`.
    UnsupportedMediaType,
    /// A vector's dimension is not that of the active embedding space, or it has no direction.
    InvalidVector,
    /// A vector came before there was any embedding space that it could be of.
    NoEmbeddingSpace,
    /// The embedding provider, without which this cannot be done, is away.
    EmbeddingProviderUnavailable,
    /// The key, or its tenant, has sent more requests than it may.
    RateLimited,
    /// The tenant has as many searches under way and waiting as it may.
    TooManySearches,
    /// Too many wait for the database.
    Overloaded,
    /// The database cannot be reached.
    DatabaseUnavailable,
    /// Another write was in the way for too long.
    DatabaseBusy,
    /// The request did not finish in the time that the service gives it.
    DeadlineExceeded,
    /// A defect of the service itself.
    Internal,
}

impl Code {
    /// The code as it appears in answers and logs.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One thing that is wrong with a request, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// JSON pointer (RFC 6901) into the body, or the name of a query parameter.
    pub pointer: String,
    /// What is wrong there and what to do, as a sentence for people.
    pub detail: String,
}

/// A failure: a stable code, a sentence for the caller, and a cause for the log.
///
/// `detail` and `violations` are shown to callers, so they never hold internals; `source` is for the log alone.
#[derive(Debug)]
pub struct Error {
    pub code: Code,
    pub detail: Cow<'static, str>,
    pub violations: Vec<Violation>,
    /// When it makes sense to try again.
    pub retry_after: Option<Duration>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), violations: Vec::new(), retry_after: None, source: None }
    }

    /// A request whose field at `pointer` is wrong.
    pub fn invalid(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidRequest, "The request has a field that is not acceptable.")
            .with_violation(pointer, detail)
    }

    /// A query parameter, header or part of the path that is wrong.
    pub fn parameter(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(Code::InvalidParameter, "A parameter of the request is not acceptable.")
            .with_violation(name, detail)
    }

    /// A defect of ours. The caller learns nothing but that; the log gets the cause.
    pub fn internal(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::new(Code::Internal, "The service failed; its log says why.").with_source(source)
    }

    /// For each of those who waited for the same: what may be shown, and the whole as the cause.
    pub fn copy_of(shared: &Arc<Self>) -> Self {
        Self {
            code: shared.code,
            detail: shared.detail.clone(),
            violations: shared.violations.clone(),
            retry_after: shared.retry_after,
            source: Some(Box::new(shared.clone())),
        }
    }

    #[must_use]
    pub fn with_violation(mut self, pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        self.violations.push(Violation { pointer: pointer.into(), detail: detail.into() });
        self
    }

    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn with_retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Prefixes every pointer, for a value that was parsed on its own and stands inside a larger document.
    #[must_use]
    pub fn at(mut self, prefix: &str) -> Self {
        for violation in &mut self.violations {
            violation.pointer.insert_str(0, prefix);
        }
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        for violation in &self.violations {
            write!(f, " {}: {}", violation.pointer, violation.detail)?;
        }
        let mut cause: Option<&(dyn StdError + 'static)> = self.source();
        let mut said = String::new();
        while let Some(error) = cause {
            let words = error.to_string();
            // Some libraries repeat their cause in their own words.
            if !said.contains(&words) {
                write!(f, ": {words}")?;
                said = words;
            }
            cause = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}
