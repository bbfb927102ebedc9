//! The measures of retrieval, as TREC's evaluations compute them: of one answer to one question, as the grades of its hits,
//! best hit first. A grade of 0 is a wrong hit.

use std::collections::{HashMap, HashSet};

/// What is right: the grade of each document that is any good.
pub(super) type Grades = HashMap<String, u32>;

/// The grades of the hits in their order. A document that comes twice counts once, where it came first.
pub(super) fn grades_of<'a>(hits: impl IntoIterator<Item = &'a str>, right: &Grades) -> Vec<u32> {
    let mut seen = HashSet::new();
    hits.into_iter().filter(|hit| seen.insert(*hit)).map(|hit| right.get(hit).copied().unwrap_or(0)).collect()
}

/// The share of the right documents that are among the first `depth` hits.
pub(super) fn recall(hits: &[u32], right: &Grades, depth: usize) -> f64 {
    let found = hits.iter().take(depth).filter(|grade| **grade > 0).count();
    let there = right.values().filter(|grade| **grade > 0).count();
    if there == 0 { 0.0 } else { found as f64 / there as f64 }
}

/// One divided by the rank of the first right hit, 0 when there is none among the first `depth`: Voorhees, "The TREC-8
/// Question Answering Track Report", 1999. Its mean over questions is the MRR.
pub(super) fn reciprocal_rank(hits: &[u32], depth: usize) -> f64 {
    hits.iter().take(depth).position(|grade| *grade > 0).map_or(0.0, |at| 1.0 / (at + 1) as f64)
}

/// Normalised discounted cumulated gain: Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS
/// 20(4), 2002. The gain is the grade, the discount of a rank is log2(rank + 1), as in `trec_eval`'s `ndcg_cut`; the best
/// possible order of all right documents has 1.
pub(super) fn ndcg(hits: &[u32], right: &Grades, depth: usize) -> f64 {
    let mut best: Vec<u32> = right.values().copied().collect();
    best.sort_unstable_by(|a, b| b.cmp(a));
    let best = discounted(&best, depth);
    if best == 0.0 { 0.0 } else { discounted(hits, depth) / best }
}

fn discounted(grades: &[u32], depth: usize) -> f64 {
    let gains = grades.iter().take(depth).enumerate();
    gains.map(|(at, grade)| f64::from(*grade) / ((at + 2) as f64).log2()).sum()
}

pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) =
        values.into_iter().fold((0_usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

/// The smallest of the values that at least `share` of them do not exceed (nearest rank). They have to be sorted.
pub(super) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(grades: &[(&str, u32)]) -> Grades {
        grades.iter().map(|(name, grade)| ((*name).to_owned(), *grade)).collect()
    }

    fn close(actual: f64, expected: f64) {
        assert!((actual - expected).abs() < 1e-9, "{actual} instead of {expected}");
    }

    #[test]
    fn hits_are_graded_in_their_order_and_each_document_once() {
        let right = right(&[("a", 1), ("b", 3)]);
        assert_eq!(grades_of(["x", "b", "b", "a", "x"], &right), [0, 3, 1]);
        assert_eq!(grades_of([], &right), [0; 0]);
    }

    #[test]
    fn recall_is_of_all_that_is_right() {
        let right = right(&[("a", 1), ("b", 2), ("c", 1), ("d", 1), ("judged wrong", 0)]);
        let hits = [1, 0, 2, 0, 1];
        close(recall(&hits, &right, 1), 0.25);
        close(recall(&hits, &right, 3), 0.5);
        close(recall(&hits, &right, 100), 0.75);
        close(recall(&[], &right, 10), 0.0);
        close(recall(&[1], &Grades::new(), 10), 0.0);
    }

    #[test]
    fn the_reciprocal_rank_is_of_the_first_right_hit_within_the_depth() {
        close(reciprocal_rank(&[2, 0, 1], 10), 1.0);
        close(reciprocal_rank(&[0, 0, 0, 1, 1], 10), 0.25);
        close(reciprocal_rank(&[0, 0, 0, 1], 3), 0.0);
        close(reciprocal_rank(&[], 10), 0.0);
    }

    /// The example that is often given for it: six hits of the grades 3, 2, 3, 0, 1, 2, and two more documents, of 3 and 2,
    /// that were not found. DCG = 3 + 2/1.58496 + 3/2 + 0 + 1/2.58496 + 2/2.80735 = 6.861127; of the best order, 3, 3, 3, 2, 2,
    /// 2: 3 + 3/1.58496 + 3/2 + 2/2.32193 + 2/2.58496 + 2/2.80735 = 8.740262.
    #[test]
    fn ndcg_is_that_of_the_textbook() {
        let right = right(&[("a", 3), ("b", 2), ("c", 3), ("d", 0), ("e", 1), ("f", 2), ("g", 3), ("h", 2)]);
        close(ndcg(&[3, 2, 3, 0, 1, 2], &right, 6), 6.861_126_688_593_502 / 8.740_262_365_546_284);
    }

    #[test]
    fn ndcg_is_one_for_the_best_order_and_none_for_wrong_hits() {
        let one = right(&[("a", 1)]);
        close(ndcg(&[1], &one, 10), 1.0);
        // Found third: 1 / log2(4).
        close(ndcg(&[0, 0, 1], &one, 10), 0.5);
        close(ndcg(&[0; 20], &one, 10), 0.0);
        let eleven: Grades = (0..11).map(|n| (n.to_string(), 1)).collect();
        // More is right than there is room for.
        close(ndcg(&[1; 10], &eleven, 10), 1.0);
        close(ndcg(&[1], &Grades::new(), 10), 0.0);
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        close(percentile(&values, 0.5), 50.0);
        close(percentile(&values, 0.99), 99.0);
        close(percentile(&values[..10], 0.99), 10.0);
        close(percentile(&[7.0], 0.5), 7.0);
        close(percentile(&[], 0.5), 0.0);
    }

    #[test]
    fn a_mean_of_nothing_is_nothing() {
        close(mean([1.0, 2.0, 6.0]), 3.0);
        close(mean([]), 0.0);
    }
}
