//! Other ways to the server: another database of it; and PostgreSQL's own programs, which reach the one that the service does by
//! their environment, so that no password stands where every user of the machine can read it.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret;
use sqlx::ConnectOptions as _;

use super::ConnectOptions;
use crate::error::{Error, Result};

/// What the variables of the surrounding could say otherwise.
pub const FOREIGN_VARIABLES: [&str; 6] =
    ["PGHOSTADDR", "PGSERVICE", "PGSERVICEFILE", "PGOPTIONS", "PGTZ", "PGCLIENTENCODING"];

impl ConnectOptions {
    /// The same server and login, and another database.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub(super) fn with_database(&self, name: &str) -> Result<Self> {
        let mut url = reqwest::Url::parse(self.url.expose_secret())
            .map_err(|_| Error::internal("DATABASE_URL is not a URL"))?;
        url.set_path(name);
        let others = url.query_pairs().filter(|(key, _)| key != "dbname");
        let others: Vec<(String, String)> =
            others.map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
        url.query_pairs_mut().clear().extend_pairs(others);
        Ok(Self { url: String::from(url).into(), ..self.clone() })
    }

    /// Variables for `pg_dump` and `pg_restore`. One of them is the password.
    ///
    /// # Errors
    /// When the URL is malformed.
    pub fn libpq_environment(&self) -> Result<BTreeMap<&'static str, String>> {
        let options = self.parse_url()?;
        let mut variables = BTreeMap::from([
            ("PGHOST", options.get_host().to_owned()),
            ("PGPORT", options.get_port().to_string()),
            ("PGUSER", options.get_username().to_owned()),
            ("PGDATABASE", options.get_database().unwrap_or(options.get_username()).to_owned()),
            ("PGCONNECT_TIMEOUT", self.connect_timeout.as_secs().max(2).to_string()),
            ("PGAPPNAME", "context-api backup".to_owned()),
        ]);
        if let Some(socket) = options.get_socket() {
            variables.insert("PGHOST", socket.display().to_string());
        }
        // The driver shows what else it took from its URL by another one.
        let url = options.to_url_lossy();
        if let Some(password) = url.password() {
            variables.insert("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().into_owned());
        }
        for (name, value) in url.query_pairs() {
            let variable = match name.as_ref() {
                "sslmode" => "PGSSLMODE",
                "sslrootcert" => "PGSSLROOTCERT",
                "sslcert" => "PGSSLCERT",
                "sslkey" => "PGSSLKEY",
                _ => continue,
            };
            // It shows where a certificate is as `file: …`.
            variables.insert(variable, value.strip_prefix("file: ").unwrap_or(&value).to_owned());
        }
        Ok(variables)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn variables(url: &str) -> BTreeMap<&'static str, String> {
        let options = ConnectOptions {
            url: url.to_owned().into(),
            connections_max: 1,
            queue_max: 1,
            wait_timeout: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(1),
        };
        options.libpq_environment().unwrap()
    }

    #[test]
    fn the_programs_go_where_the_service_does() {
        let variables = variables(
            "postgres://me:p%40ss%25w%3Ard@db:5433/context?sslmode=verify-full&sslrootcert=/ca.pem",
        );
        for (name, value) in [
            ("PGHOST", "db"),
            ("PGPORT", "5433"),
            ("PGUSER", "me"),
            ("PGPASSWORD", "p@ss%w:rd"),
            ("PGDATABASE", "context"),
            ("PGSSLMODE", "verify-full"),
            ("PGSSLROOTCERT", "/ca.pem"),
        ] {
            assert_eq!(variables[name], value, "{name}");
        }
    }

    #[test]
    fn a_socket_is_named_by_its_folder() {
        assert_eq!(variables("postgres://me@%2Frun%2Fpostgresql/context")["PGHOST"], "/run/postgresql");
    }
}
