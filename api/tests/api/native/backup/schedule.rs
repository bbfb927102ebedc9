//! `context-api backup schedule` as a process: it fires, it watches what is stored, and it ends when it is told to.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use super::{app_with_notes, dump_in, files, programs_with, scratch_databases, spoil, stub};
use crate::support::{Process, client, command, eventually, free_port, program};

const NEVER: &str = "0 0 29 2 *";
const EACH_SECOND: &str = "* * * * * *";
const WAIT: Duration = Duration::from_secs(60);

struct Variables(Vec<(&'static str, String)>);

impl Variables {
    fn of(url: &str, stored: &Path) -> Self {
        Self(vec![
            ("DATABASE_URL", url.to_owned()),
            ("BACKUP_TARGET", stored.display().to_string()),
            ("BACKUP_PG_BIN", program("pg_dump").parent().unwrap().display().to_string()),
            ("BACKUP_KEEP_DAYS", "1".to_owned()),
            ("BACKUP_KEEP_WEEKS", "0".to_owned()),
            ("BACKUP_KEEP_MONTHS", "0".to_owned()),
        ])
    }

    fn and(mut self, name: &'static str, value: &str) -> Self {
        self.0.retain(|(given, _)| *given != name);
        self.0.push((name, value.to_owned()));
        self
    }

    fn pairs(&self) -> Vec<(&str, &str)> {
        self.0.iter().map(|(name, value)| (*name, value.as_str())).collect()
    }
}

async fn health(service: &Process) -> (u16, Value) {
    let response = client().get(format!("{}/health", service.url)).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

#[tokio::test]
async fn it_fires_keeps_the_newest_and_stops() {
    let (stub, folder) = (stub(), TempDir::new().unwrap());
    let stored = folder.path().join("stored");
    let app = app_with_notes(&stub, &["a heron"]).await;
    let variables = Variables::of(&app.database.url, &stored).and("BACKUP_SCHEDULE", EACH_SECOND);
    let port = free_port();
    let mut service = Process::backup_schedule(folder.path(), port, &variables.pairs());
    service.ready().await;
    let success =
        async || service.metric("backup_last_success_timestamp_seconds").await.filter(|at| *at > 0.0);
    let first = eventually("the first backup", WAIT, success).await;
    eventually("the next backup", WAIT, async || success().await.filter(|at| *at > first)).await;
    assert!(service.metric("backup_last_size_bytes").await.unwrap() > 1_000.0);
    assert!(service.metric("backup_last_duration_seconds{step=\"check\"}").await.unwrap() > 0.0);
    assert!(service.metric("backup_age_seconds").await.unwrap() < 60.0);
    assert_eq!(service.metric("backup_failures_total{stage=\"check\"}").await, Some(0.0));
    let (status, report) = health(&service).await;
    assert_eq!((status, report["status"].as_str()), (200, Some("ok")), "{report}");
    let address = format!("127.0.0.1:{port}");
    let asked =
        command(folder.path(), &[("METRICS_ADDR", &address)]).args(["healthcheck", "--backup"]).status();
    assert!(asked.unwrap().success());
    let log = service.log();
    assert!(service.terminate().success(), "{log}");
    // One or, if it was stopped between a dump and its check, two.
    let left = files(&stored);
    assert!(left.len() <= 4 && left.iter().all(|file| !file.ends_with(".partial")), "{left:?}");
    assert_eq!(scratch_databases(&app.database).await, 0);
    assert!(!log.contains("postgres:") && !log.contains("PGPASSWORD"), "no password is in the log");
    let listed = command(folder.path(), &variables.pairs()).args(["backup", "list"]).output().unwrap();
    assert!(String::from_utf8(listed.stdout).unwrap().contains("  checked"));
}

#[tokio::test]
async fn it_finds_by_itself_that_a_stored_backup_is_damaged() {
    let (stub, folder) = (stub(), TempDir::new().unwrap());
    let stored = folder.path().join("stored");
    let app = app_with_notes(&stub, &["a heron"]).await;
    let variables = Variables::of(&app.database.url, &stored)
        .and("BACKUP_SCHEDULE", NEVER)
        .and("BACKUP_VERIFY_SCHEDULE", EACH_SECOND);
    let mut service = Process::backup_schedule(folder.path(), free_port(), &variables.pairs());
    service.ready().await;
    // Because there was never one.
    eventually("a backup", WAIT, async || {
        service.metric("backups_damaged").await.filter(|_| stored.exists())
    })
    .await;
    assert_eq!(health(&service).await.0, 200);
    spoil(&dump_in(&stored));
    let report = eventually("a bad report", WAIT, async || {
        let (status, report) = health(&service).await;
        (status == 503).then_some(report)
    })
    .await;
    assert!(report["damaged"][0].as_str().unwrap().contains("checksum"), "{report}");
    assert_eq!(service.metric("backups_damaged").await, Some(1.0));
    assert!(service.metric("backup_failures_total{stage=\"verify\"}").await.unwrap() >= 1.0);
    let verified = command(folder.path(), &variables.pairs()).args(["backup", "verify"]).output().unwrap();
    let said = String::from_utf8(verified.stdout).unwrap();
    assert!(!verified.status.success() && said.contains("DAMAGED"), "{said}");
    assert!(service.terminate().success());
}

#[tokio::test]
async fn a_stop_in_the_middle_of_a_dump_leaves_nothing() {
    let (stub, folder) = (stub(), TempDir::new().unwrap());
    let (stored, note) = (folder.path().join("stored"), folder.path().join("pid"));
    let app = app_with_notes(&stub, &["a heron"]).await;
    let hanging =
        programs_with("pg_dump", &format!("echo PGDMP; echo $$ >{}; exec sleep 600", note.display()));
    let variables = Variables::of(&app.database.url, &stored)
        .and("BACKUP_SCHEDULE", NEVER)
        .and("BACKUP_PG_BIN", &hanging.path().display().to_string());
    let mut service = Process::backup_schedule(folder.path(), free_port(), &variables.pairs());
    service.ready().await;
    eventually("a dump under way", WAIT, async || note.exists().then_some(())).await;
    assert!(service.terminate().success());
    assert_eq!(files(&stored), Vec::<String>::new());
    let pid = std::fs::read_to_string(&note).unwrap();
    eventually("the end of the program", WAIT, async || {
        let command = std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
        (!command.contains("sleep")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_counted_by_its_stage_and_told() {
    let (stub, folder) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let failing = programs_with("pg_dump", "echo 'pg_dump: error: something is wrong' >&2; exit 1");
    let variables = Variables::of(&app.database.url, &folder.path().join("stored"))
        .and("BACKUP_PG_BIN", &failing.path().display().to_string());
    let mut service = Process::backup_schedule(folder.path(), free_port(), &variables.pairs());
    service.ready().await;
    eventually("a counted failure", WAIT, async || {
        service.metric("backup_failures_total{stage=\"dump\"}").await.filter(|failures| *failures > 0.0)
    })
    .await;
    let (status, report) = health(&service).await;
    assert_eq!(status, 200, "there is time yet");
    assert!(report["problem"].as_str().unwrap().contains("something is wrong"), "{report}");
    assert!(service.terminate().success());
}
