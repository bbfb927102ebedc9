//! What contexts were, and how they become it again.

use super::{
    Service,
    contexts::{not_found, space_id, write_row},
    unit::once,
};
use crate::{
    domain::{
        Access, Action, Actor, Context, ContextId, ContextVersion, Cursor, IdempotentRequest, KeptAnswer,
        Limit, NewContext, Page, Precondition, SpaceInfo,
    },
    error::{Code, Error, Result},
    store::{Bounded, Unit},
};

impl Service {
    /// The superseded versions of a context, newest first; of a deleted one, too.
    ///
    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn list_versions(
        &self,
        access: Access,
        id: ContextId,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Page<ContextVersion>> {
        if !self.store.context_exists(access, id).await? {
            return Err(not_found());
        }
        let Bounded { rows, cut } = self.store.list_versions(access.tenant, id, limit, cursor).await?;
        Ok(Page::from_overfetch(rows, limit, cut, |version| Cursor::at_number(version.context.version)))
    }

    /// Makes a context again what it was in `version`, or brings a deleted one back as it was. That is a new version; its
    /// life stays the present one's.
    ///
    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::VersionNotFound`]; [`Code::PreconditionFailed`]; [`Code::KeyConflict`];
    /// [`Code::StorageQuotaExceeded`].
    pub async fn restore_context(
        &self,
        actor: &Actor,
        id: ContextId,
        version: Option<i64>,
        precondition: &Precondition,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Context) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let space = self.active_space().await?;
        let room = self.room(actor.access).await?;
        let work = async |unit: &mut Unit| {
            let current = unit.lock_context(id).await?.ok_or_else(not_found)?;
            precondition.require(current.version)?;
            if current.is_active && version.is_none_or(|version| version == current.version) {
                return Ok(current);
            }
            room.require()?;
            restore(unit, actor, current, version, space.as_ref()).await
        };
        let restored = once(&self.store, actor, request, answer, work).await?;
        self.notice_pending();
        Ok(restored.answer())
    }
}

async fn restore(
    unit: &mut Unit,
    actor: &Actor,
    current: Context,
    version: Option<i64>,
    space: Option<&SpaceInfo>,
) -> Result<Context> {
    let past = unit.find_version(current.id, version).await?.ok_or_else(|| {
        Error::new(
            Code::VersionNotFound,
            "The context has no such version that could be restored; it may be older than history is kept.",
        )
    })?;
    // An embedding of a space that is not the active one any more is made anew from the text.
    let embedding = past.embedding.filter(|(_, of)| Some(*of) == space_id(space)).map(|(vector, _)| vector);
    let new = NewContext::restored(past.context, embedding, &current)?;
    let row = write_row(current.id, &new, space, Some(&new.text))?;
    let written = unit.update_context(actor, space_id(space), row, Action::RestoreContext).await?;
    Ok(written.map_or(current, |written| written.context))
}
