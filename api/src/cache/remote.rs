//! Redis: one multiplexed connection that reconnects by itself, a short deadline, and a pause after each failure, so
//! that a dead Redis costs nothing per request.

use std::{future::Future, sync::Mutex, time::Duration};

use redis::{
    Client, FromRedisValue, IntoConnectionInfo, RedisResult, ScriptInvocation,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use secrecy::ExposeSecret;
use tokio::time::Instant;

use super::RedisOptions;
use crate::error::{Error, Result};

/// Longer than any answer of a healthy Redis, shorter than what a caller notices.
const DEADLINE: Duration = Duration::from_millis(100);
/// How long nobody asks after a failure.
const PAUSE: Duration = Duration::from_secs(1);

/// Whether Redis answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteState {
    Up,
    Down,
}

pub(super) struct Remote {
    connection: ConnectionManager,
    paused_until: Mutex<Option<Instant>>,
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
        Ok(Self { connection, paused_until: Mutex::new(None) })
    }

    pub(super) async fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        let mut connection = self.connection.clone();
        self.guard(
            async move { redis::cmd("GET").arg(key).query_async::<Option<Vec<u8>>>(&mut connection).await },
        )
        .await
        .flatten()
    }

    pub(super) async fn set(&self, key: &[u8], value: Vec<u8>, ttl: Duration) {
        let mut connection = self.connection.clone();
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
        let mut connection = self.connection.clone();
        self.guard(async move { script.invoke_async(&mut connection).await }).await
    }

    pub(super) async fn state(&self) -> RemoteState {
        let mut connection = self.connection.clone();
        match self.guard(async move { redis::cmd("PING").query_async::<String>(&mut connection).await }).await
        {
            Some(_) => RemoteState::Up,
            None => RemoteState::Down,
        }
    }

    /// Runs `call` unless a failure was just seen; a failure of any kind is none.
    async fn guard<T>(&self, call: impl Future<Output = RedisResult<T>>) -> Option<T> {
        if self.paused() {
            return None;
        }
        let reason = match tokio::time::timeout(DEADLINE * 6, call).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        metrics::counter!("cache_remote_failures_total").increment(1);
        tracing::warn!(reason, "Redis does not answer; going on without it");
        self.set_paused();
        None
    }

    fn paused(&self) -> bool {
        self.paused_until.lock().is_ok_and(|until| until.is_some_and(|until| Instant::now() < until))
    }

    fn set_paused(&self) {
        if let Ok(mut until) = self.paused_until.lock() {
            *until = Some(Instant::now() + PAUSE);
        }
    }
}
