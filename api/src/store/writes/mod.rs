//! Writing contexts, one or a thousand in a statement, each with its chunks, its embedding if the caller gave one, and its
//! line in the audit log: a write is whole or it is not. What a new version has in common with any other is the business of
//! two triggers; see `migrations/0003_history_and_life.sql` and `0009_past_search.sql`.

mod sql;

use std::borrow::Cow;

use pgvector::HalfVector;
use sha2::{Digest, Sha256};
use sqlx::{Postgres, Row, postgres::PgArguments, postgres::PgRow, query::Query};
use uuid::Uuid;

use self::sql::{INSERT_IN_BRIEF, INSERT_IN_FULL, UPDATE_IN_BRIEF, UPDATE_IN_FULL};
use super::{Store, Unit, connection::Connection, contexts::from_row};
use crate::{
    domain::{Action, Actor, Context, ContextId, NewContext, Origin, SpaceId},
    error::{Error, Result},
};

/// A context on its way into the database.
#[derive(Debug)]
pub struct WriteRow<'a> {
    /// Of the context to be made, or to be changed.
    pub id: ContextId,
    pub new: &'a NewContext,
    /// The text as search reads it.
    pub chunks: Cow<'a, [String]>,
    /// For a change: only if it is in this version.
    pub expected: Option<i64>,
    /// For a context that comes from elsewhere.
    pub origin: Option<Origin>,
}

/// What a write did to a context.
#[derive(Debug)]
pub struct Written {
    pub context: Context,
    /// False when it existed already.
    pub created: bool,
}

/// The same, in brief.
#[derive(Clone, Copy, Debug)]
pub struct WrittenRow {
    /// Its place among those that were to be written, from 0.
    pub index: usize,
    pub id: ContextId,
    pub version: i64,
    pub created: bool,
}

/// What becomes of a context that exists under the key already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnKey {
    /// It is changed, unless nothing differs.
    Update,
    /// It stays, unless it was deleted or has expired.
    Keep,
}

/// The rows of a statement, column by column.
fn bind<'q>(
    sql: &'static str,
    actor: &'q Actor,
    space: Option<SpaceId>,
    rows: &'q [WriteRow<'_>],
    flag: bool,
    action: Action,
) -> Query<'q, Postgres, PgArguments> {
    let embeddings: Vec<(i64, HalfVector)> = numbered(rows)
        .filter_map(|(no, row)| {
            let vector = row.new.embedding.as_ref()?;
            Some((no, HalfVector::from_f32_slice(vector.as_slice())))
        })
        .collect();
    let digests: Vec<Option<Vec<u8>>> = rows.iter().map(|row| digest(row.new)).collect();
    let (embedding_nos, halves): (Vec<i64>, Vec<HalfVector>) = embeddings.into_iter().unzip();
    let mut pieces: (Vec<i64>, Vec<i32>, Vec<&str>) = Default::default();
    for (no, row) in numbered(rows) {
        for (chunk_no, text) in row.chunks.iter().enumerate() {
            pieces.0.push(no);
            pieces.1.push(chunk_no as i32);
            pieces.2.push(text);
        }
    }
    let expiry = |row: &WriteRow<'_>| row.new.expiry;
    let origin = |row: &WriteRow<'_>| row.origin;
    sqlx::query(sql)
        .bind(actor.tenant().0)
        .bind(actor.api_key)
        .bind(actor.request_id.as_deref())
        .bind(space.map(|space| space.0))
        .bind(column(rows, |row| row.id.0))
        .bind(column(rows, |row| row.new.user_id.0))
        .bind(column(rows, |row| row.new.context_type.as_str()))
        .bind(column(rows, |row| row.new.key.as_ref().map(|key| key.as_str())))
        .bind(column(rows, |row| row.new.content.as_str()))
        .bind(column(rows, |row| row.new.metadata.as_str()))
        .bind(column(rows, |row| row.new.text.as_str()))
        .bind(column(rows, |row| row.new.text_given))
        .bind(column(rows, |row| row.new.language.as_str()))
        .bind(column(rows, |row| expiry(row).at()))
        .bind(column(rows, |row| expiry(row).ttl_seconds().map(|seconds| seconds as f64)))
        .bind(column(rows, |row| expiry(row).sliding_seconds()))
        .bind(column(rows, |row| row.new.validity.from))
        .bind(column(rows, |row| row.new.validity.to))
        .bind(digests)
        .bind(column(rows, |_| Uuid::now_v7()))
        .bind(column(rows, |row| row.expected))
        .bind(column(rows, |row| origin(row).map(|origin| origin.version)))
        .bind(column(rows, |row| origin(row).map(|origin| origin.created_at)))
        .bind(column(rows, |row| origin(row).map(|origin| origin.updated_at)))
        .bind(pieces.0)
        .bind(pieces.1)
        .bind(pieces.2)
        .bind(embedding_nos)
        .bind(halves)
        .bind(flag)
        .bind(action.as_str())
        .bind(actor.trace.map(|trace| trace.to_bytes().to_vec()))
}

fn column<'q, T>(rows: &'q [WriteRow<'_>], of: impl Fn(&'q WriteRow<'_>) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

/// As `with ordinality` numbers them.
fn numbered<'q, 'r>(rows: &'q [WriteRow<'r>]) -> impl Iterator<Item = (i64, &'q WriteRow<'r>)> {
    (1..).zip(rows)
}

/// Of the embedding as it is stored, so that it is the same for one that comes back from an export.
fn digest(new: &NewContext) -> Option<Vec<u8>> {
    let half = HalfVector::from_f32_slice(new.embedding.as_ref()?.as_slice());
    let mut digest = Sha256::new();
    for number in half.as_slice() {
        digest.update(number.to_le_bytes());
    }
    Some(digest.finalize().to_vec())
}

impl Store {
    /// Writes a context in a transaction of its own. None when nothing was written: another context has the key and stays,
    /// or nothing differs.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_context(
        &self,
        actor: &Actor,
        space: Option<SpaceId>,
        row: WriteRow<'_>,
        on_key: OnKey,
    ) -> Result<Option<Written>> {
        let mut writing = self.write(actor.tenant()).await?;
        let written = create(&mut writing, actor, space, row, on_key).await;
        writing.finish(written).await
    }
}

impl Unit {
    /// As [`Store::create_context`].
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_context(
        &mut self,
        actor: &Actor,
        space: Option<SpaceId>,
        row: WriteRow<'_>,
        on_key: OnKey,
    ) -> Result<Option<Written>> {
        create(self.connection(), actor, space, row, on_key).await
    }

    /// Changes the context of this id. None when it is not in the expected version or nothing differs; a deleted one
    /// comes back when `action` says so.
    ///
    /// # Errors
    /// [`crate::error::Code::KeyConflict`].
    pub async fn update_context(
        &mut self,
        actor: &Actor,
        space: Option<SpaceId>,
        row: WriteRow<'_>,
        action: Action,
    ) -> Result<Option<Written>> {
        let rows = [row];
        let revive = action == Action::RestoreContext;
        let connection = self.connection();
        let result =
            bind(UPDATE_IN_FULL, actor, space, &rows, revive, action).fetch_optional(connection.pg()).await;
        connection.settle(result)?.as_ref().map(written_from_row).transpose()
    }

    /// Creates many; no two may have the same user and key. Those that were not written are not among the answers.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn create_contexts(
        &mut self,
        actor: &Actor,
        space: Option<SpaceId>,
        rows: &[WriteRow<'_>],
        on_key: OnKey,
    ) -> Result<Vec<WrittenRow>> {
        let update = on_key == OnKey::Update;
        self.write(bind(INSERT_IN_BRIEF, actor, space, rows, update, Action::UpdateContext)).await
    }

    /// Changes many, by their ids, which must differ; with `revive` also those that were deleted or have expired. Those
    /// that were not written are not among the answers.
    ///
    /// # Errors
    /// [`crate::error::Code::KeyConflict`] when one of them would get the key of another.
    pub async fn update_contexts(
        &mut self,
        actor: &Actor,
        space: Option<SpaceId>,
        rows: &[WriteRow<'_>],
        revive: bool,
    ) -> Result<Vec<WrittenRow>> {
        self.write(bind(UPDATE_IN_BRIEF, actor, space, rows, revive, Action::UpdateContext)).await
    }

    async fn write(&mut self, query: Query<'_, Postgres, PgArguments>) -> Result<Vec<WrittenRow>> {
        let connection = self.connection();
        let result = query.fetch_all(connection.pg()).await;
        let read = |row: &PgRow| {
            Ok::<_, sqlx::Error>(WrittenRow {
                index: (row.try_get::<i64, _>("no")? - 1) as usize,
                id: ContextId(row.try_get("id")?),
                version: row.try_get("version")?,
                created: row.try_get("created")?,
            })
        };
        connection.settle(result)?.iter().map(read).collect::<sqlx::Result<_>>().map_err(Error::internal)
    }
}

async fn create(
    connection: &mut Connection,
    actor: &Actor,
    space: Option<SpaceId>,
    row: WriteRow<'_>,
    on_key: OnKey,
) -> Result<Option<Written>> {
    let rows = [row];
    let update = on_key == OnKey::Update;
    let result = bind(INSERT_IN_FULL, actor, space, &rows, update, Action::UpdateContext)
        .fetch_optional(connection.pg())
        .await;
    connection.settle(result)?.as_ref().map(written_from_row).transpose()
}

fn written_from_row(row: &PgRow) -> Result<Written> {
    let created = row.try_get("created").map_err(Error::internal)?;
    Ok(Written { context: from_row(row)?, created })
}
