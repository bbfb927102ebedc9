//! What a batch does, one by one, and what of it may share a statement.

use std::collections::HashSet;

use crate::{
    domain::{BatchOperation, ContextId, Origin, UserId},
    error::Error,
    service::quota::Room,
    store::{Deletion, WriteRow},
};

/// An operation with all that needs no database done.
pub(in crate::service) struct Prepared {
    pub operation: BatchOperation,
    /// Of the context that it is about, or that it makes.
    pub id: ContextId,
    pub chunks: Vec<String>,
    /// Of a context that comes from elsewhere.
    pub origin: Option<Origin>,
}

/// What operations must have in common to share a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::service) enum Kind {
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
pub(in crate::service) struct Item<'p> {
    pub prepared: &'p Prepared,
    pub kind: Kind,
}

impl<'p> Item<'p> {
    pub(super) fn of(prepared: &'p Prepared) -> Self {
        let kind = match &prepared.operation {
            BatchOperation::Create(_) => Kind::Create,
            BatchOperation::Upsert { expected: None, .. } => Kind::Upsert,
            BatchOperation::Upsert { expected: Some(_), .. } => Kind::UpsertExpected,
            BatchOperation::Update { .. } => Kind::Update { revive: false },
            BatchOperation::Delete { .. } => Kind::Delete,
        };
        Self { prepared, kind }
    }

    pub(super) fn row(&self) -> Option<WriteRow<'p>> {
        let Prepared { operation, id, chunks, origin } = self.prepared;
        let expected = match operation {
            BatchOperation::Update { expected, .. } => *expected,
            _ => None,
        };
        let chunks = chunks.as_slice().into();
        Some(WriteRow { id: *id, new: operation.context()?, chunks, expected, origin: *origin })
    }

    pub(super) fn deletion(&self) -> Option<Deletion> {
        match self.prepared.operation {
            BatchOperation::Delete { id, expected } => Some(Deletion { id, expected }),
            _ => None,
        }
    }

    /// Why it may not be done, if it would store something.
    pub(super) fn refusal(&self, room: Room) -> Option<Error> {
        if self.kind == Kind::Delete { None } else { room.refusal() }
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

/// How many at the beginning of `items` can share a statement: of one kind, and about different things.
pub(super) fn shared(items: &[Item<'_>]) -> usize {
    let mut seen = HashSet::new();
    let Some(kind) = items.first().map(|item| item.kind) else { return 0 };
    if kind == Kind::UpsertExpected {
        return 1;
    }
    let alike = items.iter().take_while(|item| item.kind == kind);
    let subjects = alike.map(|item| item.subject());
    subjects.take_while(|subject| *subject == Subject::New || seen.insert(*subject)).count()
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, json};

    use super::*;
    use crate::domain::{ContextInput, NewContext};

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
