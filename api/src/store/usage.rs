//! Counting what is stored and what waits.

use sqlx::{Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{Store, contexts::visible, stored_bytes::bytes_of_tenant};
use crate::{
    domain::{Access, Stored},
    error::{Error, Result},
};

/// Contexts that wait for their embedding, and those that failed.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub pending: i64,
    /// Since when the oldest of them waits.
    pub oldest_requested_at: Option<OffsetDateTime>,
    /// For how many seconds; 0 when nothing waits.
    pub oldest_seconds: f64,
    pub failed: i64,
}

/// $1 tenant, $2 user or null. The bytes of a tenant are known; those of a user are counted in the same way.
const STORED: &str = concat!(
    "select c.contexts, c.deleted, v.versions, k.chunks, e.embeddings,
            case when $2::uuid is null then ",
    bytes_of_tenant!(),
    " else (coalesce((select sum(context_bytes(c.content, c.metadata, c.text)) from contexts c
                             where c.tenant_id = $1 and c.user_id = $2), 0)
                  + coalesce((select sum(context_bytes(v.content, v.metadata, v.text)) from context_versions v
                              where v.tenant_id = $1 and v.user_id = $2), 0))::bigint end as bytes
     from (select count(*) filter (where ",
    visible!(),
    ") as contexts, count(*) filter (where not c.is_active) as deleted
           from contexts c where c.tenant_id = $1 and ($2::uuid is null or c.user_id = $2)) c,
          (select count(*) as versions
           from context_versions v where v.tenant_id = $1 and ($2::uuid is null or v.user_id = $2)) v,
          (select count(*) as chunks from chunks k
           where k.tenant_id = $1 and ($2::uuid is null or k.user_id = $2)) k,
          (select count(*) as embeddings from chunk_embeddings e
           where e.tenant_id = $1 and ($2::uuid is null or e.user_id = $2)) e"
);

/// For how long `$oldest` has waited, by the one clock that all share.
macro_rules! seconds_since {
    ($oldest:literal) => {
        concat!(
            "coalesce(greatest(extract(epoch from clock_timestamp() - ",
            $oldest,
            "), 0), 0)::float8 as oldest_seconds"
        )
    };
}

/// $1 tenant, $2 user or null
const BACKLOG: &str = concat!(
    "select p.pending, p.oldest_requested_at, f.failed, ",
    seconds_since!("p.oldest_requested_at"),
    "
    from (select count(*) as pending, min(c.embedding_requested_at) as oldest_requested_at from contexts c
          where c.tenant_id = $1 and c.embedding_status = 'pending' and c.is_active
            and ($2::uuid is null or c.user_id = $2)) p,
         (select count(*) as failed from contexts c
          where c.tenant_id = $1 and c.embedding_status = 'failed' and c.is_active
            and ($2::uuid is null or c.user_id = $2)) f"
);

const BACKLOG_OF_ALL: &str = concat!(
    "select b.pending, b.oldest_requested_at, b.failed, ",
    seconds_since!("b.oldest_requested_at"),
    " from embedding_backlog() b"
);

impl Store {
    /// How much there is of what `access` reaches.
    ///
    /// # Errors
    /// When the database cannot be reached, or takes too long to count.
    pub async fn count_stored(&self, access: Access) -> Result<Stored> {
        let mut connection = self.tenant(access.tenant).await?;
        let query = sqlx::query(STORED).bind(access.tenant.0).bind(access.user.map(|user| user.0));
        let result = query.fetch_one(connection.pg()).await;
        let row = connection.settle(result)?;
        let read = |name| row.try_get(name).map_err(Error::internal);
        Ok(Stored {
            contexts: read("contexts")?,
            deleted_contexts: read("deleted")?,
            versions: read("versions")?,
            chunks: read("chunks")?,
            embeddings: read("embeddings")?,
            bytes: read("bytes")?,
            bytes_max: None,
        })
    }

    /// The backlog of what `access` reaches.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn backlog(&self, access: Access) -> Result<Backlog> {
        let mut connection = self.tenant(access.tenant).await?;
        let query = sqlx::query(BACKLOG).bind(access.tenant.0).bind(access.user.map(|user| user.0));
        let result = query.fetch_one(connection.pg()).await;
        read_backlog(&connection.settle(result)?)
    }

    /// The backlog of all tenants together, for operators.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn backlog_of_all(&self) -> Result<Backlog> {
        let mut connection = self.connection().await?;
        let result = sqlx::query(BACKLOG_OF_ALL).fetch_one(connection.pg()).await;
        read_backlog(&connection.settle(result)?)
    }
}

fn read_backlog(row: &PgRow) -> Result<Backlog> {
    let read = || {
        Ok::<_, sqlx::Error>(Backlog {
            pending: row.try_get("pending")?,
            oldest_requested_at: row.try_get("oldest_requested_at")?,
            oldest_seconds: row.try_get("oldest_seconds")?,
            failed: row.try_get("failed")?,
        })
    };
    read().map_err(Error::internal)
}
