//! What needs a PostgreSQL server: its roles, its row-level security seen directly, its indexes, many connections, its death; and
//! several processes on one database.

mod backup;
mod crashes;
mod document_examples;
mod isolation;
mod keyword;
mod migrations;
mod nearest;
mod outages;
mod overload;
mod past_search;
mod plans;
mod races;
mod redis;
mod scale;
mod spaces;
mod stored_bytes;
mod threads;
mod traces;
mod upkeep;
mod workers;
