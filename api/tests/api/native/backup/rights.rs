//! Backups need no superuser: `context_backup` makes and checks them, `context_owner` restores them.

use std::time::Duration;

use context_api::{
    backup::{Asked, Backups, State},
    store::{SchemaState, Store},
};
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};
use tempfile::TempDir;

use super::{backup_options, go_on, stub};
use crate::support::{App, Database, PostgresServer, Setup, eventually, options};

async fn run(url: &str, sql: &str) {
    let mut superuser = PgConnection::connect(url).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&mut superuser).await.unwrap();
    superuser.close().await.unwrap();
}

fn with(url: &str, role: &str, database: &str) -> String {
    let mut url = reqwest::Url::parse(url).unwrap();
    url.set_username(role).unwrap();
    url.set_path(database);
    url.into()
}

#[tokio::test]
async fn a_backup_is_made_checked_and_restored_without_a_superuser() {
    let (server, stub, place) = (PostgresServer::start().await, stub(), TempDir::new().unwrap());
    let superuser = server.url();
    let password = reqwest::Url::parse(&superuser).unwrap().password().unwrap().to_owned();
    let roles = ["context_app", "context_owner", "context_backup"];
    for role in roles {
        run(&superuser, &format!("alter role {role} password '{password}'")).await;
    }
    let [app_url, owner, backup] = roles.map(|role| with(&superuser, role, "postgres"));
    let app =
        App::start_as(Setup { providers: vec![stub.provider()], ..Setup::on(Database::at(&app_url)) }).await;
    let note = app.note("a heron by the water").await;
    app.embedded(&note.id()).await;

    let one_tenant = Backups::new(backup_options(&app_url, place.path())).unwrap();
    let refused = one_tenant.make(&go_on()).await.err().unwrap();
    assert!(refused.detail.contains("context_backup"), "{refused}");

    let backups = Backups::new(backup_options(&backup, place.path())).unwrap();
    let refused = backups.make(&go_on()).await.err().unwrap();
    assert!(refused.detail.contains("template1"), "{refused}");
    run(&with(&superuser, "postgres", "template1"), "create extension vector").await;
    let made =
        eventually("another second", Duration::from_secs(20), async || backups.make(&go_on()).await.ok())
            .await;
    assert_eq!(made.manifest.state, State::Checked);
    assert_eq!(made.manifest.tables["public.contexts"], 1);
    assert!(made.manifest.probes[0].by_meaning.is_some());
    app.stop().await;

    run(&superuser, "create database restored").await;
    let granted =
        "grant usage, create on schema public to context_owner; grant usage on schema public to context_app";
    run(&with(&superuser, "postgres", "restored"), granted).await;
    let restoring =
        Backups::new(backup_options(&with(&owner, "context_owner", "restored"), place.path())).unwrap();
    let plan = restoring.plan_restore("latest").await.unwrap();
    let restored = restoring.restore(&plan, Asked::default(), &go_on()).await.unwrap();
    assert_eq!(restored.schema, SchemaState::Current);
    let migrated = Store::migrate(&options(&with(&owner, "context_owner", "restored"))).await.unwrap();
    assert_eq!(migrated.count, 0);
    let app = Database::at(&with(&app_url, "context_app", "restored"));
    let app = App::start_as(Setup { providers: vec![stub.provider()], ..Setup::on(app) }).await;
    let found = app.search(json!({"query": "heron", "mode": "keyword"})).await;
    assert_eq!(found.body["data"][0]["context"]["id"], note.id().as_str());
}
