//! Contexts and, in the same statement, the chunks by which they are found: a write is whole or it is not.

use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use sqlx::{
    Postgres, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
    types::Json,
};
use uuid::Uuid;

use super::{Store, pool::Connection};
use crate::{
    domain::{
        Context, ContextId, EmbeddingStatus, Expiry, ListRequest, NewContext, TenantId, UserId,
        limits::ANSWER_BYTES_MAX,
    },
    error::{Error, Result},
};

/// The columns of a [`Context`]. A macro, because `concat!` takes literals only and SQL is static text here.
macro_rules! context_columns {
    () => {
        "c.id, c.user_id, c.context_type, c.key, c.content, c.metadata, c.text, c.created_at, c.updated_at, \
         c.expires_at, c.is_active, c.version, c.embedding_status, c.embedding_error"
    };
}

/// The condition under which a context exists for its readers.
macro_rules! visible {
    () => {
        "c.is_active and (c.expires_at is null or c.expires_at > now())"
    };
}

/// What a write did.
#[derive(Debug)]
pub struct Written {
    pub context: Context,
    /// False when its key existed already.
    pub created: bool,
}

/// Contexts that were read within the limit on the bytes of an answer.
#[derive(Debug)]
pub struct Bounded {
    pub contexts: Vec<Context>,
    /// Whether the limit left some out.
    pub cut: bool,
}

/// Creates the context, or updates the one of its key, with its chunks. An update that changes nothing is none: the
/// version stays, and nothing is embedded again. The chunks of the version before go by a trigger on the version.
///
/// $1 tenant, $2 id, $3 user, $4 type, $5 key, $6 content, $7 metadata, $8 text, $9 expires at, $10 ttl seconds,
/// $11 chunk texts
const UPSERT: &str = concat!(
    "with c as (
         insert into contexts as t (tenant_id, id, user_id, context_type, key, content, metadata, text, expires_at,
                                    embedding_status)
         values ($1, $2, $3, $4, $5, $6::text::jsonb, $7::text::jsonb, $8,
                 coalesce($9, now() + make_interval(secs => $10::float8)),
                 case when cardinality($11::text[]) > 0 then 'pending' else 'ready' end)
         on conflict on constraint contexts_key do update
             set context_type = excluded.context_type, content = excluded.content, metadata = excluded.metadata,
                 text = excluded.text, expires_at = excluded.expires_at, is_active = true, version = t.version + 1,
                 updated_at = now(), embedding_status = excluded.embedding_status, embedding_error = null,
                 embedding_attempts = 0, embedding_due_at = now()
             where (t.context_type, t.content, t.metadata, t.text, t.expires_at, t.is_active)
                   is distinct from (excluded.context_type, excluded.content, excluded.metadata, excluded.text,
                                     excluded.expires_at, true)
         returning *
     ), added as (
         insert into chunks (tenant_id, context_id, version, chunk_no, user_id, context_type, expires_at, text, tsv)
         select $1, c.id, c.version, (p.no - 1)::integer, c.user_id, c.context_type, c.expires_at, p.text,
                to_tsvector('english', p.text)
         from c, unnest($11::text[]) with ordinality as p (text, no)
     )
     select ",
    context_columns!(),
    ", c.version = 1 as created from c"
);

const FIND_BY_KEY: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.user_id = $2 and c.key = $3"
);

const FIND: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.id = $2 and ",
    visible!()
);

const FIND_MANY: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c join unnest($2) with ordinality as wanted (id, place) on wanted.id = c.id where c.tenant_id = $1 and ",
    visible!(),
    " order by wanted.place"
);

/// Newest first. $2 type or null, $3 the id to start after or null, $4 rows
const LIST: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.context_type = coalesce($2, c.context_type)
      and ($3::uuid is null or c.id < $3) and ",
    visible!(),
    " order by c.id desc limit $4"
);

/// As [`LIST`], for one user: a statement of its own, so that its plan is the index of users.
const LIST_OF_USER: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.user_id = $5 and c.context_type = coalesce($2, c.context_type)
      and ($3::uuid is null or c.id < $3) and ",
    visible!(),
    " order by c.id desc limit $4"
);

/// Hides the context. The trigger on the version takes its chunks and embeddings out of search.
const DEACTIVATE: &str = concat!(
    "update contexts as c set is_active = false, version = c.version + 1, updated_at = now()
     where c.tenant_id = $1 and c.id = $2 and ",
    visible!(),
    " returning c.id"
);

impl Store {
    /// Writes a context under `id`, or updates the one that has its key.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn write_context(
        &self,
        tenant: TenantId,
        id: ContextId,
        new: &NewContext,
        chunks: &[String],
    ) -> Result<Written> {
        let (expires_at, ttl_seconds) = match new.expiry {
            Expiry::Never => (None, None),
            Expiry::At(at) => (Some(at), None),
            Expiry::After(seconds) => (None, Some(seconds as f64)),
        };
        let key = new.key.as_ref().map(|key| key.as_str());
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(UPSERT)
            .bind(tenant.0)
            .bind(id.0)
            .bind(new.user_id.0)
            .bind(new.context_type.as_str())
            .bind(key)
            .bind(new.content.as_str())
            .bind(new.metadata.as_str())
            .bind(&new.text)
            .bind(expires_at)
            .bind(ttl_seconds)
            .bind(chunks)
            .fetch_optional(connection.pg())
            .await;
        if let Some(row) = connection.settle(result)? {
            let created = row.try_get("created").map_err(Error::internal)?;
            return Ok(Written { context: from_row(&row)?, created });
        }
        // Only an update that changes nothing returns no row.
        let result = sqlx::query(FIND_BY_KEY)
            .bind(tenant.0)
            .bind(new.user_id.0)
            .bind(key)
            .fetch_one(connection.pg())
            .await;
        Ok(Written { context: from_row(&connection.settle(result)?)?, created: false })
    }

    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_context(&self, tenant: TenantId, id: ContextId) -> Result<Option<Context>> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(FIND).bind(tenant.0).bind(id.0).fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// Those of `ids` that exist, in their order.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_contexts(&self, tenant: TenantId, ids: &[ContextId]) -> Result<Bounded> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let mut connection = self.tenant(tenant).await?;
        read_bounded(&mut connection, sqlx::query(FIND_MANY).bind(tenant.0).bind(ids)).await
    }

    /// One row more than the limit, when there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_contexts(&self, tenant: TenantId, request: &ListRequest) -> Result<Bounded> {
        let mut connection = self.tenant(tenant).await?;
        let query = sqlx::query(if request.user_id.is_some() { LIST_OF_USER } else { LIST })
            .bind(tenant.0)
            .bind(request.context_type.as_ref().map(|context_type| context_type.as_str()))
            .bind(request.cursor.map(|cursor| cursor.0.0))
            .bind(i64::from(request.limit.get()) + 1);
        let query = match request.user_id {
            Some(user) => query.bind(user.0),
            None => query,
        };
        read_bounded(&mut connection, query).await
    }

    /// Hides a context from every reader. Answers whether there was one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn deactivate_context(&self, tenant: TenantId, id: ContextId) -> Result<bool> {
        let mut connection = self.tenant(tenant).await?;
        let result = sqlx::query(DEACTIVATE).bind(tenant.0).bind(id.0).fetch_optional(connection.pg()).await;
        Ok(connection.settle(result)?.is_some())
    }
}

/// Reads rows until there are no more or the bytes of one answer are used up.
async fn read_bounded(
    connection: &mut Connection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Bounded> {
    let mut bounded = Bounded { contexts: Vec::new(), cut: false };
    let mut bytes = 0;
    let mut rows = query.fetch(connection.pg());
    let result = loop {
        match rows.try_next().await {
            Ok(Some(row)) => {
                let context = from_row(&row)?;
                bytes += context.content.get().len() + context.metadata.get().len() + context.text.len();
                if bytes > ANSWER_BYTES_MAX && !bounded.contexts.is_empty() {
                    // The connection still has rows to read; it does so before it is used again.
                    bounded.cut = true;
                    return Ok(bounded);
                }
                bounded.contexts.push(context);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(rows);
    connection.settle(result)?;
    Ok(bounded)
}

fn from_row(row: &PgRow) -> Result<Context> {
    let status: &str = row.try_get("embedding_status").map_err(Error::internal)?;
    let embedding_status = EmbeddingStatus::parse(status)?;
    let read = || {
        Ok::<_, sqlx::Error>(Context {
            id: ContextId(row.try_get("id")?),
            user_id: UserId(row.try_get("user_id")?),
            context_type: row.try_get("context_type")?,
            key: row.try_get("key")?,
            content: row.try_get::<Json<Box<RawValue>>, _>("content")?.0,
            metadata: row.try_get::<Json<Box<RawValue>>, _>("metadata")?.0,
            text: row.try_get("text")?,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            expires_at: row.try_get("expires_at")?,
            is_active: row.try_get("is_active")?,
            version: row.try_get("version")?,
            embedding_status,
            embedding_error: row.try_get("embedding_error")?,
        })
    };
    read().map_err(Error::internal)
}
