//! `context-api keys`: make, list and revoke API keys, straight in the database.

use clap::Subcommand;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{CommandResult, start};
use crate::{
    config::{self, Source},
    domain::{ApiKeyInfo, NewApiKey, Scope},
    service::Keys,
};

#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key and print it, alone, on standard output; it is shown only this once
    Create {
        /// What the key is for
        #[arg(long)]
        name: String,
        /// What it may do: read, write, admin; all when left out
        #[arg(long = "scope", value_delimiter = ',')]
        scopes: Vec<String>,
        /// Days until it expires; never when left out
        #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
        expires_in_days: Option<u16>,
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// List the keys of a tenant
    List {
        #[arg(long, default_value = "default")]
        tenant: String,
    },
    /// Revoke a key; it stops working within a second
    Revoke {
        /// Its prefix or id, as `list` shows them
        key: String,
        #[arg(long, default_value = "default")]
        tenant: String,
    },
}

pub(super) async fn run(source: &Source, command: KeysCommand) -> CommandResult {
    let store = start::open_store(&config::database(source)?).await?;
    let keys = Keys::new(store.clone());
    match command {
        KeysCommand::Create { name, scopes, expires_in_days, tenant } => {
            let scopes = if scopes.is_empty() { Scope::all() } else { parse_scopes(&scopes)? };
            let expires_at = expires_in_days.map(|days| now() + Duration::days(days.into()));
            let tenant = keys.find_tenant(&tenant).await?;
            let key = keys.create(tenant, &NewApiKey::new(&name, scopes, expires_at)?).await?;
            println!("{}", key.expose());
        }
        KeysCommand::List { tenant } => list(&keys, &tenant).await?,
        KeysCommand::Revoke { key, tenant } => {
            let tenant = keys.find_tenant(&tenant).await?;
            match keys.revoke(tenant, &key).await? {
                0 => return Err(format!("there is no key `{key}` that could be revoked").into()),
                count => println!("Revoked {count} key(s)."),
            }
        }
    }
    store.close();
    Ok(())
}

fn parse_scopes(scopes: &[String]) -> crate::error::Result<Vec<Scope>> {
    scopes.iter().map(|scope| scope.trim().parse()).collect()
}

async fn list(keys: &Keys, tenant: &str) -> CommandResult {
    let tenant = keys.find_tenant(tenant).await?;
    println!("{:<36}  {:<12}  {:<20}  {:<16}  {:<20}  NAME", "ID", "PREFIX", "STATE", "SCOPES", "CREATED");
    for key in keys.list(tenant).await? {
        let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
        println!(
            "{:<36}  {:<12}  {:<20}  {:<16}  {:<20}  {}",
            key.id,
            key.prefix,
            state(&key),
            scopes.join(","),
            shown(key.created_at),
            key.name
        );
    }
    Ok(())
}

fn state(key: &ApiKeyInfo) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked".to_owned(),
        (None, Some(at)) if at <= now() => "expired".to_owned(),
        (None, Some(at)) => format!("until {}", at.date()),
        (None, None) => "valid".to_owned(),
    }
}

fn shown(at: OffsetDateTime) -> String {
    at.replace_nanosecond(0).unwrap_or(at).format(&Rfc3339).unwrap_or_default()
}

#[expect(clippy::disallowed_methods, reason = "the edge: an operator says days from now")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}
