//! Its variables:
//!
//! | Variable | Default | |
//! |---|---|---|
//! | `BIND_ADDR` | `127.0.0.1:3000` | where it listens |
//! | `HTTP_WORKERS` | one per core | threads that handle requests |
//! | `SHUTDOWN_GRACE_SECONDS` | `30` | for requests under way when a stop is asked for |
//! | `EMBEDDING_THREADS` | one per core | threads of the model |
//! | `API_KEY` | none | what callers have to send as `Authorization: Bearer`; empty is a mistake |
//! | `SERVED_MODEL_NAME` | the model's own | what `/info` and OpenAI's route call the model |
//! | `MAX_CLIENT_BATCH_SIZE` | `32` | texts in one request |
//! | `MAX_CONCURRENT_REQUESTS` | `512` | texts of all requests together |
//! | `AUTO_TRUNCATE` | `true` | whether texts that are too long are cut, when the request does not say |
//! | `PAYLOAD_LIMIT` | `2000000` | bytes of a body |

use std::{net::SocketAddr, num::NonZeroUsize};

use program::{ConfigError, ServerOptions, Source};
use secrecy::SecretString;

/// By default not where the API listens, so that both run on one machine.
const BIND_DEFAULT: &str = "127.0.0.1:3000";

/// How the server runs.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Threads of the model.
    pub threads: NonZeroUsize,
    pub server: ServerOptions,
    /// What callers have to know; nothing when none.
    pub api_key: Option<SecretString>,
    /// What `/info` and OpenAI's route call the model.
    pub served_model_name: String,
    /// Texts in one request.
    pub request_texts_max: usize,
    /// Texts of all requests together.
    pub concurrent_texts_max: usize,
    /// Whether texts that are too long are cut, when the request does not say.
    pub truncate: bool,
    pub body_bytes_max: usize,
}

/// Where the server listens.
pub(crate) fn bind_address(source: &Source) -> Result<SocketAddr, ConfigError> {
    program::bind_address(source, BIND_DEFAULT)
}

impl Options {
    pub(crate) fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            threads: program::cores(source, "EMBEDDING_THREADS")?,
            server: ServerOptions::read(source)?,
            api_key: api_key(source)?,
            served_model_name: source
                .text("SERVED_MODEL_NAME")?
                .unwrap_or_else(|| embedder::MODEL_ID.to_owned()),
            request_texts_max: source.parse_in("MAX_CLIENT_BATCH_SIZE", 1..=1024, 32)?,
            concurrent_texts_max: source.parse_in("MAX_CONCURRENT_REQUESTS", 1..=100_000, 512)?,
            truncate: source.parse("AUTO_TRUNCATE", "`true` or `false`")?.unwrap_or(true),
            body_bytes_max: source.parse_in("PAYLOAD_LIMIT", 1..=20_000_000, 2_000_000)?,
        })
    }
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
        Options::read(&Source::from_pairs(pairs)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_text_embeddings_inference() {
        let options = read(&[("MAX_CLIENT_BATCH_SIZE", "")]).unwrap();
        assert_eq!((options.request_texts_max, options.concurrent_texts_max), (32, 512));
        assert_eq!((options.truncate, options.body_bytes_max), (true, 2_000_000));
        assert!(options.api_key.is_none());
        assert_eq!(bind_address(&Source::from_pairs(&[])).unwrap().to_string(), "127.0.0.1:3000");
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
            ("HTTP_WORKERS", "0"),
            ("SHUTDOWN_GRACE_SECONDS", "601"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
        }
    }
}
