//! Answers that were given before: those of searches in this process and in Redis; those about single contexts, which Redis would
//! give no faster than the database does, in this process alone. Each belongs to a generation of its tenant, so that none is found
//! any more once anything of the tenant has changed.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use moka::{Expiry, future::Cache as Local};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{generations::Generations, remote::Remote};
use crate::domain::{Answer, AnswerLimits, MadeAnswer, Provenance, Question, QuestionKind, TenantId};

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

#[derive(Clone)]
struct Entry {
    answer: Answer,
    /// From when it was put here. Nothing: it is only for those who wait for it already.
    keep: Duration,
}

struct ByEntry;

impl Expiry<Key, Entry> for ByEntry {
    fn expire_after_create(&self, _: &Key, entry: &Entry, _: std::time::Instant) -> Option<Duration> {
        Some(entry.keep)
    }
}

/// The answers. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    kept: Local<Key, Entry>,
    generations: Generations,
    remote: Option<Remote>,
    ttl: Duration,
}

/// What the present is known by: a digest of the tenant's generation and of what else answers depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Present([u8; 32]);

impl Answers {
    pub(super) fn new(limits: AnswerLimits, generations: Generations, remote: Option<Remote>) -> Self {
        let weigh =
            |_: &Key, entry: &Entry| u32::try_from(entry.answer.body.len() + ENTRY_BYTES).unwrap_or(u32::MAX);
        let kept = Local::builder()
            .weigher(weigh)
            .max_capacity(limits.bytes_max)
            .time_to_live(limits.ttl)
            .expire_after(ByEntry)
            .build();
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
    pub async fn find(&self, present: &Present, question: &Question) -> Option<Answer> {
        self.kept.get(&key(present, question)).await.map(|entry| entry.answer)
    }

    /// The answer at `present`: one that was given before, or the one of `make`, which runs once however many ask at the same
    /// time. `until`: to when at most it stays true though nothing is written; asked before anything is read.
    ///
    /// # Errors
    /// Those of `make` and of `until`; they are not kept.
    pub async fn get_or_make<E: Send + Sync + 'static>(
        &self,
        present: &Present,
        question: &Question,
        until: impl Future<Output = Result<Instant, E>>,
        make: impl Future<Output = Result<MadeAnswer, E>>,
    ) -> Result<(Answer, Provenance), Arc<E>> {
        let key = key(present, question);
        let mut provenance = Provenance::Hit;
        let remote = self.remote.as_ref().filter(|_| question.kind != QuestionKind::Context);
        let entry = self.kept.try_get_with(key, async {
            if let Some(remote) = remote
                && let Some(entry) = find(remote, &key).await
            {
                return Ok(entry);
            }
            provenance = Provenance::Miss;
            let until = until.await?;
            let made = make.await?;
            let is_kept = made.may_be_kept && made.answer.body.len() <= BODY_BYTES_MAX;
            let left = until.saturating_duration_since(Instant::now());
            let keep = if is_kept { left.min(self.ttl_of(&key)) } else { Duration::ZERO };
            let entry = Entry { answer: made.answer, keep };
            if let Some(remote) = remote
                && keep >= REMOTE_TTL_MIN
                && entry.answer.body.len() <= REMOTE_BODY_BYTES_MAX
            {
                let (remote, bytes) = (remote.clone(), encode(&entry.answer));
                let until = Instant::now() + keep;
                // Nobody has to wait for that.
                tokio::spawn(async move {
                    let left = until.saturating_duration_since(Instant::now());
                    remote.set(&remote_key(&key), &bytes, left.max(Duration::from_millis(1))).await;
                });
            }
            Ok(entry)
        });
        entry.await.map(|entry| (entry.answer, provenance))
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
async fn find(remote: &Remote, key: &Key) -> Option<Entry> {
    let remote_key = remote_key(key);
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&remote_key).cmd("PTTL").arg(&remote_key);
    let (bytes, ttl): (Option<Vec<u8>>, i64) = remote.pipe(&pipeline).await?;
    let keep = Duration::from_millis(u64::try_from(ttl).ok()?);
    Some(Entry { answer: decode(bytes?)?, keep })
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
