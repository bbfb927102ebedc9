//! Whether the database answers, and whether its schema is the one that this version was built for.

use std::sync::atomic::Ordering;

use super::{Store, migrations};
use crate::error::{Code, Error, Result};

/// How the database's schema relates to this version's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SchemaState {
    Current,
    /// So many migrations are missing.
    Behind {
        missing: usize,
    },
    /// A newer version has migrated the database, and this one can go on with it.
    Ahead {
        found: i64,
    },
    /// A newer version has migrated the database, and this one would not understand it.
    Newer {
        found: i64,
    },
}

impl SchemaState {
    /// That of a database which has these migrations.
    pub fn of(applied: &[i64]) -> Self {
        if let Some(&found) = applied.iter().find(|version| !migrations::MIGRATIONS.version_exists(**version))
        {
            return Self::Newer { found };
        }
        match migrations::MIGRATIONS.iter().count() - applied.len() {
            0 => Self::Current,
            missing => Self::Behind { missing },
        }
    }

    /// That of a database which also says from which migration on programs understand it.
    pub fn with_floor(applied: &[i64], needs: Option<i64>) -> Self {
        let has_all = || migrations::MIGRATIONS.iter().all(|known| applied.contains(&known.version));
        match Self::of(applied) {
            Self::Newer { found }
                if needs.is_some_and(|needs| migrations::MIGRATIONS.version_exists(needs)) && has_all() =>
            {
                Self::Ahead { found }
            }
            state => state,
        }
    }

    /// # Errors
    /// A sentence that says what an operator has to do, unless this version can work with the schema.
    pub fn require_known(self) -> Result<()> {
        match self {
            Self::Current | Self::Ahead { .. } => Ok(()),
            Self::Behind { missing } => Err(Error::new(
                Code::DatabaseUnavailable,
                format!("The database lacks {missing} migration(s). Run `context-api migrate` first."),
            )),
            Self::Newer { found } => Err(migrations::newer_schema(found)),
        }
    }
}

impl Store {
    /// What tells this database from others, but for physical copies of it.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn database_id(&self) -> Result<String> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar(
            "select s.system_identifier || '/' || d.oid from pg_control_system() s, pg_database d
             where d.datname = current_database()",
        )
        .fetch_one(connection.pg())
        .await;
        connection.settle(result)
    }

    /// One round trip.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`] when it fails or takes too long.
    pub async fn ping(&self) -> Result<()> {
        let mut connection = self.connection().await?;
        let result = sqlx::query("select 1").execute(connection.pg()).await;
        connection.settle(result).map(|_| ())
    }

    /// # Errors
    /// [`Code::DatabaseUnavailable`] when it cannot be asked.
    pub async fn schema_state(&self) -> Result<SchemaState> {
        let mut connection = self.connection().await?;
        let result = migrations::state(connection.pg()).await;
        connection.settle(result)
    }

    /// Has keyword searches go by the index of words if the functions behind it may run inside it under row-level security (see
    /// `init-db/03-leakproof.sql`), and answers whether they do. Otherwise they work, but read all of a tenant's rows. Until this is
    /// asked, they go by it.
    ///
    /// # Errors
    /// [`Code::DatabaseUnavailable`] when it cannot be asked.
    pub async fn go_by_text_index_if_usable(&self) -> Result<bool> {
        let mut connection = self.connection().await?;
        let result = sqlx::query_scalar(
            "select bool_and(proleakproof) from pg_proc
             where oid in ('ts_match_vq(tsvector,tsquery)'::regprocedure, 'jsonb_contains(jsonb,jsonb)'::regprocedure)",
        )
        .fetch_one(connection.pg())
        .await;
        let is_usable = connection.settle(result)?;
        self.text_index.store(is_usable, Ordering::Relaxed);
        Ok(is_usable)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_schema_is_current_behind_or_newer() {
        let known: Vec<i64> = migrations::MIGRATIONS.iter().map(|migration| migration.version).collect();
        assert_eq!(SchemaState::of(&known), SchemaState::Current);
        assert_eq!(SchemaState::of(&known[..1]), SchemaState::Behind { missing: known.len() - 1 });
        let newer: Vec<i64> = known.iter().copied().chain([9_999]).collect();
        assert_eq!(SchemaState::of(&newer), SchemaState::Newer { found: 9_999 });
        assert!(
            SchemaState::Newer { found: 9_999 }.require_known().unwrap_err().to_string().contains("9999")
        );
        let (oldest, newest) = (known[0], known[known.len() - 1]);
        for needs in [oldest, newest] {
            assert_eq!(SchemaState::with_floor(&newer, Some(needs)), SchemaState::Ahead { found: 9_999 });
        }
        // It has been told that it would not understand it, or nothing; or lacks something itself.
        for (applied, needs) in [(&newer[..], Some(9_999)), (&newer[..], None), (&newer[1..], Some(oldest))] {
            assert_eq!(SchemaState::with_floor(applied, needs), SchemaState::Newer { found: 9_999 });
        }
    }
}
