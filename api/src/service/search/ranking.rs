//! What becomes of the hits when they are more than alike: age and diversity.

use super::fusion::Candidate;
use crate::domain::Recency;

/// Takes from each score what its age takes, and puts the hits in order again.
pub(super) fn weigh_by_age(candidates: &mut [Candidate], ages: &[Option<f64>], recency: Recency) {
    for (candidate, age) in candidates.iter_mut().zip(ages) {
        let factor = recency.factor(age.unwrap_or(0.0));
        candidate.explanation.recency = Some(factor);
        // A cosine may be negative: age never makes a hit better.
        candidate.hit.score -= candidate.hit.score.abs() * (1.0 - factor);
    }
    candidates.sort_by(|a, b| b.hit.score.total_cmp(&a.hit.score));
}

/// Maximal marginal relevance (Carbonell, Goldstein, SIGIR 1998): takes, again and again, the hit that is best when its
/// likeness to those already taken is held against it. Scores stay what they are, between the best and the worst of them they are
/// taken as 1 and 0. `vectors` are of length one; a hit without one is like no other.
pub(super) fn diversify(
    candidates: Vec<Candidate>,
    vectors: &[Option<Vec<f32>>],
    diversity: f64,
    wanted: usize,
) -> Vec<Candidate> {
    let scores = || candidates.iter().map(|candidate| candidate.hit.score);
    let (best, worst) = (scores().fold(f64::MIN, f64::max), scores().fold(f64::MAX, f64::min));
    let relevance = |score: f64| if best > worst { (score - worst) / (best - worst) } else { 1.0 };
    // Candidate, its vector, and how like it is to the most similar one taken.
    let mut rest: Vec<(Candidate, Option<&[f32]>, f64)> = candidates
        .into_iter()
        .zip(vectors)
        .map(|(candidate, vector)| (candidate, vector.as_deref(), 0.0))
        .collect();
    let mut taken = Vec::new();
    while taken.len() < wanted && !rest.is_empty() {
        let value = |(candidate, _, likeness): &(Candidate, Option<&[f32]>, f64)| {
            (1.0 - diversity) * relevance(candidate.hit.score) - diversity * likeness
        };
        // The first of the best, so that without diversity nothing changes.
        let mut next = 0;
        for index in 1..rest.len() {
            if value(&rest[index]) > value(&rest[next]) {
                next = index;
            }
        }
        let (mut candidate, vector, likeness) = rest.remove(next);
        candidate.explanation.similarity = Some(likeness);
        for (_, other, likeness) in &mut rest {
            if let (Some(vector), Some(other)) = (vector, *other) {
                let cosine = inner_product(vector, other);
                *likeness = if taken.is_empty() { cosine } else { likeness.max(cosine) };
            }
        }
        taken.push(candidate);
    }
    taken
}

fn inner_product(a: &[f32], b: &[f32]) -> f64 {
    f64::from(a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::{ContextId, Explanation},
        store::ChunkHit,
    };

    fn candidate(id: u128, score: f64) -> Candidate {
        let context = ContextId(uuid::Uuid::from_u128(id));
        let hit = ChunkHit { context, version: 1, chunk_no: 0, score };
        Candidate { hit, explanation: Explanation::default() }
    }

    fn ids(candidates: &[Candidate]) -> Vec<u128> {
        candidates.iter().map(|candidate| candidate.hit.context.0.as_u128()).collect()
    }

    #[test]
    fn age_takes_its_share_and_no_more() {
        let mut hits = vec![candidate(1, 0.9), candidate(2, 0.8), candidate(3, -0.1)];
        let recency = Recency { half_life_seconds: 10.0, weight: 0.5 };
        weigh_by_age(&mut hits, &[Some(10.0), Some(0.0), Some(10.0)], recency);
        assert_eq!(ids(&hits), [2, 1, 3]);
        assert!((hits[1].hit.score - 0.675).abs() < 1e-12 && (hits[2].hit.score + 0.125).abs() < 1e-12);
        assert_eq!(hits[0].explanation.recency, Some(1.0));
    }

    #[test]
    fn a_copy_gives_way_to_what_is_different() {
        let hits = || vec![candidate(1, 1.0), candidate(2, 0.9), candidate(3, 0.5), candidate(4, 0.0)];
        let vectors = [Some(vec![1.0, 0.0]), Some(vec![1.0, 0.0]), Some(vec![0.0, 1.0]), None];
        assert_eq!(ids(&diversify(hits(), &vectors, 0.5, 3)), [1, 3, 4]);
        assert_eq!(ids(&diversify(hits(), &vectors, 0.01, 3)), [1, 2, 3]);
        assert_eq!(ids(&diversify(hits(), &vectors, 1.0, 9)).len(), 4, "none is lost");
        let explained = diversify(hits(), &vectors, 0.01, 2);
        assert_eq!(explained[1].explanation.similarity, Some(1.0));
    }

    #[test]
    fn equal_scores_keep_their_order() {
        let hits = vec![candidate(1, 0.5), candidate(2, 0.5)];
        assert_eq!(ids(&diversify(hits, &[None, None], 0.5, 2)), [1, 2]);
    }
}
