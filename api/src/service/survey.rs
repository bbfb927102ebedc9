//! The survey: goes through all contexts and queues those that an embedding space lacks. It fills a new space, and checks two
//! spaces after they have changed places.

use std::time::Instant;

use super::Service;
use crate::{
    domain::{Space, SpaceId, SpaceStatus, Survey, TenantId},
    error::{Code, Result},
};

/// Contexts that one step looks at.
const PAGE_CONTEXTS: i64 = 1_000;
/// The survey waits while so many contexts from before the space wait: the queue of a large installation need not hold all.
const BACKFILL_MAX: i64 = 20_000;

impl Service {
    /// A step for each space; answers whether there may be more to do at once.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn survey_spaces(&self) -> Result<bool> {
        let spaces = self.store.list_spaces().await?;
        let mut worked = false;
        for space in spaces.iter().filter(|space| space.status != SpaceStatus::Retired) {
            worked |= self.survey_step(space).await?;
        }
        if spaces.iter().any(|space| space.status == SpaceStatus::Retired) {
            self.drop_retired().await?;
        }
        Ok(worked)
    }

    async fn survey_step(&self, space: &Space) -> Result<bool> {
        let (id, from) = (SpaceId(space.info.id), space.survey);
        let is_active = space.status == SpaceStatus::Active;
        if from.is_done && space.complete_at.is_some() {
            return Ok(false);
        }
        let waiting = if is_active { 0 } else { self.store.space_work(id).await?.backfill };
        if from.is_done {
            if waiting == 0 {
                self.store.complete_space(id).await?;
                tracing::info!(
                    space = id.0,
                    space.info.model,
                    "an embedding space has everything that was there"
                );
            }
            return Ok(false);
        }
        if space.is_paused || waiting >= BACKFILL_MAX {
            return Ok(false);
        }
        let tenant = match from.tenant {
            Some(tenant) => Some(tenant),
            None => self.tenant_after(None).await?,
        };
        let to = match tenant {
            None => Survey { is_done: true, ..from },
            Some(tenant) => self.survey_tenant(space, tenant).await?,
        };
        self.store.move_survey(id, &from, &to).await?;
        self.notice_pending();
        Ok(true)
    }

    /// Looks at the next contexts of the tenant; answers how far the survey is then.
    async fn survey_tenant(&self, space: &Space, tenant: TenantId) -> Result<Survey> {
        let (id, from) = (SpaceId(space.info.id), space.survey);
        let is_active = space.status == SpaceStatus::Active;
        let page = self.store.survey(tenant, id, is_active, from.context, PAGE_CONTEXTS).await?;
        let contexts_seen = from.contexts_seen + page.seen;
        if page.seen == PAGE_CONTEXTS {
            return Ok(Survey { tenant: Some(tenant), context: page.last, contexts_seen, is_done: false });
        }
        let next = self.tenant_after(Some(tenant)).await?;
        Ok(Survey { tenant: next, context: None, contexts_seen, is_done: next.is_none() })
    }

    async fn tenant_after(&self, tenant: Option<TenantId>) -> Result<Option<TenantId>> {
        Ok(self.store.list_tenants(tenant, 1).await?.first().map(|tenant| tenant.id))
    }

    /// Builds the index of a space that is full, which may take hours; answers whether there was one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn index_spaces(&self) -> Result<bool> {
        let spaces = self.store.list_spaces().await?;
        let is_full = |space: &&Space| {
            space.status != SpaceStatus::Retired && space.complete_at.is_some() && space.indexed_at.is_none()
        };
        let Some(space) = spaces.iter().find(is_full) else { return Ok(false) };
        let begun = Instant::now();
        let built = self.store.index_space(&space.info).await?;
        if built {
            let took = begun.elapsed();
            tracing::info!(space = space.info.id, ?took, "the index of an embedding space is there");
        }
        Ok(built)
    }

    async fn drop_retired(&self) -> Result<()> {
        match self.store.drop_retired_space().await {
            Ok(Some(id)) => tracing::info!(space = id.0, "an embedding space was dropped"),
            Ok(None) => {}
            // Somebody reads it still: next time.
            Err(error) if error.code == Code::DatabaseBusy => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
