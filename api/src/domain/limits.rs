//! Every limit on input, in one place, with its unit in the name. `docs/limits.md` lists them for users.

use std::time::Duration;

/// Bytes of a request body.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Levels of nesting in `content` and `metadata`.
pub const JSON_DEPTH_MAX: usize = 64;
/// Bytes of `content` as JSON, without blanks and with its numbers written out. A patch must not make it larger either.
pub const CONTENT_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Bytes of `metadata` as JSON, measured likewise.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Characters of `context_type`.
pub const CONTEXT_TYPE_CHARS_MAX: usize = 50;
/// Characters of `key`.
pub const KEY_CHARS_MAX: usize = 255;
/// Bytes of the text that a context is found by, given or extracted. Also what keeps a tsvector below its 1 MiB.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;
/// Tokens of one chunk, special ones included, when nobody knows how many the model reads; see `service::chunking`.
pub const CHUNK_TOKENS_DEFAULT: usize = 256;
/// Tokens of one chunk for a model that reads fewer: what it cannot read at once is embedded in parts.
pub const CHUNK_TOKENS_MIN: usize = 64;
/// Tokens of one chunk for a model that reads more: one vector for several pages says little.
pub const CHUNK_TOKENS_MAX: usize = 512;
/// A chunk begins with so much of the one before it, as a divisor of its own size: a tenth at most.
pub const CHUNK_OVERLAP_DIVISOR: usize = 10;
/// Chunks of one context. English of `TEXT_BYTES_MAX` makes about 180 of 512 tokens, and 350 of 256.
pub const CHUNKS_PER_CONTEXT_MAX: usize = 256;
/// Seconds of `ttl_seconds`: ten years.
pub const TTL_SECONDS_MAX: i64 = 10 * 366 * 24 * 3600;
/// Contexts in one page of a list.
pub const PAGE_LIMIT_MAX: u32 = 200;
/// Contexts in one page when the caller does not say.
pub const PAGE_LIMIT_DEFAULT: u32 = 50;
/// Bytes of the contexts in one answer, whatever its `limit`; at least one context is answered. A page that is cut by it
/// has a next one; a search that is cut says `complete: false`.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that the numbers of one document may take when they are written out: PostgreSQL keeps `1e-300` as 302 digits.
pub const NUMBER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest exponent of a number, of either sign: that of the smallest double.
pub const NUMBER_EXPONENT_MAX: u32 = 324;
/// Hits of one search.
pub const SEARCH_LIMIT_MAX: u32 = 100;
/// Hits of one search when the caller does not say.
pub const SEARCH_LIMIT_DEFAULT: u32 = 10;
/// The most that a leg of a hybrid search may count.
pub const WEIGHT_MAX: f64 = 1_000.0;
/// Seconds of a half-life: ten years.
pub const HALF_LIFE_SECONDS_MAX: f64 = TTL_SECONDS_MAX as f64;
/// Bytes of a search query.
pub const QUERY_BYTES_MAX: usize = 8 * 1024;
/// Queries of one comparison of two embedding spaces.
pub const COMPARED_QUERIES_MAX: usize = 50;
/// Contexts a second of a backfill with a pace.
pub const BACKFILL_PACE_MAX: i32 = 100_000;
/// `context_types` in one search.
pub const CONTEXT_TYPES_MAX: usize = 20;
/// Dimensions of a vector: what pgvector can index as `halfvec`.
pub const DIMENSIONS_MAX: usize = 4_000;
/// Characters of an API key's name.
pub const API_KEY_NAME_CHARS_MAX: usize = 100;
/// Characters of a tenant's name.
pub const TENANT_NAME_CHARS_MAX: usize = 100;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 255;
/// How long the answer to a request with an `Idempotency-Key` is kept.
pub const IDEMPOTENCY_RETENTION: Duration = Duration::from_secs(24 * 3600);
/// Operations of one batch.
pub const BATCH_OPERATIONS_MAX: usize = 1_000;
/// Bytes of one line of an import. More than a body, because a document takes more as it is stored and exported: blanks
/// after commas, the zeros of `1e300`.
pub const IMPORT_LINE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Lines of an import that are stored in one transaction.
pub const IMPORT_BATCH_LINES_MAX: u64 = 500;
/// Bytes of lines of an import that are stored in one transaction, but for the last line.
pub const IMPORT_BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Lines that were not stored and whose errors are in the answer to an import; of the others there is the number.
pub const IMPORT_ERRORS_MAX: usize = 100;
/// How long an import waits for the next line.
pub const IMPORT_IDLE_MAX: Duration = Duration::from_secs(30);
/// How long an operation's events are sent; then a client that wants more asks again.
pub const EVENTS_MAX: Duration = Duration::from_secs(300);
/// How long lines of an import are collected before they are stored.
pub const IMPORT_BATCH_AGE_MAX: Duration = Duration::from_secs(5);
/// The highest version that a context may bring along: what a double can count to.
pub const IMPORT_VERSION_MAX: i64 = (1 << 53) - 1;
/// Seconds for which the old secret of a rotated key may go on: a week.
pub const ROTATION_OVERLAP_SECONDS_MAX: u32 = 7 * 24 * 3600;
/// How long one request may take in all.
pub const REQUEST_DEADLINE: Duration = Duration::from_secs(30);
/// How long a write waits for its embedding, when it is asked to.
pub const WAIT_READY_MAX: Duration = Duration::from_secs(20);
/// How long a search waits for its query's embedding before it goes on with keywords alone.
pub const QUERY_EMBEDDING_DEADLINE: Duration = Duration::from_secs(3);
