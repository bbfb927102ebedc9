//! Many writes in one request.

use super::{ContextId, NewContext, UserId};

/// One write of many.
#[derive(Debug)]
pub enum BatchOperation {
    /// Makes a context; its key must be new.
    Create(NewContext),
    /// Makes a context, or changes the one of its key, then only in the version that is expected.
    Upsert { new: NewContext, expected: Option<i64> },
    /// Puts another in the place of a context.
    Update { id: ContextId, new: NewContext, expected: Option<i64> },
    /// Hides a context.
    Delete { id: ContextId, expected: Option<i64> },
}

/// What an operation is about: two about the same cannot be in one statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject<'a> {
    Id(ContextId),
    Key(UserId, &'a str),
    /// A context that nothing else can name yet.
    New,
}

impl BatchOperation {
    pub fn context(&self) -> Option<&NewContext> {
        match self {
            Self::Create(new) | Self::Upsert { new, .. } | Self::Update { new, .. } => Some(new),
            Self::Delete { .. } => None,
        }
    }

    pub fn subject(&self) -> Subject<'_> {
        match self {
            Self::Create(new) | Self::Upsert { new, .. } => match &new.key {
                Some(key) => Subject::Key(new.user_id, key.as_str()),
                None => Subject::New,
            },
            Self::Update { id, .. } | Self::Delete { id, .. } => Subject::Id(*id),
        }
    }
}

/// What became of one write of many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BatchResult {
    pub id: ContextId,
    pub version: i64,
    pub kind: BatchResultKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchResultKind {
    Created,
    Changed,
    /// It was so already.
    Unchanged,
    Deleted,
}
