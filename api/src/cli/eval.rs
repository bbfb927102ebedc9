//! `context-api eval`: how good the answers of a running service are, over questions whose right answers are known, and how
//! much its vector index misses. Speaks HTTP alone, as any client does, so it judges what users get.

mod index;
mod judged;
mod metrics;
mod plot;
mod report;
mod retrieval;
mod searches;

use std::{fs, path::PathBuf};

use clap::{Args, value_parser};
use indexmap::IndexMap;
use serde_json::{Map, Value};

use self::{
    judged::Narrowings,
    report::{Report, Threshold},
    searches::Searches,
};
use super::{
    CommandResult,
    client::{Api, ApiArguments, ApiError},
};
use crate::config::Source;

/// What a search is narrowed to when it is narrowed to nothing.
const EVERYTHING: &str = "everything";

#[derive(Debug, Args)]
pub(super) struct EvalArguments {
    /// The questions: one JSON object per line, with `id` and `query`
    #[arg(long)]
    queries: PathBuf,
    /// What answers them: lines of query, context key and grade, or TREC's four columns
    #[arg(long)]
    judgements: PathBuf,
    #[command(flatten)]
    api: ApiArguments,
    /// Ask the first so many questions only
    #[arg(long, default_value_t = 100_000, value_parser = value_parser!(u32).range(1..))]
    limit: u32,
    /// Compare the vector index with exact search for the first so many questions; 0 for none
    #[arg(long, default_value_t = 1_000)]
    recall_queries: u32,
    /// What to narrow those searches to: a JSON object per line with `name` and members of a search, such as `filter` or
    /// `user_id`; lines of one name are taken in turn
    #[arg(long)]
    recall_filters: Option<PathBuf>,
    /// The answers of another system in TREC's run format, to be held against the same judgements; may be repeated
    #[arg(long, value_name = "RUN")]
    against: Vec<PathBuf>,
    /// Members for every search, as a JSON object, to try settings
    #[arg(long, value_name = "JSON", value_parser = object)]
    with: Option<Map<String, Value>>,
    /// Searches at a time, where no times are taken
    #[arg(long, default_value_t = 4, value_parser = value_parser!(u8).range(1..=64))]
    concurrency: u8,
    /// Write the report as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the report as a picture
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Write what was found as runs in TREC's format, one for each mode
    #[arg(long, value_name = "FOLDER")]
    runs: Option<PathBuf>,
    /// Fail when a number of the JSON report is lower, e.g. /modes/hybrid/ndcg_at_10=0.7; may be repeated
    #[arg(long, value_name = "POINTER=NUMBER")]
    at_least: Vec<Threshold>,
}

fn object(text: &str) -> Result<Map<String, Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("must be a JSON object: {error}"))
}

pub(super) async fn run(source: &Source, arguments: EvalArguments) -> CommandResult {
    // What may be wrong with the arguments is said before minutes are spent.
    let (questions, unjudged) =
        judged::questions(&arguments.queries, &arguments.judgements, arguments.limit as usize)?;
    let others =
        arguments.against.iter().map(|path| judged::run(path)).collect::<Result<Vec<_>, String>>()?;
    let mut groups = vec![Narrowings { name: EVERYTHING.to_owned(), requests: vec![Map::new()] }];
    if let Some(path) = &arguments.recall_filters {
        groups.extend(judged::narrowings(path)?);
    }
    if let Some(folder) = &arguments.runs {
        fs::create_dir_all(folder)?;
    }
    let common = arguments.with.unwrap_or_default();
    if let Some(member) =
        ["query", "vector", "mode", "limit"].into_iter().find(|member| common.contains_key(*member))
    {
        return Err(format!("--with: `{member}` is what is measured; leave it out").into());
    }
    let searches = Searches {
        api: Api::new(source, arguments.api)?,
        common,
        concurrency: usize::from(arguments.concurrency),
    };
    let failed = |error: ApiError| format!("a search was not answered: {}", error.words());

    let found = retrieval::modes(&searches, &questions).await.map_err(failed)?;
    let mut modes = IndexMap::new();
    for (mode, (quality, answers)) in retrieval::MODES.into_iter().zip(found) {
        if let Some(folder) = &arguments.runs {
            retrieval::write_run(folder, mode, &questions, &answers)?;
        }
        modes.insert(mode, quality);
    }
    let others = others.into_iter().map(|(name, run)| (name, retrieval::other(&questions, run))).collect();
    let mut index = IndexMap::new();
    let some = &questions[..questions.len().min(arguments.recall_queries as usize)];
    if !some.is_empty() {
        let kept = index::compare(&searches, some, &groups).await.map_err(failed)?;
        index = groups.into_iter().map(|group| group.name).zip(kept).collect();
    }
    let report = Report { queries: questions.len(), unjudged, modes, others, index };
    println!("{}", report.table());
    let json = serde_json::to_value(&report)?;
    if let Some(path) = &arguments.json {
        fs::write(path, serde_json::to_string_pretty(&json)? + "\n")?;
    }
    if let Some(path) = &arguments.plot {
        plot::draw(&report, path)?;
    }
    let missed: Vec<String> = arguments.at_least.iter().filter_map(|least| least.missed(&json)).collect();
    if missed.is_empty() { Ok(()) } else { Err(missed.join("; ").into()) }
}
