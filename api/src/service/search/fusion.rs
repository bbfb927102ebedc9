//! Making one list of what the legs found.

use std::collections::{HashMap, hash_map::Entry};

use crate::{
    domain::{ContextId, Explanation, FoundByLeg, Weights, rrf_score},
    store::ChunkHit,
};

/// A hit on its way into the answer: its score is what counts so far.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    pub hit: ChunkHit,
    pub explanation: Explanation,
}

/// What both legs found, and the score in the other leg of each hit that only one of them found.
pub(super) struct BothLegs {
    pub semantic: Vec<ChunkHit>,
    pub keyword: Vec<ChunkHit>,
    /// Of the chunks of `keyword`: how much each has of the most that a text could get for the words of the query.
    pub shares: Vec<f64>,
    /// Of the chunks of `keyword`; none for one that is not embedded yet.
    pub cosines: Vec<Option<f64>>,
    /// Of the chunks of `semantic`, as `shares`.
    pub shares_of_semantic: Vec<f64>,
}

impl BothLegs {
    /// Of a search without a semantic leg.
    pub fn by_words(keyword: Vec<ChunkHit>, shares: Vec<f64>) -> Self {
        let cosines = vec![None; keyword.len()];
        Self { semantic: Vec::new(), keyword, shares, cosines, shares_of_semantic: Vec::new() }
    }
}

/// What one leg found, as it found it.
pub(super) fn in_order(
    hits: Vec<ChunkHit>,
    place: fn(&mut Explanation) -> &mut Option<FoundByLeg>,
) -> Vec<Candidate> {
    let candidate = |(index, hit): (usize, ChunkHit)| {
        let mut explanation = Explanation { fused: hit.score, ..Explanation::default() };
        *place(&mut explanation) = Some(FoundByLeg { rank: index + 1, score: hit.score });
        Candidate { hit, explanation }
    };
    hits.into_iter().enumerate().map(candidate).collect()
}

/// Fuses by the scores themselves: the weighted mean of the cosine and of the share that the keyword score has of the most that
/// a text could get for the query. Both depend on nothing but the query and the chunk, so the score of a context with one chunk
/// does not change with what else is found. What only one leg found has been given its score in the other (`cosines`,
/// `shares_of_semantic`). Why not by rank: `docs/adr/0017-fusion-by-scores.md`.
pub(super) fn fuse_by_score(legs: BothLegs, weights: Weights) -> Vec<Candidate> {
    let BothLegs { semantic, keyword, shares, cosines, shares_of_semantic } = legs;
    let Weights { semantic: by_cosine, keyword: by_share } = normalized(weights);
    let keyword = in_order(keyword, |explanation| &mut explanation.keyword).into_iter();
    let by_words = keyword
        .zip(shares.into_iter().zip(cosines))
        .map(|(candidate, (share, cosine))| (candidate, by_share * share, by_cosine * cosine.unwrap_or(0.0)));
    let semantic = in_order(semantic, |explanation| &mut explanation.semantic).into_iter();
    let by_meaning = semantic.zip(shares_of_semantic).map(|(candidate, share)| {
        let part = by_cosine * candidate.hit.score;
        (candidate, part, by_share * share)
    });
    merge(by_words.collect(), by_meaning.collect())
}

/// With a sum of 1.
fn normalized(weights: Weights) -> Weights {
    let whole = weights.semantic + weights.keyword;
    Weights { semantic: weights.semantic / whole, keyword: weights.keyword / whole }
}

/// Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009): the legs' scores do not count, only the order of their hits.
/// Scores are from 0 to 1, which is to be first in both.
pub(super) fn fuse_by_rank(
    semantic: Vec<ChunkHit>,
    keyword: Vec<ChunkHit>,
    weights: Weights,
) -> Vec<Candidate> {
    let weights = normalized(weights);
    let ranked = |candidates: Vec<Candidate>, weight: f64| {
        let part = |(index, candidate)| (candidate, weight * rrf_score(index + 1) / rrf_score(1), 0.0);
        candidates.into_iter().enumerate().map(part).collect()
    };
    merge(
        ranked(in_order(keyword, |explanation| &mut explanation.keyword), weights.keyword),
        ranked(in_order(semantic, |explanation| &mut explanation.semantic), weights.semantic),
    )
}

/// A candidate of one leg, what that leg gives it, and what it is given if the other leg did not find it.
type Part = (Candidate, f64, f64);

/// The sum of both parts of what both found. Of equal scores the hit that has the words stands first, and shows the chunk that
/// has them.
fn merge(by_words: Vec<Part>, by_meaning: Vec<Part>) -> Vec<Candidate> {
    let words_count = by_words.len();
    let mut fused: HashMap<ContextId, (Candidate, f64, f64, usize)> = HashMap::new();
    for (order, (candidate, part, other)) in by_words.into_iter().enumerate() {
        fused.insert(candidate.hit.context, (candidate, part, other, order));
    }
    for (order, (candidate, part, other)) in by_meaning.into_iter().enumerate() {
        match fused.entry(candidate.hit.context) {
            Entry::Occupied(mut entry) => {
                let (present, _, theirs, _) = entry.get_mut();
                present.explanation.semantic = candidate.explanation.semantic;
                *theirs = part;
            }
            Entry::Vacant(entry) => {
                entry.insert((candidate, part, other, words_count + order));
            }
        }
    }
    let mut fused: Vec<_> = fused
        .into_values()
        .map(|(candidate, part, other, order)| (candidate.scored(part + other), order))
        .collect();
    fused
        .sort_by(|(a, a_order), (b, b_order)| b.hit.score.total_cmp(&a.hit.score).then(a_order.cmp(b_order)));
    fused.into_iter().map(|(candidate, _)| candidate).collect()
}

impl Candidate {
    fn scored(mut self, score: f64) -> Self {
        self.hit.score = score;
        self.explanation.fused = score;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hits(scores: &[(u128, f64)]) -> Vec<ChunkHit> {
        let hit = |&(id, score): &(u128, f64)| ChunkHit {
            context: ContextId(uuid::Uuid::from_u128(id)),
            version: 1,
            chunk_no: 0,
            score,
        };
        scores.iter().map(hit).collect()
    }

    fn ids(candidates: &[Candidate]) -> Vec<u128> {
        candidates.iter().map(|candidate| candidate.hit.context.0.as_u128()).collect()
    }

    const EQUAL: Weights = Weights { semantic: 1.0, keyword: 1.0 };

    #[test]
    fn by_rank_what_both_legs_found_stands_above_what_one_found() {
        let semantic = hits(&[(1, 0.9), (2, 0.8), (3, 0.7)]);
        let fused = fuse_by_rank(semantic, hits(&[(2, 5.0), (4, 4.0)]), EQUAL);
        assert_eq!(ids(&fused), [2, 1, 4, 3]);
        let (semantic, keyword) = (fused[0].explanation.semantic, fused[0].explanation.keyword);
        assert_eq!((semantic.unwrap().rank, keyword.unwrap().rank), (2, 1));
        assert_eq!((fused[1].explanation.keyword, fused[2].explanation.semantic), (None, None));
        let first_in_both =
            fuse_by_rank(hits(&[(1, 0.1)]), hits(&[(1, 0.1)]), Weights { semantic: 3.0, keyword: 0.5 });
        assert!((first_in_both[0].hit.score - 1.0).abs() < 1e-12);
        let hardly = Weights { semantic: 1e-323, keyword: 0.0 };
        let by_meaning = fuse_by_rank(hits(&[(1, 0.1)]), Vec::new(), hardly);
        assert!((by_meaning[0].hit.score - 1.0).abs() < 1e-12);
    }

    #[test]
    fn by_rank_weights_decide_between_the_legs() {
        let by = |semantic, keyword| {
            ids(&fuse_by_rank(hits(&[(1, 0.5)]), hits(&[(2, 0.5)]), Weights { semantic, keyword }))
        };
        assert_eq!((by(2.0, 1.0), by(1.0, 2.0)), (vec![1, 2], vec![2, 1]));
    }

    #[test]
    fn by_score_each_is_weighed_in_both_legs_whichever_found_it() {
        let legs = BothLegs {
            semantic: hits(&[(1, 0.9), (2, 0.5)]),
            keyword: hits(&[(9, 8.0), (2, 5.0)]),
            shares: vec![0.8, 0.5],
            cosines: vec![Some(0.3), Some(0.5)],
            shares_of_semantic: vec![0.1, 0.5],
        };
        let fused = fuse_by_score(legs, EQUAL);
        // 9: (0.3 + 0.8) / 2; 1: (0.9 + 0.1) / 2, 2: (0.5 + 0.5) / 2, which has the words.
        assert_eq!(ids(&fused), [9, 2, 1]);
        let scores: Vec<f64> = fused.iter().map(|candidate| candidate.hit.score).collect();
        assert!(scores.iter().zip([0.55, 0.5, 0.5]).all(|(a, b)| (a - b).abs() < 1e-12), "{scores:?}");
    }

    #[test]
    fn by_score_what_is_not_embedded_yet_counts_by_its_words() {
        let legs = BothLegs::by_words(hits(&[(1, 4.0)]), vec![0.5]);
        let fused = fuse_by_score(legs, Weights { semantic: 1.0, keyword: 3.0 });
        assert!((fused[0].hit.score - 0.375).abs() < 1e-12);
    }

    #[test]
    fn a_query_without_words_is_answered_by_meaning() {
        let legs = BothLegs {
            semantic: hits(&[(1, 0.8)]),
            keyword: Vec::new(),
            shares: Vec::new(),
            cosines: Vec::new(),
            shares_of_semantic: vec![0.0],
        };
        assert_eq!(ids(&fuse_by_score(legs, EQUAL)), [1]);
    }
}
