//! What Redis is asked, with a short deadline. After a failure nobody asks until it is found to be back, so that a dead Redis
//! costs no request anything but the one that found out.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::{FromRedisValue, Pipeline, RedisResult, ScriptInvocation};
use tokio::time::Instant;
use uuid::Uuid;

use super::{
    endpoint::{REDIS_URL_FORMS, RedisOptions},
    link::{Connection, Link, Redirects},
};
use crate::{
    error::{Error, Result},
    telemetry::spans,
};

/// Longer than any answer of a healthy Redis, shorter than what a caller notices.
const DEADLINE: Duration = Duration::from_millis(100);
/// With the time that a new connection takes.
const CONNECT_DEADLINE: Duration = Duration::from_millis(600);
/// The same where nobody waits for it: some of a cluster's nodes, or of the sentinels, may be away and have to be found so.
const RETURN_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is looked whether Redis is back.
const PROBE_EVERY: Duration = Duration::from_millis(500);
/// How long after an outage nothing is believed that depends on what other processes have told Redis: one of them may still be
/// finding out that it is back, which takes it a pause and a look.
const SETTLE: Duration = Duration::from_millis(6_500);
const _: () = assert!(SETTLE.as_millis() > PROBE_EVERY.as_millis() + RETURN_DEADLINE.as_millis());

/// A random word that stands for all that Redis was told before it was last away, or lost it. See [`super::generations`].
pub(super) const EPOCH_KEY: &str = "context-api:v1:{generations}:epoch";

/// By what it is found out that Redis is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Probe {
    Ping,
    /// By beginning an epoch, because what was to be told to Redis meanwhile was not, and because it may be another one that has
    /// taken its place and lacks what was told last.
    Epoch,
}

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
    link: Link,
    probe: Probe,
    /// Held by the one who finds out whether it is back.
    looking: tokio::sync::Mutex<()>,
    is_up: AtomicBool,
    /// How often something was to be told to Redis while it was away.
    untold: AtomicU64,
    /// Since when it is up again after an outage.
    back_since: Mutex<Option<Instant>>,
}

impl Remote {
    pub(super) fn new(options: &RedisOptions, probe: Probe) -> Result<Self> {
        // The driver's error may quote the URL, which may hold a password.
        let malformed = || Error::internal(format!("REDIS_URL {REDIS_URL_FORMS}"));
        let redirects = match probe {
            Probe::Ping => Redirects::Follow,
            Probe::Epoch => Redirects::Fail,
        };
        let endpoint = options.endpoint().ok_or_else(malformed)?;
        let link = Link::new(endpoint, redirects, DEADLINE * 5, DEADLINE).map_err(|_| malformed())?;
        Ok(Self(Arc::new(Inner {
            link,
            probe,
            looking: tokio::sync::Mutex::default(),
            is_up: AtomicBool::new(true),
            untold: AtomicU64::new(0),
            back_since: Mutex::default(),
        })))
    }

    pub(super) async fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.ask("GET", async |mut redis| {
            redis::cmd("GET").arg(key).query_async::<Option<Vec<u8>>>(&mut redis).await
        })
        .await
        .flatten()
    }

    pub(super) async fn set(&self, key: &[u8], value: &[u8], ttl: Duration) {
        let mut command = redis::cmd("SET");
        command.arg(key).arg(value).arg("PX").arg(ttl.as_millis() as u64);
        self.ask("SET", async |mut redis| command.query_async::<()>(&mut redis).await).await;
    }

    pub(super) async fn run<T: FromRedisValue>(&self, script: &ScriptInvocation<'_>) -> Option<T> {
        self.ask("EVALSHA", async |mut redis| script.invoke_async(&mut redis).await).await
    }

    pub(super) async fn pipe<T: FromRedisValue>(&self, pipeline: &Pipeline) -> Option<T> {
        self.ask("PIPELINE", async |mut redis| pipeline.query_async(&mut redis).await).await
    }

    /// Makes everybody doubt what Redis was told before. None when it is not there.
    pub(super) async fn begin_epoch(&self) -> Option<()> {
        self.ask("SET", async |redis| probe(redis, Probe::Epoch).await).await
    }

    /// Finds out whether what has just failed was no more than a connection that had broken, and mends it.
    pub(super) async fn look_again(&self) {
        if !self.is_up() {
            self.look(CONNECT_DEADLINE).await;
        }
    }

    /// Has an epoch make good for what Redis could not be told, as soon as it is back. Whether it is: who looked in between may have found
    /// nothing that it had not been told.
    pub(super) fn note_untold(&self) -> bool {
        self.0.untold.fetch_add(1, Ordering::SeqCst);
        self.is_up()
    }

    /// Whether what other processes have told Redis can be relied on.
    pub(super) fn is_settled(&self) -> bool {
        // In this order: an outage in between is then seen.
        let is_up = self.is_up();
        let back_since = *self.0.back_since.lock().unwrap_or_else(PoisonError::into_inner);
        is_up && back_since.is_none_or(|since| since.elapsed() >= SETTLE)
    }

    pub(super) fn is_up(&self) -> bool {
        self.0.is_up.load(Ordering::SeqCst)
    }

    pub(super) async fn state(&self) -> RemoteState {
        match self.ask("PING", async |redis| probe(redis, Probe::Ping).await).await {
            Some(()) => RemoteState::Up,
            None => RemoteState::Down,
        }
    }

    /// Asks unless Redis is away; a failure of any kind is none.
    async fn ask<T>(
        &self,
        command: &'static str,
        call: impl AsyncFnOnce(Connection) -> RedisResult<T>,
    ) -> Option<T> {
        if !self.is_up() {
            return None;
        }
        let span = spans::redis(command);
        let asked = span.around(Box::pin(async { call(self.0.link.connection().await?).await }));
        let reason = match tokio::time::timeout(CONNECT_DEADLINE, asked).await {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        span.fail("unavailable");
        self.note_outage(&reason);
        None
    }

    /// Looks whether it is there, and makes good for what it was not told meanwhile; from then on it is asked again. False when
    /// it has to be looked again.
    async fn look(&self, deadline: Duration) -> bool {
        let _one_at_a_time = self.0.looking.lock().await;
        loop {
            let untold = self.0.untold.load(Ordering::SeqCst);
            let probed = Box::pin(async {
                let connection = self.0.link.find().await?;
                probe(connection.clone(), self.0.probe).await?;
                RedisResult::Ok(connection)
            });
            let Ok(Ok(connection)) = tokio::time::timeout(deadline, probed).await else {
                // Of one that was back, this is another outage, and another one looks.
                let was_back = self.is_up();
                self.note_outage("it went away again");
                return was_back;
            };
            // Not before the probe: what is read by this connection has to be from after it.
            self.0.link.hold(connection);
            if !self.is_up() {
                *self.0.back_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
                self.0.is_up.store(true, Ordering::SeqCst);
            }
            if self.0.untold.load(Ordering::SeqCst) == untold {
                return true;
            }
        }
    }

    /// From now on nobody asks, but for one who finds out when it is back.
    pub(super) fn note_outage(&self, reason: &str) {
        metrics::counter!("cache_remote_failures_total").increment(1);
        if self.0.is_up.swap(false, Ordering::SeqCst) {
            tracing::warn!(reason, "Redis does not answer; going on without it");
            self.0.link.lose();
            tokio::spawn(await_return(Arc::downgrade(&self.0)));
        }
    }
}

async fn probe(mut redis: Connection, probe: Probe) -> RedisResult<()> {
    match probe {
        Probe::Ping => redis::cmd("PING").query_async(&mut redis).await,
        Probe::Epoch => {
            let word = Uuid::now_v7();
            redis::cmd("SET").arg(EPOCH_KEY).arg(word.as_bytes()).query_async(&mut redis).await
        }
    }
}

/// Looks until Redis is back or nobody needs it any more.
async fn await_return(remote: Weak<Inner>) {
    let since = Instant::now();
    loop {
        tokio::time::sleep(PROBE_EVERY).await;
        let Some(remote) = remote.upgrade().map(Remote) else { return };
        // Somebody else may have found it back.
        if remote.is_up() || remote.look(RETURN_DEADLINE).await {
            tracing::info!(after = ?since.elapsed(), "Redis is back");
            return;
        }
    }
}
