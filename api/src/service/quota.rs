//! How much a tenant may store. A writer looks before it begins, because within its transaction nothing else may be waited for;
//! what it then does with the answer depends on whether it turns out to store anything.

use std::time::Duration;

use tokio::time::Instant;

use super::{Service, turns::each_tenant};
use crate::{
    cache::Kept,
    domain::{Access, TenantId},
    error::{Code, Error, Result},
};

/// For how long a look holds: so much longer a tenant may go on writing, or is refused though it has made room.
const SEEN_TTL: Duration = Duration::from_secs(1);
const TENANTS_SEEN_MAX: u64 = 10_000;

/// How much each tenant may store, and how much it was seen to have. Cheap to clone.
#[derive(Clone)]
pub(super) struct Quota {
    pub(super) bytes_max: Option<i64>,
    seen: Kept<TenantId, i64>,
}

impl Quota {
    pub(super) fn new(bytes_max: Option<i64>) -> Self {
        Self { bytes_max, seen: Kept::new(TENANTS_SEEN_MAX) }
    }
}

/// Whether a tenant may store more, as it was seen a moment ago.
#[derive(Clone, Copy, Debug)]
pub(super) enum Room {
    Left,
    Full(Option<Measure>),
}

/// In bytes. Told to those alone who reach the whole tenant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Measure {
    stored: i64,
    max: i64,
}

impl Room {
    /// The answer to a write that would store something, if there is no room for it.
    pub(super) fn refusal(self) -> Option<Error> {
        let Self::Full(measure) = self else { return None };
        metrics::counter!("writes_refused_total").increment(1);
        let said = match measure {
            Some(Measure { stored, max }) => {
                format!("This tenant has {stored} bytes stored and may have {max}.")
            }
            None => "This tenant has as much stored as it may.".to_owned(),
        };
        let to_do = "Purge contexts (`DELETE` with `?purge=true`) or erase users to make room, or ask whoever operates the service \
                     for more; what is deleted but not purged still counts.";
        Some(Error::new(Code::StorageQuotaExceeded, format!("{said} {to_do}")))
    }

    /// # Errors
    /// [`Code::StorageQuotaExceeded`].
    pub(super) fn require(self) -> Result<()> {
        self.refusal().map_or(Ok(()), Err)
    }
}

impl Service {
    /// Whether the tenant may store more. Asks the database once a second at most.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub(super) async fn room(&self, access: Access) -> Result<Room> {
        let Quota { bytes_max: Some(max), seen } = &self.quota else { return Ok(Room::Left) };
        // On the heap: its future is large, and mostly not needed.
        let now = Instant::now();
        let look = async { Ok((self.store.stored_bytes(access.tenant).await?, Some(now + SEEN_TTL))) };
        let looked = Box::pin(seen.get_or_make(&access.tenant, now, look)).await;
        let stored = looked.map_err(|shared| Error::copy_of(&shared))?;
        let measure = access.user.is_none().then_some(Measure { stored, max: *max });
        Ok(if stored < *max { Room::Left } else { Room::Full(measure) })
    }

    /// Adds up how much was stored and removed since, of each tenant in turn; answers whether there may be more. May be cut off
    /// anywhere and done by any number of processes.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn add_up_bytes(&self) -> Result<bool> {
        let store = &self.store;
        each_tenant(
            "the bytes of a tenant were not added up",
            move |after, tenants_max| store.tenants_with_stored_bytes_changes(after, tenants_max),
            move |tenant| store.add_up_stored_bytes(tenant),
        )
        .await
    }
}
