//! `loadtest`: puts load on a Context API over HTTP, and says what it answered and how fast. Knows nothing of the service but its
//! routes.

mod arrivals;
mod client;
mod data;
mod html;
mod measure;
mod outcome;
mod progress;
mod report;
mod run;
mod scenario;

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use crate::{
    arrivals::{Load, Schedule},
    client::Target,
    data::Corpus,
    report::{Bound, Report, Settings},
    scenario::{Options, Plan, Scenario},
};

type CommandResult = Result<(), Box<dyn std::error::Error>>;

/// Puts load on a Context API, and says what it answered and how fast.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Prints contexts with their vectors, a line each, to be stored with `context-api import`
    Data(DataArguments),
    /// Runs a scenario
    Run(Box<RunArguments>),
    /// Holds a run against another one
    Compare(CompareArguments),
}

#[derive(Debug, Args)]
struct CorpusArguments {
    /// Numbers of a vector; those of the service's embedding model
    #[arg(long, default_value_t = 384, value_parser = clap::value_parser!(u16).range(1..=4_096))]
    dims: u16,
    /// Users who own the contexts
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    users: u64,
    /// Another one makes other data
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct DataArguments {
    /// How many
    #[arg(long, default_value_t = 10_000)]
    contexts: u64,
    /// Number of the first one
    #[arg(long, default_value_t = 0)]
    from: u64,
    #[command(flatten)]
    corpus: CorpusArguments,
}

#[derive(Debug, Args)]
struct RunArguments {
    scenario: Scenario,
    /// Where the API is: http://host:port
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// The key of a tenant
    #[arg(long, env = "CONTEXT_API_KEY", hide_env_values = true)]
    key: String,
    /// Connections: in a closed loop each has a request under way, in an open one at most
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    clients: u16,
    /// Requests a second, on average, at random moments (an open loop). Without, each client asks as soon as it was answered
    #[arg(long, value_parser = positive)]
    rate: Option<f64>,
    /// For a fifth of the time, in the middle, so many times the rate
    #[arg(long, requires = "rate", value_parser = positive)]
    burst: Option<f64>,
    /// How long is measured
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    seconds: u64,
    /// Asked before, and not counted
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=3_600))]
    warm_up_seconds: u64,
    /// Deadline of a request
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=120))]
    deadline_seconds: u64,
    /// Threads of the load generator
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..))]
    threads: u8,
    /// Hits that searches ask for
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    limit: u32,
    /// What searches ask to be done for the nearest hits
    #[arg(long, default_value = "normal", value_parser = ["low", "normal", "exact"])]
    effort: String,
    /// Different queries
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    queries: u64,
    /// Has nothing answered from a cache: each query has a word that no other has, so that it has to be embedded
    #[arg(long)]
    no_cache: bool,
    #[command(flatten)]
    corpus: CorpusArguments,
    /// Where to write the report for machines
    #[arg(long)]
    json: Option<PathBuf>,
    /// Where to write the report for people: a page that needs nothing else
    #[arg(long)]
    html: Option<PathBuf>,
    /// Fails when a number of the JSON report is lower: /throughput=1000; may be repeated
    #[arg(long, value_name = "POINTER=NUMBER")]
    at_least: Vec<Bound>,
    /// Fails when a number of the JSON report is higher: /latency_ms/p99=50; may be repeated
    #[arg(long, value_name = "POINTER=NUMBER")]
    at_most: Vec<Bound>,
}

#[derive(Debug, Args)]
struct CompareArguments {
    /// JSON report of the run to hold against
    before: PathBuf,
    /// JSON report of the run to be judged
    after: PathBuf,
    /// Fails when the throughput is less than so much of the other one's
    #[arg(long, value_parser = positive)]
    throughput_at_least: Option<f64>,
    /// Fails when the p99 is more than so many times the other one's
    #[arg(long, value_parser = positive)]
    p99_at_most: Option<f64>,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(number) if number > 0.0 && f64::is_finite(number) => Ok(number),
        _ => Err("must be a number above 0".to_owned()),
    }
}

fn main() -> ExitCode {
    let result = match Arguments::parse().command {
        Command::Data(arguments) => write_data(&arguments),
        Command::Run(arguments) => run_scenario(*arguments),
        Command::Compare(arguments) => compare(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

impl CorpusArguments {
    fn corpus(&self) -> Corpus {
        Corpus::new(self.seed, self.dims.into(), self.users)
    }
}

fn write_data(arguments: &DataArguments) -> CommandResult {
    let corpus = arguments.corpus.corpus();
    let mut out = BufWriter::new(std::io::stdout().lock());
    for number in arguments.from..arguments.from.saturating_add(arguments.contexts) {
        match writeln!(out, "{}", corpus.context(number)) {
            // Whoever reads has had enough, as `head` has.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
            written => written?,
        }
    }
    Ok(out.flush()?)
}

fn run_scenario(arguments: RunArguments) -> CommandResult {
    let load = match (arguments.rate, arguments.burst) {
        (None, _) => Load::Closed,
        (Some(rate), None) => Load::Open(rate),
        (Some(rate), Some(times)) => Load::Burst { rate, times },
    };
    let (warm_up, length) =
        (Duration::from_secs(arguments.warm_up_seconds), Duration::from_secs(arguments.seconds));
    if Schedule::is_too_long(load, warm_up + length) {
        return Err(
            "so many requests are not planned in one run: choose a lower --rate or fewer --seconds".into()
        );
    }
    // Before anything is measured.
    let mut json = arguments.json.as_deref().map(create).transpose()?;
    let mut html = arguments.html.as_deref().map(create).transpose()?;
    let deadline = Duration::from_secs(arguments.deadline_seconds);
    let target = Target::new(&arguments.url, &arguments.key, deadline)?;
    let (plan, contexts) = prepare(&target, &arguments)?;
    let settings = run::Settings {
        load,
        clients: arguments.clients.into(),
        threads: arguments.threads.into(),
        warm_up,
        length,
        seed: arguments.corpus.seed,
    };
    let measured = run::run(&target, plan, &settings)?;
    let report = Report { settings: Settings::of(&arguments, contexts), measured };
    println!("{}\n", report.table());
    let value = serde_json::to_value(&report)?;
    if let Some(file) = &mut json {
        serde_json::to_writer_pretty(&mut *file, &value)?;
        file.flush()?;
    }
    if let Some(file) = &mut html {
        file.write_all(html::page(&report)?.as_bytes())?;
        file.flush()?;
    }
    report::check(&value, &arguments.at_least, &arguments.at_most)?;
    Ok(())
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    File::create(path).map(BufWriter::new).map_err(|error| format!("{}: {error}", path.display()))
}

/// What is to be asked, and how many contexts the service holds.
fn prepare(target: &Target, arguments: &RunArguments) -> Result<(Plan, u64), Box<dyn std::error::Error>> {
    let corpus = arguments.corpus.corpus();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(async {
        let mut connection = target.connection();
        let contexts = scenario::count(&mut connection).await?;
        let options = Options {
            limit: arguments.limit,
            effort: arguments.effort.clone(),
            queries: arguments.queries,
            contexts,
            no_cache: arguments.no_cache,
            seed: arguments.corpus.seed,
            run: rand::random(),
        };
        let plan = Plan::prepare(arguments.scenario, options, corpus, &mut connection).await?;
        Ok::<_, String>((plan, contexts))
    })?)
}

fn compare(arguments: &CompareArguments) -> CommandResult {
    let read = |path: &PathBuf| -> Result<Report, Box<dyn std::error::Error>> {
        let file = File::open(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_reader(std::io::BufReader::new(file))
            .map_err(|error| format!("{} is no report: {error}", path.display()))?)
    };
    let (before, after) = (read(&arguments.before)?, read(&arguments.after)?);
    let ratios = report::Ratios::of(&before, &after)?;
    println!("{}", ratios.table());
    if arguments.throughput_at_least.is_some_and(|least| ratios.throughput < least) {
        return Err(format!("the throughput is {:.2} of the other one's", ratios.throughput).into());
    }
    if arguments.p99_at_most.is_some_and(|most| ratios.p99 > most) {
        return Err(format!("the p99 is {:.2} times the other one's", ratios.p99).into());
    }
    Ok(())
}
