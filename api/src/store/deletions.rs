//! Taking contexts out of sight, or out of the database.

use sqlx::Row;
use uuid::Uuid;

use super::{Store, Unit, connection::Connection, contexts::visible};
use crate::{
    domain::{Actor, ContextId},
    error::{Error, Result},
};

/// A context to be deleted.
#[derive(Clone, Copy, Debug)]
pub struct Deletion {
    pub id: ContextId,
    /// Only if it is in this version.
    pub expected: Option<i64>,
}

/// A context that was deleted.
#[derive(Clone, Copy, Debug)]
pub struct Deleted {
    /// Its place among those that were to be deleted, from 0.
    pub index: usize,
    pub version: i64,
}

/// $1 tenant, $2 API key, $3 request id, $4 the user to whom the caller is confined or null, $5 ids, $6 expected versions,
/// $7 ids for the log
macro_rules! statement {
    ($what:expr, $action:literal) => {
        concat!(
            "with input as materialized (
                 select * from unnest($5::uuid[], $6::bigint[], $7::uuid[]) with ordinality
                     as i (id, expected, audit_id, no)
             ), gone as (",
            $what,
            " returning c.id, c.version
             ), logged as (
                 insert into audit_log (tenant_id, id, api_key_id, request_id, action, target_id, target_version)
                 select $1, i.audit_id, $2, $3, '",
            $action,
            "', gone.id, gone.version from gone join input i on i.id = gone.id
             )
             select i.no, gone.version from gone join input i on i.id = gone.id order by i.no"
        )
    };
}

macro_rules! matches {
    () => {
        "c.tenant_id = $1 and c.id = i.id and c.version = coalesce(i.expected, c.version)
         and ($4::uuid is null or c.user_id = $4)"
    };
}

/// Triggers on the version keep what was and take its chunks and embeddings out of search.
const DEACTIVATE: &str = statement!(
    concat!(
        "update contexts as c set is_active = false, version = c.version + 1 from input i where ",
        matches!(),
        " and ",
        visible!()
    ),
    "context.delete"
);

/// With history, chunks and embeddings, by their foreign keys.
const PURGE: &str =
    statement!(concat!("delete from contexts c using input i where ", matches!()), "context.purge");

impl Store {
    /// As [`Unit::delete_contexts`], in a transaction of its own.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn delete_contexts(
        &self,
        actor: &Actor,
        deletions: &[Deletion],
        purge: bool,
    ) -> Result<Vec<Deleted>> {
        let mut writing = self.write(actor.tenant()).await?;
        let deleted = delete(&mut writing, actor, deletions, purge).await;
        writing.finish(deleted).await
    }
}

impl Unit {
    /// Hides contexts from every reader, or with `purge` removes them with their history, also those that are hidden
    /// already. Those that do not exist, or not in the expected version, are not among the answers. The ids must differ.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn delete_contexts(
        &mut self,
        actor: &Actor,
        deletions: &[Deletion],
        purge: bool,
    ) -> Result<Vec<Deleted>> {
        delete(self.connection(), actor, deletions, purge).await
    }
}

async fn delete(
    connection: &mut Connection,
    actor: &Actor,
    deletions: &[Deletion],
    purge: bool,
) -> Result<Vec<Deleted>> {
    let ids: Vec<Uuid> = deletions.iter().map(|deletion| deletion.id.0).collect();
    let expected: Vec<Option<i64>> = deletions.iter().map(|deletion| deletion.expected).collect();
    let audit_ids: Vec<Uuid> = deletions.iter().map(|_| Uuid::now_v7()).collect();
    let result = sqlx::query(if purge { PURGE } else { DEACTIVATE })
        .bind(actor.tenant().0)
        .bind(actor.api_key)
        .bind(actor.request_id.as_deref())
        .bind(actor.access.user.map(|user| user.0))
        .bind(ids)
        .bind(expected)
        .bind(audit_ids)
        .fetch_all(connection.pg())
        .await;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok::<_, sqlx::Error>(Deleted {
            index: (row.try_get::<i64, _>("no")? - 1) as usize,
            version: row.try_get("version")?,
        })
    };
    connection.settle(result)?.iter().map(read).collect::<sqlx::Result<_>>().map_err(Error::internal)
}
