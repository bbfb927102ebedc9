//! Answers that were given before: those of searches in this process and in Redis; those about single contexts, which Redis would
//! give no faster than the database does, in this process alone. Each belongs to a generation of its tenant, so that none is found
//! any more once anything of the tenant has changed.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use quick_cache::sync::Cache as Bounded;
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

/// Tenants of which is known what their present is. Answers to one that is forgotten stay until they end.
const TENANTS_MAX: usize = 100_000;

/// A question, and all that its answer depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    present: Present,
    question: [u8; 32],
}

/// The answers. Cheap to clone.
#[derive(Clone)]
pub struct Answers {
    kept: Kept<Key, Answer>,
    /// What each tenant's present was when it was last asked for what is not kept: answers to another one go, since who writes all the
    /// time would fill the memory with what nobody can be given.
    presents: Arc<Bounded<TenantId, Present>>,
    generations: Generations,
    remote: Option<Remote>,
    ttl: Duration,
}

/// What the present is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Present {
    tenant: TenantId,
    /// SHA-256 of the tenant's generation and of what else answers depend on.
    digest: [u8; 32],
}

impl Answers {
    pub(super) fn new(limits: AnswerLimits, generations: Generations, remote: Option<Remote>) -> Self {
        let weight = |_: &Key, answer: &Answer| (answer.body.len() + ENTRY_BYTES) as u64;
        let presents: Arc<Bounded<TenantId, Present>> = Arc::new(Bounded::new(TENANTS_MAX));
        let is_over = {
            let presents = Arc::clone(&presents);
            move |key: &Key| presents.peek(&key.present.tenant).is_some_and(|present| present != key.present)
        };
        let kept = Kept::weighing(limits.bytes_max, (BODY_BYTES_MAX + ENTRY_BYTES) as u64, weight)
            .forgetting(is_over);
        Self { kept, presents, generations, remote, ttl: limits.ttl }
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
        Some(Present { tenant, digest: digest.finalize().into() })
    }

    /// The answer at `present`, if this process has given it before.
    pub fn find(&self, present: &Present, question: &Question) -> Option<Answer> {
        self.kept.get(&Key::new(present, question), Instant::now())
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
        let key = Key::new(present, question);
        if self.presents.get(&present.tenant) != Some(*present) {
            self.presents.insert(present.tenant, *present);
        }
        let mut provenance = Provenance::Hit;
        let remote = self.remote.as_ref().filter(|_| question.kind != QuestionKind::Context);
        let answer = self.kept.get_or_make(&key, Instant::now(), async {
            if let Some(remote) = remote
                && let Some((answer, until)) = find(remote, &key).await
            {
                return Ok((answer, Some(until)));
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
            // Though it may be over: who comes later then has to know.
            Ok((answer, Some(until)))
        });
        let answer = answer.await.map_err(|shared| Error::copy_of(&shared))?;
        Ok((answer, provenance))
    }

    /// Up to a tenth shorter for some than for others, so that what was made at the same time is not made anew at the same time.
    fn ttl_of(&self, key: &Key) -> Duration {
        self.ttl.mul_f64(1.0 - f64::from(key.question[0]) / 2_560.0)
    }
}

impl Key {
    fn new(present: &Present, question: &Question) -> Self {
        Self { present: *present, question: *question.digest() }
    }
}

fn remote_key(key: &Key) -> Vec<u8> {
    let mut digest = Sha256::new();
    digest.update(key.present.digest);
    digest.update(key.question);
    let digest: [u8; 32] = digest.finalize().into();
    [b"context-api:v1:answer:", digest.as_slice()].concat()
}

/// In Redis, with the moment until which it holds.
async fn find(remote: &Remote, key: &Key) -> Option<(Answer, Instant)> {
    let asked = Instant::now();
    let remote_key = remote_key(key);
    let mut pipeline = redis::pipe();
    pipeline.cmd("GET").arg(&remote_key).cmd("PTTL").arg(&remote_key);
    let (bytes, ttl): (Option<Vec<u8>>, i64) = remote.pipe(&pipeline).await?;
    let left = Duration::from_millis(u64::try_from(ttl).ok()?);
    Some((decode(bytes?)?, asked + left))
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

#[cfg(test)]
mod tests {
    use std::{future::ready, pin::pin};

    use futures_util::poll;
    use tokio::sync::oneshot;
    use uuid::Uuid;

    use super::*;
    use crate::domain::Access;

    const TENANT: TenantId = TenantId(Uuid::nil());

    fn answers() -> Answers {
        Answers::new(AnswerLimits::default(), Generations::here(), None)
    }

    fn question() -> Question {
        Question::new(QuestionKind::Search, Access { tenant: TENANT, user: None }, b"")
    }

    fn made(body: &'static str) -> MadeAnswer {
        MadeAnswer { answer: Answer { version: None, body: Bytes::from(body) }, may_be_kept: true }
    }

    #[tokio::test]
    async fn who_comes_after_time_has_changed_the_answer_does_not_get_the_one_that_is_still_being_made() {
        let (answers, question) = (answers(), question());
        let present = answers.present(TENANT, b"").await.unwrap();
        let ask = |until, body, begin: oneshot::Receiver<()>| {
            let make = async move {
                begin.await.map_err(Error::internal)?;
                Ok(made(body))
            };
            answers.get_or_make(&present, &question, ready(Ok(until)), make)
        };
        let (now, (begin_first, first), (begin_next, next)) =
            (Instant::now(), oneshot::channel(), oneshot::channel());
        begin_next.send(()).unwrap();
        let mut first = pin!(ask(now, "as it was", first));
        assert!(poll!(&mut first).is_pending());
        let mut next = pin!(ask(now + answers.ttl(), "as it is", next));
        assert!(poll!(&mut next).is_pending());
        begin_first.send(()).unwrap();
        let (first, next) = (first.await.unwrap().0, next.await.unwrap().0);
        assert_eq!((&*first.body, &*next.body), (b"as it was".as_slice(), b"as it is".as_slice()));
    }

    #[tokio::test]
    async fn what_a_write_has_ended_makes_room_for_others() {
        let (answers, question, other) = (answers(), question(), TenantId(Uuid::max()));
        let until = Instant::now() + answers.ttl();
        let keep = async |tenant| {
            let present = answers.present(tenant, b"").await.unwrap();
            answers
                .get_or_make(&present, &question, ready(Ok(until)), ready(Ok(made("kept"))))
                .await
                .unwrap();
            present
        };
        let (before, others) = (keep(TENANT).await, keep(other).await);
        answers.generations.renew(TENANT).await;
        let after = keep(TENANT).await;
        let is_there = |present: Present| answers.find(&present, &question).is_some();
        assert_eq!([before, others, after].map(is_there), [true; 3]);
        let swept = answers.kept.sweep(Instant::now() + answers.ttl() / 2).unwrap();
        swept.await.unwrap();
        assert_eq!([before, others, after].map(is_there), [false, true, true]);
    }
}
