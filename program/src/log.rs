//! Log lines go to standard error, so that what a command prints can be used by another.

use std::{
    io::{BufWriter, IsTerminal, Write},
    sync::OnceLock,
    time::Duration,
};

use tracing_appender::non_blocking::{ErrorCounter, WorkerGuard};
use tracing_subscriber::{EnvFilter, filter::ParseError, fmt::format::FmtSpan};

use crate::{
    ConfigError, Source,
    lines::{LineOrigin, WithOrigin},
};

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum LogFormat {
    /// One JSON object per line, for machines.
    Json,
    /// For people.
    Pretty,
}

impl LogFormat {
    /// People sit at terminals, machines read files.
    fn for_terminal() -> Self {
        if std::io::stderr().is_terminal() { Self::Pretty } else { Self::Json }
    }
}

/// What libraries of the one program or the other say that helps nobody, such as that a client has sent a malformed header; whoever wants it names them
/// in `LOG_LEVEL`.
const QUIET: &str = "sqlx::postgres::notice=warn,pglite_oxide=warn,wasmer_wasix=error,wasmer_wasix::state::env=off,actix_http::h1::dispatcher=off";

/// Which lines, and how they look.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// Directives of [`EnvFilter`].
    directives: String,
    format: LogFormat,
}

impl LogOptions {
    /// `LOG_LEVEL` and `LOG_FORMAT`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        let directives = source.text("LOG_LEVEL")?.unwrap_or_else(|| "info".to_owned());
        if filter(&directives).is_err() {
            return Err(source.refuse(
                "LOG_LEVEL",
                "must be error, warn, info, debug or trace, or directives such as info,sqlx=warn",
            ));
        }
        let format = match source.text("LOG_FORMAT")?.as_deref() {
            None => LogFormat::for_terminal(),
            Some("json") => LogFormat::Json,
            Some("pretty") => LogFormat::Pretty,
            Some(_) => return Err(source.refuse("LOG_FORMAT", "must be `json` or `pretty`")),
        };
        Ok(Self { directives, format })
    }
}

fn filter(directives: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(format!("{QUIET},{directives}"))
}

/// None before logging starts.
static LINES_LEFT_OUT: OnceLock<ErrorCounter> = OnceLock::new();

/// Log lines that were left out so far.
pub(crate) fn lines_left_out() -> u64 {
    LINES_LEFT_OUT.get().map_or(0, ErrorCounter::dropped_lines) as u64
}

/// Starts logging, with lines that begin with their `origin`. Later calls do nothing, so that tests may share a process. Lines are written in the background, and when the
/// guard is dropped the last ones are, for a second at most. Where whoever reads them is so slow that a hundred thousand wait,
/// further ones are left out and counted: a service must not stand still because nobody reads its log.
#[must_use = "without the guard nothing is written"]
pub fn start_logging(options: &LogOptions, origin: Option<LineOrigin>) -> WorkerGuard {
    let (lines, guard) = tracing_appender::non_blocking(Gathering(BufWriter::new(std::io::stderr())));
    LINES_LEFT_OUT.get_or_init(|| lines.error_counter());
    let filter = filter(&options.directives).unwrap_or_default();
    let builder =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(lines).with_span_events(FmtSpan::NONE);
    let result = match options.format {
        LogFormat::Json => {
            // Spans are left to traces: what a line is about stands in the line.
            let builder = builder.json().flatten_event(true).with_current_span(false).with_span_list(false);
            builder.map_event_format(|format| WithOrigin { format, origin, is_json: true }).try_init()
        }
        LogFormat::Pretty => {
            let builder = builder.with_ansi(std::io::stderr().is_terminal());
            builder.map_event_format(|format| WithOrigin { format, origin, is_json: false }).try_init()
        }
    };
    // Only fails when logging was started before.
    result.ok();
    guard
}

/// How long lines are gathered after some were written.
const GATHER_FOR: Duration = Duration::from_millis(5);

/// Writes a line that comes alone at once. Of a busy service, whose thread of the log would be woken for each line, it writes many
/// together.
struct Gathering<W>(W);

impl<W: Write> Write for Gathering<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    /// Asked for whenever no line waits any more.
    #[expect(clippy::disallowed_methods, reason = "the thread of the log has nothing else to do")]
    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()?;
        std::thread::sleep(GATHER_FOR);
        Ok(())
    }
}
