//! `context-api migrate`, and what `serve` does without it.

use std::time::Duration;

use context_api::{
    domain::DEFAULT_TENANT,
    store::{Applied, SchemaState, Store},
};
use futures_util::{StreamExt, stream};
use sqlx::{Connection as _, PgConnection};

use crate::support::{Database, Engine, Process, command, eventually, free_port, options};

#[tokio::test]
async fn eight_at_once_migrate_once() {
    let database = Database::create_bare().await;
    let options = options(&database.url);
    let runs = (0..8).map(|_| Store::migrate(&options));
    let applied: Vec<Applied> =
        stream::iter(runs).buffer_unordered(8).map(|run| run.expect("every one succeeds")).collect().await;
    let total = sqlx::migrate!("../migrations").iter().count();
    let newest = applied[0].version;
    assert!(applied.iter().all(|run| run.version == newest));
    let mut counts: Vec<usize> = applied.iter().map(|run| run.count).collect();
    counts.sort_unstable();
    assert_eq!(counts, [0, 0, 0, 0, 0, 0, 0, total], "one did all");
    let again = Store::migrate(&options).await.unwrap();
    assert_eq!(again, Applied { count: 0, version: newest });
}

#[tokio::test]
async fn serve_refuses_a_schema_that_it_cannot_work_with_and_says_what_to_do() {
    let database = Database::create_bare().await;
    // The roles are there for the whole server once any test has migrated.
    Database::create_on(Engine::Native).await;
    let folder = tempfile::TempDir::new().unwrap();
    let variables = [("DATABASE_URL", database.url.as_str())];
    let (status, said) = Process::serve(folder.path(), free_port(), &variables).exit();
    assert!(!status.success() && said.contains("Run `context-api migrate` first"), "{said}");
    let check = command(folder.path(), &variables).args(["migrate", "--check"]).output().unwrap();
    assert!(!check.status.success());
    assert!(command(folder.path(), &variables).arg("migrate").status().unwrap().success());
    assert!(command(folder.path(), &variables).args(["migrate", "--check"]).status().unwrap().success());
    let mut superuser = database.superuser().await;
    let run = async |pg: &mut PgConnection, sql: &'static str| sqlx::raw_sql(sql).execute(pg).await.unwrap();
    run(&mut superuser, "insert into _sqlx_migrations (version, description, success, checksum, execution_time) values (9999, 'from the future', true, '', 0)").await;
    // One that only adds: whoever is started anew while it is rolled out, or after it was given up, goes on.
    let mut ahead = Process::serve(folder.path(), free_port(), &variables);
    ahead.ready().await;
    assert!(ahead.log().contains("a newer version has migrated the database"));
    assert!(ahead.terminate().success());
    for arguments in [["migrate"].as_slice(), &["migrate", "--check"]] {
        let output = command(folder.path(), &variables).args(arguments).output().unwrap();
        assert!(
            output.status.success() && String::from_utf8(output.stdout).unwrap().contains("migration 9999")
        );
    }
    // One that takes away.
    run(&mut superuser, "update schema_floor set needs = 9999").await;
    let (status, said) = Process::serve(folder.path(), free_port(), &variables).exit();
    assert!(!status.success() && said.contains("migration 9999"), "{said}");
    let migrate = command(folder.path(), &variables).arg("migrate").output().unwrap();
    assert!(!migrate.status.success(), "an older version must not touch a newer schema");
    superuser.close().await.unwrap();
}

/// Else everybody who comes after it would wait as long as it does.
#[tokio::test]
async fn a_migration_steps_back_while_a_table_is_in_use() {
    let database = Database::create_on(Engine::Native).await;
    let (mut superuser, mut dump) = (database.superuser().await, database.superuser().await);
    let run = async |pg: &mut PgConnection, sql: &'static str| sqlx::raw_sql(sql).execute(pg).await.unwrap();
    let undo = "alter table contexts drop column embedding_trace; drop table schema_floor;
                drop function term_itself(text), beginning_with(text), expect_one_tenant(regclass);
                delete from _sqlx_migrations where version > 15";
    run(&mut superuser, undo).await;
    run(&mut dump, "begin; lock table contexts in access share mode").await;
    let options = options(&database.url);
    let using = async {
        eventually("a migration that waits", Duration::from_secs(20), async || {
            let waits = "select count(*) from pg_locks where not granted and relation = 'contexts'::regclass";
            let waiting: i64 = sqlx::query_scalar(waits).fetch_one(&mut superuser).await.unwrap();
            (waiting > 0).then_some(())
        })
        .await;
        run(&mut superuser, "set lock_timeout = '10s'; select count(*) from contexts").await;
        run(&mut dump, "commit").await;
    };
    let (migrated, ()) = tokio::join!(Store::migrate(&options), using);
    assert_eq!(migrated.unwrap().count, 3);
}

/// `url` with another login.
fn as_role(url: &str, role: &str, password: &str) -> String {
    let mut url = reqwest::Url::parse(url).unwrap();
    url.set_username(role).unwrap();
    url.set_password(Some(password)).unwrap();
    url.into()
}

#[tokio::test]
async fn after_init_db_the_owner_migrates_and_the_app_serves_without_a_superuser() {
    let database = Database::create_bare().await;
    let mut superuser = database.superuser().await;
    let files = ["01-roles.sql", "02-extensions.sql", "03-leakproof.sql", "04-backup.sql"];
    // Twice, because an operator may.
    for file in files.iter().chain(&files) {
        let sql = std::fs::read_to_string(format!("../init-db/{file}")).unwrap();
        // The roles belong to the whole server, and other tests may be at them in this moment.
        let sql = format!(
            "begin; select pg_advisory_xact_lock(hashtext('context-api init-db'));
             set local context.owner_password = 'owner-secret'; set local context.app_password = 'app-secret'; {sql}; commit"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .execute(&mut superuser)
            .await
            .unwrap_or_else(|e| panic!("{file}: {e}"));
    }
    superuser.close().await.unwrap();
    let owner = as_role(&database.url, "context_owner", "owner-secret");
    let app = as_role(&database.url, "context_app", "app-secret");
    let refused = Store::migrate(&options(&app)).await.unwrap_err();
    assert!(refused.to_string().contains("may not act as `context_owner`"), "{refused}");
    assert!(Store::migrate(&options(&owner)).await.unwrap().count > 0);
    for url in [&app, &owner] {
        let store = Store::new(&options(url)).unwrap();
        assert_eq!(store.schema_state().await.unwrap(), SchemaState::Current);
        assert!(store.go_by_text_index_if_usable().await.unwrap());
        assert_eq!(store.find_tenant("default").await.unwrap(), Some(DEFAULT_TENANT));
    }
}
