//! What contexts were: superseded versions, and the state of everything at a time.

use pgvector::HalfVector;
use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};
use time::OffsetDateTime;

use super::{
    Store, Unit,
    contexts::{Bounded, context_columns, from_row, push_selection, read_bounded},
};
use crate::{
    domain::{
        Access, Context, ContextId, ContextVersion, Cursor, Limit, ListRequest, Selection, SpaceId, TenantId,
        Vector,
    },
    error::{Error, Result},
};

/// The columns of a [`Context`], of a version that was superseded.
macro_rules! version_columns {
    () => {
        concat!("c.content, c.metadata, c.text, ", $crate::store::versions::small_version_columns!())
    };
}

/// Those of them that are never large.
macro_rules! small_version_columns {
    () => {
        "c.context_id as id, c.user_id, c.context_type, c.key, c.text_given, c.language, c.created_at, c.updated_at, \
         c.expires_at, c.sliding_ttl_seconds, c.valid_from, c.valid_to, c.is_active, c.version, \
         'ready' as embedding_status, null as embedding_error, false as extend"
    };
}
pub(super) use small_version_columns;

/// A version as it can be restored.
#[derive(Debug)]
pub struct PastVersion {
    pub context: Context,
    /// The embedding that the caller had given, and the space that it is of.
    pub embedding: Option<(Vector, SpaceId)>,
}

/// $1 tenant, $2 context, $3 versions before this one or null, $4 rows
const LIST: &str = concat!(
    "select ",
    version_columns!(),
    ", c.superseded_at from context_versions c
      where c.tenant_id = $1 and c.context_id = $2 and ($3::bigint is null or c.version < $3)
      order by c.version desc limit $4"
);

/// $1 tenant, $2 context, $3 version, or null for the last one that was not deleted
const FIND: &str = concat!(
    "select ",
    version_columns!(),
    ", c.embedding::halfvec as embedding, c.space_id from context_versions c
      where c.tenant_id = $1 and c.context_id = $2 and c.version = coalesce($3, c.version) and c.is_active
      order by c.version desc limit 1"
);

/// Which rows were in force at a time, of the present ones and of those that were superseded. What has expired since is
/// gone, whenever one looks.
pub(super) fn push_as_of(query: &mut QueryBuilder<Postgres>, at: OffsetDateTime, is_past: bool) {
    query.push(" and c.is_active and c.updated_at <= ").push_bind(at);
    query.push(" and (c.expires_at is null or c.expires_at > ").push_bind(at).push(")");
    if is_past {
        query.push(" and c.superseded_at > ").push_bind(at).push(
            " and exists (select from contexts p where p.tenant_id = c.tenant_id and p.id = c.context_id
                          and (p.expires_at is null or p.expires_at > now()))",
        );
    } else {
        query.push(" and (c.expires_at is null or c.expires_at > now())");
    }
}

/// Both halves of what was in force at a time, in one statement; each with columns of its own besides.
pub(super) fn push_both(
    query: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    selection: &Selection,
    at: OffsetDateTime,
    [present_extra, past_extra]: [&'static str; 2],
    mut push_rest: impl FnMut(&mut QueryBuilder<Postgres>, &'static str),
) {
    query
        .push(concat!("(select ", context_columns!()))
        .push(present_extra)
        .push(" from contexts c where true");
    push_selection(query, tenant, selection, "c.id");
    push_as_of(query, at, false);
    push_rest(query, "c.id");
    query.push(concat!(") union all (select ", version_columns!()));
    query.push(past_extra).push(" from context_versions c where true");
    push_selection(query, tenant, selection, "c.context_id");
    push_as_of(query, at, true);
    push_rest(query, "c.context_id");
    query.push(")");
}

impl Store {
    /// Superseded versions of a context, newest first; one row more than the limit, when there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_versions(
        &self,
        tenant: TenantId,
        id: ContextId,
        limit: Limit,
        cursor: Option<Cursor>,
    ) -> Result<Bounded<ContextVersion>> {
        let mut connection = self.tenant(tenant).await?;
        let query = sqlx::query(LIST)
            .bind(tenant.0)
            .bind(id.0)
            .bind(cursor.map(|cursor| cursor.number()))
            .bind(i64::from(limit.get()) + 1);
        read_bounded(&mut connection, query, version_from_row).await
    }

    /// The context as it was at `at`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_context_as_of(
        &self,
        access: Access,
        id: ContextId,
        at: OffsetDateTime,
    ) -> Result<Option<Context>> {
        let selection = Selection { user_id: access.user, ..Selection::default() };
        let mut query = QueryBuilder::new("");
        push_both(&mut query, access.tenant, &selection, at, ["", ""], |query, id_column| {
            query.push(" and ").push(id_column).push(" = ").push_bind(id.0);
        });
        let mut connection = self.tenant(access.tenant).await?;
        let result = query.build().fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(from_row).transpose()
    }

    /// As [`Store::list_contexts`], of what was in force at `at`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn list_contexts_as_of(
        &self,
        tenant: TenantId,
        request: &ListRequest,
        at: OffsetDateTime,
    ) -> Result<Bounded<Context>> {
        let rows = i64::from(request.limit.get()) + 1;
        let mut query = QueryBuilder::new("select c.* from (");
        push_both(&mut query, tenant, &request.selection, at, ["", ""], |query, id_column| {
            if let Some(cursor) = request.cursor {
                query.push(" and ").push(id_column).push(" < ").push_bind(cursor.id());
            }
            query.push(" order by ").push(id_column).push(" desc limit ").push_bind(rows);
        });
        query.push(") c order by c.id desc limit ").push_bind(rows);
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build().persistent(request.selection.filter.is_none());
        read_bounded(&mut connection, statement, from_row).await
    }

    /// How many were in force at `at`.
    ///
    /// # Errors
    /// When the database cannot be reached, or takes too long to count.
    pub async fn count_contexts_as_of(
        &self,
        tenant: TenantId,
        selection: &Selection,
        at: OffsetDateTime,
    ) -> Result<u64> {
        let mut query = QueryBuilder::new("select count(*) from (");
        push_both(&mut query, tenant, selection, at, ["", ""], |_, _| {});
        query.push(") c");
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build_query_scalar::<i64>().persistent(selection.filter.is_none());
        let result = statement.fetch_one(connection.pg()).await;
        Ok(connection.settle(result)?.unsigned_abs())
    }
}

impl Unit {
    /// A version of a context, or the last one that was not deleted.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn find_version(&mut self, id: ContextId, version: Option<i64>) -> Result<Option<PastVersion>> {
        let tenant = self.access.tenant;
        let connection = self.connection();
        let result =
            sqlx::query(FIND).bind(tenant.0).bind(id.0).bind(version).fetch_optional(connection.pg()).await;
        let Some(row) = connection.settle(result)? else { return Ok(None) };
        let embedding: Option<HalfVector> = row.try_get("embedding").map_err(Error::internal)?;
        let space: Option<i32> = row.try_get("space_id").map_err(Error::internal)?;
        let embedding = match (embedding, space) {
            (Some(half), Some(space)) => {
                let values = half.as_slice().iter().map(|value| value.to_f32()).collect();
                Some((Vector::new(values)?, SpaceId(space)))
            }
            _ => None,
        };
        Ok(Some(PastVersion { context: from_row(&row)?, embedding }))
    }
}

fn version_from_row(row: &PgRow) -> Result<ContextVersion> {
    let superseded_at = row.try_get("superseded_at").map_err(Error::internal)?;
    Ok(ContextVersion { context: from_row(row)?, superseded_at })
}
