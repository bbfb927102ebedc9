//! Who may search now. Nothing that is asked often costs the database more than a search, and without a limit the searches of one
//! tenant would have all its connections while those of the others wait.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use quick_cache::{DefaultHashBuilder, Lifecycle, UnitWeighter, sync::Cache as Bounded};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::{
    domain::{SearchLimits, TenantId},
    error::{Code, Error, Result},
};

/// How long a search waits for its turn. Who waits longer is better told to come again.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Gates that are remembered though nobody is in them, about.
const TENANTS_MAX: usize = 10_000;

/// Counts the searches of each tenant in this process. Cheap to clone.
#[derive(Clone)]
pub(in crate::service) struct Admission {
    limits: SearchLimits,
    wait_max: Duration,
    tenants: Arc<Bounded<TenantId, Arc<Gate>, UnitWeighter, DefaultHashBuilder, WhileInUse>>,
}

struct Gate {
    running: Arc<Semaphore>,
    waiting: AtomicU32,
}

/// A gate stays where somebody is in it or waits.
#[derive(Clone)]
struct WhileInUse;

impl Lifecycle<TenantId, Arc<Gate>> for WhileInUse {
    type RequestState = ();

    fn is_pinned(&self, _: &TenantId, gate: &Arc<Gate>) -> bool {
        Arc::strong_count(gate) > 1 || Arc::strong_count(&gate.running) > 1
    }

    fn begin_request(&self) {}
}

/// One of those who wait, until it is dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    /// None when as many wait as may.
    fn take(waiting: &'a AtomicU32, waiting_max: u32) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < waiting_max).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Admission {
    pub(in crate::service) fn new(limits: SearchLimits) -> Self {
        Self::remembering(TENANTS_MAX, limits)
    }

    fn remembering(tenants_max: usize, limits: SearchLimits) -> Self {
        let (weight_max, hasher) = (tenants_max as u64, DefaultHashBuilder::default());
        let tenants = Bounded::with(tenants_max, weight_max, UnitWeighter, hasher, WhileInUse);
        Self { limits, wait_max: WAIT_MAX, tenants: Arc::new(tenants) }
    }

    /// Waits for the tenant's turn, which lasts until what is answered is dropped. None where there is no limit.
    ///
    /// # Errors
    /// [`Code::TooManySearches`] when too many wait already, or the turn does not come.
    pub(in crate::service) async fn enter(&self, tenant: TenantId) -> Result<Option<OwnedSemaphorePermit>> {
        let Some(at_once) = self.limits.at_once else { return Ok(None) };
        let gate = || {
            let running = Arc::new(Semaphore::new(at_once.get()));
            Ok::<_, Infallible>(Arc::new(Gate { running, waiting: AtomicU32::new(0) }))
        };
        let Ok(gate) = self.tenants.get_or_insert_with(&tenant, gate);
        if let Ok(turn) = Arc::clone(&gate.running).try_acquire_owned() {
            return Ok(Some(turn));
        }
        let Some(_place) = Place::take(&gate.waiting, self.limits.waiting) else { return Err(refused()) };
        match timeout(self.wait_max, Arc::clone(&gate.running).acquire_owned()).await {
            Ok(turn) => turn.map(Some).map_err(Error::internal),
            Err(_) => Err(refused()),
        }
    }
}

fn refused() -> Error {
    metrics::counter!("searches_refused_total").increment(1);
    Error::new(Code::TooManySearches, "As many searches of this tenant are under way and waiting as may be.")
        .with_retry_after(Duration::from_secs(1))
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroUsize, ops::Range, pin::pin};

    use futures_util::poll;
    use uuid::Uuid;

    use super::*;

    fn admission(at_once: usize, waiting: u32) -> Admission {
        Admission::new(SearchLimits { at_once: NonZeroUsize::new(at_once), waiting })
    }

    fn tenant(number: u128) -> TenantId {
        TenantId(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn each_tenant_has_its_turns_and_places_and_gives_them_back() {
        let admission = admission(1, 1);
        for _ in 0..3 {
            let turn = admission.enter(tenant(1)).await.unwrap();
            let mut next = pin!(admission.enter(tenant(1)));
            assert!(poll!(&mut next).is_pending());
            let refused = admission.enter(tenant(1)).await.unwrap_err();
            assert_eq!((refused.code, refused.retry_after.is_some()), (Code::TooManySearches, true));
            assert!(admission.enter(tenant(2)).await.unwrap().is_some(), "another one's");
            drop(turn);
            assert!(next.await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn nobody_waits_where_nobody_may() {
        let admission = admission(1, 0);
        let _turn = admission.enter(tenant(1)).await.unwrap();
        let mut next = pin!(admission.enter(tenant(1)));
        assert!(poll!(&mut next).is_ready());
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_has_no_place() {
        let admission = admission(1, 1);
        let _turn = admission.enter(tenant(1)).await.unwrap();
        for _ in 0..3 {
            let mut gone = Box::pin(admission.enter(tenant(1)));
            assert!(poll!(&mut gone).is_pending());
        }
    }

    #[tokio::test]
    async fn nobody_waits_for_ever() {
        let admission = Admission { wait_max: Duration::from_millis(10), ..admission(1, 1) };
        let _turn = admission.enter(tenant(1)).await.unwrap();
        assert_eq!(admission.enter(tenant(1)).await.unwrap_err().code, Code::TooManySearches);
    }

    #[tokio::test]
    async fn however_many_tenants_come_a_gate_is_not_forgotten_where_somebody_is() {
        let limits = SearchLimits { at_once: NonZeroUsize::new(1), waiting: 1 };
        let admission = Admission::remembering(10, limits);
        let come = async |numbers: Range<u128>| {
            for number in numbers {
                // Twice: what was wanted once goes first.
                for _ in 0..2 {
                    drop(admission.enter(tenant(number)).await.unwrap());
                }
            }
        };
        come(10..30).await;
        let turn = admission.enter(tenant(1)).await.unwrap();
        let mut waits = pin!(admission.enter(tenant(1)));
        assert!(poll!(&mut waits).is_pending());
        come(30..1_000).await;
        assert!(admission.tenants.len() <= 11, "{} are remembered", admission.tenants.len());
        assert!(admission.enter(tenant(1)).await.is_err(), "one is in it and one waits");
        drop(turn);
        let _turn = waits.await.unwrap();
        come(1_000..2_000).await;
        assert!(poll!(pin!(admission.enter(tenant(1)))).is_pending(), "the other one is in it");
    }

    #[tokio::test]
    async fn without_a_limit_there_is_no_turn_to_wait_for() {
        assert!(admission(0, 0).enter(tenant(1)).await.unwrap().is_none());
    }
}
