//! Redis: one multiplexed connection that reconnects by itself, and a short deadline. After a failure nobody asks until it is
//! found to be back, so that a dead Redis costs no request anything but the one that found out.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use redis::{
    Client, FromRedisValue, IntoConnectionInfo, Pipeline, RedisResult, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret;
use tokio::time::Instant;
use uuid::Uuid;

use super::RedisOptions;
use crate::error::{Error, Result};

/// Longer than any answer of a healthy Redis, shorter than what a caller notices.
const DEADLINE: Duration = Duration::from_millis(100);
/// With the time that a new connection takes.
const CONNECT_DEADLINE: Duration = Duration::from_millis(600);
/// How often it is looked whether Redis is back.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long after an outage nothing is believed that depends on what other processes have told Redis: one of them may still be
/// finding out that it is back. Several times what that takes.
const SETTLE: Duration = Duration::from_secs(2);

/// A random word that stands for all that Redis was told before it was last away, or lost it. See [`super::generations`].
pub(super) const EPOCH_KEY: &str = "context-api:v1:{generations}:epoch";

/// Whether Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteState {
    Up,
    Down,
}

/// Cheap to clone.
#[derive(Clone)]
pub(super) struct Remote(Arc<Inner>);

struct Inner {
    connection: ConnectionManager,
    is_up: AtomicBool,
    /// Since when it is up again after an outage.
    back_since: Mutex<Option<Instant>>,
}

impl Remote {
    pub(super) fn new(options: &RedisOptions) -> Result<Self> {
        // The error may quote the URL, which may hold a password.
        let malformed = |_| Error::internal("REDIS_URL is not of the form redis://host:port/0");
        let mut info = options.url.expose_secret().into_connection_info().map_err(malformed)?;
        if let Some(password) = &options.password {
            let settings = info.redis_settings().clone().set_password(password.expose_secret());
            info = info.set_redis_settings(settings);
        }
        let client = Client::open(info).map_err(malformed)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(DEADLINE * 5))
            .set_response_timeout(Some(DEADLINE))
            .set_number_of_retries(1);
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(Error::internal)?;
        Ok(Self(Arc::new(Inner { connection, is_up: AtomicBool::new(true), back_since: Mutex::default() })))
    }

    pub(super) async fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut connection = self.0.connection.clone();
        self.guard(
            async move { redis::cmd("GET").arg(key).query_async::<Option<Vec<u8>>>(&mut connection).await },
        )
        .await
        .flatten()
    }

    pub(super) async fn set(&self, key: &[u8], value: &[u8], ttl: Duration) {
        let mut connection = self.0.connection.clone();
        self.guard(async move {
            redis::cmd("SET")
                .arg(key)
                .arg(value)
                .arg("PX")
                .arg(ttl.as_millis() as u64)
                .query_async::<()>(&mut connection)
                .await
        })
        .await;
    }

    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        let mut connection = self.0.connection.clone();
        self.guard(async move { script.invoke_async(&mut connection).await }).await
    }

    pub(super) async fn pipe<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Option<T> {
        let mut connection = self.0.connection.clone();
        self.guard(async move { pipeline.query_async(&mut connection).await }).await
    }

    /// Makes everybody doubt what Redis was told before. None when it is not there.
    pub(super) async fn begin_epoch(&self) -> Option<()> {
        self.guard(self.0.begin_epoch()).await
    }

    /// Whether what other processes have told Redis can be relied on.
    pub(super) fn is_settled(&self) -> bool {
        let back_since = *self.0.back_since.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_up() && back_since.is_none_or(|since| since.elapsed() >= SETTLE)
    }

    pub(super) fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::Acquire)
    }

    pub(super) async fn state(&self) -> RemoteState {
        let mut connection = self.0.connection.clone();
        match self.guard(async move { redis::cmd("PING").query_async::<String>(&mut connection).await }).await
        {
            Some(_) => RemoteState::Up,
            None => RemoteState::Down,
        }
    }

    /// Runs `call` unless Redis is away; a failure of any kind is none.
    async fn guard<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if !self.is_up() {
            return None;
        }
        let reason = match tokio::time::timeout(CONNECT_DEADLINE, call).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.note_outage(&reason);
        None
    }

    /// From now on nobody asks, but for one who finds out when it is back.
    pub(super) fn note_outage(&self, reason: &str) {
        metrics::counter!("cache_remote_failures_total").increment(1);
        if self.0.is_up.swap(false, Ordering::AcqRel) {
            tracing::warn!(reason, "Redis does not answer; going on without it");
            tokio::spawn(await_return(Arc::downgrade(&self.0)));
        }
    }
}

impl Inner {
    fn begin_epoch(&self) -> impl Future<Output = RedisResult<()>> + use<> {
        let mut connection = self.connection.clone();
        async move {
            let word = Uuid::now_v7();
            redis::cmd("SET").arg(EPOCH_KEY).arg(word.as_bytes()).query_async(&mut connection).await
        }
    }
}

/// Looks until Redis is back or nobody needs it any more. By beginning an epoch, because what was to be told to Redis meanwhile
/// was not, and because it may be another one that has taken its place and lacks what was told last.
async fn await_return(remote: Weak<Inner>) {
    let since = Instant::now();
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let Some(remote) = remote.upgrade() else { return };
        if let Ok(Ok(())) = tokio::time::timeout(CONNECT_DEADLINE, remote.begin_epoch()).await {
            *remote.back_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            remote.is_up.store(true, Ordering::Release);
            tracing::info!(after = ?since.elapsed(), "Redis is back");
            return;
        }
    }
}
