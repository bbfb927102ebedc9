//! What a server does by itself, but too late for a table that grows fast, and what the engine in process does not do at all.

use super::Store;
use crate::error::Result;

impl Store {
    /// Does what autovacuum does on a server, which the engine in process has not: reclaims the space of old versions
    /// and tells the planner how large the tables are.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn vacuum(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        // Only an owner vacuums, and not within a transaction: each statement goes alone.
        for sql in [
            "reset role",
            "vacuum (analyze) contexts, context_versions, chunks, chunk_embeddings, past_chunks, past_chunk_embeddings, \
             embedding_work, lexemes, keyword_totals, keyword_changes, stored_bytes, stored_bytes_changes",
            "set role context_app",
        ] {
            let result = sqlx::raw_sql(sql).execute(connection.pg()).await;
            if let Err(error) = connection.settle(result) {
                // Never give back a session that still is the superuser's.
                connection.discard();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Has the planner look again at tables that have tripled since it did; answers their names.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn analyze_what_has_grown(&self) -> Result<Vec<String>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar("select analyze_what_has_grown()").fetch_all(connection.pg()).await;
        connection.settle(result)
    }
}
