//! What is damaged is found, what breaks off leaves nothing, and nobody waits for ever.

use std::time::Duration;

use age::secrecy::ExposeSecret as _;
use age::x25519::Identity;
use context_api::{
    backup::{Asked, Backups, Encryption, Options, Stage, State, Verdict},
    store::BackupSession,
};
use reqwest::StatusCode;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::watch;

use super::{
    app_with_notes, backup_options, backups, dump_in, files, go_on, programs_with, scratch_databases, spoil,
    stub,
};
use crate::support::{Database, eventually, options, program};

#[tokio::test]
async fn a_single_spoilt_byte_is_found_by_every_way_to_the_backup() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let backups = backups(&app.database.url, place.path());
    let made = backups.make(&go_on()).await.unwrap().manifest;
    assert_eq!(backups.verify(&made, &go_on()).await.unwrap(), Verdict::Sound);
    assert_eq!(backups.check(&made, &go_on()).await.unwrap(), Verdict::Sound);
    spoil(&dump_in(place.path()));
    let damaged = |verdict| matches!(verdict, Verdict::Damaged(reason) if reason.contains("checksum"));
    assert!(damaged(backups.verify(&made, &go_on()).await.unwrap()));
    assert!(damaged(backups.check(&made, &go_on()).await.unwrap()));
    assert_eq!(scratch_databases(&app.database).await, 0);

    let empty = Database::create_bare().await;
    let restoring = Backups::new(backup_options(&empty.url, place.path())).unwrap();
    let plan = restoring.plan_restore("latest").await.unwrap();
    let refused = restoring.restore(&plan, Asked::default(), &go_on()).await.unwrap_err();
    assert!(refused.detail.contains("Nothing was changed"), "{refused}");
    assert_eq!(restoring.plan_restore("latest").await.unwrap().occupied.tables, 0);

    let dump = dump_in(place.path());
    let short = std::fs::read(&dump).unwrap();
    std::fs::write(&dump, &short[..short.len() - 1]).unwrap();
    let verdict = backups.verify(&made, &go_on()).await.unwrap();
    assert!(
        matches!(&verdict, Verdict::Damaged(reason) if reason.contains("bytes instead of")),
        "{verdict:?}"
    );
    std::fs::remove_file(&dump).unwrap();
    let verdict = backups.verify(&made, &go_on()).await.unwrap();
    assert!(matches!(&verdict, Verdict::Damaged(reason) if reason.contains("not there")), "{verdict:?}");
}

/// What the check compares with is what was there, not what was dumped.
#[tokio::test]
async fn a_dump_that_lacks_rows_fails_its_check_and_is_not_the_latest() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron", "an otter"]).await;
    let good = backups(&app.database.url, place.path()).make(&go_on()).await.unwrap().manifest;
    let real = program("pg_dump");
    let without =
        programs_with("pg_dump", &format!("exec {} --exclude-table-data=audit_log \"$@\"", real.display()));
    let options = backup_options(&app.database.url, place.path());
    let lacking = Backups::new(Options { programs: Some(without.path().to_owned()), ..options }).unwrap();
    // Its name is the second in which it is made.
    let failed = eventually("the next second", Duration::from_secs(20), async || {
        lacking.make(&go_on()).await.err().filter(|failure| failure.stage == Stage::Check)
    })
    .await;
    assert!(failed.detail.contains("public.audit_log has 0 rows instead of"), "{failed}");
    let listed = lacking.list().await.unwrap();
    let bad = listed.last().unwrap().manifest.as_ref().unwrap();
    assert_eq!((bad.state, bad.problem.as_ref()), (State::Failed, Some(&failed.detail)));
    assert_eq!(lacking.find("latest").await.unwrap().name, good.name);
    assert_eq!(scratch_databases(&app.database).await, 0);
}

#[tokio::test]
async fn a_dump_that_breaks_off_leaves_nothing_and_its_words() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let real = program("pg_dump");
    let breaking = programs_with(
        "pg_dump",
        &format!(
            "{} \"$@\" | head -c 1000\necho 'pg_dump: error: the server closed the connection' >&2; echo 'pg_dump: detail: a row' >&2; echo 'DETAIL:  a row' >&2\nexit 3",
            real.display()
        ),
    );
    let options = backup_options(&app.database.url, place.path());
    let breaking = Backups::new(Options { programs: Some(breaking.path().to_owned()), ..options }).unwrap();
    let failed = breaking.make(&go_on()).await.err().unwrap();
    assert!(
        failed.stage == Stage::Dump && failed.detail.contains("the server closed the connection"),
        "{failed}"
    );
    assert!(!failed.detail.contains("a row"), "the log is no place for it: {failed}");
    assert_eq!(files(place.path()), Vec::<String>::new());

    let options = backup_options(&app.database.url, place.path());
    let nowhere = Backups::new(Options { programs: Some("/nowhere".into()), ..options }).unwrap();
    let failed = nowhere.make(&go_on()).await.err().unwrap();
    assert!(failed.detail.contains("BACKUP_PG_BIN"), "{failed}");
    assert_eq!(files(place.path()), Vec::<String>::new());
}

#[tokio::test]
async fn a_stop_and_a_deadline_end_the_dump_and_its_program() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let note = place.path().join("pid");
    // It hangs in the middle of what it writes.
    let hanging =
        programs_with("pg_dump", &format!("echo PGDMP; echo $$ >{}; exec sleep 600", note.display()));
    let stored = place.path().join("stored");
    let options = backup_options(&app.database.url, &stored);
    let options = Options { programs: Some(hanging.path().to_owned()), ..options };
    let is_gone = async || {
        let pid = std::fs::read_to_string(&note).unwrap();
        eventually("the end of the program", Duration::from_secs(10), async || {
            let command =
                std::fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).unwrap_or_default();
            (!command.contains("sleep")).then_some(())
        })
        .await;
        std::fs::remove_file(&note).unwrap();
    };

    let (stop, stopped) = watch::channel(false);
    let backups = Backups::new(options.clone()).unwrap();
    let stopping = async {
        eventually("a dump under way", Duration::from_secs(20), async || {
            let has_begun = std::fs::read_to_string(&note).is_ok_and(|pid| pid.ends_with('\n'));
            (has_begun && files(&stored).iter().any(|file| file.ends_with(".partial"))).then_some(())
        })
        .await;
        stop.send_replace(true);
    };
    let (made, ()) = tokio::join!(backups.make(&stopped), stopping);
    assert_eq!(made.err().unwrap().stage, Stage::Stopped);
    assert_eq!(files(&stored), Vec::<String>::new());
    is_gone().await;

    let impatient = Backups::new(Options { step_max: Duration::from_secs(2), ..options }).unwrap();
    let failed = impatient.make(&go_on()).await.err().unwrap();
    assert!(failed.stage == Stage::Dump && failed.detail.contains("BACKUP_STEP_MINUTES"), "{failed}");
    assert_eq!(files(&stored), Vec::<String>::new());
    is_gone().await;
}

#[tokio::test]
async fn only_one_at_a_time_and_what_a_killed_one_left_goes() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let backups = backups(&app.database.url, place.path());
    let mut other = BackupSession::open(&options(&app.database.url), Duration::from_secs(10)).await.unwrap();
    assert!(other.lock().await.unwrap());
    let refused = backups.make(&go_on()).await.err().unwrap();
    assert!(refused.stage == Stage::Database && refused.detail.contains("Another backup"), "{refused}");
    assert_eq!(files(place.path()), Vec::<String>::new());
    other.close().await;

    for left in ["context-20200101T000000Z.dump", "context-20200101T000000Z.dump.age.partial", "other.dump"] {
        std::fs::write(place.path().join(left), "left behind").unwrap();
    }
    let mut superuser = app.database.superuser().await;
    let create = "select format('create database context_check_%s_left', oid) from pg_database where datname = current_database()";
    let create: String = sqlx::query_scalar(create).fetch_one(&mut superuser).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(create)).execute(&mut superuser).await.unwrap();
    assert_eq!(scratch_databases(&app.database).await, 1);
    let name = backups.make(&go_on()).await.unwrap().manifest.name;
    assert_eq!(
        files(place.path()),
        [format!("{name}.dump"), format!("{name}.json"), "other.dump".to_owned()]
    );
    assert_eq!(scratch_databases(&app.database).await, 0);
}

#[tokio::test]
async fn what_is_encrypted_is_read_with_its_key_alone() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron that nobody may read about"]).await;
    let (key, foreign) = (Identity::generate(), Identity::generate());
    let with_identity = |encryption: Encryption, key: &Identity| {
        encryption.with_identities(key.to_string().expose_secret()).unwrap()
    };
    let writing = Encryption::default().with_recipients(&key.to_public().to_string()).unwrap();
    let options = backup_options(&app.database.url, place.path());
    let both = Options { encryption: with_identity(writing, &key), ..options };
    let made = Backups::new(both).unwrap().make(&go_on()).await.unwrap().manifest;
    assert!(made.encrypted && made.state == State::Checked);
    let dump = dump_in(place.path());
    assert!(std::fs::read(&dump).unwrap().starts_with(b"age-encryption.org/v1"));
    for file in [dump, place.path().join(format!("{}.json", made.name))] {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(5).any(|window| window == b"heron"));
    }

    let empty = Database::create_bare().await;
    let restore = async |encryption| {
        let options = Options { encryption, ..backup_options(&empty.url, place.path()) };
        let restoring = Backups::new(options).unwrap();
        let plan = restoring.plan_restore("latest").await.unwrap();
        restoring.restore(&plan, Asked::default(), &go_on()).await
    };
    let wrong = restore(with_identity(Encryption::default(), &foreign)).await.unwrap_err();
    assert!(wrong.detail.contains("for other keys"), "{wrong}");
    let none = restore(Encryption::default()).await.unwrap_err();
    assert!(none.detail.contains("BACKUP_AGE_IDENTITY"), "{none}");
    assert!(restore(with_identity(Encryption::default(), &key)).await.unwrap().compared);
}

/// What tells of the server, not of the backup, does not make it a bad one.
#[tokio::test]
async fn a_check_that_cannot_be_made_says_nothing_about_the_backup() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let failing = |code: &str| {
        programs_with(
            "psql",
            &format!(
                "echo 'psql:<stdin>:7: ERROR:  {code}: so it is' >&2; echo 'DETAIL:  a row' >&2; exit 3"
            ),
        )
    };
    let made_with = async |programs: &TempDir| {
        let options = backup_options(&app.database.url, place.path());
        let backups =
            Backups::new(Options { programs: Some(programs.path().to_owned()), ..options }).unwrap();
        // Its name is the second in which it is made.
        let failed = eventually("the next second", Duration::from_secs(20), async || {
            backups.make(&go_on()).await.err().filter(|failure| failure.stage == Stage::Check)
        })
        .await;
        assert!(!failed.detail.contains("a row"), "{failed}");
        let manifest = backups.list().await.unwrap().pop().unwrap().manifest.unwrap();
        assert_eq!(manifest.problem, Some(failed.detail));
        manifest
    };
    let full = made_with(&failing("53100")).await;
    assert_eq!(full.state, State::NotChecked);
    let doubled = made_with(&failing("23505")).await;
    assert_eq!(doubled.state, State::Failed);
    let strange = made_with(&failing(r#"22P02: invalid input syntax for type uuid: "a row"#)).await;
    assert_eq!(strange.state, State::Failed);
    assert_eq!(backups(&app.database.url, place.path()).find("latest").await.unwrap().name, full.name);
    assert_eq!(scratch_databases(&app.database).await, 0);
}

#[tokio::test]
async fn one_that_cannot_be_read_does_not_hide_the_others() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let backups = backups(&app.database.url, place.path());
    let made = backups.make(&go_on()).await.unwrap().manifest;
    std::fs::create_dir(place.path().join("context-20200101T000000Z.json")).unwrap();
    let listed = backups.list().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert!(listed[0].manifest.as_ref().unwrap_err().to_string().contains("cannot be read"), "{listed:?}");
    assert_eq!(backups.find("latest").await.unwrap().name, made.name);
    // A newer one might be what is wanted.
    let newer = place.path().join("context-99990101T000000Z.json");
    std::fs::create_dir(&newer).unwrap();
    let unsure = backups.find("latest").await.unwrap_err();
    assert!(unsure.detail.contains("is newer") && unsure.detail.contains("Name the backup"), "{unsure}");
    std::fs::remove_dir(newer).unwrap();
    assert_eq!(backups.prune(&go_on()).await.unwrap(), Vec::<String>::new());
    let missing = backups.find("context-20200102T000000Z").await.unwrap_err();
    assert!(missing.detail.contains("There is no backup"), "{missing}");
}

#[tokio::test]
async fn what_has_expired_since_is_not_missed() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron by the water"]).await;
    let note = json!({"user_id": crate::support::USER, "context_type": "note", "content": {"text": "a heron that flies away"},
                      "ttl_seconds": 3});
    let flying = app.post("/v1/contexts", note).await;
    let options = backup_options(&app.database.url, place.path());
    let backups = Backups::new(Options { check: false, ..options }).unwrap();
    let made = backups.make(&go_on()).await.unwrap().manifest;
    let found =
        |id: &str| made.probes.iter().any(|probe| probe.by_words.iter().any(|found| found.to_string() == id));
    assert!(found(&flying.id()), "{:?}", made.probes);
    eventually("its end", Duration::from_secs(20), async || {
        let found = app.get(&format!("/v1/contexts/{}", flying.id())).await;
        (found.status == StatusCode::NOT_FOUND).then_some(())
    })
    .await;
    assert_eq!(backups.check(&made, &go_on()).await.unwrap(), Verdict::Sound);
}

/// With it went the lock that keeps others away, and the moment.
#[tokio::test]
async fn a_session_that_is_lost_ends_the_backup() {
    let (stub, place) = (stub(), TempDir::new().unwrap());
    let app = app_with_notes(&stub, &["a heron"]).await;
    let stored = place.path().join("stored");
    let hanging = programs_with("pg_dump", "echo PGDMP; exec sleep 600");
    let options = backup_options(&app.database.url, &stored);
    let backups = Backups::new(Options { programs: Some(hanging.path().to_owned()), ..options }).unwrap();
    let mut superuser = app.database.superuser().await;
    let killing = eventually("the session", Duration::from_secs(60), async || {
        let kill = "select count(pg_terminate_backend(pid)) from pg_stat_activity
                    where datname = current_database() and application_name = 'context-api backup' and state = 'idle in transaction'";
        let killed: i64 = sqlx::query_scalar(kill).fetch_one(&mut superuser).await.unwrap();
        (killed > 0).then_some(())
    });
    let stop = go_on();
    let (made, ()) = tokio::join!(backups.make(&stop), killing);
    let failed = made.err().unwrap();
    assert_eq!(failed.stage, Stage::Database, "{failed}");
    assert_eq!(files(&stored), Vec::<String>::new());
}
