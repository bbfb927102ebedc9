//! Who may come in.

use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::{
    Once,
    looked_up::LookedUp,
    unit::{in_unit, once},
};
use crate::{
    cache::Kept,
    domain::{
        Access, Action, Actor, ApiKey, ApiKeyHash, ApiKeyInfo, Cursor, DEFAULT_TENANT, IdempotentRequest,
        KeptAnswer, Limit, NewApiKey, Page, Principal, Scope, TenantId,
    },
    error::{Code, Error, Result},
    store::{Store, Unit},
    telemetry::spans,
};

/// How long a verified key is trusted without asking again: the longest time that a revoked key still works.
pub(super) const VERIFIED_TTL: Duration = Duration::from_millis(900);
const VERIFIED_MAX: u64 = 10_000;
/// How often the last use of a key is written down.
const TOUCH_EVERY: Duration = Duration::from_secs(60);

/// API keys. Needs the database alone, neither a model nor a cache server. Cheap to clone.
#[derive(Clone)]
pub struct Keys {
    store: Store,
    verified: LookedUp<ApiKeyHash, Principal>,
    /// Keys whose use was written down lately.
    touched: Kept<Uuid, ()>,
}

/// A key that was just made. Its secret is shown once and then known to its owner alone.
#[derive(Debug)]
pub struct NewKey {
    pub info: ApiKeyInfo,
    pub secret: ApiKey,
}

impl Keys {
    pub fn new(store: Store) -> Self {
        Self {
            store,
            verified: LookedUp::new(VERIFIED_MAX, VERIFIED_TTL, |_| true),
            touched: Kept::new(VERIFIED_MAX),
        }
    }

    /// Who presents `key`.
    ///
    /// # Errors
    /// [`Code::InvalidApiKey`] when it is unknown, revoked or expired; [`Code::DatabaseUnavailable`].
    pub async fn authenticate(&self, key: &ApiKey) -> Result<Principal> {
        let hash = key.hash();
        let renew = || {
            let keys = Self { store: self.store.patient(), ..self.clone() };
            async move { keys.find(hash).await }
        };
        self.verified.get(hash, renew, || self.find(hash)).await
    }

    async fn find(&self, hash: ApiKeyHash) -> Result<Principal> {
        let find = spans::database("find API key", self.store.find_principal(hash));
        let principal = find.await?.ok_or_else(|| {
            Error::new(
                Code::InvalidApiKey,
                "This API key is not known here; it may have been revoked or have expired.",
            )
        })?;
        self.touch(&principal);
        Ok(principal)
    }

    /// Has the use of a key written down, beside the request: it would be a pity to fail for it.
    fn touch(&self, principal: &Principal) {
        let (id, now) = (principal.api_key, Instant::now());
        if self.touched.get(&id, now).is_some() {
            return;
        }
        self.touched.insert(id, (), now, now + TOUCH_EVERY);
        let (store, tenant) = (self.store.clone(), principal.access.tenant);
        tokio::spawn(async move {
            if let Err(error) = store.touch_api_key(tenant, id).await {
                tracing::debug!(%error, "the use of an API key was not written down");
            }
        });
    }

    /// Makes a key in `tenant`, which is `actor`'s own unless it is an operator, and keeps its hash.
    ///
    /// # Errors
    /// What `Idempotency-Key` brings; [`Code::DatabaseUnavailable`].
    pub async fn create(
        &self,
        actor: &Actor,
        tenant: TenantId,
        new: &NewApiKey,
        request: Option<&IdempotentRequest>,
        kept: impl Fn(&NewKey) -> Result<KeptAnswer>,
    ) -> Result<Once<NewKey>> {
        let owner = Actor { access: Access::whole(tenant), ..actor.clone() };
        once(&self.store, actor, request, kept, async |unit: &mut Unit| {
            let secret = ApiKey::generate()?;
            unit.enter(owner.access).await?;
            let info = unit.insert_api_key(&secret, new).await?;
            unit.log(&owner, Action::CreateApiKey, info.id).await?;
            unit.enter(actor.access).await?;
            Ok(NewKey { info, secret })
        })
        .await
    }

    /// As [`Keys::create`], for a command: nobody sends it again.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn create_for_operator(&self, tenant: TenantId, new: &NewApiKey) -> Result<ApiKey> {
        let actor = Actor::operator(tenant);
        let nothing_to_keep = |_: &NewKey| Ok(KeptAnswer::nothing());
        match self.create(&actor, tenant, new, None, nothing_to_keep).await? {
            Once::Now(key, _) => Ok(key.secret),
            Once::Before(_) => Err(Error::internal("a command was answered from memory")),
        }
    }

    /// Makes a new secret with the same rights. The old one works for `overlap_seconds` more.
    ///
    /// # Errors
    /// [`Code::ApiKeyNotFound`]; what `Idempotency-Key` brings; [`Code::DatabaseUnavailable`].
    pub async fn rotate(
        &self,
        actor: &Actor,
        id: Uuid,
        overlap_seconds: u32,
        request: Option<&IdempotentRequest>,
        kept: impl Fn(&NewKey) -> Result<KeptAnswer>,
    ) -> Result<Once<NewKey>> {
        once(&self.store, actor, request, kept, async |unit: &mut Unit| {
            let old = unit.lock_api_key(id).await?.ok_or_else(no_key)?;
            let secret = ApiKey::generate()?;
            let new = NewApiKey::new(&old.name, old.scopes, old.user_id, old.expires_at)?;
            let info = unit.insert_api_key(&secret, &new).await?;
            unit.end_api_key(id, overlap_seconds).await?;
            unit.log(actor, Action::RotateApiKey, id).await?;
            unit.log(actor, Action::CreateApiKey, info.id).await?;
            Ok(NewKey { info, secret })
        })
        .await
    }

    /// # Errors
    /// [`Code::ApiKeyNotFound`] when there is none or it was revoked before; [`Code::DatabaseUnavailable`].
    pub async fn revoke(&self, actor: &Actor, id: Uuid) -> Result<()> {
        in_unit(&self.store, actor.access, async |unit: &mut Unit| {
            if !unit.end_api_key(id, 0).await? {
                return Err(no_key());
            }
            unit.log(actor, Action::RevokeApiKey, id).await
        })
        .await
    }

    /// Revokes the one key with this prefix or id.
    ///
    /// # Errors
    /// [`Code::ApiKeyNotFound`]; [`Code::InvalidRequest`] when several keys begin so.
    pub async fn revoke_for_operator(&self, tenant: TenantId, prefix_or_id: &str) -> Result<()> {
        let id = match prefix_or_id.parse() {
            Ok(id) => id,
            Err(_) => match self.store.find_api_keys_by_prefix(tenant, prefix_or_id).await?.as_slice() {
                [] => return Err(no_key()),
                [id] => *id,
                _ => return Err(Error::invalid("/prefix", "several keys begin so; name the key by its id")),
            },
        };
        self.revoke(&Actor::operator(tenant), id).await
    }

    /// Lets `key`, which the operator chose, in as an admin of the default tenant. May be called at every start.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn ensure_bootstrap(&self, key: &ApiKey) -> Result<()> {
        let new = NewApiKey::new("bootstrap", Scope::all(), None, None)?;
        self.store.ensure_api_key(DEFAULT_TENANT, key, &new).await
    }

    /// Newest first.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`].
    pub async fn list(
        &self,
        tenant: TenantId,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Page<ApiKeyInfo>> {
        let rows = self.store.list_api_keys(tenant, limit, cursor).await?;
        Ok(Page::from_overfetch(rows, limit, false, |key| Cursor::at(key.id)))
    }
}

fn no_key() -> Error {
    Error::new(Code::ApiKeyNotFound, "There is no such API key that is still valid.")
}
