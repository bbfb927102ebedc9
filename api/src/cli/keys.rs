//! `context-api keys`: make, list and revoke API keys, straight in the database.

use clap::Subcommand;
use time::{Duration, OffsetDateTime, format_description::well_known::Rfc3339};

use super::{CommandResult, start};
use crate::{
    config::{self, Source},
    domain::{ApiKeyInfo, Limit, NewApiKey, Scope, TenantId, UserId, limits::PAGE_LIMIT_MAX},
    service::{Keys, Tenants},
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
        /// The one user whose contexts it reaches; all of the tenant when left out
        #[arg(long)]
        user: Option<uuid::Uuid>,
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
    let (keys, tenants) = (Keys::new(store.clone()), Tenants::new(store.clone()));
    match command {
        KeysCommand::Create { name, scopes, user, expires_in_days, tenant } => {
            let scopes = match (scopes.as_slice(), user) {
                ([], None) => Scope::all(),
                ([], Some(_)) => vec![Scope::Read, Scope::Write],
                (scopes, _) => parse_scopes(scopes)?,
            };
            let expires_at = expires_in_days.map(|days| now() + Duration::days(days.into()));
            let tenant = tenants.find(&tenant).await?;
            let new = NewApiKey::new(&name, scopes, user.map(UserId), expires_at)?;
            let key = keys.create_for_operator(tenant, &new).await?;
            println!("{}", key.expose());
        }
        KeysCommand::List { tenant } => list(&keys, tenants.find(&tenant).await?).await?,
        KeysCommand::Revoke { key, tenant } => {
            let tenant = tenants.find(&tenant).await?;
            keys.revoke_for_operator(tenant, &key).await?;
            println!("Revoked. It stops working within a second.");
        }
    }
    store.close().await;
    Ok(())
}

fn parse_scopes(scopes: &[String]) -> crate::error::Result<Vec<Scope>> {
    scopes.iter().map(|scope| scope.trim().parse()).collect()
}

async fn list(keys: &Keys, tenant: TenantId) -> CommandResult {
    println!(
        "{:<36}  {:<12}  {:<20}  {:<16}  {:<20}  {:<20}  NAME",
        "ID", "PREFIX", "STATE", "SCOPES", "CREATED", "LAST USED"
    );
    let mut cursor = None;
    loop {
        let page = keys.list(tenant, Limit::new(Some(PAGE_LIMIT_MAX))?, cursor).await?;
        for key in &page.data {
            let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
            println!(
                "{:<36}  {:<12}  {:<20}  {:<16}  {:<20}  {:<20}  {}{}",
                key.id,
                key.prefix,
                state(key),
                scopes.join(","),
                shown(key.created_at),
                key.last_used_at.map_or_else(|| "never".to_owned(), shown),
                key.name,
                key.user_id.map(|user| format!(" (user {user})")).unwrap_or_default()
            );
        }
        let Some(next) = page.next_cursor else { return Ok(()) };
        cursor = Some(next.parse()?);
    }
}

fn state(key: &ApiKeyInfo) -> String {
    match (key.revoked_at, key.expires_at) {
        (Some(at), _) if at > now() => format!("until {}", at.date()),
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
