//! The survey: goes through all contexts and queues those that an embedding space lacks. It fills a new space, and checks two
//! spaces after they have changed places.

use std::time::Duration;

use tokio::time::Instant;

use super::Service;
use crate::{
    domain::{Space, SpaceId, SpaceStatus, Survey, TenantId},
    error::{Code, Result},
};

/// Contexts that one step looks at.
const PAGE_CONTEXTS: i64 = 1_000;
/// The survey waits while so many contexts from before the space wait: the queue of a large installation need not hold all.
const BACKFILL_MAX: i64 = 20_000;
/// Between two tries to drop a space that is in use.
const DROP_REST: Duration = Duration::from_secs(30);

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
        let waiting = if is_active {
            self.store.backlog_of_all().await?.pending
        } else {
            self.store.space_work(id).await?.backfill
        };
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
        if space.is_paused || (!is_active && waiting >= BACKFILL_MAX) {
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
            return Ok(Survey { tenant: Some(tenant), context: page.last, contexts_seen, ..from });
        }
        let next = self.tenant_after(Some(tenant)).await?;
        Ok(Survey { tenant: next, context: None, contexts_seen, is_done: next.is_none(), ..from })
    }

    async fn tenant_after(&self, tenant: Option<TenantId>) -> Result<Option<TenantId>> {
        Ok(self.store.list_tenants(tenant, 1).await?.first().map(|tenant| tenant.id))
    }

    async fn drop_retired(&self) -> Result<()> {
        {
            let next = self.next_drop.lock().await;
            if next.is_some_and(|next| Instant::now() < next) {
                return Ok(());
            }
        }
        match self.store.drop_retired_space().await {
            Ok(Some(id)) => tracing::info!(space = id.0, "an embedding space was dropped"),
            Ok(None) => {}
            // Somebody reads for long. Whoever searches meanwhile waits behind this, so not again soon.
            Err(error) if error.code == Code::DatabaseBusy => {
                *self.next_drop.lock().await = Some(Instant::now() + DROP_REST);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
