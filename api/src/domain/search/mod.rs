//! What is searched for, and what is answered.

mod answer;
mod input;

use time::OffsetDateTime;

use serde::{Deserialize, Serialize};
use strum::IntoStaticStr;
use utoipa::ToSchema;

pub use self::{
    answer::{
        Degraded, Explanation, FoundByLeg, Hit, HitChunk, HitContext, Plan, SearchResponse, SearchTimings,
    },
    input::SearchInput,
};
use super::{ContextType, Filter, UserId, Vector};

/// How to look: by meaning, by words, or both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Mode {
    /// Both legs, fused as `fusion` says.
    #[default]
    Hybrid,
    /// Nearest embeddings.
    Semantic,
    /// Full text.
    Keyword,
}

/// How much is done for what is nearest to be among the hits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// The index of neighbours looks at a tenth: several times as many searches a second, and about three of a hundred hits are
    /// not the nearest.
    Low,
    /// About one of a thousand is not.
    #[default]
    Normal,
    /// Every candidate is compared, however many there are.
    Exact,
}

/// What to look for.
#[derive(Clone, Debug)]
pub enum SearchQuery {
    Text(String),
    /// A vector of the active space, made by the caller.
    Vector(Vector),
}

/// Which contexts are looked at. Besides, only what holds at the time: see `valid_from`.
#[derive(Clone, Debug, Default)]
pub struct SearchScope {
    pub user_id: Option<UserId>,
    /// Empty means every type.
    pub context_types: Vec<ContextType>,
    pub filter: Option<Filter>,
    /// What holds then, instead of now or of [`SearchScope::as_of`].
    pub valid_at: Option<OffsetDateTime>,
    /// As everything was then.
    pub as_of: Option<OffsetDateTime>,
}

impl SearchScope {
    /// Whether it takes whatever is valid.
    pub fn is_whole_tenant(&self) -> bool {
        self.user_id.is_none() && self.context_types.is_empty() && self.filter.is_none()
    }
}

/// How a hybrid search makes one list of two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Fusion {
    /// By the weighted mean of the legs' scores.
    #[default]
    Score,
    /// By reciprocal ranks, k = 60.
    Rank,
}

/// How much each leg of a hybrid search counts. Finite, at least 0, not both 0.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Weights {
    pub semantic: f64,
    pub keyword: f64,
}

/// What was best by a little on the corpus of `docs/evaluation.md`, in a range where little changes.
impl Default for Weights {
    fn default() -> Self {
        Self { semantic: 0.4, keyword: 0.6 }
    }
}

/// What is new comes first: with each half-life since its last write, half of the share `weight` of a hit's score is lost.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recency {
    /// Above 0.
    pub half_life_seconds: f64,
    /// 0 to 1.
    pub weight: f64,
}

impl Recency {
    /// What is left of a score after so many seconds: from 1 down to 1 − `weight`.
    pub fn factor(self, age_seconds: f64) -> f64 {
        let decay = (-age_seconds.max(0.0) / self.half_life_seconds).exp2();
        1.0 - self.weight + self.weight * decay
    }
}

/// What becomes of the hits that the legs found.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Ranking {
    pub fusion: Fusion,
    pub weights: Weights,
    pub recency: Option<Recency>,
    /// Hits with a lower score are left out.
    pub min_score: Option<f64>,
    /// 0 to 1: how much a hit loses by being like those before it. 0 is as if it were not asked for.
    pub diversity: f64,
}

/// Which of the large fields of a context a hit brings along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Included {
    pub content: bool,
    pub metadata: bool,
    pub text: bool,
}

impl Included {
    pub const ALL: Self = Self { content: true, metadata: true, text: true };
    pub const NOTHING: Self = Self { content: false, metadata: false, text: false };
}

/// A search.
#[derive(Clone, Debug)]
pub struct SearchRequest {
    pub query: SearchQuery,
    pub mode: Mode,
    pub scope: SearchScope,
    /// Hits wanted.
    pub limit: u32,
    pub ranking: Ranking,
    pub effort: Effort,
    pub explain: bool,
    pub include: Included,
    /// Ask the reranker for the order of the hits.
    pub rerank: bool,
}

impl SearchRequest {
    /// Whether the hits are simply the contexts that are nearest in meaning, as everything is now.
    pub fn is_decided_by_nearness(&self) -> bool {
        let Ranking { recency, diversity, .. } = self.ranking;
        self.mode == Mode::Semantic
            && !self.rerank
            && recency.is_none()
            && diversity <= 0.0
            && self.scope.as_of.is_none()
    }

    /// Whether the answer stays the same while nothing changes: not the ages of contexts, nor how long something took.
    pub fn is_lasting(&self) -> bool {
        self.ranking.recency.is_none() && !self.explain
    }
}

/// The constant of reciprocal rank fusion: Cormack, Clarke, Büttcher, SIGIR 2009, found 60 to work best.
pub const RRF_K: f64 = 60.0;

/// What a hit of `rank` (from 1) in one leg adds to its fused score.
pub fn rrf_score(rank: usize) -> f64 {
    1.0 / (RRF_K + rank as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_better_rank_adds_more() {
        assert!(rrf_score(1) > rrf_score(2));
        assert!((rrf_score(1) - 1.0 / 61.0).abs() < f64::EPSILON);
    }

    #[test]
    fn recency_halves_its_share_with_each_half_life() {
        let recency = Recency { half_life_seconds: 3600.0, weight: 0.5 };
        for (age, expected) in [(0.0, 1.0), (-5.0, 1.0), (3600.0, 0.75), (7200.0, 0.625), (1e12, 0.5)] {
            assert!((recency.factor(age) - expected).abs() < 1e-12, "{age}");
        }
        let all = Recency { half_life_seconds: 1.0, weight: 1.0 };
        assert!(all.factor(1e9) == 0.0);
    }
}
