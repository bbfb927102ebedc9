//! Writes of several steps: together or not at all, again when another writer was in the way, and once for each
//! `Idempotency-Key`.

use std::time::Duration;

use backon::{ExponentialBuilder, Retryable};

use crate::{
    domain::{Access, Actor, IdempotentRequest, KeptAnswer},
    error::{Code, Error, Result},
    store::{Claim, Store, Unit},
    telemetry::spans,
};

/// How often a write is tried that another one was in the way of. After that the caller decides.
const TRIES_MAX: usize = 3;

/// How a write came out that is done once.
#[derive(Debug)]
pub enum Once<T> {
    /// It was done now, and is answered so.
    Now(T, KeptAnswer),
    /// It was done by an earlier request, which was answered so.
    Before(KeptAnswer),
}

impl<T> Once<T> {
    pub fn answer(self) -> KeptAnswer {
        match self {
            Self::Now(_, answer) | Self::Before(answer) => answer,
        }
    }
}

/// Runs `work` in a transaction.
pub(super) async fn in_unit<T>(
    store: &Store,
    access: Access,
    work: impl AsyncFn(&mut Unit) -> Result<T>,
) -> Result<T> {
    let attempt = async || {
        let mut unit = store.begin(access).await?;
        match work(&mut unit).await {
            Ok(value) => unit.commit().await.map(|()| value),
            Err(error) => {
                // When it cannot be undone from here, the database does it.
                unit.roll_back().await.ok();
                Err(error)
            }
        }
    };
    let backoff = ExponentialBuilder::default()
        .with_jitter()
        .with_min_delay(Duration::from_millis(5))
        .with_max_times(TRIES_MAX - 1);
    // Not around it: a unit is large, and would be held twice.
    let span = spans::statements("transaction");
    let result = attempt.retry(backoff).when(|error: &Error| error.code == Code::DatabaseBusy).await;
    span.settle(&result);
    result
}

/// As [`in_unit`], and keeps the answer for whoever sends the request again.
pub(super) async fn once<T>(
    store: &Store,
    actor: &Actor,
    request: Option<&IdempotentRequest>,
    answer: impl Fn(&T) -> Result<KeptAnswer>,
    work: impl AsyncFn(&mut Unit) -> Result<T>,
) -> Result<Once<T>> {
    in_unit(store, actor.access, async |unit| {
        if let Some(request) = request
            && let Claim::Done(answer) = unit.claim(request).await?
        {
            return Ok(Once::Before(answer));
        }
        let value = work(unit).await?;
        let kept = answer(&value)?;
        if let Some(request) = request {
            unit.keep_answer(request, &kept).await?;
        }
        Ok(Once::Now(value, kept))
    })
    .await
}
