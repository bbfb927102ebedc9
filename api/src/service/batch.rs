//! Many writes in one transaction: neighbours of one kind share a statement, so a thousand cost little more than one.

mod items;

use std::sync::Arc;

use self::items::shared;
pub(super) use self::items::{Item, Kind, Prepared};
use super::{
    Once, Service,
    contexts::{chunks, not_found, space_id},
    quota::Room,
    unit::once,
};
use crate::{
    domain::{
        Actor, BatchOperation, BatchResult, BatchResultKind, ContextId, ContextKey, IdempotentRequest,
        KeptAnswer, NewContext, Precondition, SpaceId, SpaceInfo, UserId,
    },
    error::{Code, Error, Result},
    store::{Deletion, OnKey, Unit, WriteRow},
};

/// What became of each operation, in their order.
pub type BatchResults = Vec<Result<BatchResult, Arc<Error>>>;

impl Service {
    /// Runs the operations in their order, all in one transaction. One that fails fails alone, unless they are `atomic`:
    /// then none of them happens, and the error's pointer says which it was.
    ///
    /// # Errors
    /// What `Idempotency-Key` brings; [`Code::DatabaseUnavailable`]; with `atomic` the first error of an operation.
    pub async fn run_batch(
        &self,
        actor: &Actor,
        operations: Vec<Result<BatchOperation>>,
        atomic: bool,
        request: Option<&IdempotentRequest>,
        answer: impl Fn(&BatchResults) -> Result<KeptAnswer>,
    ) -> Result<KeptAnswer> {
        let given = operations.iter().flatten().filter_map(BatchOperation::context);
        let space = self.space_for(given).await?;
        let room = self.room(actor.access).await?;
        let mut results: BatchResults = Vec::with_capacity(operations.len());
        let (mut places, mut prepared) = (Vec::new(), Vec::new());
        for (index, operation) in operations.into_iter().enumerate() {
            match operation.and_then(|operation| prepare(actor, operation, space.as_ref())) {
                Ok(ready) => {
                    places.push(index);
                    prepared.push(ready);
                    // Taken by what becomes of it.
                    results.push(Err(Arc::new(not_found())));
                }
                Err(error) if atomic => return Err(at_operation(error, index)),
                Err(error) => results.push(Err(Arc::new(error))),
            }
        }
        let work = async |unit: &mut Unit| {
            let mut results = results.clone();
            let items: Vec<Item<'_>> = prepared.iter().map(Item::of).collect();
            let (ids, keys) = named(&prepared);
            unit.lock_existing(&ids, &keys).await?;
            let done = run_all(unit, actor, space_id(space.as_ref()), room, &items).await?;
            for (index, result) in places.iter().copied().zip(done) {
                match result.map_err(|error| error.at("/context")) {
                    Err(error) if atomic => return Err(at_operation(error, index)),
                    result => results[index] = result.map_err(Arc::new),
                }
            }
            Ok(results)
        };
        let answered = once(&self.store, actor, request, answer, work).await.map(Once::answer);
        self.notice_pending();
        answered
    }
}

/// The contexts that operations are about, by their names.
pub(super) fn named<'p>(
    prepared: impl IntoIterator<Item = &'p Prepared>,
) -> (Vec<ContextId>, Vec<(UserId, &'p ContextKey)>) {
    let (mut ids, mut keys) = (Vec::new(), Vec::new());
    for Prepared { operation, id, .. } in prepared {
        ids.push(*id);
        keys.extend(operation.context().and_then(|new| Some((new.user_id, new.key.as_ref()?))));
    }
    (ids, keys)
}

fn at_operation(error: Error, index: usize) -> Error {
    let place = format!("/operations/{index}");
    if error.violations.is_empty() {
        let detail = error.detail.to_string();
        return error.with_violation(place, detail);
    }
    error.at(&place)
}

fn prepare(actor: &Actor, operation: BatchOperation, space: Option<&SpaceInfo>) -> Result<Prepared> {
    let chunks = match operation.context() {
        Some(new) => {
            actor.access.require_user(new.user_id)?;
            chunks(new, space).map_err(|error| error.at("/context"))?
        }
        None => Vec::new(),
    };
    let id = match &operation {
        BatchOperation::Update { id, .. } | BatchOperation::Delete { id, .. } => *id,
        BatchOperation::Create(_) | BatchOperation::Upsert { .. } => ContextId::generate(),
    };
    Ok(Prepared { operation, id, chunks, origin: None })
}

/// Runs all of them, as many at a time as can share a statement. The error of one does not undo another.
pub(super) async fn run_all(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    room: Room,
    items: &[Item<'_>],
) -> Result<Vec<Result<BatchResult>>> {
    let mut results = Vec::with_capacity(items.len());
    let mut rest = items;
    while !rest.is_empty() {
        let (group, after) = rest.split_at(shared(rest));
        rest = after;
        let refusals: Vec<_> = group.iter().filter_map(|item| item.refusal(room)).map(Err).collect();
        if !refusals.is_empty() {
            // All of them: they are of one kind.
            results.extend(refusals);
            continue;
        }
        unit.savepoint().await?;
        match run_group(unit, actor, space, group).await {
            Ok(done) => {
                unit.release_savepoint().await?;
                results.extend(done);
            }
            Err(error) if is_of_one_operation(&error) => {
                unit.roll_back_to_savepoint().await?;
                if let [_] = group {
                    results.push(Err(error));
                    continue;
                }
                // One of them it was: each on its own.
                for one in group.chunks(1) {
                    results.extend(Box::pin(run_all(unit, actor, space, room, one)).await?);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(results)
}

/// Errors that the database finds in one row, and then refuses the statement.
fn is_of_one_operation(error: &Error) -> bool {
    matches!(error.code, Code::KeyConflict | Code::InvalidRequest)
}

async fn run_group(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    group: &[Item<'_>],
) -> Result<Vec<Result<BatchResult>>> {
    let rows: Vec<WriteRow<'_>> = group.iter().filter_map(Item::row).collect();
    let mut done: Vec<Option<BatchResult>> = vec![None; group.len()];
    let written = match group.first().map(|item| item.kind) {
        None => Vec::new(),
        Some(Kind::UpsertExpected) => return upsert_expected(unit, actor, space, group).await,
        Some(Kind::Create) => unit.create_contexts(actor, space, &rows, OnKey::Keep).await?,
        Some(Kind::Upsert) => unit.create_contexts(actor, space, &rows, OnKey::Update).await?,
        Some(Kind::Update { revive }) => unit.update_contexts(actor, space, &rows, revive).await?,
        Some(Kind::Delete) => {
            let deletions: Vec<Deletion> = group.iter().filter_map(Item::deletion).collect();
            for deleted in unit.delete_contexts(actor, &deletions, false).await? {
                let id = deletions[deleted.index].id;
                let kind = BatchResultKind::Deleted;
                done[deleted.index] = Some(BatchResult { id, version: deleted.version, kind });
            }
            Vec::new()
        }
    };
    for row in written {
        let kind = if row.created { BatchResultKind::Created } else { BatchResultKind::Changed };
        done[row.index] = Some(BatchResult { id: row.id, version: row.version, kind });
    }
    let mut results = Vec::with_capacity(group.len());
    for (item, done) in group.iter().zip(done) {
        results.push(match done {
            Some(done) => Ok(done),
            None => explain(unit, *item).await?,
        });
    }
    Ok(results)
}

/// Why an operation did nothing.
async fn explain(unit: &mut Unit, item: Item<'_>) -> Result<Result<BatchResult>> {
    let new = item.prepared.operation.context();
    let current = match (item.kind, new) {
        (Kind::Update { .. } | Kind::Delete, _) => {
            unit.lock_context(item.prepared.id).await?.filter(|context| context.is_active)
        }
        (_, Some(NewContext { user_id, key: Some(key), .. })) => {
            unit.lock_context_by_key(*user_id, key).await?
        }
        _ => None,
    };
    let Some(current) = current else {
        // What may be brought back is there, though nobody sees it, and nothing about it differs.
        let unseen = BatchResult { id: item.prepared.id, version: 0, kind: BatchResultKind::Unchanged };
        let is_unseen = item.kind == Kind::Update { revive: true };
        return Ok(if is_unseen { Ok(unseen) } else { Err(not_found()) });
    };
    if new.is_some_and(|new| new.user_id != current.user_id) {
        return Ok(Err(Error::invalid("/user_id", "a context stays with its user")));
    }
    let unchanged =
        BatchResult { id: current.id, version: current.version, kind: BatchResultKind::Unchanged };
    Ok(match &item.prepared.operation {
        BatchOperation::Create(_) => {
            Err(Error::new(Code::KeyConflict, "Another context of this user has this key already.")
                .with_violation("/key", "belongs to another context"))
        }
        BatchOperation::Upsert { expected, .. }
        | BatchOperation::Update { expected, .. }
        | BatchOperation::Delete { expected, .. } => expected
            .map_or(Precondition::None, |version| Precondition::Version(vec![version]))
            .require(current.version)
            .map(|()| unchanged),
    })
}

async fn upsert_expected(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    group: &[Item<'_>],
) -> Result<Vec<Result<BatchResult>>> {
    let mut results = Vec::new();
    for item in group {
        let found = explain(unit, *item).await?;
        let (Ok(current), Some(row)) = (&found, item.row()) else {
            results.push(found.map_err(|error| match error.code {
                Code::ContextNotFound => {
                    Error::new(Code::PreconditionFailed, "There is no such context to be changed.")
                }
                _ => error,
            }));
            continue;
        };
        let row = WriteRow { id: current.id, ..row };
        let written = unit.update_contexts(actor, space, &[row], false).await?;
        results.push(Ok(written.first().map_or(*current, |written| BatchResult {
            id: written.id,
            version: written.version,
            kind: BatchResultKind::Changed,
        })));
    }
    Ok(results)
}
