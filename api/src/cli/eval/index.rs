//! How much the vector index misses: the same search by meaning, under filters of any selectivity, with the index and with
//! every candidate compared.

use indexmap::IndexMap;
use serde::Serialize;
use serde_json::json;

use super::{
    super::client::ApiError,
    judged::{Narrowings, Question},
    metrics::mean,
    retrieval::{DEPTH, Latency},
    searches::{Answer, Searches},
};

/// Scores that differ by less are of the same vector: duplicates, or one that was rounded another way.
const SCORE_TOLERANCE: f64 = 1e-6;

/// The recall that is asked of answers that say that they are complete.
const RECALL_OF_COMPLETE: f64 = 0.98;

/// How searches of one selectivity do.
#[derive(Debug, Serialize)]
pub(super) struct Kept {
    pub(super) searches: usize,
    /// The share of the exact answer's hits that the index found. A hit as near as the last one of the exact answer counts:
    /// real corpora hold duplicates, and which of them comes first is nobody's merit.
    pub(super) recall_at_10: f64,
    /// The least recall that any search had.
    pub(super) recall_at_10_least: f64,
    /// Answers that said that no cap had cut them short.
    pub(super) complete: usize,
    /// The recall of those alone; 1 when there are none.
    pub(super) recall_at_10_of_complete: f64,
    /// Those of them that missed more of the nearest than they would by chance, each hit for itself, at a recall of
    /// [`RECALL_OF_COMPLETE`]. A mean hides that a few answers miss nearly all; this does not.
    pub(super) complete_beyond_chance: usize,
    /// Answers with fewer hits than the exact one.
    pub(super) short: usize,
    pub(super) fewest_hits: usize,
    /// Of the answer that had the fewest, those that the exact one had.
    pub(super) fewest_hits_exact: usize,
    /// How many searches were run in which way.
    pub(super) plans: IndexMap<String, usize>,
    pub(super) degraded: usize,
    pub(super) latency: Latency,
    pub(super) latency_exact: Latency,
}

/// For each group, in their order: question by question, the group's narrowings taken in turn.
pub(super) async fn compare(
    searches: &Searches,
    questions: &[Question],
    groups: &[Narrowings],
) -> Result<Vec<Kept>, ApiError> {
    let request = |row: usize, column: usize, is_exact: bool| {
        let ways = &groups[column].requests;
        let mut request = ways[row % ways.len()].clone();
        request.extend([
            ("query".to_owned(), json!(questions[row].query)),
            ("mode".to_owned(), json!("semantic")),
            ("limit".to_owned(), json!(DEPTH)),
        ]);
        if is_exact {
            request.insert("effort".to_owned(), json!("exact"));
        }
        request
    };
    let size = (questions.len(), groups.len());
    let by_index = searches.timed("by the index", size, |row, column| request(row, column, false)).await?;
    let exact = searches.timed("comparing all", size, |row, column| request(row, column, true)).await?;
    Ok(by_index.iter().zip(&exact).map(|(by_index, exact)| kept(by_index, exact)).collect())
}

fn kept(by_index: &[Answer], exact: &[Answer]) -> Kept {
    let pairs = || by_index.iter().zip(exact);
    let recalls: Vec<f64> = pairs().map(|(found, exact)| recall(found, exact)).collect();
    let complete = || pairs().zip(&recalls).filter(|((found, _), _)| found.is_complete);
    let of_complete: Vec<f64> = complete().map(|(_, recall)| *recall).collect();
    let missed_of_complete: Vec<Missed> =
        complete().map(|((_, exact), recall)| Missed::of(exact.hits.len(), *recall)).collect();
    let mut plans: IndexMap<String, usize> = IndexMap::new();
    for answer in by_index {
        *plans.entry(answer.plan.clone().unwrap_or_else(|| "none".to_owned())).or_default() += 1;
    }
    let fewest = pairs().min_by_key(|(found, _)| found.hits.len());
    Kept {
        searches: by_index.len(),
        recall_at_10: mean(recalls.iter().copied()),
        recall_at_10_least: recalls.iter().copied().fold(1.0, f64::min),
        complete: of_complete.len(),
        recall_at_10_of_complete: if of_complete.is_empty() { 1.0 } else { mean(of_complete) },
        complete_beyond_chance: beyond_chance(&missed_of_complete),
        short: pairs().filter(|(found, exact)| found.hits.len() < exact.hits.len()).count(),
        fewest_hits: fewest.map_or(0, |(found, _)| found.hits.len()),
        fewest_hits_exact: fewest.map_or(0, |(_, exact)| exact.hits.len()),
        plans,
        degraded: by_index.iter().chain(exact).filter(|answer| answer.is_degraded).count(),
        latency: Latency::of(by_index),
        latency_exact: Latency::of(exact),
    }
}

/// 1 when there is nothing to be found.
fn recall(found: &Answer, exact: &Answer) -> f64 {
    let Some(last) = exact.hits.last() else { return 1.0 };
    let near = found.hits.iter().filter(|hit| hit.score >= last.score - SCORE_TOLERANCE).count();
    near.min(exact.hits.len()) as f64 / exact.hits.len() as f64
}

/// How many hits of an exact answer were missed.
struct Missed {
    missed: usize,
    of: usize,
}

impl Missed {
    fn of(of: usize, recall: f64) -> Self {
        Self { missed: ((1.0 - recall) * of as f64).round() as usize, of }
    }

    /// How likely it is that so many or more are missed when each is for itself.
    fn chance_of(&self, missed: usize) -> f64 {
        let exactly = |missed: usize| {
            let ways: f64 = (0..missed).map(|n| (self.of - n) as f64 / (n + 1) as f64).product();
            ways * (1.0 - RECALL_OF_COMPLETE).powi(missed as i32)
                * RECALL_OF_COMPLETE.powi((self.of - missed) as i32)
        };
        (missed..=self.of).map(exactly).sum()
    }
}

/// How many answers more than expected missed so many or more, of whichever number of hits that is the most.
fn beyond_chance(answers: &[Missed]) -> usize {
    let most = answers.iter().map(|answer| answer.missed).max().unwrap_or(0);
    let beyond = (1..=most).map(|missed| {
        let seen = answers.iter().filter(|answer| answer.missed >= missed).count();
        let expected: f64 = answers.iter().map(|answer| answer.chance_of(missed)).sum();
        seen.saturating_sub(expected.round() as usize)
    });
    beyond.max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{super::searches::Hit, *};

    fn answer(scores: &[f64], plan: &str, milliseconds: f64) -> Answer {
        let hits = scores.iter().map(|score| Hit { document: String::new(), score: *score });
        let plan = Some(plan.to_owned());
        Answer { hits: hits.collect(), plan, is_complete: true, is_degraded: false, milliseconds }
    }

    #[test]
    fn a_hit_as_near_as_the_last_exact_one_counts() {
        let exact = answer(&[0.9, 0.8, 0.7, 0.7], "exact", 1.0);
        let recall_of = |scores: &[f64]| recall(&answer(scores, "hnsw", 1.0), &exact);
        assert_eq!(recall_of(&[0.9, 0.8, 0.7, 0.7]).to_string(), "1");
        // Two of three duplicates, whichever.
        assert_eq!(recall_of(&[0.9, 0.7, 0.7, 0.7]).to_string(), "1");
        assert_eq!(recall_of(&[0.9, 0.8, 0.699_999_9, 0.6]).to_string(), "0.75");
        assert_eq!(recall_of(&[]).to_string(), "0");
        assert_eq!(recall(&answer(&[], "exact", 1.0), &answer(&[], "exact", 1.0)).to_string(), "1");
    }

    #[test]
    fn an_answer_that_claims_to_be_complete_is_held_to_it() {
        let exact = || answer(&[0.9, 0.8], "exact", 1.0);
        let cut_short = Answer { is_complete: false, ..answer(&[], "hnsw", 1.0) };
        let kept_of = |found: Vec<Answer>| {
            let exact: Vec<Answer> = found.iter().map(|_| exact()).collect();
            let kept = kept(&found, &exact);
            (kept.complete, kept.recall_at_10_of_complete.to_string(), kept.recall_at_10.to_string())
        };
        let found = vec![answer(&[0.9, 0.8], "hnsw", 1.0), answer(&[0.9], "hnsw", 1.0), cut_short];
        assert_eq!(kept_of(found), (2, "0.75".to_owned(), "0.5".to_owned()));
        let cut_short = Answer { is_complete: false, ..answer(&[], "hnsw", 1.0) };
        assert_eq!(kept_of(vec![cut_short]), (0, "1".to_owned(), "0".to_owned()));
    }

    #[test]
    fn a_few_answers_that_miss_much_are_not_hidden_by_the_many_that_miss_nothing() {
        let of_ten = |missed| Missed { missed, of: 10 };
        assert!((of_ten(0).chance_of(1) - (1.0 - 0.98_f64.powi(10))).abs() < 1e-12);
        assert!((of_ten(0).chance_of(0) - 1.0).abs() < 1e-12);
        let answers = |with: &[(usize, usize)]| {
            let some = with.iter().flat_map(|(count, missed)| (0..*count).map(|_| of_ten(*missed)));
            some.chain((0..1_000).map(|_| of_ten(0))).take(1_000).collect::<Vec<_>>()
        };
        // 183 miss one or more by chance, 16 two or more, one three or more.
        assert_eq!(beyond_chance(&answers(&[(150, 1), (15, 2), (1, 3)])), 0);
        assert_eq!(beyond_chance(&answers(&[(150, 1), (20, 2)])), 4);
        assert_eq!(beyond_chance(&answers(&[(1, 4)])), 1);
        assert_eq!(beyond_chance(&answers(&[])), 0);
    }

    #[test]
    fn short_answers_and_plans_are_counted() {
        let by_index =
            [answer(&[0.9, 0.8], "hnsw", 3.0), answer(&[0.9], "hnsw", 1.0), answer(&[0.9], "exact", 2.0)];
        let exact = [
            answer(&[0.9, 0.8], "exact", 9.0),
            answer(&[0.9, 0.8], "exact", 9.0),
            answer(&[0.9], "exact", 9.0),
        ];
        let kept = kept(&by_index, &exact);
        assert!((kept.recall_at_10 - 2.5 / 3.0).abs() < 1e-12);
        assert_eq!(kept.recall_at_10_least.to_string(), "0.5");
        assert_eq!((kept.short, kept.fewest_hits, kept.fewest_hits_exact), (1, 1, 2));
        assert_eq!(kept.plans, IndexMap::from([("hnsw".to_owned(), 2), ("exact".to_owned(), 1)]));
        assert_eq!(kept.latency.p50_ms.to_string(), "2");
    }
}
