//! `context-api migrate`: the one command that changes the schema. Meant to run once per release, before the new API;
//! when several run at once, one works and the others wait.

use super::CommandResult;
use crate::{
    config::{self, Database, Source},
    store::{Applied, Store},
};

pub(super) async fn run(source: &Source, check: bool) -> CommandResult {
    let Database::Server(options) = config::database(source)? else {
        println!("The database in process migrates itself at every start.");
        return Ok(());
    };
    if check {
        Store::new(&options)?.schema_state().await?.require_current()?;
        println!("The schema is up to date.");
        return Ok(());
    }
    match Store::migrate(&options).await? {
        Applied { count: 0, version } => println!("Nothing to do: the schema is at migration {version}."),
        Applied { count, version } => {
            println!("Applied {count} migration(s); the schema is at migration {version}.")
        }
    }
    Ok(())
}
