//! Reading everything, page by page, as it was at one moment. The past stays as it was, so nothing has to be held open
//! between two pages: not a transaction, not even a connection.

use std::time::Duration;

use pgvector::HalfVector;
use sqlx::{QueryBuilder, Row, postgres::PgRow};
use time::OffsetDateTime;
use tokio::time::Instant;

use super::{
    Store,
    contexts::{from_row, read_bounded},
    versions::push_both,
};
use crate::{
    domain::{Context, ContextId, Selection, TenantId},
    error::{Code, Error, Result},
};

/// A context with what only an export shows.
#[derive(Debug)]
pub struct ExportRow {
    pub context: Context,
    /// The embedding that the caller had given.
    pub embedding: Option<Vec<f32>>,
}

impl AsRef<Context> for ExportRow {
    fn as_ref(&self) -> &Context {
        &self.context
    }
}

/// Between two looks at who is still writing.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How long a writer may hold an export up.
const WRITERS_MAX: Duration = Duration::from_secs(10);

/// Who is writing contexts at the moment: writers lock the table, mildly, before they take the time of their write.
const WRITERS: &str = "
    select coalesce(array_agg(distinct l.virtualtransaction), '{}') from pg_locks l
    where l.relation = 'contexts'::regclass and l.mode = 'RowExclusiveLock'
      and l.database = (select oid from pg_database where datname = current_database())";

/// The embedding that the caller had given with the present text.
const PRESENT_EMBEDDING: &str = ", case when c.embedding_digest is not null then (
        select k.embedding from chunk_embeddings k join embedding_spaces s on s.id = k.space_id and s.status = 'active'
        where k.tenant_id = c.tenant_id and k.context_id = c.id and k.version = c.text_version and k.chunk_no = 0
    )::halfvec end as embedding";
const PAST_EMBEDDING: &str = ", c.embedding::halfvec as embedding";

impl Store {
    /// A moment, about now, up to which everything that was written can be seen.
    ///
    /// # Errors
    /// [`Code::DatabaseBusy`] when a writer that began before does not come to an end.
    pub async fn settled_moment(&self) -> Result<OffsetDateTime> {
        let moment: OffsetDateTime = {
            let mut connection = self.connection().await?;
            let result = sqlx::query_scalar("select clock_timestamp()").fetch_one(connection.pg()).await;
            connection.settle(result)?
        };
        let mut before: Vec<String> = self.writers().await?;
        let give_up = Instant::now() + WRITERS_MAX;
        while !before.is_empty() {
            if Instant::now() > give_up {
                return Err(Error::new(
                    Code::DatabaseBusy,
                    "A write that began earlier does not come to an end; an export would miss it.",
                )
                .with_retry_after(Duration::from_secs(5)));
            }
            tokio::time::sleep(LOOK_EVERY).await;
            let now = self.writers().await?;
            before.retain(|writer| now.contains(writer));
        }
        Ok(moment)
    }

    async fn writers(&self) -> Result<Vec<String>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar(WRITERS).fetch_one(connection.pg()).await;
        connection.settle(result)
    }

    /// What was in force at `at`, oldest first, from the one after `after` on: as many as fit into one answer, and at least
    /// one, if there is one.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn export_contexts(
        &self,
        tenant: TenantId,
        selection: &Selection,
        at: OffsetDateTime,
        after: Option<ContextId>,
        rows_max: i64,
    ) -> Result<Vec<ExportRow>> {
        let mut query = QueryBuilder::new("select c.* from (");
        let extra = [PRESENT_EMBEDDING, PAST_EMBEDDING];
        push_both(&mut query, tenant, selection, at, extra, |query, id_column| {
            if let Some(after) = after {
                query.push(" and ").push(id_column).push(" > ").push_bind(after.0);
            }
            query.push(" order by ").push(id_column).push(" limit ").push_bind(rows_max);
        });
        query.push(") c order by c.id limit ").push_bind(rows_max);
        let mut connection = self.tenant(tenant).await?;
        let statement = query.build().persistent(selection.filter.is_none());
        Ok(read_bounded(&mut connection, statement, export_row).await?.rows)
    }
}

fn export_row(row: &PgRow) -> Result<ExportRow> {
    let half: Option<HalfVector> = row.try_get("embedding").map_err(Error::internal)?;
    let embedding = half.map(|half| half.as_slice().iter().map(|value| value.to_f32()).collect());
    Ok(ExportRow { context: from_row(row)?, embedding })
}
