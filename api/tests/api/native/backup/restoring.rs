//! Into an empty database, and over one that is in use.

use std::time::Duration;

use context_api::{
    backup::{Asked, Backups, Manifest, Options, Stage, State},
    domain::Scope,
    store::{Applied, BackupSession, SchemaState, Store},
};
use futures_util::future::join;
use reqwest::{Method, StatusCode};
use serde_json::json;
use tempfile::TempDir;
use time::macros::datetime;
use tokio::sync::watch;

use super::{
    answers, app_with_notes, backup_options, backups, dump_in, files, go_on, programs_with,
    scratch_databases, spoil, stub,
};
use crate::support::{App, Database, command, eventually, options, program};

const TEXTS: [&str; 5] =
    ["a heron by the water", "an otter in the water", "a badger in the wood", "two herons", "nothing"];

const REPLACE: Asked = Asked { replace: true, even_if_bad: false };

/// While somebody writes: rows are counted and searched for at the moment that the dump shows.
#[tokio::test]
async fn what_is_restored_is_what_was_there_and_works() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS).await;
    let other = app.new_tenant().await;
    let other_key = app.new_key(other, Scope::all()).await;
    let secret =
        json!({"user_id": crate::support::USER, "context_type": "note", "content": {"t": "another's heron"}});
    let secret = app.send_as(&other_key, Method::POST, "/v1/contexts", Some(secret.to_string().into())).await;
    assert_eq!(secret.status, StatusCode::CREATED);
    app.embedded_as(&other_key, &secret.id()).await;
    let before = answers(&app, &app.key).await;
    assert!(before.iter().all(|found| found.as_array().unwrap().len() > 1), "{before:?}");

    let (done, mut is_done) = watch::channel(false);
    let writing = async {
        // The moment has been chosen: what is written from now on belongs to none of it.
        eventually("a dump under way", Duration::from_secs(60), async || {
            files(place.path()).iter().any(|file| file.ends_with(".partial")).then_some(())
        })
        .await;
        let mut written = 0;
        while !*is_done.borrow_and_update() {
            app.note("written meanwhile").await;
            written += 1;
        }
        written
    };
    let making = async {
        let made = backups(&app.database.url, place.path()).make(&go_on()).await;
        done.send_replace(true);
        made
    };
    let (made, written) = join(making, writing).await;
    let manifest = made.unwrap().manifest;
    assert!(written > 0);
    assert_eq!(manifest.state, State::Checked);
    assert!(
        manifest.tables["public.contexts"] == 6 && manifest.tables.contains_key("public.chunk_embeddings_1")
    );
    assert!(
        manifest.probes.len() >= 3
            && manifest.probes.iter().all(|probe| probe.by_words.contains(&probe.context))
    );
    assert!(manifest.probes.iter().any(|probe| probe.by_meaning.is_some()));
    assert_eq!(scratch_databases(&app.database).await, 0);
    let key = app.key.clone();
    app.stop().await.remove().await;

    let empty = Database::create_bare().await;
    let restoring = backups(&empty.url, place.path());
    let plan = restoring.plan_restore("latest").await.unwrap();
    let restored = restoring.restore(&plan, Asked::default(), &go_on()).await.unwrap();
    assert_eq!((restored.schema, restored.compared), (SchemaState::Current, true));
    assert_eq!(
        Store::migrate(&options(&empty.url)).await.unwrap(),
        Applied { count: 0, version: manifest.migrations.iter().copied().max().unwrap() }
    );
    let app = App::start_on(empty, stub.provider()).await;
    assert_eq!(answers(&app, &key).await, before);
    assert_eq!(app.get_as(&key, &format!("/v1/contexts/{}", secret.id())).await.code(), "context_not_found");
    assert_eq!(app.get_as(&other_key, &format!("/v1/contexts/{}", secret.id())).await.status, StatusCode::OK);
    let note = app.note("written afterwards, about a kingfisher").await;
    app.embedded(&note.id()).await;
    let found = app.search(json!({"query": "kingfisher", "mode": "keyword"})).await;
    assert_eq!(found.body["data"][0]["context"]["id"], note.id().as_str());
}

#[tokio::test]
async fn what_is_in_a_database_is_not_lost_without_being_asked_for() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS[..2]).await;
    let backups = backups(&app.database.url, place.path());
    let made = backups.make(&go_on()).await.unwrap().manifest;
    let before = answers(&app, &app.key).await;
    app.embedded(&app.note("written since, a heron").await.id()).await;

    let busy = backups.plan_restore("latest").await.unwrap().permits(REPLACE).unwrap_err();
    assert!(busy.detail.contains("session(s) of this service are connected"), "{busy}");
    let folder = TempDir::new().unwrap();
    let programs = program("pg_dump").parent().unwrap().display().to_string();
    let target = place.path().display().to_string();
    let url = app.database.url.clone();
    let variables =
        [("DATABASE_URL", url.as_str()), ("BACKUP_TARGET", &target), ("BACKUP_PG_BIN", &programs)];
    let restore = |arguments: &[&str]| {
        let output = command(folder.path(), &variables).arg("restore").args(arguments).output().unwrap();
        (output.status.success(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
    };
    let now = answers(&app, &app.key).await;
    let (done, said) = restore(&["--dry-run"]);
    assert!(!done && said.contains("--replace"), "{said}");
    let (done, said) = restore(&["--dry-run", "--replace"]);
    assert!(
        done && said.contains("has 3 context(s) of 1 tenant(s)") && said.contains("Would restore"),
        "{said}"
    );
    assert_eq!(answers(&app, &app.key).await, now);

    let key = app.key.clone();
    let database = app.stop().await;
    let plan = backups.plan_restore(&made.name).await.unwrap();
    let refused = backups.restore(&plan, Asked::default(), &go_on()).await.unwrap_err();
    assert!(
        refused.detail.contains("has 3 context(s) of 1 tenant(s)") && refused.detail.contains("--replace"),
        "{refused}"
    );
    let (done, said) = restore(&[]);
    assert!(!done && said.contains("--replace"), "{said}");
    let (done, said) = restore(&["--replace"]);
    assert!(
        done && said.contains(
            "has 3 context(s) of 1 tenant(s). All of it is removed, and with it whatever was written after"
        ),
        "{said}"
    );
    let app = App::start_on(database, stub.provider()).await;
    assert_eq!(answers(&app, &key).await, before);
}

/// However a restore over what is there breaks off, that stays.
#[tokio::test]
async fn what_is_there_is_replaced_whole_or_not_at_all() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS[..2]).await;
    let backups = backups(&app.database.url, place.path());
    backups.make(&go_on()).await.unwrap();
    app.embedded(&app.note("written since, a heron").await.id()).await;
    let (key, now) = (app.key.clone(), answers(&app, &app.key).await);
    let database = app.stop().await;
    let mut superuser = database.superuser().await;
    // Rights elsewhere on the server are no part of what is in this database.
    let other = Database::create_bare().await;
    let grant = format!("grant create on database {} to context_owner", other.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(grant)).execute(&mut superuser).await.unwrap();

    let [restore, psql] = ["pg_restore", "psql"].map(|name| program(name).display().to_string());
    let cases = [
        ("psql", format!("head -c 20000 | {psql} \"$@\"; kill -9 $$"), "psql failed (signal: 9"),
        (
            "psql",
            format!("sed 's/^SET default_tablespace/select 1 \\/ 0;\\n&/' | {psql} \"$@\""),
            "psql failed (exit status: 3)",
        ),
        (
            "pg_restore",
            format!("{restore} \"$@\" | head -c 20000; exit 1"),
            "pg_restore failed (exit status: 1)",
        ),
        // A script that commits by itself, as one with large objects does.
        (
            "pg_restore",
            format!("{restore} \"$@\" | sed 's/^SET default_tablespace/commit;\\n&/'"),
            "psql failed (exit status: 3)",
        ),
    ];
    for (name, script, words) in cases {
        let programs = programs_with(name, &script);
        let options = backup_options(&database.url, place.path());
        let breaking =
            Backups::new(Options { programs: Some(programs.path().to_owned()), ..options }).unwrap();
        let plan = breaking.plan_restore("latest").await.unwrap();
        let failed = breaking.restore(&plan, REPLACE, &go_on()).await.unwrap_err();
        assert!(failed.detail.contains(words), "{failed}");
        let contexts: i64 =
            sqlx::query_scalar("select count(*) from contexts").fetch_one(&mut superuser).await.unwrap();
        assert_eq!(contexts, 3, "{failed}");
    }
    spoil(&dump_in(place.path()));
    let plan = backups.plan_restore("latest").await.unwrap();
    let failed = backups.restore(&plan, REPLACE, &go_on()).await.unwrap_err();
    assert!(failed.detail.contains("Nothing was changed"), "{failed}");
    let app = App::start_on(database, stub.provider()).await;
    assert_eq!(answers(&app, &key).await, now);
    let database = app.stop().await;

    spoil(&dump_in(place.path()));
    let plan = backups.plan_restore("latest").await.unwrap();
    assert!(backups.restore(&plan, REPLACE, &go_on()).await.unwrap().compared);
    let may: bool = sqlx::query_scalar("select has_database_privilege('context_owner', $1, 'create')")
        .bind(other.name())
        .fetch_one(&mut database.superuser().await)
        .await
        .unwrap();
    assert!(may);
}

#[tokio::test]
async fn a_bad_one_is_restored_when_it_is_asked_for_and_none_while_another_is_under_way() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS[..1]).await;
    let made = backups(&app.database.url, place.path()).make(&go_on()).await.unwrap().manifest;
    let bad = Manifest { state: State::Failed, problem: Some("It lacks rows.".to_owned()), ..made.clone() };
    std::fs::write(place.path().join(format!("{}.json", made.name)), serde_json::to_vec(&bad).unwrap())
        .unwrap();
    let empty = Database::create_bare().await;
    let restoring = backups(&empty.url, place.path());
    assert!(restoring.plan_restore("latest").await.unwrap_err().detail.contains("no backup"));
    let plan = restoring.plan_restore(&made.name).await.unwrap();
    let refused = restoring.restore(&plan, Asked::default(), &go_on()).await.unwrap_err();
    assert!(
        refused.detail.contains("It lacks rows.") && refused.detail.contains("--even-if-bad"),
        "{refused}"
    );
    let all_the_same = Asked { even_if_bad: true, ..Asked::default() };
    let mut other = BackupSession::open_blind(&options(&empty.url)).await.unwrap();
    assert!(other.lock().await.unwrap());
    let refused = restoring.restore(&plan, all_the_same, &go_on()).await.unwrap_err();
    assert!(refused.detail.contains("is being made, checked or restored"), "{refused}");
    other.close().await;
    assert!(!restoring.restore(&plan, all_the_same, &go_on()).await.unwrap().compared);
    // The plan was made when it was empty.
    let refused = restoring.restore(&plan, all_the_same, &go_on()).await.unwrap_err();
    assert!(refused.detail.contains("--replace"), "{refused}");
}

#[tokio::test]
async fn a_backup_of_a_newer_schema_is_refused_before_anything_is_touched() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS[..1]).await;
    let backups = backups(&app.database.url, place.path());
    let made = backups.make(&go_on()).await.unwrap().manifest;
    let file = place.path().join(format!("{}.json", made.name));
    let mut manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    manifest["migrations"].as_array_mut().unwrap().push(json!(9_999));
    std::fs::write(&file, manifest.to_string()).unwrap();
    let _database = app.stop().await;
    assert!(backups.plan_restore("latest").await.is_ok(), "one that only adds");
    manifest["needs"] = json!(9_999);
    std::fs::write(&file, manifest.to_string()).unwrap();
    let refused = backups.plan_restore("latest").await.unwrap_err();
    assert!(refused.stage == Stage::Restore && refused.detail.contains("migration 9999"), "{refused}");
}

#[tokio::test]
async fn old_ones_go_and_the_newest_stays() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &TEXTS[..1]).await;
    let backups = backups(&app.database.url, place.path());
    let made = backups.make(&go_on()).await.unwrap().manifest;
    // Two of one day, long ago.
    let bytes = std::fs::read(dump_in(place.path())).unwrap();
    let [earlier, later] =
        [("context-20200101T010000Z", 1), ("context-20200101T020000Z", 2)].map(|(name, hour)| {
            let taken_at = datetime!(2020-01-01 00:00 UTC) + time::Duration::hours(hour);
            let older =
                Manifest { name: name.to_owned(), file: format!("{name}.dump"), taken_at, ..made.clone() };
            std::fs::write(place.path().join(&older.file), &bytes).unwrap();
            let manifest = serde_json::to_vec(&older).unwrap();
            std::fs::write(place.path().join(format!("{name}.json")), manifest).unwrap();
            name
        });
    assert_eq!(backups.prune(&go_on()).await.unwrap(), [earlier]);
    let left = [later, &made.name].map(|name| [format!("{name}.dump"), format!("{name}.json")]);
    assert_eq!(files(place.path()), left.concat());
    assert_eq!(backups.find("latest").await.unwrap().name, made.name);
}
