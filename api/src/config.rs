//! Every variable that the service reads, once, at its start. A value that is malformed stops the start with one
//! sentence that names the variable and never repeats a secret.
//!
//! | Variable | Default | |
//! |---|---|---|
//! | `BIND_ADDR` | `127.0.0.1:8000` | where the API listens |
//! | `METRICS_ADDR` | `127.0.0.1:9464` | where `/metrics` listens; `off` for nowhere |
//! | `HTTP_WORKERS` | one per core | threads that handle requests |
//! | `SHUTDOWN_GRACE_SECONDS` | `30` | for requests under way when a stop is asked for |
//! | `SHUTDOWN_DRAIN_SECONDS` | `0` | between not being ready and closing the port, for load balancers to notice |
//! | `DATABASE_URL` | the database in process | `postgres://user:password@host:port/database` |
//! | `DB_HOST`, `DB_PORT`, `DB_NAME`, `DB_USER`, `DB_PASSWORD` | | the same in parts |
//! | `DATABASE_POOL_MAX` | two for each processor, 4 to 16 | connections |
//! | `DATABASE_QUEUE_MAX` | `64` | requests that may wait for a free connection |
//! | `DATABASE_WAIT_MS` | `5000` | for a free connection |
//! | `DATABASE_STATEMENT_TIMEOUT_MS` | `15000` | for one statement |
//! | `DATA_DIR` | `./data` | of the database in process |
//! | `REDIS_URL`, `REDIS_PASSWORD`, `REDIS_SENTINEL_PASSWORD` | the cache in process | one server, a cluster or sentinels |
//! | `EMBEDDING_PROVIDER` | `tei` with a URL, else `builtin` | `builtin`, `tei` or `openai` |
//! | `EMBEDDING_SERVICE_URL` | | of the embedding server |
//! | `EMBEDDING_API_KEY` | | if a `tei` server asks for one |
//! | `EMBEDDING_MODEL` | | for `openai` |
//! | `EMBEDDING_DIMENSIONS` | the model's | of the vectors that `openai` is asked for |
//! | `OPENAI_API_KEY`, `OPENAI_ORGANIZATION`, `OPENAI_PROJECT` | | for `openai` |
//! | `EMBEDDING_THREADS` | one per core | of the built-in model |
//! | `NEXT_EMBEDDING_PROVIDER`, `NEXT_…` | | a second provider beside the first: the same variables with this prefix |
//! | `RERANK_SERVICE_URL`, `RERANK_API_KEY` | | of a reranker, for searches that ask for it |
//! | `HISTORY_DAYS` | `90` | that superseded versions, deleted contexts and finished operations are kept |
//! | `HISTORY_VERSIONS_MAX` | `10000` | superseded versions of one context that are kept |
//! | `AUDIT_LOG_DAYS` | `365` | that the audit log is kept |
//! | `WORKER_INLINE` | `true` | whether `serve` also embeds |
//! | `BOOTSTRAP_API_KEY` | | an admin key of the default tenant |
//! | `RATE_LIMIT_API_KEY` | no limit | requests a second of one API key |
//! | `RATE_LIMIT_TENANT` | no limit | requests a second of one tenant |
//! | `RATE_LIMIT_BURST_SECONDS` | `10` | for how many seconds' worth of requests may come at once |
//! | `SEARCHES_PER_TENANT` | no limit | searches of one tenant that run at once, in each process |
//! | `SEARCHES_WAITING_PER_TENANT` | `100` | so many more wait for their turn |
//! | `TENANT_STORED_BYTES_MAX` | no limit | bytes that one tenant may have stored |
//! | `ANSWER_CACHE_MB` | `64` | memory for answers that are given again while nothing has changed; `0` keeps none |
//! | `ANSWER_CACHE_SECONDS` | `60` | how long one is kept at most |
//! | `LOG_LEVEL` | `info` | a level, or directives such as `info,context_api::store=debug` |
//! | `LOG_FORMAT` | `pretty` on a terminal, else `json` | |
//!
//! `serve` and `worker` also read those of OpenTelemetry about traces, in `config/traces.rs`.
//!
//! The commands about backups read those in `config/backup.rs`.
//!
//! `context-api embedder` reads those of the crate `embedding-server` and the two about logs.
//!
//! Each may also be given as `NAME_FILE`, the path of a file that holds the value. An empty value is no value.

mod backup;
mod limits;
mod provider;
mod remote_cache;
mod traces;

use std::{net::SocketAddr, num::NonZeroUsize, path::PathBuf, thread, time::Duration};

pub use program::{ConfigError, Source};
use program::{LogOptions, ServerOptions};

pub use self::{
    backup::{backup, timetable},
    traces::traces,
};
use crate::{
    cache::RedisOptions,
    domain::{AnswerLimits, ApiKey, Limits, Retention},
    embedding::{Provider, RerankOptions},
    store::ConnectOptions,
    telemetry::TraceOptions,
};

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Database {
    /// A server, by its URL.
    Server(ConnectOptions),
    /// In this process.
    Embedded { folder: PathBuf, options: ConnectOptions },
}

/// What `serve` and `worker` need to know.
#[derive(Clone, Debug)]
pub struct Config {
    pub bind: SocketAddr,
    pub metrics: Option<SocketAddr>,
    pub server: ServerOptions,
    /// How long to serve on after readiness is withdrawn.
    pub drain: Duration,
    pub database: Database,
    pub redis: Option<RedisOptions>,
    pub provider: Provider,
    /// The one that is to take the place of `provider`, while an operator changes the model.
    pub next_provider: Option<Provider>,
    /// For searches that ask for it.
    pub reranker: Option<RerankOptions>,
    pub retention: Retention,
    pub worker_inline: bool,
    pub bootstrap_api_key: Option<ApiKey>,
    pub limits: Limits,
    pub answer_limits: AnswerLimits,
    pub log: LogOptions,
    pub traces: Option<TraceOptions>,
}

const BIND_DEFAULT: &str = "127.0.0.1:8000";
const METRICS_DEFAULT: &str = "127.0.0.1:9464";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

impl Config {
    /// # Errors
    /// [`ConfigError`]: the variable and what is wrong with it.
    pub fn read(source: &Source) -> Result<Self, ConfigError> {
        Ok(Self {
            bind: bind(source)?,
            metrics: metrics(source)?,
            server: ServerOptions::read(source)?,
            drain: Duration::from_secs(source.parse_in("SHUTDOWN_DRAIN_SECONDS", 0..=300, 0)?),
            database: database(source)?,
            redis: remote_cache::redis(source)?,
            provider: provider::provider(source)?,
            next_provider: provider::next_provider(source)?,
            reranker: provider::reranker(source)?,
            retention: retention(source)?,
            worker_inline: source.parse("WORKER_INLINE", "`true` or `false`")?.unwrap_or(true),
            bootstrap_api_key: source
                .text("BOOTSTRAP_API_KEY")?
                .map(|text| {
                    text.parse().map_err(|error: crate::error::Error| {
                        source.refuse("BOOTSTRAP_API_KEY", error.detail)
                    })
                })
                .transpose()?,
            limits: limits::limits(source)?,
            answer_limits: limits::answers(source)?,
            log: LogOptions::read(source)?,
            traces: traces(source)?,
        })
    }
}

/// Where the API listens.
///
/// # Errors
/// [`ConfigError`].
pub fn bind(source: &Source) -> Result<SocketAddr, ConfigError> {
    program::bind_address(source, BIND_DEFAULT)
}

/// Where metrics are served, if they are.
///
/// # Errors
/// [`ConfigError`].
pub fn metrics(source: &Source) -> Result<Option<SocketAddr>, ConfigError> {
    match source.text("METRICS_ADDR")?.as_deref() {
        Some("off") => Ok(None),
        text => text.unwrap_or(METRICS_DEFAULT).parse().map(Some).map_err(|_| {
            source.refuse("METRICS_ADDR", "must be an address and a port, such as 127.0.0.1:9464, or `off`")
        }),
    }
}

fn retention(source: &Source) -> Result<Retention, ConfigError> {
    let days = |name, default| Ok(Retention::days(source.parse_in(name, 1..=36_500, default)?));
    Ok(Retention {
        history: days("HISTORY_DAYS", Retention::HISTORY_DAYS_DEFAULT)?,
        // Below a hundred no index would help to find what is too much.
        versions_max: source.parse_in(
            "HISTORY_VERSIONS_MAX",
            100..=1_000_000,
            Retention::VERSIONS_DEFAULT,
        )?,
        audit_log: days("AUDIT_LOG_DAYS", Retention::AUDIT_LOG_DAYS_DEFAULT)?,
    })
}

/// As many as keep the database busy where it shares this machine: each further one makes the others slower. See
/// docs/adr/0029-as-many-connections-as-processors-can-serve.md.
fn connections_default() -> usize {
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (2 * processors).clamp(4, 16)
}

/// Which database, and how to connect to it.
///
/// # Errors
/// [`ConfigError`].
pub fn database(source: &Source) -> Result<Database, ConfigError> {
    let options = |url: String| -> Result<ConnectOptions, ConfigError> {
        Ok(ConnectOptions {
            url: url.into(),
            connections_max: source.parse_in("DATABASE_POOL_MAX", 1..=1000, connections_default())?,
            queue_max: source.parse_in("DATABASE_QUEUE_MAX", 1..=100_000, 64)?,
            wait_timeout: Duration::from_millis(source.parse_in("DATABASE_WAIT_MS", 1..=60_000, 5_000)?),
            connect_timeout: CONNECT_TIMEOUT,
            statement_timeout: Duration::from_millis(source.parse_in(
                "DATABASE_STATEMENT_TIMEOUT_MS",
                100..=600_000,
                15_000,
            )?),
        })
    };
    if source.is_set("DATABASE_READ_URLS") {
        return Err(source
            .refuse("DATABASE_READ_URLS", "is not supported by this version; all reads go to DATABASE_URL"));
    }
    let parts = ["DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD"];
    let url = match (source.text("DATABASE_URL")?, source.text("DB_HOST")?) {
        (Some(_), Some(_)) => {
            return Err(source.refuse("DB_HOST", "is set besides DATABASE_URL; set one of them"));
        }
        (Some(url), None) if url.starts_with("postgres://") || url.starts_with("postgresql://") => Some(url),
        (Some(_), None) => {
            return Err(source
                .refuse("DATABASE_URL", "must have the form postgres://user:password@host:port/database"));
        }
        (None, Some(host)) => Some(url_of_parts(source, &host)?),
        (None, None) => {
            if let Some(name) = parts.into_iter().find(|name| source.is_set(name)) {
                return Err(source.refuse(name, "is set without DB_HOST"));
            }
            None
        }
    };
    match url {
        Some(url) => Ok(Database::Server(options(url)?)),
        None if cfg!(feature = "embedded-postgres") => Ok(Database::Embedded {
            folder: source.text("DATA_DIR")?.unwrap_or_else(|| "data".to_owned()).into(),
            options: options(String::new())?,
        }),
        None => Err(source.refuse("DATABASE_URL", "must be set: this build has no database of its own")),
    }
}

fn url_of_parts(source: &Source, host: &str) -> Result<String, ConfigError> {
    let port: u16 = source.parse_in("DB_PORT", 1..=u16::MAX, 5432)?;
    let part =
        |name, default: &str| Ok::<_, ConfigError>(source.text(name)?.unwrap_or_else(|| default.to_owned()));
    let mut url =
        reqwest::Url::parse("postgres://localhost").map_err(|_| source.refuse("DB_HOST", "is not usable"))?;
    let refused = |name: &'static str| source.refuse(name, "cannot be part of a URL");
    url.set_host(Some(host)).map_err(|_| refused("DB_HOST"))?;
    url.set_port(Some(port)).map_err(|()| refused("DB_PORT"))?;
    url.set_username(&part("DB_USER", "context_app")?).map_err(|()| refused("DB_USER"))?;
    url.set_password(source.text("DB_PASSWORD")?.as_deref()).map_err(|()| refused("DB_PASSWORD"))?;
    url.set_path(&part("DB_NAME", "context")?);
    Ok(url.into())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<Config, String> {
        Config::read(&Source::from_pairs(variables)).map_err(|error| error.to_string())
    }

    fn url(config: &Config) -> String {
        match &config.database {
            Database::Server(options) => options.url.expose_secret().to_owned(),
            Database::Embedded { folder, .. } => folder.display().to_string(),
        }
    }

    #[cfg(all(feature = "embedded-postgres", feature = "builtin-embedder"))]
    #[test]
    fn without_any_variable_everything_is_in_process() {
        let config = read(&[]).unwrap();
        assert_eq!(url(&config), "data");
        assert!(config.redis.is_none() && config.worker_inline);
        assert!(matches!(config.provider, Provider::Builtin { .. }));
    }

    #[test]
    fn a_database_may_be_given_in_parts_with_any_password() {
        let config = read(&[
            ("DB_HOST", "db"),
            ("DB_PASSWORD", "p@ss/w:rd#1"),
            ("EMBEDDING_SERVICE_URL", "http://tei:80"),
        ])
        .unwrap();
        assert_eq!(url(&config), "postgres://context_app:p%40ss%2Fw%3Ard%231@db:5432/context");
        assert!(matches!(config.provider, Provider::Tei { .. }));
    }

    #[test]
    fn a_bad_value_names_its_variable_and_keeps_its_secret() {
        for (name, value) in [
            ("BIND_ADDR", "localhost"),
            ("METRICS_ADDR", "9464"),
            ("DATABASE_URL", "mysql://u:hunter2@h/d"),
            ("DATABASE_POOL_MAX", "0"),
            ("DATABASE_POOL_MAX", "many"),
            ("DATABASE_QUEUE_MAX", "0"),
            ("RATE_LIMIT_API_KEY", "100001"),
            ("RATE_LIMIT_TENANT", "-1"),
            ("RATE_LIMIT_BURST_SECONDS", "0"),
            ("SEARCHES_PER_TENANT", "10001"),
            ("SEARCHES_WAITING_PER_TENANT", "-1"),
            ("TENANT_STORED_BYTES_MAX", "-1"),
            ("TENANT_STORED_BYTES_MAX", "10GB"),
            ("TENANT_STORED_BYTES_MAX", "9007199254740992"),
            ("ANSWER_CACHE_MB", "65537"),
            ("ANSWER_CACHE_SECONDS", "0"),
            ("DB_PASSWORD", "hunter2"),
            ("DATABASE_READ_URLS", "postgres://u:hunter2@h/d"),
            ("REDIS_URL", "http://:hunter2@h"),
            ("REDIS_PASSWORD", "hunter2"),
            ("EMBEDDING_PROVIDER", "magic"),
            ("EMBEDDING_SERVICE_URL", "tei:80"),
            ("WORKER_INLINE", "perhaps"),
            ("BOOTSTRAP_API_KEY", "hunter2"),
            ("LOG_LEVEL", "loud=very=much"),
            ("LOG_FORMAT", "xml"),
            ("SHUTDOWN_GRACE_SECONDS", "601"),
            ("HISTORY_DAYS", "0"),
            ("HISTORY_VERSIONS_MAX", "99"),
            ("AUDIT_LOG_DAYS", "36501"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_tenant_may_store_as_much_as_comes_unless_somebody_says() {
        let max = |value| read(&[("TENANT_STORED_BYTES_MAX", value)]).unwrap().limits.stored_bytes_max;
        assert_eq!([max(""), max("0"), max("1000")], [None, None, Some(1_000)]);
    }

    #[test]
    fn empty_values_are_no_values() {
        let variables = [
            ("REDIS_PASSWORD", ""),
            ("EMBEDDING_PROVIDER", ""),
            ("DATABASE_URL", "postgres://u@h/d"),
            ("EMBEDDING_SERVICE_URL", "http://tei"),
        ];
        assert!(read(&variables).unwrap().redis.is_none());
    }
}
