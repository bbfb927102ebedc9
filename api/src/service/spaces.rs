//! Embedding spaces: making one for a new model beside the active one, seeing how far it is, switching, and deleting.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Once, Provider, ProviderState, Service,
    unit::{in_unit, once},
};
use crate::{
    domain::{
        Action, Actor, Backfill, BackfillChange, EmbeddingSpace, IdempotentRequest, KeptAnswer, Space,
        SpaceFailure, SpaceId, SpaceInfo, SpaceStatus, SpaceWork, TenantId,
    },
    embedding::Model,
    error::{Code, Error, Result},
    store::Unit,
};

/// How long a write may have waited in a space that is to be activated.
const LAG_SECONDS_MAX: f64 = 30.0;
/// Failures of a space that are shown.
const FAILURES_MAX: i64 = 100;

/// The model of a space that could be made, or why there is none.
enum Candidate {
    Model { model: Model, dims: i32 },
    Away,
    AllHaveOne,
}

/// Until there is one that is searched, everybody looks: the first write waits for it.
pub(super) fn may_be_kept(spaces: &Arc<[Space]>) -> bool {
    spaces.iter().any(|space| space.status == SpaceStatus::Active)
}

impl Service {
    /// All spaces, asked for about once a second.
    pub(super) async fn spaces(&self) -> Result<Arc<[Space]>> {
        let renew = || {
            let store = self.store.patient();
            async move { Ok(store.list_spaces().await?.into()) }
        };
        self.spaces.get((), renew, || async { Ok(self.store.list_spaces().await?.into()) }).await
    }

    /// The space that search reads.
    pub(super) async fn active_space(&self) -> Result<Option<SpaceInfo>> {
        Ok(active(&self.spaces().await?).cloned())
    }

    pub(super) async fn active_space_id(&self) -> Result<Option<i32>> {
        Ok(active(&self.spaces().await?).map(|space| space.id))
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list_spaces(&self) -> Result<Vec<EmbeddingSpace>> {
        let mut described = Vec::new();
        for space in self.store.list_spaces().await? {
            let work = self.store.space_work(SpaceId(space.info.id)).await?;
            described.push(self.describe(space, &work));
        }
        Ok(described)
    }

    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn get_space(&self, id: SpaceId) -> Result<EmbeddingSpace> {
        let spaces = self.store.list_spaces().await?;
        let space = spaces.into_iter().find(|space| space.info.id == id.0).ok_or_else(not_found)?;
        let work = self.store.space_work(id).await?;
        Ok(self.describe(space, &work))
    }

    /// Contexts of the tenant that the space's model cannot do anything with.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn list_space_failures(&self, tenant: TenantId, id: SpaceId) -> Result<Vec<SpaceFailure>> {
        self.get_space(id).await?;
        self.store.list_space_failures(tenant, id, FAILURES_MAX).await
    }

    /// Makes a space for the model of a configured provider that has none yet, and begins to fill it.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceConflict`] when there is no such provider, or no active space yet;
    /// [`Code::EmbeddingProviderUnavailable`]; what `Idempotency-Key` brings.
    pub async fn create_space(
        &self,
        actor: &Actor,
        backfill: BackfillChange,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&EmbeddingSpace) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let candidate = self.candidate().await?;
        let created = once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let (model, dims) = match &candidate {
                Candidate::Model { model, dims } => (model, *dims),
                Candidate::Away => return Err(provider_away()),
                Candidate::AllHaveOne => return Err(no_other_model()),
            };
            let made = unit.create_space(model.provider, &model.name, dims, model.tokens_max).await?;
            let id = made.ok_or_else(no_other_model)?;
            let space = unit.change_backfill(id, backfill).await?.ok_or_else(not_found)?;
            unit.log(actor, Action::CreateEmbeddingSpace, target(id)).await?;
            Ok(self.describe(space, &SpaceWork::default()))
        })
        .await;
        self.spaces.forget(&());
        created.map(Once::answer)
    }

    /// The last provider that has no space, because the one for a new model comes after the other.
    async fn candidate(&self) -> Result<Candidate> {
        let spaces = self.store.list_spaces().await?;
        if !spaces.iter().any(|space| space.status == SpaceStatus::Active) {
            return Err(conflict(
                "There is no active embedding space yet: the first one is made with the first embedding.",
            ));
        }
        let has_space = |model: &Model| {
            spaces.iter().any(|s| s.info.provider == model.provider && s.info.model == model.name)
        };
        let without: Vec<&Arc<Provider>> = self
            .providers()
            .iter()
            .rev()
            .filter(|provider| provider.model().is_none_or(|model| !has_space(&model)))
            .collect();
        for provider in &without {
            if let ProviderState::Up(model) = provider.state()
                && let Some(dims) = self.learn_dimension(provider).await
            {
                return Ok(Candidate::Model { model, dims });
            }
        }
        Ok(if without.is_empty() { Candidate::AllHaveOne } else { Candidate::Away })
    }

    /// Pauses a backfill, lets it go on, or changes its pace.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn change_space(
        &self,
        actor: &Actor,
        id: SpaceId,
        change: BackfillChange,
    ) -> Result<EmbeddingSpace> {
        let (space, work) = in_unit(&self.store, actor.access, async |unit: &mut Unit| {
            let space = unit.change_backfill(id, change).await?.ok_or_else(not_found)?;
            unit.log(actor, Action::ChangeEmbeddingSpace, target(id)).await?;
            Ok((space, unit.space_work(id).await?))
        })
        .await?;
        self.spaces.forget(&());
        self.notice_pending();
        Ok(self.describe(space, &work))
    }

    /// Looks for what the space lacks once more, and tries again what failed.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; what `Idempotency-Key` brings.
    pub async fn retry_space(
        &self,
        actor: &Actor,
        id: SpaceId,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&EmbeddingSpace) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let retried = once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let space = unit.survey_again(id).await?.ok_or_else(not_found)?;
            unit.log(actor, Action::ChangeEmbeddingSpace, target(id)).await?;
            Ok(self.describe(space, &unit.space_work(id).await?))
        });
        retried.await.map(Once::answer)
    }

    /// Lets search read this space from now on. The one that it read before is kept and written to, so that it can be activated
    /// again. With `force` also a space that lacks something, which is then found by its words alone for a while.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::EmbeddingSpaceIncomplete`]; [`Code::EmbeddingProviderUnavailable`]; what
    /// `Idempotency-Key` brings.
    pub async fn activate_space(
        &self,
        actor: &Actor,
        id: SpaceId,
        force: bool,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&EmbeddingSpace) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let activated = once(&self.store, actor, request, answer, async |unit: &mut Unit| {
            let space = unit.find_space(id).await?.filter(|space| space.status != SpaceStatus::Retired);
            let space = space.ok_or_else(not_found)?;
            if space.status != SpaceStatus::Active {
                if !force {
                    self.require_fit(&space, &unit.space_work(id).await?)?;
                }
                if unit.activate_space(id).await? {
                    unit.log(actor, Action::ActivateEmbeddingSpace, target(id)).await?;
                }
            }
            let space = unit.find_space(id).await?.ok_or_else(not_found)?;
            // Unless somebody else has activated it meanwhile.
            if space.status != SpaceStatus::Active {
                return Err(conflict("The space was deleted."));
            }
            Ok(self.describe(space, &unit.space_work(id).await?))
        })
        .await;
        self.spaces.forget(&());
        self.notice_pending();
        activated.map(Once::answer)
    }

    /// Refuses a space that would make search worse than it is.
    fn require_fit(&self, space: &Space, work: &SpaceWork) -> Result<()> {
        let incomplete = |what: String| {
            let hint = "Wait, or send `force: true`: what is missing is then found by its words alone until it is embedded.";
            Err(Error::new(Code::EmbeddingSpaceIncomplete, format!("{what} {hint}")))
        };
        if self.provider_of(&space.info).is_err() {
            return Err(provider_away());
        }
        if space.complete_at.is_none() || !space.survey.is_done || work.backfill > 0 {
            let seen = space.survey.contexts_seen;
            return incomplete(format!(
                "The backfill is not done: {} of the {seen} contexts looked at so far wait.",
                work.backfill
            ));
        }
        if work.oldest_fresh_seconds > LAG_SECONDS_MAX {
            return incomplete(format!(
                "The space does not keep up: {} contexts were written since it was made and wait, the oldest for {:.0} s.",
                work.fresh, work.oldest_fresh_seconds
            ));
        }
        // One that search did read before is not made worse by what failed there.
        if space.status == SpaceStatus::Building && work.failed > 0 {
            return incomplete(format!("The model could not embed {} contexts.", work.failed));
        }
        Ok(())
    }

    /// Deletes a space that is not the active one.
    ///
    /// # Errors
    /// [`Code::EmbeddingSpaceNotFound`]; [`Code::EmbeddingSpaceConflict`] when it is active.
    pub async fn delete_space(&self, actor: &Actor, id: SpaceId) -> Result<()> {
        in_unit(&self.store, actor.access, async |unit: &mut Unit| {
            let space = unit.find_space(id).await?.filter(|space| space.status != SpaceStatus::Retired);
            let space = space.ok_or_else(not_found)?;
            if space.status == SpaceStatus::Active || !unit.retire_space(id).await? {
                return Err(conflict("Search reads this space; activate another one first."));
            }
            unit.log(actor, Action::DeleteEmbeddingSpace, target(id)).await
        })
        .await?;
        self.spaces.forget(&());
        Ok(())
    }

    fn describe(&self, space: Space, work: &SpaceWork) -> EmbeddingSpace {
        let seen = space.survey.contexts_seen;
        let total = if space.survey.is_done {
            Some(seen)
        } else {
            work.contexts_estimate.map(|estimate| estimate.max(seen))
        };
        EmbeddingSpace {
            is_served: self.provider_of(&space.info).is_ok(),
            status: space.status,
            created_at: space.created_at,
            activated_at: space.activated_at,
            backfill: Backfill {
                is_paused: space.is_paused,
                contexts_per_second: space.contexts_per_second,
                contexts_seen: seen,
                contexts_total: total,
                pending: work.backfill,
                pending_fresh: work.fresh,
                oldest_fresh_pending_seconds: work.oldest_fresh_seconds,
                failed: work.failed,
                complete_at: space.complete_at,
            },
            info: space.info,
        }
    }
}

fn active(spaces: &[Space]) -> Option<&SpaceInfo> {
    spaces.iter().find(|space| space.status == SpaceStatus::Active).map(|space| &space.info)
}

/// Spaces have numbers; the audit log names things by UUID.
fn target(id: SpaceId) -> Uuid {
    Uuid::from_u128(u128::from(id.0.unsigned_abs()))
}

pub(super) fn not_found() -> Error {
    Error::new(Code::EmbeddingSpaceNotFound, "There is no embedding space of this id.")
}

pub(super) fn provider_away() -> Error {
    Error::new(
        Code::EmbeddingProviderUnavailable,
        "The embedding provider of this model is away, or is not configured; see GET /v1/embedding-spaces.",
    )
    .with_retry_after(std::time::Duration::from_secs(5))
}

fn no_other_model() -> Error {
    conflict(
        "Every configured embedding model has its space, or one that is being deleted. Configure the new one with NEXT_EMBEDDING_PROVIDER or NEXT_EMBEDDING_SERVICE_URL, and start the service and its workers again.",
    )
}

fn conflict(detail: &'static str) -> Error {
    Error::new(Code::EmbeddingSpaceConflict, detail)
}
