//! `?wait=ready`: a write that answers only when it is found by its meaning, too.

use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::answers::context_answer;
use crate::{
    domain::{Access, ContextId, EmbeddingStatus, KeptAnswer},
    error::{Error, Result},
    service::Service,
};

/// What a write waits for before it answers.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct WaitQuery {
    /// `ready`: until `embedding_status` is `ready` or `failed`, for 20 seconds at most, and not while the embedding provider
    /// is away. The write is stored in any case.
    #[param(inline)]
    wait: Option<WaitFor>,
}

#[derive(Clone, Copy, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum WaitFor {
    Ready,
}

/// What is looked at of a context that was answered.
#[derive(Deserialize)]
struct Answered {
    id: Uuid,
    version: i64,
    embedding_status: EmbeddingStatus,
}

impl WaitQuery {
    /// The answer about a context that was written, after the wait that was asked for.
    pub(super) async fn after(
        &self,
        service: &Service,
        access: Access,
        answer: KeptAnswer,
    ) -> Result<KeptAnswer> {
        if self.wait.is_none() {
            return Ok(answer);
        }
        let written: Answered = serde_json::from_str(&answer.body).map_err(Error::internal)?;
        if written.embedding_status != EmbeddingStatus::Pending {
            return Ok(answer);
        }
        let Some(context) = service.embedded(access, ContextId(written.id), written.version).await? else {
            return Ok(answer);
        };
        let status = answer.status.try_into().map_err(Error::internal)?;
        context_answer(status, &context)
    }
}
