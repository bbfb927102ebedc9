//! Many writes in one request.

use super::{ContextId, NewContext};

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

impl BatchOperation {
    pub fn context(&self) -> Option<&NewContext> {
        match self {
            Self::Create(new) | Self::Upsert { new, .. } | Self::Update { new, .. } => Some(new),
            Self::Delete { .. } => None,
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
