//! Answers that were given before: those of searches in this process and in Redis; those about single contexts, which Redis would
//! give no faster than the database does, in this process alone. Each belongs to a generation of its tenant, so that none is found
//! any more once anything of the tenant has changed.

use std::{future::Future, time::Duration};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{generations::Generations, kept::Kept, remote::Remote};
use crate::{
    domain::{Answer, AnswerLimits, MadeAnswer, Provenance, Question, QuestionKind, TenantId},
    error::{Error, Result},
};

/// What an entry costs besides its body.
const ENTRY_BYTES: usize = 200;
/// A larger answer is not kept: others would have to go for it.
const BODY_BYTES_MAX: usize = 1024 * 1024;
/// Nor is one that is larger than this kept in Redis: many would crowd out what all replicas need.
const REMOTE_BODY_BYTES_MAX: usize = 64 * 1024;
/// Shorter is not worth a word with Redis.
const REMOTE_TTL_MIN: Duration = Duration::from_secs(1);

/// SHA-256 of a question and of all that its answer depends on.
type Key = [u8; 32];

/// The answers. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    kept: Kept<Key, Answer>,
    generations: Generations,
    remote: Option<Remote>,
    ttl: Duration,
}

/// What the present is known by: a digest of the tenant's generation and of what else answers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Present([u8; 32]);

impl Answers {
    pub(super) fn new(limits: AnswerLimits, generations: Generations, remote: Option<Remote>) -> Self {
        let weight = |_: &Key, answer: &Answer| (answer.body.len() + ENTRY_BYTES) as u64;
        let kept = Kept::weighing(limits.bytes_max, (BODY_BYTES_MAX + ENTRY_BYTES) as u64, weight);
        Self { kept, generations, remote, ttl: limits.ttl }
    }

    /// How long one is kept at most.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// What answers are true of; none when it cannot be known whether anything has changed. `also`: what they depend on besides the
    /// tenant's rows.
    pub async fn present(&self, tenant: TenantId, also: &[u8]) -> Option<Present> {
        let generation = self.generations.current(tenant).await?;
        let mut digest = Sha256::new();
        digest.update(generation.bytes());
        digest.update(also);
        Some(Present(digest.finalize().into()))
    }

    /// The answer at `present`, if this process has given it before.
    pub fn find(&self, present: &Present, question: &Question) -> Option<Answer> {
        self.kept.get(&key(present, question), Instant::now())
    }

    /// The answer at `present`: one that was given before, or the one of `make`, which runs once however many ask at the same
    /// time. `until`: to when at most it stays true though nothing is written; asked before anything is read.
    ///
    /// # Errors
    /// Those of `make` and of `until`; they are not kept.
    pub async fn get_or_make(
        &self,
        present: &Present,
        question: &Question,
        until: impl Future<Output = Result<Instant>>,
        make: impl Future<Output = Result<MadeAnswer>>,
    ) -> Result<(Answer, Provenance)> {
        let key = key(present, question);
        let mut provenance = Provenance::Hit;
        let remote = self.remote.as_ref().filter(|_| question.kind != QuestionKind::Context);
        let answer = self.kept.get_or_make(&key, Instant::now(), async {
            if let Some(remote) = remote
                && let Some((answer, left)) = find(remote, &key).await
            {
                return Ok((answer, Some(Instant::now() + left.min(self.ttl))));
            }
            provenance = Provenance::Miss;
            let until = until.await?;
            let MadeAnswer { answer, may_be_kept } = make.await?;
            if !may_be_kept || answer.body.len() > BODY_BYTES_MAX {
                return Ok((answer, None));
            }
            let now = Instant::now();
            let until = until.min(now + self.ttl_of(&key));
            if let Some(remote) = remote
                && until >= now + REMOTE_TTL_MIN
                && answer.body.len() <= REMOTE_BODY_BYTES_MAX
            {
                let (remote, bytes) = (remote.clone(), encode(&answer));
                // Nobody has to wait for that.
                tokio::spawn(async move {
                    let left = until.saturating_duration_since(Instant::now());
                    remote.set(&remote_key(&key), &bytes, left.max(Duration::from_millis(1))).await;
                });
            }
            Ok((answer, (until > now).then_some(until)))
        });
        let answer = answer.await.map_err(|shared| Error::copy_of(&shared))?;
        Ok((answer, provenance))
    }

    /// Up to a tenth shorter for some than for others, so that what was made at the same time is not made anew at the same time.
    fn ttl_of(&self, key: &Key) -> Duration {
        self.ttl.mul_f64(1.0 - f64::from(key[0]) / 2_560.0)
    }
}

fn key(present: &Present, question: &Question) -> Key {
    let mut digest = Sha256::new();
    digest.update(present.0);
    digest.update(question.digest());
    digest.finalize().into()
}

fn remote_key(key: &Key) -> Vec<u8> {
    [b"context-api:v1:answer:", key.as_slice()].concat()
}

/// In Redis, with the time that it still may be kept.
async fn find(remote: &Remote, key: &Key) -> Option<(Answer, Duration)> {
    let remote_key = remote_key(key);
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&remote_key).cmd("PTTL").arg(&remote_key);
    let (bytes, ttl): (Option<Vec<u8>>, i64) = remote.pipe(&pipeline).await?;
    let keep = Duration::from_millis(u64::try_from(ttl).ok()?);
    Some((decode(bytes?)?, keep))
}

/// The version, or 0, and the body.
fn encode(answer: &Answer) -> Vec<u8> {
    let version = answer.version.unwrap_or(0).to_le_bytes();
    [version.as_slice(), &answer.body].concat()
}

fn decode(bytes: Vec<u8>) -> Option<Answer> {
    let bytes = Bytes::from(bytes);
    let version = i64::from_le_bytes(*bytes.first_chunk()?);
    Some(Answer { version: (version > 0).then_some(version), body: bytes.slice(8..) })
}
