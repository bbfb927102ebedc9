//! `context-api embedder`: the built-in model as an embedding server of its own. Needs neither database nor cache.
//!
//! | Variable | Default | |
//! |---|---|---|
//! | `API_KEY` | none | what callers have to send as `Authorization: Bearer`; empty is a mistake |
//! | `SERVED_MODEL_NAME` | the model's own | what `/info` and OpenAI's route call the model |
//! | `MAX_CLIENT_BATCH_SIZE` | `32` | texts in one request |
//! | `MAX_CONCURRENT_REQUESTS` | `512` | texts of all requests together |
//! | `AUTO_TRUNCATE` | `true` | whether texts that are too long are cut, when the request does not say |
//! | `PAYLOAD_LIMIT` | `2000000` | bytes of a body |

use std::time::Duration;

use secrecy::SecretString;

use super::{CommandResult, start};
use crate::{
    config::{self, ConfigError, Source},
    embedding_server::{self, Options, State},
    telemetry,
};

pub(super) async fn run(source: &Source) -> CommandResult {
    let (options, address) = (options(source)?, config::embedder_bind(source)?);
    if options.request_texts_max > options.concurrent_texts_max {
        tracing::warn!(
            "MAX_CLIENT_BATCH_SIZE is larger than MAX_CONCURRENT_REQUESTS: the largest lists are always refused"
        );
    }
    if options.api_key.is_none() && !address.ip().is_loopback() {
        tracing::warn!(%address, "no API_KEY is set: whoever reaches the address may use the model");
    }
    let metrics = telemetry::start_metrics()?;
    let grace = options.shutdown_grace;
    let state = State::load(options)?;
    // Before the port opens: whoever can reach the server can also stop it.
    let stop = start::Stop::listen()?;
    // Last: who finds the port open finds a model that is ready.
    let listener = start::bind("BIND_ADDR", address)?;
    let address = listener.local_addr()?;
    let server = embedding_server::serve(listener, state, metrics)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    tracing::info!(%address, version = env!("CARGO_PKG_VERSION"), "ready");

    stop.asked().await;
    start::within(grace + Duration::from_secs(1), "requests", handle.stop(true)).await;
    start::within(Duration::from_secs(1), "the server", async { drop(running.await) }).await;
    tracing::info!("stopped");
    Ok(())
}

fn options(source: &Source) -> Result<Options, ConfigError> {
    let server = config::server(source)?;
    Ok(Options {
        threads: config::embedding_threads(source)?,
        workers: server.workers,
        shutdown_grace: server.shutdown_grace,
        api_key: api_key(source)?,
        served_model_name: source
            .text("SERVED_MODEL_NAME")?
            .unwrap_or_else(|| embedding_server::MODEL_ID.to_owned()),
        request_texts_max: source.parse_in("MAX_CLIENT_BATCH_SIZE", 1..=1024, 32)?,
        concurrent_texts_max: source.parse_in("MAX_CONCURRENT_REQUESTS", 1..=100_000, 512)?,
        truncate: source.parse("AUTO_TRUNCATE", "`true` or `false`")?.unwrap_or(true),
        body_bytes_max: source.parse_in("PAYLOAD_LIMIT", 1..=20_000_000, 2_000_000)?,
    })
}

fn api_key(source: &Source) -> Result<Option<SecretString>, ConfigError> {
    let key = source.text_if_named("API_KEY")?;
    // A header arrives without spaces around it and cannot hold control characters: such a key would open to nobody.
    if key.as_ref().is_some_and(|key| key.trim() != key || key.chars().any(char::is_control)) {
        return Err(
            source.refuse("API_KEY", "must not begin or end with a space nor hold control characters")
        );
    }
    Ok(key.map(SecretString::from))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Options, String> {
        options(&Source::from_pairs(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_text_embeddings_inference() {
        let options = read(&[("MAX_CLIENT_BATCH_SIZE", "")]).unwrap();
        assert_eq!((options.request_texts_max, options.concurrent_texts_max), (32, 512));
        assert_eq!((options.truncate, options.body_bytes_max), (true, 2_000_000));
        assert!(options.api_key.is_none());
        assert_eq!(config::embedder_bind(&Source::from_pairs(&[])).unwrap().to_string(), "127.0.0.1:3000");
    }

    #[test]
    fn a_bad_value_names_its_variable_and_keeps_its_secret() {
        for (name, value) in [
            ("API_KEY", ""),
            ("API_KEY", " "),
            ("API_KEY", "hunter2 "),
            ("API_KEY", "hunter2\n2"),
            ("API_KEY_FILE", "/nowhere/at/all"),
            ("MAX_CLIENT_BATCH_SIZE", "0"),
            ("MAX_CONCURRENT_REQUESTS", "many"),
            ("AUTO_TRUNCATE", "1"),
            ("PAYLOAD_LIMIT", "2MB"),
            ("EMBEDDING_THREADS", "0"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
        }
    }
}
