//! `context-api export`: writes what is stored to a file, a context in each line. When the connection breaks it goes on
//! after the last whole line, at the same moment in the data's history.

use std::{path::PathBuf, time::Duration};

use backon::{BackoffBuilder, ExponentialBuilder};
use clap::Args;
use futures_util::StreamExt;
use indicatif::{ProgressBar, ProgressStyle};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::{
    fs::File,
    io::{AsyncWrite, AsyncWriteExt, BufWriter, stdout},
};
use uuid::Uuid;

use super::{
    CommandResult,
    client::{Api, ApiArguments, ApiError, checked},
};
use crate::config::Source;

/// How often an export goes on after a break without having got any further.
const BREAKS_MAX: usize = 10;
/// How long to wait for the next part.
const PART_MAX: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    /// Where to write to; standard output when left out
    file: Option<PathBuf>,
    #[command(flatten)]
    api: ApiArguments,
    /// Only this user's
    #[arg(long)]
    user: Option<Uuid>,
    /// Only of this type
    #[arg(long)]
    context_type: Option<String>,
    /// Only what this filter takes, as JSON
    #[arg(long)]
    filter: Option<String>,
}

/// How far an export is.
#[derive(Default)]
struct Position {
    as_of: Option<String>,
    after: Option<Uuid>,
    lines: u64,
}

pub(super) async fn run(source: &Source, arguments: ExportArguments) -> CommandResult {
    let api = Api::new(source, arguments.api.clone())?;
    let bar = progress_bar(&api, &arguments).await?;
    let mut writer: BufWriter<Box<dyn AsyncWrite + Unpin>> = BufWriter::new(match &arguments.file {
        Some(path) => Box::new(
            File::create(path)
                .await
                .map_err(|error| format!("{} cannot be written: {error}", path.display()))?,
        ),
        None => Box::new(stdout()),
    });
    let mut position = Position::default();
    let backoff = || {
        ExponentialBuilder::default()
            .with_jitter()
            .with_max_delay(Duration::from_secs(5))
            .with_max_times(BREAKS_MAX)
            .build()
    };
    let mut pauses = backoff();
    loop {
        let before = position.lines;
        match export(&api, &arguments, &mut position, &mut writer, &bar).await {
            Ok(()) => break,
            Err(error) if !error.is_transient() => {
                return Err(format!("the export was {}", error.words()).into());
            }
            Err(error) => {
                if position.lines > before {
                    pauses = backoff();
                }
                let Some(pause) = pauses.next() else { return Err(error.words().into()) };
                tokio::time::sleep(pause).await;
            }
        }
    }
    writer.flush().await?;
    bar.finish_and_clear();
    eprintln!(
        "{} contexts as of {}, in {:.1} s.",
        position.lines,
        position.as_of.unwrap_or_default(),
        bar.elapsed().as_secs_f64()
    );
    Ok(())
}

async fn progress_bar(
    api: &Api,
    arguments: &ExportArguments,
) -> Result<ProgressBar, Box<dyn std::error::Error>> {
    let filter = arguments.filter.as_deref().map(serde_json::from_str::<serde_json::Value>).transpose();
    let filter = filter.map_err(|error| format!("--filter is not JSON: {error}"))?;
    let body = json!({"user_id": arguments.user, "context_type": arguments.context_type, "filter": filter});
    // Only for the bar: what cannot be counted in time can still be exported.
    let bar = match api.count(&body).await {
        Ok(count) => ProgressBar::new(count),
        Err(error) if error.is_transient() => ProgressBar::new_spinner(),
        Err(error) => return Err(error.words().into()),
    };
    let template = "{bar:40} {percent:>3} %  {pos} contexts  {per_sec}  about {eta} left";
    Ok(bar.with_style(ProgressStyle::with_template(template)?))
}

/// Writes whole lines until the end, or until the connection breaks.
async fn export(
    api: &Api,
    arguments: &ExportArguments,
    position: &mut Position,
    writer: &mut (impl AsyncWrite + Unpin),
    bar: &ProgressBar,
) -> Result<(), ApiError> {
    let query = [
        ("user_id", arguments.user.map(|user| user.to_string())),
        ("context_type", arguments.context_type.clone()),
        ("filter", arguments.filter.clone()),
        ("as_of", position.as_of.clone()),
        ("after", position.after.map(|id| id.to_string())),
    ];
    let query: Vec<_> = query.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let response = api.request(Method::GET, "/v1/contexts/export")?.query(&query).send().await?;
    let response = checked(response).await?;
    let as_of = response.headers().get("context-as-of").and_then(|value| value.to_str().ok());
    position.as_of = as_of.map(str::to_owned);
    let mut parts = response.bytes_stream();
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let part = tokio::time::timeout(PART_MAX, parts.next())
            .await
            .map_err(|_| ApiError::Transient("the server sends nothing any more".to_owned()))?;
        let Some(part) = part else { return Ok(()) };
        rest.extend_from_slice(&part?);
        let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else { continue };
        let whole = &rest[..=end];
        let unwritable = |error: std::io::Error| ApiError::Permanent(format!("not written: {error}"));
        writer.write_all(whole).await.map_err(unwritable)?;
        let lines = whole.split(|byte| *byte == b'\n').count() as u64 - 1;
        position.after = last_id(whole).or(position.after);
        position.lines += lines;
        bar.inc(lines);
        rest.drain(..=end);
    }
}

/// The id in the last of some whole lines.
fn last_id(lines: &[u8]) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Line {
        id: Uuid,
    }
    let last = lines.trim_ascii_end().rsplit(|byte| *byte == b'\n').next()?;
    serde_json::from_slice::<Line>(last).ok().map(|line| line.id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_line_says_where_to_go_on() {
        let id = |n: u128| Uuid::from_u128(n);
        let lines = format!("{{\"id\":\"{}\",\"a\":1}}\n{{\"id\":\"{}\"}}\n", id(1), id(2));
        assert_eq!(last_id(lines.as_bytes()), Some(id(2)));
        assert_eq!(last_id(b""), None);
    }
}
