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

/// Reciprocal rank fusion (Cormack, Clarke, Büttcher, SIGIR 2009): the legs' scores do not count, only the order of their hits.
/// Scores are from 0 to 1, which is to be first in both.
pub(super) fn fuse_by_rank(
    semantic: Vec<ChunkHit>,
    keyword: Vec<ChunkHit>,
    weights: Weights,
) -> Vec<Candidate> {
    let best = (weights.semantic + weights.keyword) * rrf_score(1);
    let ranked = |candidates: Vec<Candidate>, weight: f64| {
        let part = |(index, candidate)| (candidate, weight * rrf_score(index + 1) / best, 0.0);
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
    }

    #[test]
    fn by_rank_weights_decide_between_the_legs() {
        let by = |semantic, keyword| {
            ids(&fuse_by_rank(hits(&[(1, 0.5)]), hits(&[(2, 0.5)]), Weights { semantic, keyword }))
        };
        assert_eq!((by(2.0, 1.0), by(1.0, 2.0)), (vec![1, 2], vec![2, 1]));
    }
}
