//! What may be forgotten at any moment. A tier in this process, and Redis behind it for all replicas; every failure of
//! Redis is a miss, never an error. Imports `domain`, `error` and `telemetry`.

mod answers;
mod endpoint;
mod generations;
mod kept;
mod link;
mod rate_limiter;
mod remote;

use std::{future::Future, sync::Arc, time::Duration};

use sha2::{Digest, Sha256};
use tokio::time::Instant;

pub use self::{
    answers::{Answers, Present},
    endpoint::{REDIS_URL_FORMS, RedisOptions},
    kept::Kept,
    rate_limiter::RateLimiter,
    remote::RemoteState,
};
use self::{
    generations::Generations,
    remote::{Probe, Remote},
};
use crate::{
    domain::{AnswerLimits, RateLimits, SpaceInfo, TenantId, Vector, limits::DIMENSIONS_MAX},
    error::Result,
};

/// Memory for embeddings of queries in this process.
const VECTORS_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What an entry costs besides its numbers.
const VECTOR_ENTRY_BYTES: usize = 100;
/// How long an embedding is kept. It never becomes wrong, only unlikely to be asked for.
const VECTOR_TTL: Duration = Duration::from_secs(24 * 3600);

/// SHA-256 of the space and the text. The space by its provider and model as well as its id: two services may share a
/// Redis, and their ids count alike.
type VectorKey = [u8; 32];

/// Why an embedding could not be made.
type MakingFailed = Box<dyn std::error::Error + Send + Sync>;

/// The cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache {
    vectors: Kept<VectorKey, Vector, MakingFailed>,
    remote: Option<Remote>,
    /// None where other processes may change rows and could not say so.
    generations: Option<Generations>,
    answers: Option<Answers>,
}

impl Cache {
    /// # Errors
    /// When the Redis URL is malformed. That Redis does not answer is no error.
    pub fn new(redis: Option<&RedisOptions>) -> Result<Self> {
        let weight = |_: &VectorKey, vector: &Vector| vector_bytes(vector.dimensions());
        let vectors = Kept::weighing(VECTORS_BYTES_MAX, vector_bytes(DIMENSIONS_MAX), weight);
        let remote = redis.map(|options| Remote::new(options, Probe::Ping)).transpose()?;
        let generations = redis.map(Generations::there).transpose()?;
        Ok(Self { vectors, remote, generations, answers: None })
    }

    /// For the one process that changes rows, because the database is in it: it need not hear of others by way of Redis.
    #[must_use]
    pub fn alone(self) -> Self {
        Self { generations: Some(Generations::here()), ..self }
    }

    /// Keeps answers, if it can be known when they are not true any more.
    #[must_use]
    pub fn with_answers(self, limits: AnswerLimits) -> Self {
        let generations = self.generations.clone().filter(|_| limits.bytes_max > 0);
        let answers = generations.map(|generations| Answers::new(limits, generations, self.remote.clone()));
        Self { answers, ..self }
    }

    /// Rows of the tenant have changed. When this returns, nobody is answered from before any more.
    pub async fn renew(&self, tenant: TenantId) {
        if let Some(generations) = &self.generations {
            generations.renew(tenant).await;
        }
    }

    /// None where none are kept.
    pub fn answers(&self) -> Option<&Answers> {
        self.answers.as_ref()
    }

    /// Whether other processes find here what this one has left.
    pub fn is_shared(&self) -> bool {
        self.remote.is_some()
    }

    /// The embedding of `text` in `space`: from here, from Redis, or by `make`, which runs once however many ask at the
    /// same time.
    ///
    /// # Errors
    /// Those of `make`; they are not kept.
    pub async fn query_vector<E: Into<MakingFailed>>(
        &self,
        space: &SpaceInfo,
        text: &str,
        make: impl Future<Output = Result<Vector, E>>,
    ) -> Result<Vector, Arc<MakingFailed>> {
        let (key, now) = (vector_key(space, text), Instant::now());
        let look = async {
            let Some(remote) = &self.remote else { return make.await };
            let key = [b"context-api:v1:vector:", key.as_slice()].concat();
            if let Some(vector) = remote.get(&key).await.and_then(|bytes| decode(&bytes)) {
                return Ok(vector);
            }
            let vector = make.await?;
            remote.set(&key, &encode(&vector), VECTOR_TTL).await;
            Ok(vector)
        };
        let look = async { Ok((look.await.map_err(E::into)?, Some(now + VECTOR_TTL))) };
        self.vectors.get_or_make(&key, now, look).await
    }

    /// One that counts where this cache is.
    pub fn rate_limiter(&self, limits: RateLimits) -> RateLimiter {
        RateLimiter::new(limits, self.remote.clone())
    }

    /// Whether Redis answers; none without Redis.
    pub async fn remote_state(&self) -> Option<RemoteState> {
        match &self.remote {
            Some(remote) => Some(remote.state().await),
            None => None,
        }
    }
}

/// In memory.
fn vector_bytes(dimensions: usize) -> u64 {
    (dimensions * size_of::<f32>() + VECTOR_ENTRY_BYTES) as u64
}

fn vector_key(space: &SpaceInfo, text: &str) -> VectorKey {
    let mut digest = Sha256::new();
    // None of the first parts holds a U+0000, so no two keys run together.
    for part in [space.id.to_string().as_str(), &space.provider, &space.model] {
        digest.update(part);
        digest.update([0]);
    }
    digest.update(text);
    digest.finalize().into()
}

fn encode(vector: &Vector) -> Vec<u8> {
    vector.as_slice().iter().flat_map(|value| value.to_le_bytes()).collect()
}

/// None for what is not an embedding: somebody else may have written to the same Redis.
fn decode(bytes: &[u8]) -> Option<Vector> {
    let (values, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() {
        return None;
    }
    Vector::new(values.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()).ok()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_vector_survives_its_encoding_and_garbage_does_not_become_one() {
        let vector = Vector::new(vec![0.6, -0.8]).unwrap();
        assert_eq!(decode(&encode(&vector)).unwrap().as_slice(), vector.as_slice());
        assert!(decode(b"").is_none() && decode(b"abc").is_none() && decode(&[0; 8]).is_none());
    }

    fn space(model: &str) -> SpaceInfo {
        SpaceInfo { id: 1, provider: "tei".into(), model: model.into(), dims: 1, tokens_max: None }
    }

    #[test]
    fn the_same_text_in_another_space_is_another_key() {
        assert_eq!(vector_key(&space("a"), "x"), vector_key(&space("a"), "x"));
        assert_ne!(vector_key(&space("a"), "x"), vector_key(&space("b"), "x"));
        assert_ne!(vector_key(&space("a"), "x"), vector_key(&space("a"), "y"));
    }

    #[tokio::test]
    async fn many_who_ask_at_once_are_answered_by_one_call_and_errors_are_not_kept() {
        let cache = Cache::new(None).unwrap();
        let calls = AtomicUsize::new(0);
        let space_a = space("a");
        let ask = || {
            cache.query_vector(&space_a, "chess", async {
                calls.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Vector::new(vec![1.0])
            })
        };
        let (a, b, c) = tokio::join!(ask(), ask(), ask());
        assert!(a.is_ok() && b.is_ok() && c.is_ok());
        assert_eq!(calls.load(Ordering::SeqCst), 1);
        let failed = cache.query_vector(&space("a"), "other", async { Err("down") }).await;
        assert!(failed.is_err());
        let other = cache.query_vector(&space("a"), "other", async { Vector::new(vec![1.0]) }).await;
        assert!(other.is_ok());
    }
}
