//! `context-api migrate`: the one command that changes the schema. Meant to run once per release, before the new API;
//! when several run at once, one works and the others wait.

use super::CommandResult;
use crate::{
    config::{self, Database, Source},
    store::{Applied, SchemaState, Store},
};

pub(super) async fn run(source: &Source, check: bool) -> CommandResult {
    let Database::Server(options) = config::database(source)? else {
        println!("The database in process migrates itself at every start.");
        return Ok(());
    };
    if check {
        let state = Store::new(&options)?.schema_state().await?;
        state.require_known()?;
        match state {
            SchemaState::Ahead { found } => {
                println!(
                    "The schema is that of a newer version, at migration {found}; this one can work with it."
                );
            }
            _ => println!("The schema is up to date."),
        }
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
