//! The same in a bucket, of a server that speaks as S3 does.

use context_api::backup::{Asked, Backups, Options, S3Options, Stage, State, TargetOptions, Verdict};
use reqwest::StatusCode;
use tempfile::TempDir;

use super::{app_with_notes, backup_options, go_on, programs_with, stub};
use crate::support::{Database, S3Server, client, program};

fn in_bucket(url: &str, server: &S3Server) -> Options {
    let s3 = S3Options {
        endpoint: server.url.parse().unwrap(),
        bucket: "backups".to_owned(),
        prefix: "context/production".to_owned(),
        region: "us-east-1".to_owned(),
        access_key: "of-the-tests".to_owned(),
        secret_key: "of-the-tests".to_owned().into(),
        path_style: true,
    };
    let folder = TempDir::new().unwrap();
    Options { target: TargetOptions::S3(s3), ..backup_options(url, folder.path()) }
}

#[tokio::test]
async fn a_bucket_keeps_backups_as_a_folder_does() {
    let (server, stub) = (S3Server::start().await, stub());
    let bucket = format!("{}/backups", server.url);
    let made = client().put(&bucket).send().await.unwrap();
    assert_eq!(made.status(), StatusCode::OK);
    let get = async |path: &str| client().get(format!("{bucket}{path}")).send().await.unwrap();
    let app = app_with_notes(&stub, &["a heron", "an otter"]).await;
    let options = in_bucket(&app.database.url, &server);

    let real = program("pg_dump");
    let breaking = programs_with("pg_dump", &format!("{} \"$@\" | head -c 1000\nexit 3", real.display()));
    let breaking = Options { programs: Some(breaking.path().to_owned()), ..options.clone() };
    let failed = Backups::new(breaking).unwrap().make(&go_on()).await.err().unwrap();
    assert_eq!(failed.stage, Stage::Dump, "{failed}");
    assert!(!get("?list-type=2").await.text().await.unwrap().contains("<Key>"));
    assert!(!get("?uploads").await.text().await.unwrap().contains("<Upload>"));

    // More than one part, and nothing that could be made smaller.
    let mut superuser = app.database.superuser().await;
    let filler = "create table filler as select n, (select decode(string_agg(md5(n || '-' || m), ''), 'hex')
                  from generate_series(1, 65536) m) as bytes from generate_series(1, 10) n";
    sqlx::raw_sql(filler).execute(&mut superuser).await.unwrap();
    let backups = Backups::new(options).unwrap();
    let manifest = backups.make(&go_on()).await.unwrap().manifest;
    assert_eq!(manifest.state, State::Checked);
    assert!(manifest.bytes > 8 << 20, "{}", manifest.bytes);
    assert_eq!(backups.list().await.unwrap().len(), 1);
    assert_eq!(backups.verify(&manifest, &go_on()).await.unwrap(), Verdict::Sound);
    assert_eq!(get(&format!("/context/production/{}", manifest.file)).await.status(), StatusCode::OK);

    let empty = Database::create_bare().await;
    let restoring = Backups::new(in_bucket(&empty.url, &server)).unwrap();
    let plan = restoring.plan_restore(&manifest.name).await.unwrap();
    assert!(restoring.restore(&plan, Asked::default(), &go_on()).await.unwrap().compared);

    let dump = format!("{bucket}/context/production/{}", manifest.file);
    let mut bytes = client().get(&dump).send().await.unwrap().bytes().await.unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    client().put(&dump).body(bytes).send().await.unwrap();
    assert!(matches!(backups.verify(&manifest, &go_on()).await.unwrap(), Verdict::Damaged(_)));
    backups.remove(&manifest.name).await.unwrap();
    assert!(backups.list().await.unwrap().is_empty());
    assert!(!get("?list-type=2").await.text().await.unwrap().contains("<Key>"));
}
