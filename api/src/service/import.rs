//! Taking in any number of contexts, line by line: while some lines are written the next ones are read, and no more than
//! that is ever in memory. What was stored stays stored, however an import ends.

use std::{collections::HashSet, sync::Arc};

use futures_util::{Stream, StreamExt, future::join};
use tokio::time::Instant;

use super::{
    Service,
    batch::{Item, Kind, Prepared, named, run_all},
    contexts::{chunks, space_id},
    operations::CLAIM,
    unit::in_unit,
};
use crate::{
    domain::{
        Actor, BatchOperation, BatchResultKind, ContextId, IdempotencyKey, ImportLine, ImportReport,
        Imported, OperationId, OperationStatus, SpaceInfo, UserId, derived_id,
        limits::{
            IMPORT_BATCH_AGE_MAX, IMPORT_BATCH_BYTES_MAX, IMPORT_BATCH_LINES_MAX, IMPORT_IDLE_MAX,
            IMPORT_LINE_BYTES_MAX,
        },
    },
    error::{Code, Error, Result},
    store::{ClaimedOperation, Unit},
};

/// What to import.
#[derive(Clone, Debug)]
pub struct ImportRequest {
    pub key: Option<IdempotencyKey>,
    /// The number of the first line that is sent; those before it were sent earlier.
    pub first_line: u64,
}

/// Why there is no line.
#[derive(Debug)]
pub enum LineError {
    /// This line is too long; there are others after it.
    TooLong,
    /// Nothing comes any more.
    Broken(Error),
}

/// What became of a line that was not stored.
#[derive(Clone, Debug)]
pub struct LineResult {
    /// Its number, from 1.
    pub line: u64,
    pub error: Arc<Error>,
}

/// A line that was read and needs nothing but the database.
struct Ready {
    line: u64,
    prepared: Prepared,
    /// Whether the id was made of the line: what has it is the line itself, stored earlier.
    is_derived: bool,
}

/// Lines that are written together: no two about the same context.
#[derive(Default)]
struct Batch {
    /// Lines that were read, blank ones included.
    lines: u64,
    ready: Vec<Ready>,
    refused: Vec<LineResult>,
    /// Whether lines may follow.
    more: bool,
}

struct Reader<S> {
    lines: S,
    /// The number of the next line.
    next: u64,
    /// A line that has to wait for the batch after this one.
    held: Option<(u64, Box<Imported>, usize)>,
    /// When the last line came.
    last_at: Instant,
    import: OperationId,
}

/// What came next.
enum Next {
    Line(u64, Result<Box<Imported>>, usize),
    Blank,
    /// Nothing, for now.
    Pause,
    End,
}

/// What a line is about, by each of its names.
#[derive(PartialEq, Eq, Hash)]
enum Name {
    Id(ContextId),
    Key(UserId, String),
}

impl Service {
    /// Stores each line that can be stored. `report` is told what became of the others.
    ///
    /// # Errors
    /// [`Code::OperationConflict`] when it was cancelled or the same was sent again; [`Code::InvalidJson`] when the lines break
    /// off; [`Code::NoEmbeddingSpace`]; [`Code::DatabaseUnavailable`]. What was stored before stays stored.
    pub async fn import_contexts<L: AsRef<[u8]>>(
        &self,
        actor: &Actor,
        request: &ImportRequest,
        lines: impl Stream<Item = Result<L, LineError>> + Unpin,
        mut refused: impl FnMut(LineResult),
    ) -> Result<ImportReport> {
        let operation = self.begin_import(actor, request.key.as_ref()).await?;
        let mut report = ImportReport::new(operation.id);
        let ended = self.import_all(actor, request, &operation, lines, &mut report, &mut refused).await;
        let (status, error) = match &ended {
            Ok(()) => (OperationStatus::Succeeded, None),
            Err(error) if error.code == Code::OperationConflict => (OperationStatus::Cancelled, Some(error)),
            Err(error) => (OperationStatus::Failed, Some(error)),
        };
        let counts = serde_json::to_string(&report.counts).map_err(Error::internal)?;
        let words = error.map(|error| error.detail.to_string());
        self.finish(actor.tenant(), &operation, status, Some(&counts), words.as_deref()).await?;
        ended.map(|()| report)
    }

    async fn begin_import(&self, actor: &Actor, key: Option<&IdempotencyKey>) -> Result<ClaimedOperation> {
        in_unit(&self.store, actor.access, async |unit: &mut Unit| unit.begin_import(actor, key, CLAIM).await)
            .await
    }

    async fn import_all<L: AsRef<[u8]>>(
        &self,
        actor: &Actor,
        request: &ImportRequest,
        operation: &ClaimedOperation,
        lines: impl Stream<Item = Result<L, LineError>> + Unpin,
        report: &mut ImportReport,
        refused: &mut impl FnMut(LineResult),
    ) -> Result<()> {
        let mut reader = Reader {
            lines,
            next: request.first_line,
            held: None,
            last_at: Instant::now(),
            import: operation.id,
        };
        let mut batch = self.read_batch(actor, &mut reader).await?;
        loop {
            let (written, following) = if batch.more {
                let write = self.write_lines(actor, operation, &batch.ready);
                Box::pin(join(write, self.read_batch(actor, &mut reader))).await
            } else {
                (self.write_lines(actor, operation, &batch.ready).await, Ok(Batch::default()))
            };
            let results = written?;
            for (ready, result) in batch.ready.iter().zip(results) {
                match result {
                    Ok(kind) => report.counts.note(kind),
                    Err(error) => batch.refused.push(LineResult { line: ready.line, error: Arc::new(error) }),
                }
            }
            report.counts.lines += batch.lines;
            report.counts.failed += batch.refused.len() as u64;
            batch.refused.drain(..).for_each(&mut *refused);
            self.notice_pending();
            report.counts.next_line = request.first_line + report.counts.lines;
            let progress = serde_json::to_string(&report.counts).map_err(Error::internal)?;
            if !self.store.note_progress(actor.tenant(), operation, &progress, CLAIM).await? {
                return Err(superseded());
            }
            if !batch.more {
                return Ok(());
            }
            batch = following?;
        }
    }

    /// Reads lines until there are enough of them, or one is about the same context as another.
    async fn read_batch<L: AsRef<[u8]>>(
        &self,
        actor: &Actor,
        reader: &mut Reader<impl Stream<Item = Result<L, LineError>> + Unpin>,
    ) -> Result<Batch> {
        let mut batch = Batch { more: true, ..Batch::default() };
        let (mut bytes, mut seen) = (0, HashSet::new());
        let mut space = self.active_space().await?;
        let ends_at = Instant::now() + IMPORT_BATCH_AGE_MAX;
        while batch.lines < IMPORT_BATCH_LINES_MAX && bytes < IMPORT_BATCH_BYTES_MAX {
            let (number, imported, size) = match reader.next(ends_at).await? {
                Next::Pause => break,
                Next::Line(number, Ok(imported), size) => (number, imported, size),
                Next::Line(line, Err(error), _) => {
                    batch.lines += 1;
                    batch.refused.push(LineResult { line, error: Arc::new(error) });
                    continue;
                }
                Next::Blank => {
                    batch.lines += 1;
                    continue;
                }
                Next::End => {
                    batch.more = false;
                    break;
                }
            };
            if names(&imported).any(|name| seen.contains(&name)) {
                reader.held = Some((number, imported, size));
                break;
            }
            seen.extend(names(&imported));
            if imported.new.embedding.is_some() && space.is_none() {
                space = self.space_to_give().await?;
            }
            bytes += size;
            batch.lines += 1;
            match prepare(actor, number, *imported, space.as_ref()) {
                Ok(ready) => batch.ready.push(ready),
                Err(error) => batch.refused.push(LineResult { line: number, error: Arc::new(error) }),
            }
        }
        Ok(batch)
    }

    async fn write_lines(
        &self,
        actor: &Actor,
        operation: &ClaimedOperation,
        lines: &[Ready],
    ) -> Result<Vec<Result<BatchResultKind>>> {
        if lines.is_empty() {
            return Ok(Vec::new());
        }
        let space = self.active_space().await?;
        // A line that finds no room fails as any other does that cannot be stored; those that are there already are told so.
        let room = self.room(actor.access).await?;
        in_unit(&self.store, actor.access, async |unit: &mut Unit| {
            if !unit.import_may_go_on(actor, operation).await? {
                return Err(superseded());
            }
            let (ids, keys) = named(lines.iter().map(|line| &line.prepared));
            let existing = unit.lock_existing(&ids, &keys).await?;
            let is_there = |line: &Ready| existing.contains(&line.prepared.id);
            let items: Vec<Item<'_>> = lines
                .iter()
                .filter(|line| !(line.is_derived && is_there(line)))
                .map(|line| {
                    let kind = if is_there(line) { Kind::Update { revive: true } } else { Kind::Upsert };
                    Item { prepared: &line.prepared, kind }
                })
                .collect();
            let mut done = run_all(unit, actor, space_id(space.as_ref()), room, &items).await?.into_iter();
            let results = lines.iter().map(|line| match (line.is_derived && is_there(line), &mut done) {
                (true, _) => Ok(BatchResultKind::Unchanged),
                (false, done) => match done.next() {
                    Some(result) => result.map(|result| result.kind),
                    None => Err(Error::internal("a line was forgotten")),
                },
            });
            Ok(results.collect())
        })
        .await
    }
}

impl<L: AsRef<[u8]>, S: Stream<Item = Result<L, LineError>> + Unpin> Reader<S> {
    /// # Errors
    /// [`Code::InvalidJson`] when the lines break off or do not come.
    async fn next(&mut self, until: Instant) -> Result<Next> {
        if let Some((number, imported, size)) = self.held.take() {
            return Ok(Next::Line(number, Ok(imported), size));
        }
        let line = match tokio::time::timeout_at(until, self.lines.next()).await {
            Err(_) if self.last_at.elapsed() < IMPORT_IDLE_MAX => return Ok(Next::Pause),
            Err(_) => {
                return Err(Error::new(
                    Code::InvalidJson,
                    format!("No line came for {} s; the import ends here.", IMPORT_IDLE_MAX.as_secs()),
                ));
            }
            Ok(None) => return Ok(Next::End),
            Ok(Some(Err(LineError::Broken(error)))) => return Err(error),
            Ok(Some(line)) => line,
        };
        self.last_at = Instant::now();
        let number = self.next;
        self.next += 1;
        let Ok(line) = line else {
            let error = Error::new(
                Code::BodyTooLarge,
                format!("The line is longer than {IMPORT_LINE_BYTES_MAX} bytes."),
            );
            return Ok(Next::Line(number, Err(error), 0));
        };
        let json = line.as_ref();
        if json.trim_ascii().is_empty() {
            return Ok(Next::Blank);
        }
        let imported = ImportLine::parse(json).map(|mut imported| {
            if imported.is_nameless() {
                imported.id = Some(derived_id(self.import, number, json));
                imported.is_derived = true;
            }
            Box::new(imported)
        });
        Ok(Next::Line(number, imported, json.len()))
    }
}

fn superseded() -> Error {
    Error::new(
        Code::OperationConflict,
        "The import was cancelled, the same was sent again and goes on there, or its API key is not valid any more.",
    )
}

fn names(imported: &Imported) -> impl Iterator<Item = Name> {
    let key = imported.new.key.as_ref();
    let key = key.map(|key| Name::Key(imported.new.user_id, key.as_str().to_owned()));
    imported.id.map(Name::Id).into_iter().chain(key)
}

fn prepare(actor: &Actor, line: u64, imported: Imported, space: Option<&SpaceInfo>) -> Result<Ready> {
    let Imported { id, is_derived, new, origin } = imported;
    actor.access.require_user(new.user_id)?;
    let id = id.unwrap_or_else(ContextId::generate);
    let chunks = chunks(&new, space)?;
    let operation = BatchOperation::Upsert { new, expected: None };
    Ok(Ready { line, prepared: Prepared { operation, id, chunks, origin }, is_derived })
}
