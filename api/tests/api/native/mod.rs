//! What needs a PostgreSQL server: its roles, its row-level security seen directly, its indexes, many connections.

mod isolation;
mod migrations;
mod plans;
mod races;
mod redis;
mod upkeep;
mod workers;
