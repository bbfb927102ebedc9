//! Storing contexts and getting them back.

use time::OffsetDateTime;

use super::{
    Once, Service,
    chunking::{self, ChunkSize},
    unit::{in_unit, once},
};
use crate::{
    domain::{
        Access, Action, Actor, Context, ContextId, ContextPatch, Cursor, IdempotentRequest, KeptAnswer,
        ListRequest, NewContext, Page, Precondition, Selection, SpaceId, SpaceInfo,
        limits::CHUNKS_PER_CONTEXT_MAX,
    },
    error::{Code, Error, Result},
    store::{Deletion, OnKey, Unit, WriteRow, Written},
    telemetry::spans,
};

impl Service {
    /// Creates a context, or updates the one of its key. When this returns, the context is durable and found by its
    /// words; by its meaning it is found as soon as a worker has embedded it.
    ///
    /// # Errors
    /// [`Code::TextTooLong`]; [`Code::InvalidVector`]; [`Code::NoEmbeddingSpace`]; [`Code::UserNotAllowed`];
    /// [`Code::PreconditionFailed`]; [`Code::StorageQuotaExceeded`]; what `Idempotency-Key` brings;
    /// [`Code::DatabaseUnavailable`].
    pub async fn create_context(
        &self,
        actor: &Actor,
        new: &NewContext,
        precondition: &Precondition,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&Written) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        actor.access.require_user(new.user_id)?;
        let space = self.space_for([new]).await?;
        let room = self.room(actor.access).await?;
        let id = ContextId::generate();
        let answered = if request.is_none() && *precondition == Precondition::None {
            // By far the most frequent way: one round trip.
            room.require()?;
            let row = write_row(id, new, space.as_ref(), None)?;
            let write = self.store.create_context(actor, space_id(space.as_ref()), row, OnKey::Update);
            let written = match spans::database("write context", write).await? {
                Some(written) => written,
                None => Written { context: self.unchanged(actor, new).await?, created: false },
            };
            answer(&written)
        } else {
            let work = async |unit: &mut Unit| {
                room.require()?;
                create(unit, actor, id, new, space.as_ref(), precondition).await
            };
            once(&self.store, actor, request, answer, work).await.map(Once::answer)
        };
        self.notice_pending();
        answered
    }

    /// What a write found that would have changed nothing.
    async fn unchanged(&self, actor: &Actor, new: &NewContext) -> Result<Context> {
        let found = match &new.key {
            Some(key) => self.store.find_context_by_key(actor.tenant(), new.user_id, key).await?,
            None => None,
        };
        // It was deleted in this very moment. The next try makes it anew.
        found.ok_or_else(|| {
            Error::new(
                Code::DatabaseBusy,
                "The context was deleted while it was written; nothing was written.",
            )
            .with_retry_after(std::time::Duration::from_secs(1))
        })
    }

    /// A context, as it is or as it was.
    ///
    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::DatabaseUnavailable`].
    pub async fn get_context(
        &self,
        access: Access,
        id: ContextId,
        as_of: Option<OffsetDateTime>,
    ) -> Result<Context> {
        let found = match as_of {
            Some(at) => {
                spans::database("read past context", self.store.find_context_as_of(access, id, at)).await?
            }
            None => spans::database("read context", self.store.find_context(access, id)).await?,
        };
        let mut context = found.ok_or_else(not_found)?;
        if as_of.is_none() {
            self.extend_life(access, [&mut context]).await;
        }
        Ok(context)
    }

    /// Puts off the end of those that ask for it, now that they have been read. The read does not fail when that does.
    pub(super) async fn extend_life<'c>(
        &self,
        access: Access,
        read: impl IntoIterator<Item = &'c mut Context>,
    ) {
        let mut due: Vec<&mut Context> = read.into_iter().filter(|context| context.extend).collect();
        if due.is_empty() {
            return;
        }
        let versions: Vec<_> = due.iter().map(|context| (context.id, context.version)).collect();
        let extend = self.store.extend_life(access.tenant, &versions);
        match spans::database("extend life", extend).await {
            Ok(extended) => {
                for (id, expires_at) in extended {
                    if let Some(context) = due.iter_mut().find(|context| context.id == id) {
                        context.expires_at = Some(expires_at);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "the life of contexts that were read was not extended"),
        }
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list_contexts(&self, access: Access, request: &ListRequest) -> Result<Page<Context>> {
        let list = async {
            match request.selection.as_of {
                Some(at) => self.store.list_contexts_as_of(access.tenant, request, at).await,
                None => self.store.list_contexts(access.tenant, request).await,
            }
        };
        let rows = spans::database("list contexts", list).await?;
        Ok(Page::from_overfetch(rows.rows, request.limit, rows.cut, |context| Cursor::at(context.id)))
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`]; [`Code::DeadlineExceeded`] when there are too many to be counted in time.
    pub async fn count_contexts(&self, access: Access, selection: &Selection) -> Result<u64> {
        let count = async {
            match selection.as_of {
                Some(at) => self.store.count_contexts_as_of(access.tenant, selection, at).await,
                None => self.store.count_contexts(access.tenant, selection).await,
            }
        };
        spans::database("count contexts", count).await
    }

    /// Puts `new` in the place of a context.
    ///
    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::PreconditionFailed`]; [`Code::KeyConflict`]; those of a create.
    pub async fn replace_context(
        &self,
        actor: &Actor,
        id: ContextId,
        new: &NewContext,
        precondition: &Precondition,
    ) -> Result<Context> {
        let space = self.space_for([new]).await?;
        self.change(actor, id, precondition, space, |present| Ok(new.clone().with_text_of(present))).await
    }

    /// Changes some fields of a context.
    ///
    /// # Errors
    /// As [`Service::replace_context`].
    pub async fn patch_context(
        &self,
        actor: &Actor,
        id: ContextId,
        patch: &ContextPatch,
        precondition: &Precondition,
    ) -> Result<Context> {
        let space =
            if patch.gives_embedding() { self.space_to_give().await? } else { self.active_space().await? };
        self.change(actor, id, precondition, space, |context| patch.apply(context)).await
    }

    async fn change(
        &self,
        actor: &Actor,
        id: ContextId,
        precondition: &Precondition,
        space: Option<SpaceInfo>,
        make: impl Fn(&Context) -> Result<NewContext>,
    ) -> Result<Context> {
        let room = self.room(actor.access).await?;
        let changed = in_unit(&self.store, actor.access, async |unit| {
            let current =
                unit.lock_context(id).await?.filter(|context| context.is_active).ok_or_else(not_found)?;
            precondition.require(current.version)?;
            room.require()?;
            let new = make(&current)?;
            if new.user_id != current.user_id {
                return Err(Error::invalid("/user_id", "a context stays with its user"));
            }
            let row = write_row(id, &new, space.as_ref(), Some(&current.text))?;
            let written =
                unit.update_context(actor, space_id(space.as_ref()), row, Action::UpdateContext).await?;
            Ok(written.map_or(current, |written| written.context))
        })
        .await?;
        self.notice_pending();
        Ok(changed)
    }

    /// Hides a context, or with `purge` removes it with its history.
    ///
    /// # Errors
    /// [`Code::ContextNotFound`]; [`Code::PreconditionFailed`]; [`Code::DatabaseUnavailable`].
    pub async fn delete_context(
        &self,
        actor: &Actor,
        id: ContextId,
        precondition: &Precondition,
        purge: bool,
    ) -> Result<()> {
        let deletion = [Deletion { id, expected: None }];
        let deleted = if *precondition == Precondition::None {
            spans::database("delete context", self.store.delete_contexts(actor, &deletion, purge)).await?
        } else {
            in_unit(&self.store, actor.access, async |unit| {
                let current = unit.lock_context(id).await?.filter(|context| context.is_active || purge);
                precondition.require(current.ok_or_else(not_found)?.version)?;
                unit.delete_contexts(actor, &deletion, purge).await
            })
            .await?
        };
        if deleted.is_empty() { Err(not_found()) } else { Ok(()) }
    }

    /// The space of embeddings that callers give: the active one, made now if there is none yet.
    ///
    /// # Errors
    /// [`Code::NoEmbeddingSpace`] when the provider, whose space it would be, is away; [`Code::DatabaseUnavailable`].
    pub(super) async fn space_to_give(&self) -> Result<Option<SpaceInfo>> {
        if let Some(space) = self.active_space().await? {
            return Ok(Some(space));
        }
        let made = match self.providers().first() {
            Some(provider) => self.create_first_space(provider).await?,
            None => None,
        };
        made.map(Some).ok_or_else(|| {
            Error::new(
                Code::NoEmbeddingSpace,
                "There is no embedding space yet that the vector could be of: the embedding service has not answered so far.",
            )
            .with_retry_after(std::time::Duration::from_secs(5))
        })
    }

    /// The space that `news` are written for. There has to be one only if a caller gives an embedding.
    ///
    /// # Errors
    /// As [`Service::space_to_give`], for those that bring an embedding; [`Code::DatabaseUnavailable`].
    pub(super) async fn space_for<'n>(
        &self,
        news: impl IntoIterator<Item = &'n NewContext>,
    ) -> Result<Option<SpaceInfo>> {
        if news.into_iter().any(|new| new.embedding.is_some()) {
            self.space_to_give().await
        } else {
            self.active_space().await
        }
    }
}

pub(super) fn space_id(space: Option<&SpaceInfo>) -> Option<SpaceId> {
    space.map(|space| SpaceId(space.id))
}

/// `new` as a row to be written. A text that is `stored` already is not too long, whatever the limits of the present space
/// make of it: who changes only metadata has not sent it.
///
/// # Errors
/// Those of [`chunks`].
pub(super) fn write_row<'n>(
    id: ContextId,
    new: &'n NewContext,
    space: Option<&SpaceInfo>,
    stored: Option<&str>,
) -> Result<WriteRow<'n>> {
    let is_stored = stored == Some(new.text.as_str());
    let chunks_max = if is_stored { usize::MAX } else { CHUNKS_PER_CONTEXT_MAX };
    let chunks = chunks_up_to(chunks_max, new, space)?.into();
    Ok(WriteRow { id, new, chunks, expected: None, origin: None })
}

/// The text as search reads it: in chunks of the size for the active space's model. With an embedding of the caller's own it
/// is one chunk.
///
/// # Errors
/// [`Code::TextTooLong`]; [`Code::InvalidVector`] when its dimension is not the space's.
pub(super) fn chunks(new: &NewContext, space: Option<&SpaceInfo>) -> Result<Vec<String>> {
    chunks_up_to(CHUNKS_PER_CONTEXT_MAX, new, space)
}

fn chunks_up_to(chunks_max: usize, new: &NewContext, space: Option<&SpaceInfo>) -> Result<Vec<String>> {
    match (&new.embedding, space) {
        (Some(vector), Some(space)) if vector.dimensions() != space.dims as usize => Err(Error::new(
            Code::InvalidVector,
            format!(
                "The active embedding space has {} dimensions, the embedding {}.",
                space.dims,
                vector.dimensions()
            ),
        )
        .with_violation("/embedding", format!("must have {} numbers", space.dims))),
        (Some(_), _) => Ok(vec![new.text.clone()]),
        (None, _) => {
            let size = ChunkSize::of(space.and_then(|space| space.tokens_max));
            chunking::split(&new.text, size, chunks_max)?.map_err(|count| too_many_chunks(new, count, size))
        }
    }
}

fn too_many_chunks(new: &NewContext, count: usize, size: ChunkSize) -> Error {
    let pointer = if new.text_given { "/text" } else { "/content" };
    Error::new(
        Code::TextTooLong,
        format!(
            "The text makes about {count} chunks of {} tokens, {CHUNKS_PER_CONTEXT_MAX} at most; split it into several \
             contexts, or give a shorter `text` that it is to be found by.",
            size.tokens
        ),
    )
    .with_violation(pointer, format!("makes about {count} chunks, {CHUNKS_PER_CONTEXT_MAX} at most"))
}

async fn create(
    unit: &mut Unit,
    actor: &Actor,
    id: ContextId,
    new: &NewContext,
    space: Option<&SpaceInfo>,
    precondition: &Precondition,
) -> Result<Written> {
    let space_id = space_id(space);
    let current = match &new.key {
        Some(key) => unit.lock_context_by_key(new.user_id, key).await?,
        None => None,
    };
    if let Some(current) = current {
        precondition.require(current.version)?;
        let row = write_row(current.id, new, space, Some(&current.text))?;
        let written = unit.update_context(actor, space_id, row, Action::UpdateContext).await?;
        return Ok(written.unwrap_or(Written { context: current, created: false }));
    }
    precondition.require_absent_is_fine()?;
    let row = write_row(id, new, space, None)?;
    let on_key = if *precondition == Precondition::Absent { OnKey::Keep } else { OnKey::Update };
    match unit.create_context(actor, space_id, row, on_key).await? {
        Some(written) => Ok(written),
        // Another writer has made it since we looked.
        None if on_key == OnKey::Keep => {
            Err(Error::new(Code::PreconditionFailed, "The context exists already."))
        }
        None => match &new.key {
            Some(key) => unit
                .lock_context_by_key(new.user_id, key)
                .await?
                .map(|context| Written { context, created: false })
                .ok_or_else(not_found),
            None => Err(Error::internal("a context without a key was not written")),
        },
    }
}

pub(super) fn not_found() -> Error {
    Error::new(
        Code::ContextNotFound,
        "There is no context of this id; it may have been deleted or have expired.",
    )
}
