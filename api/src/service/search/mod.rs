//! Finding contexts: by meaning, by words, or by both. A leg that cannot run is left out and the answer says so. What the legs
//! found is fused, weighed and thinned out, and only what is left is read whole.

mod admission;
mod fusion;
mod legs;
mod query;
mod ranking;

use std::{borrow::Cow, time::Instant};

pub(super) use self::admission::Admission;
pub(super) use self::legs::{Leg, ScopeMemory, Semantic, best_per_context};
use self::{
    fusion::{BothLegs, Candidate, fuse_by_rank, fuse_by_score, in_order},
    legs::SemanticLeg,
};
use super::{Service, keyword::KeywordLeg};
use crate::{
    domain::{
        Access, Degraded, Fusion, Hit, HitContext, Included, KeywordQuery, Mode, Plan, Ranking, SearchQuery,
        SearchRequest, SearchResponse, SearchScope, SearchTimings, SpaceInfo, TenantId, Vector, Weights,
        limits::RERANK_DEPTH_MIN,
    },
    error::Result,
    store::{Bounded, ChunkHit, Found},
    telemetry::spans,
};

/// Each leg gives at least so many hits where what comes after may change their order.
const DEPTH_MIN: usize = 50;
/// With recency or diversity a hit may come from further down.
const DEPTH_PER_HIT: usize = 4;

/// The query as it is compared, and where.
#[derive(Clone)]
struct QueryVector {
    space: SpaceInfo,
    vector: Vector,
}

/// What the legs found of a request, and what they had to do without.
#[derive(Default)]
struct Legs {
    semantic: Option<(SemanticLeg, QueryVector)>,
    keyword: Option<KeywordLeg>,
    degraded: Vec<Degraded>,
}

impl Service {
    /// # Errors
    /// [`crate::error::Code::InvalidVector`] when a given vector is not of the active space's dimension;
    /// [`crate::error::Code::TooManySearches`]; [`crate::error::Code::Overloaded`]; [`crate::error::Code::DatabaseUnavailable`].
    pub async fn search(&self, access: Access, request: &SearchRequest) -> Result<SearchResponse> {
        let started = Instant::now();
        let _turn = self.admission.enter(access.tenant).await?;
        self.store.admit()?;
        // It needs the database several times. Once begun it is not given up: what it has cost by then would be for nothing.
        Box::pin(self.patient().search_admitted(access, request, started)).await
    }

    async fn search_admitted(
        &self,
        access: Access,
        request: &SearchRequest,
        started: Instant,
    ) -> Result<SearchResponse> {
        let mut timings = SearchTimings::default();
        let answered = request;
        let request = &to_be_reranked(request);
        let mut legs = self.run_legs(access.tenant, request, &mut timings).await?;
        let ranking = Instant::now();
        let (plan, candidates) = legs.semantic.as_ref().map(|(leg, _)| (leg.plan, leg.candidates)).unzip();
        let mut complete = legs.semantic.as_ref().is_none_or(|(leg, _)| leg.leg.complete)
            && legs.keyword.as_ref().is_none_or(|keyword| keyword.leg.complete);
        let mut degraded = legs.degraded.clone();
        let space = legs.semantic.as_ref().map(|(_, query)| query.space.clone());
        let found = legs.semantic.as_mut().and_then(|(leg, _)| leg.found.take());
        let mut ranked = self.rank(access.tenant, request, legs).await?;
        timings.rank_ms = milliseconds(ranking);
        if let (true, SearchQuery::Text(text)) = (request.rerank, &request.query) {
            let reranking = Instant::now();
            let wanted = ranked.len();
            degraded.extend(self.rerank(access.tenant, &request.scope, text, &mut ranked).await?);
            complete &= ranked.len() >= wanted.min(answered.limit as usize);
            ranked.truncate(answered.limit as usize);
            timings.rerank_ms = milliseconds(reranking);
        }
        let loading = Instant::now();
        let (data, cut) = self.load(access, request, ranked, found).await?;
        timings.load_ms = milliseconds(loading);
        complete &= !cut;
        record(request.mode, plan, &degraded);
        Ok(SearchResponse {
            data,
            plan,
            candidates,
            complete,
            degraded,
            space,
            took_ms: milliseconds(started),
            timings: request.explain.then_some(timings),
        })
    }

    async fn run_legs(
        &self,
        tenant: TenantId,
        request: &SearchRequest,
        timings: &mut SearchTimings,
    ) -> Result<Legs> {
        let depth = depth(request);
        let keyword = async |text: &str| {
            let began = Instant::now();
            let query = KeywordQuery::parse(text);
            let leg = Box::pin(self.keyword_leg(tenant, &query, &request.scope, depth)).await?;
            Ok::<_, crate::error::Error>((leg, milliseconds(began)))
        };
        let semantic = async {
            let began = Instant::now();
            let resolved = Box::pin(self.resolve_query(&request.query)).await?;
            let embed_ms = milliseconds(began);
            let began = Instant::now();
            let found = match resolved {
                Ok((space, vector)) => {
                    let include = request.is_decided_by_nearness().then_some(request.include);
                    let effort = request.effort;
                    let semantic = Semantic { space: &space, vector: &vector, effort, include };
                    let leg = Box::pin(self.semantic_leg(tenant, &semantic, &request.scope, depth)).await?;
                    Ok((leg, QueryVector { space, vector }))
                }
                Err(reason) => Err(reason),
            };
            Ok::<_, crate::error::Error>((found, embed_ms, milliseconds(began)))
        };
        let mut legs = Legs::default();
        let text = match &request.query {
            SearchQuery::Text(text) => Some(text.as_str()),
            SearchQuery::Vector(_) => None,
        };
        // Side by side: the embedding of the query is made meanwhile.
        let (by_meaning, by_words) = match (request.mode, text) {
            (Mode::Keyword, Some(text)) => (None, Some(keyword(text).await?)),
            (Mode::Hybrid, Some(text)) => {
                let (by_meaning, by_words) = tokio::try_join!(semantic, keyword(text))?;
                (Some(by_meaning), Some(by_words))
            }
            _ => (Some(semantic.await?), None),
        };
        if let Some((found, embed_ms, semantic_ms)) = by_meaning {
            (timings.embed_ms, timings.semantic_ms) = (embed_ms, semantic_ms);
            match found {
                Ok(found) => legs.semantic = Some(found),
                Err(reason) => legs.degraded.push(reason),
            }
        }
        if let Some((_, query)) = &legs.semantic
            && self.store.lacks_past_embeddings(tenant, &query.space, &request.scope).await?
        {
            legs.degraded.push(Degraded::HistoryNotEmbedded);
        }
        // Better by words alone than not at all.
        let by_words = match (by_words, text) {
            (None, Some(text)) if legs.semantic.is_none() => Some(keyword(text).await?),
            (by_words, _) => by_words,
        };
        if let Some((leg, keyword_ms)) = by_words {
            legs.keyword = Some(leg);
            timings.keyword_ms = keyword_ms;
        }
        Ok(legs)
    }

    /// The hits that are answered, best first.
    async fn rank(&self, tenant: TenantId, request: &SearchRequest, legs: Legs) -> Result<Vec<Candidate>> {
        let ranking = &request.ranking;
        let query = legs.semantic.as_ref().map(|(_, query)| query.clone());
        let mut candidates = Box::pin(self.fuse(tenant, request, legs)).await?;
        if let Some(recency) = ranking.recency {
            let hits: Vec<&ChunkHit> = candidates.iter().map(|candidate| &candidate.hit).collect();
            let ages = self.store.ages_of_hits(tenant, &request.scope, &hits).await?;
            ranking::weigh_by_age(&mut candidates, &ages, recency);
        }
        if let Some(min_score) = ranking.min_score {
            candidates.retain(|candidate| candidate.hit.score >= min_score);
        }
        let wanted = request.limit as usize;
        if ranking.diversity > 0.0
            && let Some(space) = query.map(|query| query.space).or(self.active_space().await?)
        {
            let hits: Vec<&ChunkHit> = candidates.iter().map(|candidate| &candidate.hit).collect();
            let vectors = self.store.vectors_of_hits(tenant, &space, &request.scope, &hits).await?;
            candidates = ranking::diversify(candidates, &vectors, ranking.diversity, wanted);
        }
        candidates.truncate(wanted);
        Ok(candidates)
    }

    /// One list of what the legs found.
    async fn fuse(&self, tenant: TenantId, request: &SearchRequest, legs: Legs) -> Result<Vec<Candidate>> {
        let Ranking { weights, fusion, .. } = request.ranking;
        Ok(match (legs.semantic, legs.keyword) {
            (Some((semantic, _)), Some(keyword)) if fusion == Fusion::Rank => {
                fuse_by_rank(semantic.leg.hits, keyword.leg.hits, weights)
            }
            (Some((semantic, query)), Some(keyword)) => {
                let (by_meaning, by_words) = (semantic.leg.hits, keyword.leg.hits);
                let found_by_words: Vec<&ChunkHit> = by_words.iter().collect();
                let found_by_meaning: Vec<&ChunkHit> = by_meaning.iter().collect();
                let (cosines, keyword_scores) = tokio::try_join!(
                    spans::database(
                        "score by meaning",
                        self.store.cosines_of_hits(
                            tenant,
                            &query.space,
                            &query.vector,
                            &request.scope,
                            &found_by_words
                        )
                    ),
                    self.keyword_scores(tenant, &keyword.words, &request.scope, &found_by_meaning),
                )?;
                let words = &keyword.words;
                let scores = by_words.iter().map(|hit| hit.score);
                let shares =
                    self.keyword_shares(tenant, words, &request.scope, &found_by_words, scores).await?;
                let scores = keyword_scores.into_iter();
                let shares_of_semantic =
                    self.keyword_shares(tenant, words, &request.scope, &found_by_meaning, scores).await?;
                let (semantic, keyword) = (by_meaning, by_words);
                fuse_by_score(BothLegs { semantic, keyword, shares, cosines, shares_of_semantic }, weights)
            }
            (Some((semantic, _)), None) => {
                in_order(semantic.leg.hits, |explanation| &mut explanation.semantic)
            }
            // Of a hybrid search, with its scores as far as they can be had.
            (None, Some(keyword)) if request.mode == Mode::Hybrid => {
                let weights = Weights { semantic: 0.0, keyword: 1.0 };
                let hits = keyword.leg.hits;
                if fusion == Fusion::Rank {
                    fuse_by_rank(Vec::new(), hits, weights)
                } else {
                    let found: Vec<&ChunkHit> = hits.iter().collect();
                    let scores = hits.iter().map(|hit| hit.score);
                    let shares =
                        self.keyword_shares(tenant, &keyword.words, &request.scope, &found, scores).await?;
                    fuse_by_score(BothLegs::by_words(hits, shares), weights)
                }
            }
            (None, Some(keyword)) => in_order(keyword.leg.hits, |explanation| &mut explanation.keyword),
            (None, None) => Vec::new(),
        })
    }

    /// Gives the candidates the reranker's scores and order. When it cannot be had, they stay as they are, and the answer is why.
    async fn rerank(
        &self,
        tenant: TenantId,
        scope: &SearchScope,
        query: &str,
        candidates: &mut Vec<Candidate>,
    ) -> Result<Option<Degraded>> {
        let hits: Vec<&ChunkHit> = candidates.iter().map(|candidate| &candidate.hit).collect();
        let found = self.store.load_hits(tenant, scope, Included::NOTHING, &hits).await?.rows;
        let texts: Vec<&str> = found.iter().map(|found| found.chunk.text.as_str()).collect();
        let scores = match self.rerank_texts(query, &texts).await {
            Ok(scores) => scores,
            Err(reason) => return Ok(Some(reason)),
        };
        let reranked = found.iter().zip(scores).filter_map(|(found, score)| {
            let mut candidate = candidates.get(found.place)?.clone();
            candidate.hit.score = score;
            Some(candidate)
        });
        *candidates = reranked.collect();
        // Of equal scores the one that stood first stays first.
        candidates.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score));
        Ok(None)
    }

    /// `found`: what came along with the candidates, in their places.
    async fn load(
        &self,
        access: Access,
        request: &SearchRequest,
        candidates: Vec<Candidate>,
        found: Option<Bounded<Found>>,
    ) -> Result<(Vec<Hit>, bool)> {
        if candidates.is_empty() {
            return Ok((Vec::new(), false));
        }
        let hits: Vec<&ChunkHit> = candidates.iter().map(|candidate| &candidate.hit).collect();
        let load = || self.store.load_hits(access.tenant, &request.scope, request.include, &hits);
        let Bounded { rows: mut found, cut } = match found {
            Some(found) => found,
            None => spans::database("load hits", load()).await?,
        };
        // What is missing because of the bytes may have been left out for its score anyway.
        let cut = cut && candidates.len() >= found.len();
        found.truncate(candidates.len());
        if request.scope.as_of.is_none() {
            self.extend_life(access, found.iter_mut().map(|found| &mut found.context)).await;
        }
        // What was written again since it was found is missing, and nothing has taken its place.
        let is_short = found.len() < candidates.len();
        let hits = found
            .into_iter()
            .filter_map(|Found { context, chunk, place }| {
                let candidate = candidates.get(place)?;
                Some(Hit {
                    context: HitContext::new(context, request.include),
                    score: candidate.hit.score,
                    chunk,
                    explain: request.explain.then_some(candidate.explanation),
                })
            })
            .collect();
        Ok((hits, cut || is_short))
    }
}

/// With more hits than are answered, where a reranker is to choose among them.
fn to_be_reranked(request: &SearchRequest) -> Cow<'_, SearchRequest> {
    if request.rerank {
        let limit = request.limit.max(RERANK_DEPTH_MIN);
        Cow::Owned(SearchRequest { limit, ..request.clone() })
    } else {
        Cow::Borrowed(request)
    }
}

/// How many contexts each leg has to give.
fn depth(request: &SearchRequest) -> usize {
    let wanted = request.limit as usize;
    let ranking = &request.ranking;
    if ranking.recency.is_some() || ranking.diversity > 0.0 {
        (wanted * DEPTH_PER_HIT).max(DEPTH_MIN)
    } else if request.mode == Mode::Hybrid {
        wanted.max(DEPTH_MIN)
    } else {
        wanted
    }
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
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
