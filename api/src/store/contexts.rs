//! Reading contexts as they are now.

use std::collections::HashSet;

use futures_util::TryStreamExt;
use serde_json::value::RawValue;
use sqlx::{
    Postgres, QueryBuilder, Row,
    postgres::{PgArguments, PgRow},
    query::Query,
    types::Json,
};
use uuid::Uuid;

use super::{
    Store, Unit,
    connection::{Connection, Plans},
    filter,
};
use crate::{
    domain::{
        Access, Context, ContextId, ContextKey, EmbeddingStatus, Included, Language, ListRequest, Selection,
        TenantId, UserId, limits::ANSWER_BYTES_MAX,
    },
    error::{Error, Result},
};

/// The columns of a [`Context`]. A macro, because `concat!` takes literals only and SQL is static text here.
macro_rules! context_columns {
    () => {
        concat!("c.content, c.metadata, c.text, ", $crate::store::contexts::small_context_columns!())
    };
}
pub(super) use context_columns;

/// Those of them that are never large.
macro_rules! small_context_columns {
    () => {
        "c.id, c.user_id, c.context_type, c.key, c.text_given, c.language, c.created_at, c.updated_at, \
         c.expires_at, c.sliding_ttl_seconds, c.valid_from, c.valid_to, c.is_active, c.version, \
         c.embedding_status, c.embedding_error, \
         coalesce(c.expires_at < now() + make_interval(secs => c.sliding_ttl_seconds * 0.9::float8), false) as extend"
    };
}
pub(super) use small_context_columns;

/// Those of them that may be large; what is not included is empty.
pub(super) fn large_columns(include: Included) -> String {
    let column = |is_included, name, empty| if is_included { name } else { empty };
    [
        column(include.content, "c.content", "'null'::jsonb as content"),
        column(include.metadata, "c.metadata", "'{}'::jsonb as metadata"),
        column(include.text, "c.text", "'' as text"),
    ]
    .join(", ")
}

/// The condition under which a context exists for its readers.
macro_rules! visible {
    () => {
        "c.is_active and (c.expires_at is null or c.expires_at > now())"
    };
}
pub(super) use visible;

/// Rows that were read within the limit on the bytes of an answer.
#[derive(Debug)]
pub struct Bounded<T> {
    pub rows: Vec<T>,
    /// Whether the limit left some out.
    pub cut: bool,
}

/// $1 tenant, $2 id, $3 the user to whom the reader is confined, or null
macro_rules! by_id {
    () => {
        concat!(
            "select ",
            context_columns!(),
            " from contexts c where c.tenant_id = $1 and c.id = $2 and ($3::uuid is null or c.user_id = $3)"
        )
    };
}

const FIND: &str = concat!(by_id!(), " and ", visible!());
const LOCK: &str = concat!(by_id!(), " and (c.expires_at is null or c.expires_at > now()) for update");
const FIND_BY_KEY: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.user_id = $2 and c.key = $3 and ",
    visible!()
);
const LOCK_BY_KEY: &str = concat!(
    "select ",
    context_columns!(),
    " from contexts c where c.tenant_id = $1 and c.user_id = $2 and c.key = $3 and ",
    visible!(),
    " for update"
);

impl Store {
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_context(&self, access: Access, id: ContextId) -> Result<Option<Context>> {
        let mut connection = self.tenant_with(access.tenant, Plans::Kept).await?;
        find_one(&mut connection, by_id(FIND, access, id)).await
    }

    /// Whether there is such a context, deleted or not.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn context_exists(&self, access: Access, id: ContextId) -> Result<bool> {
        let mut connection = self.tenant(access.tenant).await?;
        let result = sqlx::query_scalar(
            "select exists (select from contexts c
                            where c.tenant_id = $1 and c.id = $2 and ($3::uuid is null or c.user_id = $3)
                              and (c.expires_at is null or c.expires_at > now()))",
        )
        .bind(access.tenant.0)
        .bind(id.0)
        .bind(access.user.map(|user| user.0))
        .fetch_one(connection.pg())
        .await;
        connection.settle(result)
    }

    /// The one of this user and key.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_context_by_key(
        &self,
        tenant: TenantId,
        user: UserId,
        key: &ContextKey,
    ) -> Result<Option<Context>> {
        let mut connection = self.tenant_with(tenant, Plans::Kept).await?;
        find_one(&mut connection, by_key(FIND_BY_KEY, tenant, user, key)).await
    }

    /// Newest first; one row more than the limit, when there is one. [`Selection::as_of`] is not looked at here.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_contexts(&self, tenant: TenantId, request: &ListRequest) -> Result<Bounded<Context>> {
        let mut query =
            QueryBuilder::new(concat!("select ", context_columns!(), " from contexts c where ", visible!()));
        push_selection(&mut query, tenant, &request.selection, "c.id");
        if let Some(cursor) = request.cursor {
            query.push(" and c.id < ").push_bind(cursor.id());
        }
        query.push(" order by c.id desc limit ").push_bind(i64::from(request.limit.get()) + 1);
        let mut connection = self.tenant(tenant).await?;
        // A filter makes a statement that may never come again: keeping it prepared would push out one that will.
        let statement = query.build().persistent(request.selection.filter.is_none());
        read_bounded(&mut connection, statement, from_row).await
    }

    /// How many there are. [`Selection::as_of`] is not looked at here.
    ///
    /// # Errors
    /// When the database cannot be reached, or takes too long to count.
    pub async fn count_contexts(&self, tenant: TenantId, selection: &Selection) -> Result<u64> {
        let mut query = QueryBuilder::new(concat!("select count(*) from contexts c where ", visible!()));
        push_selection(&mut query, tenant, selection, "c.id");
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build_query_scalar::<i64>().persistent(selection.filter.is_none());
        let result = statement.fetch_one(connection.pg()).await;
        Ok(connection.settle(result)?.unsigned_abs())
    }
}

impl Unit {
    /// The context, deleted or not, until the end of the unit nobody else's to change.
    ///
    /// # Errors
    /// When the database cannot be reached; [`crate::error::Code::DatabaseBusy`].
    pub async fn lock_context(&mut self, id: ContextId) -> Result<Option<Context>> {
        let access = self.access;
        find_one(self.connection(), by_id(LOCK, access, id)).await
    }

    /// Which of `ids` exist, whoever's they are and deleted or not. They and those of `keys` are nobody else's to change until
    /// the end of the unit. All at once and in one order for everybody, so that no two units wait for each other.
    ///
    /// # Errors
    /// When the database cannot be reached; [`crate::error::Code::DatabaseBusy`].
    pub async fn lock_existing(
        &mut self,
        ids: &[ContextId],
        keys: &[(UserId, &ContextKey)],
    ) -> Result<HashSet<ContextId>> {
        let tenant = self.access.tenant;
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let (users, keys): (Vec<Uuid>, Vec<&str>) =
            keys.iter().map(|(user, key)| (user.0, key.as_str())).unzip();
        let connection = self.connection();
        // Written so that each is looked up: a join made while the table was small would compare all of them with all rows.
        let result = sqlx::query_scalar::<_, Uuid>(
            "with wanted as materialized (
                 select unnest($2::uuid[]) as id
                 union
                 select k.id from unnest($3::uuid[], $4::text[]) as named (user_id, key)
                 cross join lateral (select c.id from contexts c
                                     where c.tenant_id = $1 and c.user_id = named.user_id and c.key = named.key
                                     limit 1) k
             )
             select c.id from contexts c where c.tenant_id = $1 and c.id = any(array(select id from wanted))
             order by c.id for update",
        )
        .bind(tenant.0)
        .bind(&ids)
        .bind(users)
        .bind(keys)
        .fetch_all(connection.pg())
        .await;
        Ok(connection.settle(result)?.into_iter().filter(|id| ids.contains(id)).map(ContextId).collect())
    }

    /// The context of this user and key, if there is one that can be seen.
    ///
    /// # Errors
    /// When the database cannot be reached; [`crate::error::Code::DatabaseBusy`].
    pub async fn lock_context_by_key(&mut self, user: UserId, key: &ContextKey) -> Result<Option<Context>> {
        let tenant = self.access.tenant;
        find_one(self.connection(), by_key(LOCK_BY_KEY, tenant, user, key)).await
    }
}

fn by_id(sql: &'static str, access: Access, id: ContextId) -> Query<'static, Postgres, PgArguments> {
    sqlx::query(sql).bind(access.tenant.0).bind(id.0).bind(access.user.map(|user| user.0))
}

fn by_key<'q>(
    sql: &'static str,
    tenant: TenantId,
    user: UserId,
    key: &'q ContextKey,
) -> Query<'q, Postgres, PgArguments> {
    sqlx::query(sql).bind(tenant.0).bind(user.0).bind(key.as_str())
}

async fn find_one(
    connection: &mut Connection,
    query: Query<'_, Postgres, PgArguments>,
) -> Result<Option<Context>> {
    let result = query.fetch_optional(connection.pg()).await;
    connection.settle(result)?.as_ref().map(from_row).transpose()
}

/// What a list and a count have in common, about the row `c`.
pub(super) fn push_selection(
    query: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    selection: &Selection,
    id_column: &'static str,
) {
    query.push(" and c.tenant_id = ").push_bind(tenant.0);
    if let Some(user) = selection.user_id {
        query.push(" and c.user_id = ").push_bind(user.0);
    }
    if let Some(context_type) = &selection.context_type {
        query.push(" and c.context_type = ").push_bind(context_type.as_str().to_owned());
    }
    if let Some(at) = selection.valid_at {
        query.push(" and (c.valid_from is null or c.valid_from <= ").push_bind(at);
        query.push(") and (c.valid_to is null or c.valid_to > ").push_bind(at).push(")");
    }
    if let Some(filter) = &selection.filter {
        query.push(" and ");
        filter::push(query, filter, id_column);
    }
}

/// Reads rows until there are no more or the bytes of one answer are used up.
pub(super) async fn read_bounded<T: AsRef<Context>>(
    connection: &mut Connection,
    query: Query<'_, Postgres, PgArguments>,
    mut read: impl FnMut(&PgRow) -> Result<T>,
) -> Result<Bounded<T>> {
    let mut bounded = Bounded { rows: Vec::new(), cut: false };
    let mut bytes = 0;
    let mut rows = query.fetch(connection.pg());
    let result = loop {
        match rows.try_next().await {
            Ok(Some(row)) => {
                let row = read(&row)?;
                let context = row.as_ref();
                bytes += context.content.get().len() + context.metadata.get().len() + context.text.len();
                if bytes > ANSWER_BYTES_MAX && !bounded.rows.is_empty() {
                    bounded.cut = true;
                    break Ok(());
                }
                bounded.rows.push(row);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    drop(rows);
    if bounded.cut {
        // The server is still sending rows that nobody wants; there may be hundreds of megabytes.
        connection.abandon();
        return Ok(bounded);
    }
    connection.settle(result)?;
    Ok(bounded)
}

pub(super) fn from_row(row: &PgRow) -> Result<Context> {
    let status: &str = row.try_get("embedding_status").map_err(Error::internal)?;
    let embedding_status = EmbeddingStatus::parse(status)?;
    let language = Language::parse(row.try_get("language").map_err(Error::internal)?)?;
    let read = || {
        Ok::<_, sqlx::Error>(Context {
            id: ContextId(row.try_get("id")?),
            user_id: UserId(row.try_get("user_id")?),
            context_type: row.try_get("context_type")?,
            key: row.try_get("key")?,
            content: row.try_get::<Json<Box<RawValue>>, _>("content")?.0,
            metadata: row.try_get::<Json<Box<RawValue>>, _>("metadata")?.0,
            text: row.try_get("text")?,
            text_given: row.try_get("text_given")?,
            language,
            created_at: row.try_get("created_at")?,
            updated_at: row.try_get("updated_at")?,
            expires_at: row.try_get("expires_at")?,
            sliding_ttl_seconds: row.try_get("sliding_ttl_seconds")?,
            valid_from: row.try_get("valid_from")?,
            valid_to: row.try_get("valid_to")?,
            is_active: row.try_get("is_active")?,
            version: row.try_get("version")?,
            embedding_status,
            embedding_error: row.try_get("embedding_error")?,
            extend: row.try_get("extend")?,
        })
    };
    read().map_err(Error::internal)
}
