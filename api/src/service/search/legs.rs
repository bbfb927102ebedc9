//! The two legs of a search. Each answers the best chunk of each context, best first, and whether it saw all it should.

use std::{
    collections::HashSet,
    hash::{BuildHasher, RandomState},
    time::Duration,
};

use tokio::time::Instant;

use crate::{
    cache::Kept,
    domain::{Effort, Included, Plan, SearchScope, SpaceInfo, SpaceStatus, TenantId, Vector},
    error::Result,
    service::Service,
    store::{Bounded, ChunkHit, Compared, ExactCap, Found, Nearby, NearbyFound, Reach},
    telemetry::spans,
};

/// A context may have many chunks among the best, and is answered once: so more chunks are read than hits are wanted.
const CHUNKS_PER_HIT: i64 = 2;
/// When those are too few, so many times as many are read.
const CHUNKS_GROWTH: i64 = 4;
/// Numbers of chunks that are read. Few, because each is a statement of its own: the database plans a
/// statement for the limit that stands in it.
const CHUNKS_STEPS: [i64; 6] = [20, 40, 100, 200, 400, 1_600];
const CHUNKS_MAX: i64 = 6_400;

/// So many chunks are compared one by one at most, which is exactly right: about half a microsecond a chunk at 384 dimensions. Up to the
/// first it is always faster than the index. In steps, as [`CHUNKS_STEPS`].
const EXACT_CHUNKS_STEPS: [i64; 8] = [5_000, 7_000, 10_000, 14_000, 20_000, 28_000, 40_000, 50_000];
/// The same for contexts that pass a filter, each of which costs some look-ups besides.
const EXACT_CONTEXTS_MIN: i64 = 1_500;
const EXACT_CONTEXTS_MAX: i64 = 20_000;
/// What looking at one more entry of the index costs, as a multiple of comparing one chunk more.
const INDEX_COST: f64 = 7.0;
/// The same with a filter.
const INDEX_COST_FILTERED: f64 = 2.0;
/// When the index gave up before it had found enough, so many are compared after all.
const EXACT_RESCUE: ExactCap = ExactCap { chunks: 100_000, contexts: 100_000 };

/// How long a scope that was too large to be compared one by one is not tried again.
const LARGE_TTL: Duration = Duration::from_secs(10 * 60);
const LARGE_SCOPES_MAX: u64 = 10_000;

/// The best chunk of each context, best first.
pub(in crate::service) struct Leg {
    pub hits: Vec<ChunkHit>,
    /// False when a cap cut the reading short.
    pub complete: bool,
}

pub(in crate::service) struct SemanticLeg {
    pub leg: Leg,
    pub plan: Plan,
    pub candidates: i64,
    /// What the hits are, in their places, where that came along.
    pub found: Option<Bounded<Found>>,
}

/// What is searched for by meaning, and where.
pub(in crate::service) struct Semantic<'r> {
    pub space: &'r SpaceInfo,
    pub vector: &'r Vector,
    pub effort: Effort,
    /// What of the contexts is answered, if nothing but their nearness decides which.
    pub include: Option<Included>,
}

/// Which scopes were too large to be compared one by one a moment ago. By a hash: one that is taken for another is searched by
/// the index, which is right as well.
#[derive(Clone)]
pub(in crate::service) struct ScopeMemory {
    large: Kept<u64, i64>,
    hasher: RandomState,
}

impl ScopeMemory {
    pub fn new() -> Self {
        Self { large: Kept::new(LARGE_SCOPES_MAX), hasher: RandomState::new() }
    }

    fn key(&self, tenant: TenantId, space: &SpaceInfo, scope: &SearchScope) -> u64 {
        self.hasher.hash_one((tenant.0, space.id, format!("{scope:?}")))
    }

    /// Whether there were more than `cap` when it was last looked.
    fn is_large(&self, key: u64, cap: ExactCap) -> bool {
        self.large.get(&key, Instant::now()).is_some_and(|cap_then| cap_then >= cap.chunks)
    }
}

impl Service {
    pub(in crate::service) async fn semantic_leg(
        &self,
        tenant: TenantId,
        semantic: &Semantic<'_>,
        scope: &SearchScope,
        depth: usize,
    ) -> Result<SemanticLeg> {
        let (mut plan, mut candidates) = (Plan::Exact, 0);
        let indexed = self.chunks_estimate(semantic.space).await?;
        if let Some(include) = semantic.include
            && let Some(leg) =
                Box::pin(self.find_nearest(tenant, semantic, scope, indexed, depth, include)).await?
        {
            return Ok(leg);
        }
        let leg = best_per_context(depth, async |chunks_max| {
            let answer = self.nearest(tenant, semantic, scope, indexed, chunks_max).await?;
            (plan, candidates) = (answer.plan, answer.candidates);
            Ok((answer.hits, answer.saw_all))
        })
        .await?;
        Ok(SemanticLeg { leg, plan, candidates, found: None })
    }

    /// What the index of neighbours shows, with all that is answered of it, in one statement. None when that is not enough, or
    /// when it may be right to compare one by one.
    async fn find_nearest(
        &self,
        tenant: TenantId,
        semantic: &Semantic<'_>,
        scope: &SearchScope,
        indexed: i64,
        depth: usize,
        include: Included,
    ) -> Result<Option<SemanticLeg>> {
        let Semantic { space, vector, effort, .. } = *semantic;
        let chunks_max = chunks_step(depth as i64 * CHUNKS_PER_HIT);
        let cap = exact_cap(indexed, chunks_max);
        let key = self.scopes.key(tenant, space, scope);
        if effort == Effort::Exact || scope.as_of.is_some() || !self.scopes.is_large(key, cap) {
            return Ok(None);
        }
        let reach = Reach { chunks_max, indexed, effort };
        let find = self.store.find_nearest(tenant, (space, vector), scope, reach, depth, include);
        let NearbyFound { hits, found, is_enough } = spans::database("search by index", find).await?;
        let leg = Leg { hits, complete: promises_all(effort) };
        let candidates = cap.counted(scope) + 1;
        Ok(is_enough.then_some(SemanticLeg { leg, plan: Plan::Hnsw, candidates, found: Some(found) }))
    }

    /// Compares one by one what is few, and asks the index of neighbours about what is many.
    async fn nearest(
        &self,
        tenant: TenantId,
        semantic: &Semantic<'_>,
        scope: &SearchScope,
        indexed: i64,
        chunks_max: i64,
    ) -> Result<Nearest> {
        let Semantic { space, vector, effort, .. } = *semantic;
        let is_exact = effort == Effort::Exact;
        let cap = if is_exact { ExactCap::NONE } else { exact_cap(indexed, chunks_max) };
        let key = self.scopes.key(tenant, space, scope);
        let known_as_large = !is_exact && self.scopes.is_large(key, cap);
        let compare = async |cap| {
            let compare = self.store.search_exact(tenant, space, vector, scope, cap, chunks_max);
            spans::database("search by comparing", compare).await
        };
        if !known_as_large {
            if let Some(compared) = compare(cap).await? {
                return Ok(compared.into());
            }
            let now = Instant::now();
            self.scopes.large.insert(key, cap.chunks, now, now + LARGE_TTL);
        }
        let reach = Reach { chunks_max, indexed, effort };
        let search = self.store.search_nearest(tenant, space, vector, scope, reach);
        let Nearby { hits, saw_all } = spans::database("search by index", search).await?;
        if !saw_all && let Some(compared) = compare(EXACT_RESCUE).await? {
            return Ok(compared.into());
        }
        let candidates = cap.counted(scope) + 1;
        Ok(Nearest { hits, plan: Plan::Hnsw, candidates, saw_all: saw_all && promises_all(effort) })
    }

    async fn chunks_estimate(&self, space: &SpaceInfo) -> Result<i64> {
        let spaces = self.spaces().await?;
        let space =
            spaces.iter().find(|other| other.info.id == space.id && other.status != SpaceStatus::Retired);
        Ok(space.and_then(|space| space.chunks_estimate).unwrap_or(0))
    }
}

struct Nearest {
    hits: Vec<ChunkHit>,
    plan: Plan,
    candidates: i64,
    saw_all: bool,
}

impl From<Compared> for Nearest {
    fn from(compared: Compared) -> Self {
        Self { hits: compared.hits, plan: Plan::Exact, candidates: compared.candidates, saw_all: true }
    }
}

/// Whether an answer by the index may say that nothing is missing. At a low effort it looks too little for that.
fn promises_all(effort: Effort) -> bool {
    effort != Effort::Low
}

/// How many to compare one by one before the index is asked. Comparing c of them costs c. Of `indexed` entries of the index, c
/// within the scope, it looks at `wanted` · `indexed` / c to find as many as are wanted. Both are equal at the root of the
/// product; below, comparing is both faster and right.
fn exact_cap(indexed: i64, wanted: i64) -> ExactCap {
    let break_even = |cost: f64| (cost * indexed as f64 * wanted as f64).sqrt() as i64;
    ExactCap {
        chunks: step_down(break_even(INDEX_COST)),
        contexts: break_even(INDEX_COST_FILTERED).clamp(EXACT_CONTEXTS_MIN, EXACT_CONTEXTS_MAX),
    }
}

/// The highest of [`EXACT_CHUNKS_STEPS`] that is not above; the lowest, if all are.
fn step_down(chunks: i64) -> i64 {
    let reached = EXACT_CHUNKS_STEPS.partition_point(|step| *step <= chunks);
    EXACT_CHUNKS_STEPS[reached.saturating_sub(1)]
}

/// Reads chunks with `read` until `depth` contexts are among them or there are no more; `read` answers at most as many
/// as it is asked for, best first, and whether it saw all it should.
pub(in crate::service) async fn best_per_context(
    depth: usize,
    mut read: impl AsyncFnMut(i64) -> Result<(Vec<ChunkHit>, bool)>,
) -> Result<Leg> {
    let mut chunks_max = chunks_step(depth as i64 * CHUNKS_PER_HIT);
    loop {
        let (chunks, saw_all) = read(chunks_max).await?;
        let exhausted = (chunks.len() as i64) < chunks_max;
        let mut seen = HashSet::new();
        let mut hits: Vec<ChunkHit> = chunks.into_iter().filter(|chunk| seen.insert(chunk.context)).collect();
        if hits.len() >= depth || exhausted || chunks_max >= CHUNKS_MAX {
            let complete = saw_all && (hits.len() >= depth || exhausted);
            hits.truncate(depth);
            return Ok(Leg { hits, complete });
        }
        chunks_max = chunks_step(chunks_max * CHUNKS_GROWTH);
    }
}

fn chunks_step(wanted: i64) -> i64 {
    CHUNKS_STEPS.into_iter().find(|step| *step >= wanted).unwrap_or(CHUNKS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ContextId;

    fn hit(id: u128) -> ChunkHit {
        let context = ContextId(uuid::Uuid::from_u128(id));
        ChunkHit { context, version: 1, chunk_no: 0, score: 0.5 }
    }

    fn ids(hits: &[ChunkHit]) -> Vec<u128> {
        hits.iter().map(|hit| hit.context.0.as_u128()).collect()
    }

    #[test]
    fn the_rarer_the_scope_in_the_index_the_more_are_compared() {
        assert_eq!(exact_cap(0, 40).chunks, 5_000);
        let (small, large) = (exact_cap(200_000, 40), exact_cap(10_000_000, 40));
        assert_eq!((small.chunks, small.contexts), (7_000, 4_000));
        assert_eq!((large.chunks, large.contexts), (50_000, EXACT_CONTEXTS_MAX));
    }

    #[tokio::test]
    async fn reading_goes_on_until_there_are_enough_contexts() {
        let mut reads = Vec::new();
        let leg = best_per_context(2, async |max| {
            reads.push(max);
            // The first 30 chunks all belong to context 1.
            let chunks = (0..max.min(150)).map(|n| hit(if n < 30 { 1 } else { 2 })).collect();
            Ok((chunks, true))
        })
        .await
        .unwrap();
        assert_eq!((ids(&leg.hits), leg.complete), (vec![1, 2], true));
        assert_eq!(reads, [20, 100]);
    }

    #[tokio::test]
    async fn a_cap_is_admitted() {
        let endless =
            best_per_context(2, async |max| Ok(((0..max).map(|_| hit(1)).collect(), true))).await.unwrap();
        assert!(!endless.complete);
        let gave_up = best_per_context(2, async |_| Ok((vec![hit(1)], false))).await.unwrap();
        assert!(!gave_up.complete);
    }
}
