//! Removing what nobody can see any more or what is older than it has to be kept, a bounded number of rows at a time.

use sqlx::{Row, postgres::PgRow};

use super::Store;
use crate::{
    domain::{Retention, TenantId, limits::IDEMPOTENCY_RETENTION},
    error::{Error, Result},
};

/// Rows of each kind in one statement: its transaction stays short, and waits for nobody.
const ROWS_MAX: i64 = 500;

/// How much was removed of each kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub contexts: i64,
    pub versions: i64,
    pub idempotency_keys: i64,
    pub operations: i64,
    pub audit_entries: i64,
}

impl Removed {
    /// The counts with their names.
    pub fn by_kind(self) -> [(&'static str, i64); 5] {
        [
            ("contexts", self.contexts),
            ("versions", self.versions),
            ("idempotency_keys", self.idempotency_keys),
            ("operations", self.operations),
            ("audit_entries", self.audit_entries),
        ]
    }

    /// Whether there may be more to remove.
    pub fn may_have_left_some(self) -> bool {
        self.by_kind().into_iter().any(|(_, rows)| rows >= ROWS_MAX)
    }

    pub fn add(&mut self, more: Self) {
        self.contexts += more.contexts;
        self.versions += more.versions;
        self.idempotency_keys += more.idempotency_keys;
        self.operations += more.operations;
        self.audit_entries += more.audit_entries;
    }
}

/// $1 tenant, $2 rows, $3 seconds that history is kept, $4 versions of a context that are kept, $5 seconds that answers are
/// kept, $6 seconds that the audit log is kept. The number of versions does not count for an hour, so that an export sees
/// what was there when it began. Of each context the oldest versions go first: so the chunks of a past text go with the last
/// version that had it, the one whose next version has another text.
const REMOVE: &str = "
    with expired as materialized (
        select c.id from contexts c
        where c.tenant_id = $1 and c.expires_at <= now()
        order by c.expires_at limit $2 for update skip locked
    ), deleted as materialized (
        select c.id from contexts c
        where c.tenant_id = $1 and not c.is_active and c.updated_at < now() - make_interval(secs => $3)
        order by c.updated_at limit $2 for update skip locked
    ), gone as (
        delete from contexts c using (select id from expired union select id from deleted) d
        where c.tenant_id = $1 and c.id = d.id
        returning 1
    ), old as (
        (select v.context_id, v.version from context_versions v
         where v.tenant_id = $1 and v.superseded_at < now() - make_interval(secs => $3)
         order by v.superseded_at limit $2)
        union
        (select v.context_id, v.version
         from contexts c
         cross join lateral (
             select p.context_id, p.version from context_versions p
             where p.tenant_id = $1 and p.context_id = c.id and p.version < c.version - $4
               and p.superseded_at < now() - interval '1 hour'
             order by p.version limit $2
         ) v
         where c.tenant_id = $1 and c.version > 100 and c.version > $4
         limit $2)
    ), forgotten as (
        delete from context_versions v using old
        where v.tenant_id = $1 and v.context_id = old.context_id and v.version = old.version
        returning v.context_id, v.version, v.text_version
    ), forgotten_texts as (
        delete from past_chunks k using forgotten f
        where k.tenant_id = $1 and k.context_id = f.context_id and k.version = f.text_version
          and not exists (select from context_versions v
                          where v.tenant_id = $1 and v.context_id = f.context_id and v.version = f.version + 1
                            and v.text_version = f.text_version)
    ), answered as (
        select k.namespace, k.key from idempotency_keys k
        where k.tenant_id = $1 and k.created_at < now() - make_interval(secs => $5)
        order by k.created_at limit $2
    ), unkept as (
        delete from idempotency_keys k using answered a
        where k.tenant_id = $1 and k.namespace = a.namespace and k.key = a.key
        returning 1
    ), finished as (
        select o.id from operations o
        where o.tenant_id = $1 and o.finished_at < now() - make_interval(secs => $3)
        order by o.id limit $2
    ), dropped as (
        delete from operations o using finished f where o.tenant_id = $1 and o.id = f.id returning 1
    )
    select (select count(*) from gone) as contexts, (select count(*) from forgotten) as versions,
           (select count(*) from unkept) as idempotency_keys, (select count(*) from dropped) as operations,
           prune_audit_log(make_interval(secs => $6), $2::integer) as audit_entries";

impl Store {
    /// Removes some of what the tenant need not keep any more.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn remove_outdated(&self, tenant: TenantId, retention: &Retention) -> Result<Removed> {
        // What was of use to the past may be gone from it.
        let mut writing = self.write(tenant).await?;
        let result = sqlx::query(REMOVE)
            .bind(tenant.0)
            .bind(ROWS_MAX)
            .bind(retention.history.as_secs_f64())
            .bind(retention.versions_max)
            .bind(IDEMPOTENCY_RETENTION.as_secs_f64())
            .bind(retention.audit_log.as_secs_f64())
            .fetch_one(writing.pg())
            .await;
        let removed = writing.settle(result).and_then(|row| removed_from_row(&row).map_err(Error::internal));
        if removed.as_ref().is_ok_and(|removed| removed.contexts == 0 && removed.versions == 0) {
            writing.changes_nothing_visible();
        }
        writing.finish(removed).await
    }
}

fn removed_from_row(row: &PgRow) -> sqlx::Result<Removed> {
    Ok(Removed {
        contexts: row.try_get("contexts")?,
        versions: row.try_get("versions")?,
        idempotency_keys: row.try_get("idempotency_keys")?,
        operations: row.try_get("operations")?,
        audit_entries: row.try_get("audit_entries")?,
    })
}
