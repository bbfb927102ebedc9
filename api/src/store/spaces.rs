//! Embedding spaces. They belong to the service, not to a tenant, so nothing here takes one.

use sqlx::Row;

use super::Store;
use crate::{
    domain::SpaceInfo,
    error::{Error, Result},
};

impl Store {
    /// The space that search reads; none before anything was ever embedded.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn active_space(&self) -> Result<Option<SpaceInfo>> {
        let mut connection = self.connection().await?;
        let result = sqlx::query(
            "select id, provider, model, dims, tokens_max from embedding_spaces where status = 'active'",
        )
        .fetch_optional(connection.pg())
        .await;
        let Some(row) = connection.settle(result)? else { return Ok(None) };
        let read = || {
            Ok::<_, sqlx::Error>(SpaceInfo {
                id: row.try_get("id")?,
                provider: row.try_get("provider")?,
                model: row.try_get("model")?,
                dims: row.try_get("dims")?,
                tokens_max: row.try_get("tokens_max")?,
            })
        };
        read().map(Some).map_err(Error::internal)
    }

    /// Makes the first space, unless there is an active one already.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_first_space(
        &self,
        provider: &str,
        model: &str,
        dims: usize,
        tokens_max: Option<i32>,
    ) -> Result<()> {
        let dims = i32::try_from(dims).map_err(Error::internal)?;
        let mut connection = self.connection().await?;
        let result = sqlx::query("select create_embedding_space($1, $2, $3, $4, true)")
            .bind(provider)
            .bind(model)
            .bind(dims)
            .bind(tokens_max)
            .execute(connection.pg())
            .await;
        connection.settle(result).map(|_| ())
    }
}
