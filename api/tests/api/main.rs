//! The API from outside: real HTTP, real PostgreSQL, real Redis, the real model. One binary, so that it is linked once.
//!
//! `TEST_DATABASE_URL` (a superuser's) and `TEST_REDIS_URL` name servers; `scripts/test` starts private ones. Without,
//! or with `TEST_ENGINE=embedded`, the database in process is used. Tests under `native` need a server.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "a test that cannot go on has failed, and one that lists cases may be long"
)]

mod answers;
mod auth;
mod batch;
mod changes;
mod chunks;
mod conditions;
mod contexts;
mod crashes;
mod embedding_server;
mod erasure;
mod evaluation;
mod examples;
mod fairness;
mod faults;
mod filters;
mod given_embeddings;
mod health;
mod history;
mod hostile;
mod idempotency;
mod imports;
mod keys;
mod keyword;
mod languages;
mod layering;
mod life;
mod limits;
mod native;
mod openapi;
mod pack;
mod past_search;
mod process;
mod quota;
mod rate_limits;
mod rerank;
mod search;
mod search_ranking;
mod search_scope;
mod spaces;
mod stored_bytes;
mod support;
mod traces;
mod transfer;
mod usage;
