//! The nearest-neighbour index of an embedding space, built when the space is full while everything goes on.

use sqlx::AssertSqlSafe;

use super::Store;
use crate::{
    domain::SpaceInfo,
    error::{Error, Result},
};

/// Only a table's owner builds an index `concurrently`, and only outside of any transaction; see `init-db/01-roles.sql`. It may
/// take hours, and it waits for every transaction that is older.
const BECOME_INDEXER: &str = "set role context_indexer; set statement_timeout = 0; set lock_timeout = 0";

impl Store {
    /// Builds the index of a space of a server, unless somebody else is at it; answers whether it was. A build that broke off
    /// is begun anew.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn index_space(&self, space: &SpaceInfo) -> Result<bool> {
        let mut connection = self.connection().await?;
        // Nobody else shall have a session with another role, and its end sets the lock free.
        connection.discard();
        let result =
            sqlx::query_scalar("select pg_try_advisory_lock(hashtext('context-api embedding index'))")
                .fetch_one(connection.pg())
                .await;
        if !connection.settle::<bool>(result)? {
            return Ok(false);
        }
        // Numbers that the database gave us.
        let (id, dims) = (space.id, space.dims);
        let index = format!("embedding_partitions.chunk_embeddings_{id}_hnsw");
        let result = sqlx::raw_sql(BECOME_INDEXER).execute(connection.pg()).await;
        connection.settle(result)?;
        let result =
            sqlx::query_scalar("select i.indisvalid from pg_index i where i.indexrelid = to_regclass($1)")
                .bind(&index)
                .fetch_optional(connection.pg())
                .await;
        let is_valid: Option<bool> = connection.settle(result)?;
        let mut statements = Vec::new();
        if is_valid == Some(false) {
            statements.push(format!("drop index concurrently {index}"));
        }
        if is_valid != Some(true) {
            // Embeddings have length one, so the inner product orders as the cosine does, and costs less.
            statements.push(format!(
                "create index concurrently chunk_embeddings_{id}_hnsw on embedding_partitions.chunk_embeddings_{id}
                 using hnsw ((embedding::halfvec({dims})) halfvec_ip_ops)"
            ));
        }
        statements.push("set role context_app".to_owned());
        for statement in statements {
            let result = sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection.pg()).await;
            connection.settle(result)?;
        }
        let result = sqlx::query("update embedding_spaces set indexed_at = clock_timestamp() where id = $1")
            .bind(id)
            .execute(connection.pg())
            .await;
        let noted = connection.settle(result)?.rows_affected();
        if noted == 0 {
            Err(Error::internal("a space was dropped while its index was built"))
        } else {
            Ok(true)
        }
    }
}
