//! How good the answers are: every question in every mode, held against the judgements, and the same for runs of other
//! systems.

use std::{
    collections::HashMap,
    fs,
    io::{self, BufWriter, Write as _},
    path::Path,
};

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::{
    super::client::ApiError,
    judged::Question,
    metrics::{grades_of, mean, ndcg, percentile, recall, reciprocal_rank},
    searches::{Answer, Searches},
};

pub(super) const MODES: [&str; 3] = ["keyword", "semantic", "hybrid"];
/// Hits that are looked at first, and how many are asked for when times are taken.
pub(super) const DEPTH: usize = 10;
/// Hits for recall alone; as many as a search may ask for.
const DEEP: usize = 100;

/// How good one system is: means over all questions.
#[derive(Debug, Serialize)]
pub(super) struct Quality {
    pub(super) recall_at_1: f64,
    pub(super) recall_at_10: f64,
    pub(super) recall_at_100: f64,
    pub(super) mrr_at_10: f64,
    pub(super) ndcg_at_10: f64,
    /// Of answers of ten hits, one request at a time; of other systems it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) latency: Option<Latency>,
    /// Answers for which the service had to do with less, which says something about its state and nothing about it.
    pub(super) degraded: usize,
}

/// In milliseconds, from the request until the whole answer is there.
#[derive(Debug, Serialize)]
pub(super) struct Latency {
    pub(super) p50_ms: f64,
    pub(super) p95_ms: f64,
    pub(super) p99_ms: f64,
}

impl Latency {
    pub(super) fn of(answers: &[Answer]) -> Self {
        let mut times: Vec<f64> = answers.iter().map(|answer| answer.milliseconds).collect();
        times.sort_unstable_by(f64::total_cmp);
        let at = |share| percentile(&times, share);
        Self { p50_ms: at(0.5), p95_ms: at(0.95), p99_ms: at(0.99) }
    }
}

/// The quality of each of [`MODES`], and what was found, in case somebody wants to look at it with other tools.
pub(super) async fn modes(
    searches: &Searches,
    questions: &[Question],
) -> Result<Vec<(Quality, Vec<Answer>)>, ApiError> {
    let request = |row: usize, mode: &str, limit: usize| -> Map<String, Value> {
        let members =
            [("query", json!(questions[row].query)), ("mode", json!(mode)), ("limit", json!(limit))];
        members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
    };
    let mut deep = Vec::new();
    for mode in MODES {
        let requests = (0..questions.len()).map(|row| request(row, mode, DEEP)).collect();
        deep.push(searches.answers(mode, requests).await?);
    }
    // Afterwards, so that no query's embedding has to be waited for.
    let size = (questions.len(), MODES.len());
    let timed =
        searches.timed("taking times", size, |row, column| request(row, MODES[column], DEPTH)).await?;
    let judged = timed.iter().zip(deep).map(|(first, deep)| {
        let answers = |answers: &[Answer]| -> Vec<Vec<String>> { answers.iter().map(documents).collect() };
        let mut quality = quality(questions, &answers(first), &answers(&deep));
        quality.latency = Some(Latency::of(first));
        quality.degraded = first.iter().chain(&deep).filter(|answer| answer.is_degraded).count();
        (quality, deep)
    });
    Ok(judged.collect())
}

/// The quality of a run of another system.
pub(super) fn other(questions: &[Question], mut run: HashMap<String, Vec<String>>) -> Quality {
    let answers: Vec<Vec<String>> =
        questions.iter().map(|question| run.remove(&question.id).unwrap_or_default()).collect();
    quality(questions, &answers, &answers)
}

fn documents(answer: &Answer) -> Vec<String> {
    answer.hits.iter().map(|hit| hit.document.clone()).collect()
}

/// `first` are the answers of ten hits, `deep` those of a hundred: a service may rank the first ten otherwise when more are
/// asked for, and what counts is what users get.
fn quality(questions: &[Question], first: &[Vec<String>], deep: &[Vec<String>]) -> Quality {
    let over = |answers: &[Vec<String>], measure: &dyn Fn(&[u32], &Question) -> f64| {
        mean(questions.iter().zip(answers).map(|(question, hits)| {
            measure(&grades_of(hits.iter().map(String::as_str), &question.right), question)
        }))
    };
    Quality {
        recall_at_1: over(first, &|hits, question| recall(hits, &question.right, 1)),
        recall_at_10: over(first, &|hits, question| recall(hits, &question.right, DEPTH)),
        recall_at_100: over(deep, &|hits, question| recall(hits, &question.right, DEEP)),
        mrr_at_10: over(first, &|hits, _| reciprocal_rank(hits, DEPTH)),
        ndcg_at_10: over(first, &|hits, question| ndcg(hits, &question.right, DEPTH)),
        latency: None,
        degraded: 0,
    }
}

/// Writes what was found in a mode as a run in TREC's format.
pub(super) fn write_run(
    folder: &Path,
    mode: &str,
    questions: &[Question],
    answers: &[Answer],
) -> io::Result<()> {
    let mut file = BufWriter::new(fs::File::create(folder.join(format!("{mode}.run")))?);
    for (question, answer) in questions.iter().zip(answers) {
        for (at, hit) in answer.hits.iter().enumerate() {
            writeln!(file, "{}\tQ0\t{}\t{}\t{}\t{mode}", question.id, hit.document, at + 1, hit.score)?;
        }
    }
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::{super::metrics::Grades, *};

    #[test]
    fn a_run_is_judged_over_all_questions_answered_or_not() {
        let question = |id: &str, right: &str| Question {
            id: id.to_owned(),
            query: String::new(),
            right: Grades::from([(right.to_owned(), 1)]),
        };
        let questions = [question("1", "a"), question("2", "b"), question("3", "c"), question("4", "d")];
        let far: Vec<String> =
            (0..20).map(|n| if n == 15 { "c".to_owned() } else { n.to_string() }).collect();
        let run = HashMap::from([
            ("1".to_owned(), vec!["a".to_owned()]),
            ("2".to_owned(), ["x", "y", "b"].map(str::to_owned).to_vec()),
            ("3".to_owned(), far),
            ("unknown".to_owned(), vec!["d".to_owned()]),
        ]);
        let quality = other(&questions, run);
        for (actual, expected) in [
            (quality.recall_at_1, 0.25),
            (quality.recall_at_10, 0.5),
            (quality.recall_at_100, 0.75),
            (quality.mrr_at_10, (1.0 + 1.0 / 3.0) / 4.0),
            (quality.ndcg_at_10, (1.0 + 0.5) / 4.0),
        ] {
            assert!((actual - expected).abs() < 1e-12, "{actual} instead of {expected}");
        }
    }
}
