//! Backups of a real database by the real programs: what is restored is what was there, and whatever goes wrong is noticed.

mod faults;
mod places;
mod restoring;
mod rights;
mod schedule;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use context_api::backup::{Backups, Encryption, Keep, Options, TargetOptions};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;

use crate::support::{Answer, App, Behaviour, Database, Engine, StubProvider, USER, options, program};

/// Of backups in `folder` of the database behind `url`.
fn backup_options(url: &str, folder: &Path) -> Options {
    Options {
        database: options(url),
        target: TargetOptions::Folder(folder.to_owned()),
        programs: Some(program("pg_dump").parent().unwrap().to_owned()),
        encryption: Encryption::default(),
        keep: Keep { days: 7, weeks: 4, months: 12 },
        check: true,
        step_max: Duration::from_secs(60),
    }
}

fn backups(url: &str, folder: &Path) -> Backups {
    Backups::new(backup_options(url, folder)).unwrap()
}

/// Nobody asks for a stop.
fn go_on() -> watch::Receiver<bool> {
    watch::channel(false).1
}

/// The files of a folder, by name.
fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The one dump in a folder.
fn dump_in(folder: &Path) -> PathBuf {
    let dump = files(folder).into_iter().find(|file| file.contains(".dump")).expect("a dump");
    folder.join(dump)
}

/// Turns the bits of one byte in the middle of a file.
fn spoil(file: &Path) {
    let mut bytes = std::fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    std::fs::write(file, bytes).unwrap();
}

/// A folder with one of PostgreSQL's programs as this shell script, and the others as they are.
fn programs_with(name: &str, script: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    for real in ["pg_dump", "pg_restore", "psql"] {
        let path = folder.path().join(real);
        if real == name {
            std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        } else {
            std::os::unix::fs::symlink(program(real), path).unwrap();
        }
    }
    folder
}

/// Databases of checks of this database that are there.
async fn scratch_databases(database: &Database) -> i64 {
    let mut superuser = database.superuser().await;
    let sql = "select count(*) from pg_database d, pg_database own where own.datname = current_database()
               and starts_with(d.datname, format('context_check_%s_', own.oid))";
    sqlx::query_scalar(sql).fetch_one(&mut superuser).await.unwrap()
}

/// An application with contexts that are embedded.
async fn app_with_notes(stub: &StubProvider, texts: &[&str]) -> App {
    let app = App::start_on(Database::create_on(Engine::Native).await, stub.provider()).await;
    for text in texts {
        let note = app.note(text).await;
        assert_eq!(note.status, StatusCode::CREATED, "{note:?}");
        app.embedded(&note.id()).await;
    }
    app
}

fn stub() -> StubProvider {
    StubProvider::start(Behaviour::Work)
}

/// Ids and scores of what these searches find.
async fn answers(app: &App, key: &str) -> Vec<Value> {
    let mut found = Vec::new();
    for (query, mode) in
        [("heron", "keyword"), ("a heron by the water", "semantic"), ("otter water", "hybrid")]
    {
        let body = json!({"query": query, "mode": mode, "user_id": USER, "effort": "exact"}).to_string();
        let answer: Answer =
            app.send_as(key, reqwest::Method::POST, "/v1/contexts/search", Some(body.into())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.body["degraded"], json!([]), "{answer:?}");
        let hits = answer.body["data"].as_array().unwrap();
        found.push(hits.iter().map(|hit| json!([hit["context"]["id"], hit["score"]])).collect());
    }
    found
}
