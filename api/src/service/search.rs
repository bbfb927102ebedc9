//! Finding contexts: by meaning, by words, or by both. A leg that cannot run is left out and the answer says so.

use std::{
    collections::{HashMap, HashSet, hash_map::Entry},
    time::Instant,
};

use super::{
    Service,
    breaker::Pass,
    provider::{Unserved, is_of},
};
use crate::{
    domain::{
        Access, Context, ContextId, Degraded, Hit, HitChunk, KeywordQuery, Mode, Plan, SearchQuery,
        SearchRequest, SearchResponse, SpaceInfo, TenantId, Vector, limits::QUERY_EMBEDDING_DEADLINE,
        rrf_score,
    },
    embedding::{EmbedError, Purpose},
    error::{Code, Error, Result},
    store::{Bounded, ChunkHit, Scope},
};

/// A context may have many chunks among the best, and is answered once: so more chunks are read than hits are wanted.
const CHUNKS_PER_HIT: i64 = 4;
/// When those are too few, four times as many are read, up to this.
const CHUNKS_MAX: i64 = 6_400;
/// Each leg of a hybrid search gives at least so many hits to the fusion.
const FUSION_DEPTH_MIN: usize = 50;

/// The best chunk of each context, best first.
pub(super) struct Leg {
    pub hits: Vec<ChunkHit>,
    /// False when a cap cut the reading short.
    pub complete: bool,
}

pub(super) struct SemanticLeg {
    pub leg: Leg,
    plan: Plan,
    candidates: i64,
}

impl Service {
    /// # Errors
    /// [`Code::InvalidVector`] when a given vector is not of the active space's dimension; [`Code::UserNotAllowed`];
    /// [`Code::DatabaseUnavailable`].
    pub async fn search(&self, access: Access, request: &SearchRequest) -> Result<SearchResponse> {
        let started = Instant::now();
        let tenant = access.tenant;
        let scope =
            Scope { user_id: access.confine(request.user_id)?, context_types: request.context_types.clone() };
        let wanted = request.limit as usize;
        let depth = if request.mode == Mode::Hybrid { wanted.max(FUSION_DEPTH_MIN) } else { wanted };
        let mut degraded = Vec::new();
        let mut space = None;
        let mut semantic = None;
        if request.mode != Mode::Keyword {
            match self.resolve_query(&request.query).await? {
                Ok((in_space, vector)) => {
                    semantic = Some(self.semantic_leg(tenant, &in_space, &vector, &scope, depth).await?);
                    space = Some(in_space);
                }
                Err(reason) => degraded.push(reason),
            }
        }
        let keyword = match &request.query {
            SearchQuery::Text(text) if request.mode != Mode::Semantic || semantic.is_none() => {
                Some(self.keyword_leg(tenant, &KeywordQuery::parse(text), &scope, depth).await?)
            }
            _ => None,
        };
        let (plan, candidates) = semantic.as_ref().map(|s| (s.plan, s.candidates)).unzip();
        let legs = [semantic.as_ref().map(|s| &s.leg), keyword.as_ref()];
        let mut complete = legs.iter().flatten().all(|leg| leg.complete);
        let mut hits = match (semantic, keyword) {
            (Some(semantic), Some(keyword)) => fuse(semantic.leg.hits, keyword.hits),
            (Some(semantic), None) => semantic.leg.hits,
            (None, Some(keyword)) => keyword.hits,
            (None, None) => Vec::new(),
        };
        hits.truncate(wanted);
        let (mut data, cut) = self.with_contexts(tenant, hits).await?;
        self.extend_life(access, data.iter_mut().map(|hit| &mut hit.context)).await;
        complete &= !cut;
        record(request.mode, plan, &degraded);
        let took_ms = started.elapsed().as_secs_f64() * 1000.0;
        Ok(SearchResponse { data, plan, candidates, complete, degraded, space, took_ms })
    }

    /// The space to search and the vector to search for; the inner error says why the semantic leg has to be left out.
    async fn resolve_query(&self, query: &SearchQuery) -> Result<Result<(SpaceInfo, Vector), Degraded>> {
        let Some(space) = self.active_space().await? else { return Ok(Err(Degraded::NoEmbeddingSpace)) };
        match query {
            SearchQuery::Vector(vector) if vector.dimensions() == space.dims as usize => {
                Ok(Ok((space, vector.clone())))
            }
            SearchQuery::Vector(vector) => Err(Error::new(
                Code::InvalidVector,
                format!(
                    "The active embedding space has {} dimensions, the vector {}.",
                    space.dims,
                    vector.dimensions()
                ),
            )
            .with_violation("/vector", format!("must have {} numbers", space.dims))),
            SearchQuery::Text(text) => Ok(self.embed_query(&space, text).await.map(|vector| (space, vector))),
        }
    }

    pub(super) async fn embed_query(&self, space: &SpaceInfo, text: &str) -> Result<Vector, Degraded> {
        let provider = self.provider_of(space).map_err(|unserved| match unserved {
            Unserved::OtherModels => Degraded::EmbeddingModelMismatch,
            // Known to be away: do not make every search wait for the deadline.
            Unserved::Away => Degraded::EmbedderUnavailable,
        })?;
        let make = async {
            if provider.query_breaker.pass() == Pass::Refused {
                return Err(EmbedError::transient("the provider failed a moment ago"));
            }
            let embed = provider.embedder.embed(Purpose::Query, vec![text.to_owned()]);
            // At the same time, so that it costs no query its time: what is cached must not be another model's.
            let both = async { tokio::join!(embed, provider.embedder.model()) };
            let vectors = match tokio::time::timeout(QUERY_EMBEDDING_DEADLINE, both).await {
                Ok((_, Ok(model))) if !is_of(&model, space) => {
                    Err(EmbedError::transient("the provider has another model now"))
                }
                Ok((result, _)) => result,
                Err(_) => Err(EmbedError::transient("the query was not embedded in time")),
            };
            match &vectors {
                // It is well, and takes other queries.
                Ok(_) | Err(EmbedError::Permanent { .. }) => provider.query_breaker.close(),
                Err(_) => {
                    provider.query_breaker.open(None);
                }
            }
            let vectors = vectors?;
            match vectors.into_iter().next() {
                Some(vector) if vector.dimensions() == space.dims as usize => Ok(vector),
                _ => Err(EmbedError::transient("the provider's dimension is not the space's")),
            }
        };
        self.cache.query_vector(space, text, make).await.map_err(|error| {
            tracing::warn!(%error, "a query could not be embedded");
            Degraded::EmbedderUnavailable
        })
    }

    pub(super) async fn semantic_leg(
        &self,
        tenant: TenantId,
        space: &SpaceInfo,
        vector: &Vector,
        scope: &Scope,
        depth: usize,
    ) -> Result<SemanticLeg> {
        let (mut plan, mut candidates) = (Plan::Exact, 0);
        let leg = best_per_context(depth, async |chunks_max| {
            let answer = self.store.search_semantic(tenant, space, vector, scope, chunks_max).await?;
            (plan, candidates) = (answer.plan, answer.candidates);
            let found = answer.hits.len() as i64;
            // Fewer than asked for and fewer than there are: the index scan gave up.
            let complete = found >= chunks_max.min(answer.candidates);
            Ok((answer.hits, complete))
        })
        .await?;
        Ok(SemanticLeg { leg, plan, candidates })
    }

    async fn with_contexts(&self, tenant: TenantId, hits: Vec<ChunkHit>) -> Result<(Vec<Hit>, bool)> {
        if hits.is_empty() {
            return Ok((Vec::new(), false));
        }
        let ids: Vec<ContextId> = hits.iter().map(|hit| hit.context).collect();
        let Bounded { rows: contexts, cut } = self.store.find_contexts(tenant, &ids).await?;
        let mut by_id: HashMap<ContextId, Context> =
            contexts.into_iter().map(|context| (context.id, context)).collect();
        // What was deleted since the legs were read is left out.
        let hits = hits
            .into_iter()
            .filter_map(|hit| {
                let context = by_id.remove(&hit.context)?;
                Some(Hit {
                    context,
                    score: hit.score,
                    chunk: HitChunk { chunk_no: hit.chunk_no, text: hit.text },
                })
            })
            .collect();
        Ok((hits, cut))
    }
}

/// Reads chunks with `read` until `depth` contexts are among them or there are no more; `read` answers at most as many
/// as it is asked for, best first, and whether it saw all it should.
pub(super) async fn best_per_context(
    depth: usize,
    mut read: impl AsyncFnMut(i64) -> Result<(Vec<ChunkHit>, bool)>,
) -> Result<Leg> {
    let mut chunks_max = (depth as i64 * CHUNKS_PER_HIT).min(CHUNKS_MAX);
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
        chunks_max = (chunks_max * 4).min(CHUNKS_MAX);
    }
}

/// Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009), with the keyword leg's ranks weighed by how much of
/// the query they have: sharing one common word with a question says little. When some have every word, only those count
/// as found by words: the others would outvote an exact name. They keep their place at the end, so that no answer is
/// shorter for it.
fn fuse(semantic: Vec<ChunkHit>, keyword: Vec<ChunkHit>) -> Vec<ChunkHit> {
    let strict = keyword.iter().any(|hit| hit.coverage >= 1.0);
    let weight = |coverage: f64| if strict && coverage < 1.0 { 0.0 } else { coverage.powi(2) };
    let mut fused: HashMap<ContextId, (ChunkHit, usize)> = HashMap::new();
    // Keyword first: of equal scores the hit that has the words stands first, and shows the chunk that has them.
    for (order, hit) in keyword.into_iter().enumerate() {
        let score = weight(hit.coverage) * rrf_score(order + 1);
        fused.insert(hit.context, (ChunkHit { score, ..hit }, order));
    }
    let keyword_count = fused.len();
    for (position, hit) in semantic.into_iter().enumerate() {
        let score = rrf_score(position + 1);
        match fused.entry(hit.context) {
            Entry::Occupied(mut entry) => entry.get_mut().0.score += score,
            Entry::Vacant(entry) => {
                entry.insert((ChunkHit { score, ..hit }, keyword_count + position));
            }
        }
    }
    let mut fused: Vec<(ChunkHit, usize)> = fused.into_values().collect();
    fused.sort_by(|(a, a_order), (b, b_order)| b.score.total_cmp(&a.score).then(a_order.cmp(b_order)));
    fused.into_iter().map(|(hit, _)| hit).collect()
}

fn record(mode: Mode, plan: Option<Plan>, degraded: &[Degraded]) {
    let plan: &'static str = plan.map_or("none", Into::into);
    let mode: &'static str = mode.into();
    metrics::counter!("searches_total", "mode" => mode, "plan" => plan).increment(1);
    for reason in degraded {
        let reason: &'static str = reason.into();
        metrics::counter!("searches_degraded_total", "reason" => reason).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hit(id: u128, coverage: f64) -> ChunkHit {
        let context = ContextId(uuid::Uuid::from_u128(id));
        ChunkHit { context, chunk_no: 0, text: String::new(), score: 0.5, coverage }
    }

    fn ids(hits: &[ChunkHit]) -> Vec<u128> {
        hits.iter().map(|hit| hit.context.0.as_u128()).collect()
    }

    #[test]
    fn what_both_legs_found_stands_above_what_one_found() {
        let fused = fuse(vec![hit(1, 1.0), hit(2, 1.0), hit(3, 1.0)], vec![hit(2, 1.0), hit(4, 1.0)]);
        assert_eq!(ids(&fused), [2, 1, 4, 3]);
    }

    #[test]
    fn an_exact_name_is_not_outvoted_by_what_shares_a_common_word() {
        // 9 alone has the whole name, and the semantic leg never heard of it; 1 is first there and shares a word.
        let fused = fuse(vec![hit(1, 1.0), hit(2, 1.0)], vec![hit(9, 1.0), hit(1, 0.3), hit(7, 0.3)]);
        assert_eq!(ids(&fused), [9, 1, 2, 7]);
    }

    #[test]
    fn a_common_word_of_a_question_weighs_little_against_its_meaning() {
        let fused = fuse(vec![hit(1, 1.0), hit(2, 1.0), hit(3, 1.0)], vec![hit(8, 0.25), hit(9, 0.25)]);
        assert_eq!(ids(&fused), [1, 2, 3, 8, 9]);
    }

    #[tokio::test]
    async fn reading_goes_on_until_there_are_enough_contexts() {
        let mut reads = Vec::new();
        let leg = best_per_context(2, async |max| {
            reads.push(max);
            // The first 20 chunks all belong to context 1.
            let chunks = (0..max.min(30)).map(|n| hit(if n < 20 { 1 } else { 2 }, 1.0)).collect();
            Ok((chunks, true))
        })
        .await
        .unwrap();
        assert_eq!((ids(&leg.hits), leg.complete), (vec![1, 2], true));
        assert_eq!(reads, [8, 32]);
    }

    #[tokio::test]
    async fn a_cap_is_admitted() {
        let endless = best_per_context(2, async |max| Ok(((0..max).map(|_| hit(1, 1.0)).collect(), true)))
            .await
            .unwrap();
        assert!(!endless.complete);
        let gave_up = best_per_context(2, async |_| Ok((vec![hit(1, 1.0)], false))).await.unwrap();
        assert!(!gave_up.complete);
    }
}
