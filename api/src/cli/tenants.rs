//! `context-api tenants`: make and list tenants, straight in the database.

use clap::Subcommand;
use time::format_description::well_known::Rfc3339;

use super::{CommandResult, start};
use crate::{
    config::{self, Source},
    domain::{Access, DEFAULT_TENANT, Limit, TenantName, limits::PAGE_LIMIT_MAX},
    service::Tenants,
};

#[derive(Debug, Subcommand)]
pub(super) enum TenantsCommand {
    /// Make a tenant; then make a key for it with `keys create --tenant`
    Create { name: String },
    /// List the tenants, oldest first
    List,
}

pub(super) async fn run(source: &Source, command: TenantsCommand) -> CommandResult {
    let store = start::open_store(&config::database(source)?).await?;
    let tenants = Tenants::new(store.clone());
    match command {
        TenantsCommand::Create { name } => {
            let name = TenantName::new(&name)?;
            tenants.create_for_operator(&name).await?;
            println!("Made. A key for it: context-api keys create --tenant '{}' --name …", name.as_str());
        }
        TenantsCommand::List => list(&tenants).await?,
    }
    store.close().await;
    Ok(())
}

async fn list(tenants: &Tenants) -> CommandResult {
    println!("{:<36}  {:<30}  NAME", "ID", "CREATED");
    let mut cursor = None;
    loop {
        let limit = Limit::new(Some(PAGE_LIMIT_MAX))?;
        let page = tenants.list(Access::whole(DEFAULT_TENANT), true, limit, cursor).await?;
        for tenant in &page.data {
            println!("{:<36}  {:<30}  {}", tenant.id, tenant.created_at.format(&Rfc3339)?, tenant.name);
        }
        let Some(next) = page.next_cursor else { return Ok(()) };
        cursor = Some(next.parse()?);
    }
}
