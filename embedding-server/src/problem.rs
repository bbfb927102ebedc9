//! What a request is refused with. There are four shapes, as clients of text-embeddings-inference know them: its own
//! routes, OpenAI's routes, plain text for what is no acceptable JSON, and nothing at all (401, 404, 405).

use std::borrow::Cow;

use actix_web::{
    HttpResponse,
    http::{StatusCode, header::ContentType},
};
use embedder::Error as ModelError;
use serde_json::json;

/// What kind of failure it is; the name is part of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr)]
pub(crate) enum Kind {
    Backend,
    Empty,
    Overloaded,
    Tokenizer,
    Unhealthy,
    Validation,
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Problem {
    /// The request was understood.
    Refused {
        kind: Kind,
        text: Cow<'static, str>,
        /// How the metrics name it.
        label: &'static str,
    },
    /// It was not: the same words on every route.
    NotUnderstood { status: StatusCode, text: String },
}

/// Whose routes the caller uses.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Dialect {
    Native,
    OpenAi,
}

impl Kind {
    fn status(self) -> StatusCode {
        match self {
            Self::Backend => StatusCode::FAILED_DEPENDENCY,
            Self::Empty => StatusCode::BAD_REQUEST,
            Self::Overloaded => StatusCode::TOO_MANY_REQUESTS,
            Self::Tokenizer | Self::Validation => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Unhealthy => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl Problem {
    pub(crate) fn new(kind: Kind, text: impl Into<Cow<'static, str>>) -> Self {
        let label = match kind {
            Kind::Backend => "inference",
            Kind::Empty | Kind::Validation => "validation",
            Kind::Overloaded => "overloaded",
            Kind::Tokenizer => "tokenization",
            Kind::Unhealthy => "dropped",
        };
        Self::Refused { kind, text: text.into(), label }
    }

    /// Something about the texts or the parameters is not acceptable.
    pub(crate) fn invalid(what: &str) -> Self {
        Self::new(Kind::Validation, format!("Input validation error: {what}"))
    }

    pub(crate) fn empty() -> Self {
        Self::new(Kind::Empty, "Input validation error: `inputs` cannot be empty")
    }

    pub(crate) fn stopping() -> Self {
        Self::new(Kind::Unhealthy, "the server is stopping")
    }

    pub(crate) fn not_understood(status: StatusCode, text: impl Into<String>) -> Self {
        Self::NotUnderstood { status, text: text.into() }
    }

    /// Another name in the metrics than that of its kind.
    pub(crate) fn counted_as(mut self, name: &'static str) -> Self {
        if let Self::Refused { label, .. } = &mut self {
            *label = name;
        }
        self
    }

    /// How the metrics name it.
    pub(crate) fn label(&self) -> &'static str {
        match self {
            Self::Refused { label, .. } => label,
            Self::NotUnderstood { .. } => "validation",
        }
    }

    pub(crate) fn response(&self, dialect: Dialect) -> HttpResponse {
        match self {
            Self::NotUnderstood { status, text } => {
                HttpResponse::build(*status).content_type(ContentType::plaintext()).body(text.clone())
            }
            Self::Refused { kind, text, .. } => {
                let (status, name) = (kind.status(), <&str>::from(kind));
                let body = match dialect {
                    Dialect::Native => json!({"error": text, "error_type": name}),
                    Dialect::OpenAi => json!({"message": text, "code": status.as_u16(), "type": name}),
                };
                HttpResponse::build(status).json(body)
            }
        }
    }
}

impl From<ModelError> for Problem {
    fn from(error: ModelError) -> Self {
        match error {
            ModelError::Overloaded { .. } => Self::new(Kind::Overloaded, "Model is overloaded"),
            ModelError::Closed => Self::stopping(),
            ModelError::TooLong => Self::new(Kind::Validation, format!("Input validation error: {error}")),
            ModelError::Tokenizer(_) => {
                tracing::error!(%error, "tokenizing failed");
                Self::new(Kind::Tokenizer, format!("Tokenizer error: {error}"))
            }
            ModelError::Model(_) | ModelError::Thread(_) => {
                tracing::error!(%error, "the model failed");
                Self::new(Kind::Backend, format!("Backend error: {error}"))
            }
        }
    }
}

/// The answer to a request, whichever way it went.
pub(crate) fn answer(result: Result<HttpResponse, Problem>, dialect: Dialect) -> HttpResponse {
    result.unwrap_or_else(|problem| problem.response(dialect))
}
