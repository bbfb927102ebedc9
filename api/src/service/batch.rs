//! Many writes in one transaction: neighbours of one kind share a statement, so a thousand cost little more than one.

use std::{collections::HashSet, sync::Arc};

use super::{
    Once, Service,
    contexts::{chunks, not_found, space_id},
    unit::once,
};
use crate::{
    domain::{
        Actor, BatchOperation, BatchResult, BatchResultKind, Context, ContextId, IdempotentRequest,
        KeptAnswer, Precondition, SpaceId, SpaceInfo, Subject,
    },
    error::{Code, Error, Result},
    store::{Deletion, OnKey, Origin, Unit, WriteRow},
};

/// What became of each operation, in their order.
pub type BatchResults = Vec<Result<BatchResult, Arc<Error>>>;

/// An operation with all that needs no database done.
pub(super) struct Prepared {
    pub operation: BatchOperation,
    /// Of the context to be made, when one is made.
    pub id: ContextId,
    pub chunks: Vec<String>,
    /// Of a context that comes from elsewhere.
    pub origin: Option<Origin>,
}

/// What operations must have in common to share a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Upsert,
    /// Of a version that is expected: alone, because a statement for many cannot look before it writes.
    UpsertExpected,
    Update,
    Delete,
}

impl Prepared {
    fn kind(&self) -> Kind {
        match &self.operation {
            BatchOperation::Create(_) => Kind::Create,
            BatchOperation::Upsert { expected: None, .. } => Kind::Upsert,
            BatchOperation::Upsert { expected: Some(_), .. } => Kind::UpsertExpected,
            BatchOperation::Update { .. } => Kind::Update,
            BatchOperation::Delete { .. } => Kind::Delete,
        }
    }

    fn row(&self) -> Option<WriteRow<'_>> {
        let (id, expected) = match &self.operation {
            BatchOperation::Update { id, expected, .. } => (*id, *expected),
            _ => (self.id, None),
        };
        let (new, chunks) = (self.operation.context()?, self.chunks.as_slice().into());
        Some(WriteRow { id, new, chunks, expected, origin: self.origin })
    }

    fn deletion(&self) -> Option<Deletion> {
        match self.operation {
            BatchOperation::Delete { id, expected } => Some(Deletion { id, expected }),
            _ => None,
        }
    }
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
        let space = self.space_of_given(given).await?;
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
            let done = run_all(unit, actor, space_id(space.as_ref()), &prepared).await?;
            for (index, result) in places.iter().copied().zip(done) {
                match result {
                    Err(error) if atomic => return Err(at_operation(error, index)),
                    result => results[index] = result.map_err(Arc::new),
                }
            }
            Ok(results)
        };
        let answered = once(&self.store, actor, request, answer, work).await.map(Once::answer);
        self.pending.notify_one();
        answered
    }
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
    Ok(Prepared { operation, id: ContextId::generate(), chunks, origin: None })
}

/// Runs all of them, as many at a time as can share a statement. The error of one does not undo another.
pub(super) async fn run_all(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    prepared: &[Prepared],
) -> Result<Vec<Result<BatchResult>>> {
    let mut results = Vec::with_capacity(prepared.len());
    let mut rest = prepared;
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

/// How many at the beginning of `prepared` can share a statement: of one kind, and about different things.
fn shared(prepared: &[Prepared]) -> usize {
    let mut seen = HashSet::new();
    let kind = prepared.first().map(Prepared::kind);
    let alone = kind == Some(Kind::UpsertExpected);
    let mut count = 0;
    for next in prepared {
        let subject = next.operation.subject();
        let fits = Some(next.kind()) == kind && (subject == Subject::New || seen.insert(subject));
        if !fits || (alone && count == 1) {
            break;
        }
        count += 1;
    }
    count
}

/// Errors that the database finds in one row, and then refuses the statement.
fn is_of_one_operation(error: &Error) -> bool {
    matches!(error.code, Code::KeyConflict | Code::InvalidRequest)
}

async fn run_group(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    group: &[Prepared],
) -> Result<Vec<Result<BatchResult>>> {
    let rows: Vec<WriteRow<'_>> = group.iter().filter_map(Prepared::row).collect();
    let mut done: Vec<Option<BatchResult>> = vec![None; group.len()];
    match group.first().map(Prepared::kind) {
        None => {}
        Some(Kind::Delete) => {
            let deletions: Vec<Deletion> = group.iter().filter_map(Prepared::deletion).collect();
            for deleted in unit.delete_contexts(actor, &deletions, false).await? {
                let id = deletions[deleted.index].id;
                let kind = BatchResultKind::Deleted;
                done[deleted.index] = Some(BatchResult { id, version: deleted.version, kind });
            }
        }
        Some(kind) => {
            let written = match kind {
                Kind::Create => unit.create_contexts(actor, space, &rows, OnKey::Keep).await?,
                Kind::Upsert => unit.create_contexts(actor, space, &rows, OnKey::Update).await?,
                Kind::UpsertExpected => return upsert_expected(unit, actor, space, group).await,
                Kind::Update | Kind::Delete => unit.update_contexts(actor, space, &rows).await?,
            };
            for row in written {
                let kind = if row.created { BatchResultKind::Created } else { BatchResultKind::Changed };
                done[row.index] = Some(BatchResult { id: row.id, version: row.version, kind });
            }
        }
    }
    let mut results = Vec::with_capacity(group.len());
    for (prepared, done) in group.iter().zip(done) {
        results.push(match done {
            Some(done) => Ok(done),
            None => explain(unit, &prepared.operation).await?,
        });
    }
    Ok(results)
}

/// Why an operation did nothing.
async fn explain(unit: &mut Unit, operation: &BatchOperation) -> Result<Result<BatchResult>> {
    let current = match operation.subject() {
        Subject::Id(id) => unit.lock_context(id).await?.filter(|context| context.is_active),
        Subject::Key(..) => {
            match operation.context().and_then(|new| Some((new.user_id, new.key.as_ref()?))) {
                Some((user, key)) => unit.lock_context_by_key(user, key).await?,
                None => None,
            }
        }
        Subject::New => None,
    };
    let Some(current) = current else { return Ok(Err(not_found())) };
    Ok(check(operation, &current).map(|()| unchanged(&current)))
}

fn check(operation: &BatchOperation, current: &Context) -> Result<()> {
    match operation {
        BatchOperation::Create(_) => {
            Err(Error::new(Code::KeyConflict, "Another context of this user has this key already.")
                .with_violation("/context/key", "belongs to another context"))
        }
        BatchOperation::Update { new, .. } if new.user_id != current.user_id => {
            Err(Error::invalid("/context/user_id", "a context stays with its user"))
        }
        BatchOperation::Upsert { expected, .. }
        | BatchOperation::Update { expected, .. }
        | BatchOperation::Delete { expected, .. } => expected
            .map_or(Precondition::None, |version| Precondition::Version(vec![version]))
            .require(current.version),
    }
}

fn unchanged(current: &Context) -> BatchResult {
    BatchResult { id: current.id, version: current.version, kind: BatchResultKind::Unchanged }
}

async fn upsert_expected(
    unit: &mut Unit,
    actor: &Actor,
    space: Option<SpaceId>,
    group: &[Prepared],
) -> Result<Vec<Result<BatchResult>>> {
    let mut results = Vec::new();
    for prepared in group {
        let operation = &prepared.operation;
        let found = explain(unit, operation).await?;
        let (Ok(current), Some(row)) = (&found, prepared.row()) else {
            results.push(found.map_err(|error| match error.code {
                Code::ContextNotFound => {
                    Error::new(Code::PreconditionFailed, "There is no such context to be changed.")
                }
                _ => error,
            }));
            continue;
        };
        let row = WriteRow { id: current.id, ..row };
        let written = unit.update_contexts(actor, space, &[row]).await?;
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
    use crate::domain::{ContextInput, UserId};

    fn new(key: Option<&str>) -> crate::domain::NewContext {
        let input =
            json!({"user_id": UserId(uuid::Uuid::nil()), "context_type": "t", "key": key, "content": 1});
        from_str::<ContextInput>(&input.to_string()).unwrap().check().unwrap()
    }

    fn prepared(operation: BatchOperation) -> Prepared {
        Prepared { operation, id: ContextId::generate(), chunks: Vec::new(), origin: None }
    }

    #[test]
    fn neighbours_of_one_kind_about_different_things_share_a_statement() {
        let upsert = |key, expected| prepared(BatchOperation::Upsert { new: new(key), expected });
        let id = ContextId::generate();
        let delete = |id| prepared(BatchOperation::Delete { id, expected: None });
        assert_eq!(shared(&[]), 0);
        assert_eq!(shared(&[upsert(None, None), upsert(None, None), upsert(Some("a"), None)]), 3);
        assert_eq!(shared(&[upsert(Some("a"), None), upsert(Some("b"), None), upsert(Some("a"), None)]), 2);
        assert_eq!(shared(&[upsert(Some("a"), Some(1)), upsert(Some("b"), Some(1))]), 1);
        assert_eq!(shared(&[upsert(None, None), prepared(BatchOperation::Create(new(None)))]), 1);
        assert_eq!(shared(&[delete(id), delete(ContextId::generate()), delete(id)]), 2);
    }
}
