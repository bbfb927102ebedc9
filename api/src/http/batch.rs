//! `/v1/contexts/batch`: many writes in one request.

use actix_web::{HttpResponse, http::StatusCode, post, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    State,
    answers::{answer_about, send},
    authentication::{Caller, Write},
    body::Body,
    problem::{
        Problem, ProblemDetails,
        responses::{
            BodyProblems, ConditionProblems, NoSuchContext, Problems, UserProblems, WriteOnceProblems,
        },
        status,
    },
};
use crate::{
    domain::{
        BatchOperation, BatchResultKind, ContextId, ContextInput, NewContext, from_json,
        limits::BATCH_OPERATIONS_MAX, optional_whole,
    },
    error::{Error, Result},
    service::BatchResults,
};

/// Many writes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Batch {
    /// All or none of them. Otherwise each that can be done is done.
    #[serde(default)]
    atomic: bool,
    /// What to do, in this order.
    #[schema(value_type = Vec<BatchOperationInput>, min_items = 1, max_items = 1000)]
    operations: Vec<Box<RawValue>>,
}

/// What to do.
#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BatchOp {
    /// Make a context; a `key` must be new.
    Create,
    /// Make a context, or change the one of its `key`.
    Upsert,
    /// Replace the context `id`.
    Update,
    /// Delete the context `id`.
    Delete,
}

/// One write.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BatchOperationInput {
    op: BatchOp,
    /// Which context to update or delete.
    id: Option<Uuid>,
    /// Only if it is in this version: for `upsert`, `update` and `delete`.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1)]
    if_version: Option<i64>,
    /// What to create, upsert or put in its place.
    #[schema(value_type = Option<ContextInput>)]
    context: Option<Box<RawValue>>,
}

impl BatchOperationInput {
    fn check(self) -> Result<BatchOperation> {
        match self.op {
            BatchOp::Create if self.if_version.is_some() => {
                Err(Error::invalid("/if_version", "a context that is created has no version yet"))
            }
            BatchOp::Create => Ok(BatchOperation::Create(self.new_context(false)?)),
            BatchOp::Upsert => {
                let new = self.new_context(false)?;
                if self.if_version.is_some() && new.key.is_none() {
                    return Err(Error::invalid("/if_version", "needs a `key`, which names what is changed"));
                }
                Ok(BatchOperation::Upsert { new, expected: self.if_version })
            }
            BatchOp::Update => {
                let new = self.new_context(true)?;
                Ok(BatchOperation::Update { id: self.required_id()?, new, expected: self.if_version })
            }
            BatchOp::Delete if self.context.is_some() => {
                Err(Error::invalid("/context", "does not belong to a `delete`"))
            }
            BatchOp::Delete => {
                Ok(BatchOperation::Delete { id: self.required_id()?, expected: self.if_version })
            }
        }
    }

    fn required_id(&self) -> Result<ContextId> {
        self.id.map(ContextId).ok_or_else(|| Error::invalid("/id", "is missing; it names the context"))
    }

    fn new_context(&self, with_id: bool) -> Result<NewContext> {
        if self.id.is_some() && !with_id {
            return Err(Error::invalid("/id", "is made by the service; use `update` to change a context"));
        }
        let Some(raw) = &self.context else {
            return Err(Error::invalid("/context", "is missing"));
        };
        let input: ContextInput = from_json(raw.get().as_bytes()).map_err(|error| error.at("/context"))?;
        input.check().map_err(|error| error.at("/context"))
    }
}

/// What became of each write, in their order.
#[derive(Serialize, ToSchema)]
pub struct BatchAnswer {
    /// A result for each operation.
    results: Vec<BatchItemAnswer>,
}

/// What became of one write.
#[derive(Serialize, ToSchema)]
pub struct BatchItemAnswer {
    /// Its place among the operations, from 0.
    #[schema(value_type = u32)]
    index: usize,
    /// What it would have been answered alone: 201 created, 200 changed or left alone, 204 deleted, or an error's.
    #[schema(minimum = 200, maximum = 599)]
    status: u16,
    /// The context that it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    id: Option<Uuid>,
    /// The version that the context is in now.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    version: Option<i64>,
    /// Why it was not done.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    error: Option<ProblemDetails>,
}

impl From<&BatchResults> for BatchAnswer {
    fn from(results: &BatchResults) -> Self {
        let item = |(index, result): (usize, _)| match result {
            Ok(done) => {
                let done: &crate::domain::BatchResult = done;
                let status = match done.kind {
                    BatchResultKind::Created => StatusCode::CREATED,
                    BatchResultKind::Changed | BatchResultKind::Unchanged => StatusCode::OK,
                    BatchResultKind::Deleted => StatusCode::NO_CONTENT,
                };
                let (id, version) = (Some(done.id.0), Some(done.version));
                BatchItemAnswer { index, status: status.as_u16(), id, version, error: None }
            }
            Err(error) => {
                let error: &std::sync::Arc<Error> = error;
                let status = status(error.code).as_u16();
                let error = Some(ProblemDetails::of(error, None));
                BatchItemAnswer { index, status, id: None, version: None, error }
            }
        };
        Self {
            results: results
                .iter()
                .enumerate()
                .map(|(index, result)| item((index, result.as_ref())))
                .collect(),
        }
    }
}

/// Write many contexts at once
///
/// Up to 1,000 operations, done in their order and in one transaction. Each has a result of its own; one that fails does
/// not keep the others from being done, unless they are `atomic`: then the first that fails is answered like a request of
/// its own, with pointers below `/operations/{index}`, and nothing is done.
#[utoipa::path(
    tag = "contexts",
    operation_id = "write_batch",
    security(("api_key" = ["write"])),
    params(("Idempotency-Key" = Option<String>, Header, description = "Your name for this write: sent again with the same, it is done once and answered the same.")),
    request_body = Batch,
    responses(
        (status = 200, description = "What became of each.", body = BatchAnswer),
        Problems, BodyProblems, UserProblems, WriteOnceProblems, ConditionProblems, NoSuchContext
    )
)]
#[post("/v1/contexts/batch")]
pub async fn write_batch(
    caller: Caller<Write>,
    state: web::Data<State>,
    body: Body<Batch>,
) -> Result<HttpResponse, Problem> {
    let Batch { atomic, operations } = body.value;
    if !(1..=BATCH_OPERATIONS_MAX).contains(&operations.len()) {
        return Err(Error::invalid(
            "/operations",
            format!("must have 1 to {BATCH_OPERATIONS_MAX} items, not {}", operations.len()),
        )
        .into());
    }
    let operations: Vec<Result<BatchOperation>> = operations
        .iter()
        .map(|raw| from_json::<BatchOperationInput>(raw.get().as_bytes())?.check())
        .collect();
    let users = operations.iter().flatten().filter_map(|o| Some(o.context()?.user_id)).collect::<Vec<_>>();
    let request = body.idempotent.as_ref();
    let answered = state
        .service
        .run_batch(&caller.actor(), operations, atomic, request, |results| {
            answer_about(StatusCode::OK, &BatchAnswer::from(results), users.clone())
        })
        .await?;
    Ok(send(answered)?)
}
