//! Answers that are given again, as long as they are true. Whoever changes rows of a tenant lets that be known before the change
//! is acknowledged, so nobody who knows of the change is answered from before it.

use std::{cell::RefCell, collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use metrics::Counter;
use tokio::{runtime::Handle, time::Instant};

use super::Service;
use crate::{
    cache::{Answers, Cache, Kept, Present},
    domain::{Access, Answer, Freshness, MadeAnswer, Provenance, Question, QuestionKind, TenantId},
    error::{Code, Error, Result},
    store::Witness,
};

/// How long a statement may go on after whoever sent it has gone away: the longest that one may be given, nearly always.
const STATEMENT_MAX: Duration = Duration::from_secs(20);
/// Of so many presents is known until when time alone changes nothing.
const PRESENTS_MAX: u64 = 10_000;
/// So many times as far ahead as answers are kept it is looked when time will change something: who goes by a look that is nearly as old as
/// they may be still knows of as much time as they are kept.
const LOOK_AHEAD: u32 = 2;

/// Lets the cache know of changes.
pub(super) struct ChangeWitness(pub Cache);

#[async_trait]
impl Witness for ChangeWitness {
    async fn changed(&self, tenant: TenantId) {
        self.0.renew(tenant).await;
    }

    fn may_change(&self, tenant: TenantId) {
        // Without a runtime the process ends, and with it what it remembers.
        let Ok(runtime) = Handle::try_current() else { return };
        let cache = self.0.clone();
        runtime.spawn(async move {
            cache.renew(tenant).await;
            tokio::time::sleep(STATEMENT_MAX).await;
            cache.renew(tenant).await;
        });
    }
}

/// Until when time alone changes nothing of what readers see, by what the present is known by. Cheap to clone.
#[derive(Clone)]
pub(super) struct Calm(Kept<Present, Instant>);

impl Calm {
    pub(super) fn new() -> Self {
        Self(Kept::new(PRESENTS_MAX))
    }

    /// What was looked up within `ttl`, or what `look` answers: for how long after `now` nothing changes. Kept no longer than answers
    /// are: each write ends a present, and nobody asks about that any more.
    async fn until(
        &self,
        present: &Present,
        now: Instant,
        ttl: Duration,
        look: impl Future<Output = Result<Duration>>,
    ) -> Result<Instant> {
        let look = async {
            let until = now + look.await?;
            Ok((until, (until > now).then_some(until.min(now + ttl))))
        };
        let looked = Box::pin(self.0.get_or_make(present, now, look)).await;
        looked.map_err(|shared| Error::copy_of(&shared))
    }
}

thread_local! {
    /// What is counted of answers: to look a counter up by its labels costs several times as much.
    static COUNTERS: RefCell<HashMap<(QuestionKind, Provenance), Counter>> = RefCell::default();
}

fn count(kind: QuestionKind, provenance: Provenance) {
    COUNTERS.with_borrow_mut(|counters| {
        let counter = counters.entry((kind, provenance)).or_insert_with(|| {
            let (kind, came): (&'static str, &'static str) = (kind.into(), provenance.into());
            metrics::counter!("answers_total", "kind" => kind, "from" => came)
        });
        counter.increment(1);
    });
}

impl Service {
    /// The answer to `question`: one that was given before and is still true, if the caller takes that, or the one of `make`.
    ///
    /// # Errors
    /// Those of `make`; [`crate::error::Code::Overloaded`]; [`crate::error::Code::DatabaseUnavailable`].
    pub async fn answer(
        &self,
        access: Access,
        question: &Question,
        freshness: Freshness,
        make: impl AsyncFnOnce() -> Result<MadeAnswer>,
    ) -> Result<(Answer, Provenance)> {
        let answers = self.cache.answers().filter(|_| freshness == Freshness::True);
        let (answer, provenance) = match answers {
            Some(answers) => self.kept_or_made(access.tenant, answers, question, make).await?,
            None => (Box::pin(make()).await?.answer, Provenance::Bypass),
        };
        count(question.kind, provenance);
        Ok((answer, provenance))
    }

    async fn kept_or_made(
        &self,
        tenant: TenantId,
        answers: &Answers,
        question: &Question,
        make: impl AsyncFnOnce() -> Result<MadeAnswer>,
    ) -> Result<(Answer, Provenance)> {
        let Some(present) = self.present(tenant, answers).await? else {
            return Ok((Box::pin(make()).await?.answer, Provenance::Bypass));
        };
        if let Some(answer) = answers.find(&present, question) {
            return Ok((answer, Provenance::Hit));
        }
        self.store.admit()?;
        let until = self.calm_until(tenant, &present, answers.ttl());
        Box::pin(answers.get_or_make(&present, question, until, make())).await
    }

    /// What all answers of the tenant depend on besides its rows is the space that is searched.
    async fn present(&self, tenant: TenantId, answers: &Answers) -> Result<Option<Present>> {
        let space = self.active_space_id().await?.unwrap_or(0);
        let Some(database) = self.database_id().await else { return Ok(None) };
        let also = [space.to_le_bytes().as_slice(), database.as_bytes()].concat();
        Ok(answers.present(tenant, &also).await)
    }

    /// Two services may share a Redis, and their tenants have the same ids. None while it is not known.
    async fn database_id(&self) -> Option<Arc<str>> {
        if !self.cache.is_shared() {
            return Some("".into());
        }
        let ask = || async {
            match self.store.database_id().await {
                Ok(id) => Ok(Some(id.into())),
                Err(error) if error.code == Code::Internal => {
                    tracing::warn!(%error, "the database does not say which one it is: nothing is answered from memory");
                    Ok(None)
                }
                // Another time.
                Err(error) => Err(error),
            }
        };
        self.database_id.get_or_try_init(ask).await.ok().cloned().flatten()
    }

    /// Looked up once, however many different answers are made at the same time.
    async fn calm_until(&self, tenant: TenantId, present: &Present, ttl: Duration) -> Result<Instant> {
        let look = async {
            let within = ttl * LOOK_AHEAD;
            Ok(self.store.next_change_by_time(tenant, within).await?.unwrap_or(within))
        };
        self.calm.until(present, Instant::now(), ttl, look).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use uuid::Uuid;

    use super::*;
    use crate::domain::AnswerLimits;

    #[tokio::test]
    async fn what_changes_by_time_is_looked_up_once_while_answers_are_kept() {
        let cache = Cache::new(None).unwrap().alone().with_answers(AnswerLimits::default());
        let present = cache.answers().unwrap().present(TenantId(Uuid::nil()), b"").await.unwrap();
        let (calm, ttl, start, looks) =
            (Calm::new(), Duration::from_secs(60), Instant::now(), AtomicU32::new(0));
        let until = async |after: u64, left: u64| {
            let look = async {
                looks.fetch_add(1, Ordering::Relaxed);
                Ok(Duration::from_secs(left))
            };
            let until = calm.until(&present, start + Duration::from_secs(after), ttl, look).await.unwrap();
            (until.duration_since(start).as_secs(), looks.load(Ordering::Relaxed))
        };
        let ahead = (ttl * LOOK_AHEAD).as_secs();
        assert_eq!(until(0, ahead).await, (ahead, 1));
        assert_eq!(until(59, 9).await, (ahead, 1));
        assert!(ahead - 59 >= 60, "who goes by it now keeps an answer for as long as answers are kept");
        assert_eq!(until(60, 9).await, (69, 2), "a present is forgotten when its answers are");
        assert_eq!(until(68, 0).await, (69, 2));
        assert_eq!(until(69, 0).await, (69, 3), "what the last look spoke of has happened");
        assert_eq!(until(69, 0).await, (69, 4));
    }
}
