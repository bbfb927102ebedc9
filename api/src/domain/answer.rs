//! Answers that may be given again.

use std::time::Duration;

use bytes::Bytes;
use sha2::{Digest, Sha256};
use strum::IntoStaticStr;

use super::Access;

/// An answer as it is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// JSON.
    pub body: Bytes,
    /// Of the context that it is about, if it is about one.
    pub version: Option<i64>,
}

/// An answer that was made just now.
#[derive(Debug)]
pub struct MadeAnswer {
    pub answer: Answer,
    /// Whether it may be given again as long as nothing has changed.
    pub may_be_kept: bool,
}

/// Which requests have the same answer: equal ones, of callers who may reach the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    pub kind: QuestionKind,
    digest: [u8; 32],
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum QuestionKind {
    Context,
    Search,
}

impl Question {
    /// `request`: all of it that the answer depends on, in the words in which it came.
    pub fn new(kind: QuestionKind, access: Access, request: &[u8]) -> Self {
        let mut digest = Sha256::new();
        let name: &'static str = kind.into();
        digest.update(name);
        digest.update([0]);
        digest.update(access.tenant.0);
        // No user has the same bytes as none.
        match access.user {
            Some(user) => {
                digest.update([1]);
                digest.update(user.0);
            }
            None => digest.update([0]),
        }
        digest.update(request);
        Self { kind, digest: digest.finalize().into() }
    }

    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

/// Which answers a caller takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// Also one that was given before and is still true.
    True,
    /// Only one that is made for this request.
    New,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Provenance {
    /// It was given before.
    Hit,
    /// It was made for this request.
    Miss,
    /// The same, without a look at those that were given before.
    Bypass,
}

/// How much of the answers is kept, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerLimits {
    /// In this process; 0 keeps none.
    pub bytes_max: u64,
    /// Of each; what has changed is never given again, so this is only about memory.
    pub ttl: Duration,
}

impl Default for AnswerLimits {
    fn default() -> Self {
        Self { bytes_max: 64 * 1024 * 1024, ttl: Duration::from_secs(60) }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{DEFAULT_TENANT, TenantId, UserId};

    #[test]
    fn only_the_same_request_of_the_same_reach_is_the_same_question() {
        let whole = Access::whole(DEFAULT_TENANT);
        let of = |access, request: &[u8]| Question::new(QuestionKind::Search, access, request);
        let question = of(whole, b"{}");
        assert_eq!(question, of(whole, b"{}"));
        let user = |n| Access { user: Some(UserId(Uuid::from_u128(n))), ..whole };
        let others = [
            of(whole, b"{} "),
            of(Access::whole(TenantId(Uuid::from_u128(7))), b"{}"),
            of(user(0), b"{}"),
            of(user(1), b"{}"),
            Question::new(QuestionKind::Context, whole, b"{}"),
        ];
        for (place, other) in others.iter().enumerate() {
            assert_ne!(question, *other, "{place}");
        }
        assert_ne!(of(user(0), b"{}"), of(user(1), b"{}"));
    }
}
