//! Many writes in one transaction: neighbours of one kind share a statement, so a thousand cost little more than one.

use std::{collections::HashSet, sync::Arc};

use super::{
    Once, Service,
    contexts::{chunks, not_found, space_id},
    unit::once,
};
use crate::{
    domain::{
        Actor, BatchOperation, BatchResult, BatchResultKind, ContextId, ContextKey, IdempotentRequest,
        KeptAnswer, NewContext, Origin, Precondition, SpaceId, SpaceInfo, UserId,
    },
    error::{Code, Error, Result},
    store::{Deletion, OnKey, Unit, WriteRow},
};

/// What became of each operation, in their order.
pub type BatchResults = Vec<Result<BatchResult, Arc<Error>>>;

/// An operation with all that needs no database done.
pub(super) struct Prepared {
    pub operation: BatchOperation,
    /// Of the context that it is about, or that it makes.
    pub id: ContextId,
    pub chunks: Vec<String>,
    /// Of a context that comes from elsewhere.
    pub origin: Option<Origin>,
}

/// What operations must have in common to share a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Create,
    Upsert,
    /// Of a version that is expected: alone, because a statement for many cannot look before it writes.
    UpsertExpected,
    /// By its id; perhaps also what was deleted.
    Update {
        revive: bool,
    },
    Delete,
}

/// An operation and how it is done.
#[derive(Clone, Copy)]
pub(super) struct Item<'p> {
    pub prepared: &'p Prepared,
    pub kind: Kind,
}

impl<'p> Item<'p> {
    fn of(prepared: &'p Prepared) -> Self {
        let kind = match &prepared.operation {
            BatchOperation::Create(_) => Kind::Create,
            BatchOperation::Upsert { expected: None, .. } => Kind::Upsert,
            BatchOperation::Upsert { expected: Some(_), .. } => Kind::UpsertExpected,
            BatchOperation::Update { .. } => Kind::Update { revive: false },
            BatchOperation::Delete { .. } => Kind::Delete,
        };
        Self { prepared, kind }
    }

    fn row(&self) -> Option<WriteRow<'p>> {
        let Prepared { operation, id, chunks, origin } = self.prepared;
        let expected = match operation {
            BatchOperation::Update { expected, .. } => *expected,
            _ => None,
        };
        let chunks = chunks.as_slice().into();
        Some(WriteRow { id: *id, new: operation.context()?, chunks, expected, origin: *origin })
    }

    fn deletion(&self) -> Option<Deletion> {
        match self.prepared.operation {
            BatchOperation::Delete { id, expected } => Some(Deletion { id, expected }),
            _ => None,
        }
    }

    /// What it is about: two about the same cannot be in one statement.
    fn subject(&self) -> Subject<'p> {
        match (
            self.kind,
            self.prepared.operation.context().and_then(|new| Some((new.user_id, new.key.as_ref()?))),
        ) {
            (Kind::Update { .. } | Kind::Delete, _) => Subject::Id(self.prepared.id),
            (_, Some((user, key))) => Subject::Key(user, key.as_str()),
            (_, None) => Subject::New,
        }
    }
}

/// What an operation is about.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Subject<'p> {
    Id(ContextId),
    Key(UserId, &'p str),
    /// A context that nothing else can name yet.
    New,
}

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
            let done = run_all(unit, actor, space_id(space.as_ref()), &items).await?;
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
    items: &[Item<'_>],
) -> Result<Vec<Result<BatchResult>>> {
    let mut results = Vec::with_capacity(items.len());
    let mut rest = items;
    while !rest.is_empty() {
        let (group, after) = rest.split_at(shared(rest));
        rest = after;
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
                    results.extend(Box::pin(run_all(unit, actor, space, one)).await?);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(results)
}

/// How many at the beginning of `items` can share a statement: of one kind, and about different things.
fn shared(items: &[Item<'_>]) -> usize {
    let mut seen = HashSet::new();
    let Some(kind) = items.first().map(|item| item.kind) else { return 0 };
    if kind == Kind::UpsertExpected {
        return 1;
    }
    let alike = items.iter().take_while(|item| item.kind == kind);
    let subjects = alike.map(|item| item.subject());
    subjects.take_while(|subject| *subject == Subject::New || seen.insert(*subject)).count()
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

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json};

    use super::*;
    use crate::domain::ContextInput;

    fn new(key: Option<&str>) -> NewContext {
        let input =
            json!({"user_id": UserId(uuid::Uuid::nil()), "context_type": "t", "key": key, "content": 1});
        from_str::<ContextInput>(&input.to_string()).unwrap().check().unwrap()
    }

    fn prepared(operation: BatchOperation) -> Prepared {
        let id = match operation {
            BatchOperation::Delete { id, .. } => id,
            _ => ContextId::generate(),
        };
        Prepared { operation, id, chunks: Vec::new(), origin: None }
    }

    fn shared_of(operations: Vec<BatchOperation>) -> usize {
        let prepared: Vec<Prepared> = operations.into_iter().map(prepared).collect();
        shared(&prepared.iter().map(Item::of).collect::<Vec<_>>())
    }

    #[test]
    fn neighbours_of_one_kind_about_different_things_share_a_statement() {
        let upsert = |key, expected| BatchOperation::Upsert { new: new(key), expected };
        let id = ContextId::generate();
        let delete = |id| BatchOperation::Delete { id, expected: None };
        assert_eq!(shared_of(vec![]), 0);
        assert_eq!(shared_of(vec![upsert(None, None), upsert(None, None), upsert(Some("a"), None)]), 3);
        assert_eq!(
            shared_of(vec![upsert(Some("a"), None), upsert(Some("b"), None), upsert(Some("a"), None)]),
            2
        );
        assert_eq!(shared_of(vec![upsert(Some("a"), Some(1)), upsert(Some("b"), Some(1))]), 1);
        assert_eq!(shared_of(vec![upsert(None, None), BatchOperation::Create(new(None))]), 1);
        assert_eq!(shared_of(vec![delete(id), delete(ContextId::generate()), delete(id)]), 2);
    }
}
