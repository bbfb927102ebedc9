//! The driver's errors as ours: what the caller did wrong, what the database is too busy or too far away for, and what
//! is a defect.

use std::time::Duration;

use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

use crate::error::{Code, Error};

const UNIQUE_VIOLATION: &str = "23505";
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Whether the session can be used after `error`: the server has answered, and it did not hang up.
pub(super) fn connection_survives(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => !is_disconnect(error.as_ref()),
        sqlx::Error::RowNotFound | sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => true,
        _ => false,
    }
}

/// SQLSTATE classes 57P0x (shutdown, crash, cannot connect now) and 08 (connection), and 53300 (too many connections).
fn is_disconnect(error: &dyn DatabaseError) -> bool {
    error.code().is_some_and(|code| code.starts_with("57P0") || code.starts_with("08") || code == "53300")
}

pub(super) fn from_sqlx(error: sqlx::Error) -> Error {
    match &error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
            unavailable("The database cannot be reached.").with_source(error)
        }
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(postgres) if postgres.code() == UNIQUE_VIOLATION => from_constraint(postgres),
            Some(postgres) => from_postgres(postgres.code(), is_disconnect(postgres), postgres.to_string()),
            None => Error::internal(error),
        },
        _ => Error::internal(error),
    }
}

/// A rule of the schema that a caller ran into.
fn from_constraint(error: &PgDatabaseError) -> Error {
    match error.constraint() {
        Some("contexts_key") => {
            Error::new(Code::KeyConflict, "Another context of this user has this key already.")
                .with_violation("/key", "belongs to another context")
        }
        Some("tenants_name_key") => Error::new(Code::TenantExists, "There is a tenant of this name already.")
            .with_violation("/name", "is taken"),
        // Two writers made the same thing at once. The second try finds it.
        Some("contexts_pkey" | "operations_idempotency") => {
            Error::new(Code::DatabaseBusy, "Another write was in the way; nothing was written.")
                .with_retry_after(RETRY_AFTER)
                .with_source(error.to_string())
        }
        _ => Error::internal(error.to_string()),
    }
}

/// A new session that may not become `context_app`, or cannot because nobody has made it.
pub(super) fn from_set_role(error: sqlx::Error) -> Error {
    let sqlstate = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    if sqlstate == "22023" || sqlstate == "42501" {
        return Error::new(Code::DatabaseUnavailable, "The database refuses the service.").with_source(
            "there is no role context_app, or this login may not act as it. Let a superuser run the files of init-db/, \
             then run `context-api migrate`",
        );
    }
    from_sqlx(error)
}

fn from_postgres(sqlstate: &str, is_disconnect: bool, message: String) -> Error {
    let source = format!("{message} (SQLSTATE {sqlstate})");
    match sqlstate {
        _ if is_disconnect => {
            unavailable("The database is restarting or refuses connections.").with_source(source)
        }
        // Cancelled by statement_timeout.
        "57014" => Error::new(Code::DeadlineExceeded, "The database took too long to answer.")
            .with_retry_after(RETRY_AFTER)
            .with_source(source),
        // Serialization failure, deadlock, lock timeout: nothing was written, and a second try finds the way free.
        "40001" | "40P01" | "55P03" => {
            Error::new(Code::DatabaseBusy, "Another write was in the way for too long; nothing was written.")
                .with_retry_after(RETRY_AFTER)
                .with_source(source)
        }
        // A fail-over left us on a replica.
        "25006" => unavailable("The database is read-only at the moment.").with_source(source),
        "53100" | "53200" => unavailable("The database is out of disk or memory.").with_source(source),
        // Numbers and documents beyond what it can keep, and what its own rules refuse. Our checks come first; this is the
        // net under them.
        "22003" | "54000" | "23514" => {
            Error::new(Code::InvalidRequest, "The request holds a value that the database cannot keep.")
                .with_source(source)
        }
        // Wrong password, no such role or database, no right to log in: an operator has to act, a caller can wait.
        "28000" | "28P01" | "3D000" | "42501" => {
            unavailable("The database refuses the service.").with_source(source)
        }
        _ => Error::internal(source),
    }
}

fn unavailable(detail: &'static str) -> Error {
    Error::new(Code::DatabaseUnavailable, detail).with_retry_after(RETRY_AFTER)
}
