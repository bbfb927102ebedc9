//! Where backups go, when they are made, and how long they are kept.
//!
//! Besides these the commands about backups read those of the database, of logs and `METRICS_ADDR`.
//!
//! | Variable | Default | |
//! |---|---|---|
//! | `BACKUP_TARGET` | | a folder, or `s3://bucket/prefix` |
//! | `BACKUP_SCHEDULE` | `0 2 * * *` | when backups are made: cron, UTC |
//! | `BACKUP_VERIFY_SCHEDULE` | `0 5 * * *` | when what is stored is compared with its checksums |
//! | `BACKUP_KEEP_DAYS`, `…_WEEKS`, `…_MONTHS` | `7`, `4`, `12` | of how many the newest backup is kept |
//! | `BACKUP_CHECK` | `true` | whether each is restored and compared |
//! | `BACKUP_AGE_HOURS_MAX` | `26` | the newest may be so old |
//! | `BACKUP_AGE_RECIPIENTS`, `BACKUP_AGE_IDENTITY` | no encryption | public keys to encrypt for, and a secret one |
//! | `BACKUP_STEP_MINUTES` | `360` | for a dump, a restore, reading what is stored |
//! | `BACKUP_PG_BIN` | as the system finds them | the folder of `pg_dump` and `pg_restore` |
//! | `BACKUP_S3_ENDPOINT`, `…_REGION`, `…_ACCESS_KEY`, `…_SECRET_KEY`, `…_PATH_STYLE` | Amazon's | of the bucket |

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::{ConfigError, Database, Source, database};
use crate::backup::{Encryption, Keep, Options, S3Options, Schedule, TargetOptions, Timetable};

const SCHEDULE_DEFAULT: &str = "0 2 * * *";
const VERIFY_SCHEDULE_DEFAULT: &str = "0 5 * * *";
/// A day, and two hours to make one.
const AGE_HOURS_MAX_DEFAULT: u64 = 26;
const STEP_MINUTES_DEFAULT: u64 = 360;

/// What every command about backups needs.
///
/// # Errors
/// [`ConfigError`].
pub fn backup(source: &Source) -> Result<Options, ConfigError> {
    let Database::Server(database) = database(source)? else {
        return Err(source.refuse(
            "DATABASE_URL",
            "must be set for backups: the database in process has none. Stop the service and copy its folder",
        ));
    };
    let check = source.parse("BACKUP_CHECK", "`true` or `false`")?.unwrap_or(true);
    Ok(Options {
        database,
        target: target(source)?,
        programs: source.text("BACKUP_PG_BIN")?.map(Into::into),
        encryption: encryption(source, check)?,
        keep: Keep {
            days: source.parse_in("BACKUP_KEEP_DAYS", 0..=3_660, 7)?,
            weeks: source.parse_in("BACKUP_KEEP_WEEKS", 0..=520, 4)?,
            months: source.parse_in("BACKUP_KEEP_MONTHS", 0..=120, 12)?,
        },
        check,
        step_max: Duration::from_secs(
            60 * source.parse_in("BACKUP_STEP_MINUTES", 1..=10_080, STEP_MINUTES_DEFAULT)?,
        ),
    })
}

/// When backups are made and looked at.
///
/// # Errors
/// [`ConfigError`].
pub fn timetable(source: &Source) -> Result<Timetable, ConfigError> {
    let schedule = |name, default: &str| -> Result<Schedule, ConfigError> {
        let text = source.text(name)?.unwrap_or_else(|| default.to_owned());
        text.parse().map_err(|error| {
            source.refuse(name, format!("must be a cron expression in UTC, such as `{default}`: {error}"))
        })
    };
    Ok(Timetable {
        backup: schedule("BACKUP_SCHEDULE", SCHEDULE_DEFAULT)?,
        verify: schedule("BACKUP_VERIFY_SCHEDULE", VERIFY_SCHEDULE_DEFAULT)?,
        age_max: Duration::from_secs(
            3_600 * source.parse_in("BACKUP_AGE_HOURS_MAX", 1..=8_784, AGE_HOURS_MAX_DEFAULT)?,
        ),
    })
}

fn encryption(source: &Source, check: bool) -> Result<Encryption, ConfigError> {
    let mut encryption = Encryption::default();
    for name in ["BACKUP_AGE_RECIPIENTS", "BACKUP_AGE_IDENTITY"] {
        // Where a lock is meant, it must not stay open.
        let Some(text) = source.text_if_named(name)? else { continue };
        let with = match name {
            "BACKUP_AGE_RECIPIENTS" => encryption.with_recipients(&text),
            _ => encryption.with_identities(&text),
        };
        encryption = with.map_err(|complaint| source.refuse(name, complaint))?;
    }
    if source.is_set("BACKUP_AGE_RECIPIENTS") && !encryption.encrypts() {
        return Err(source.refuse("BACKUP_AGE_RECIPIENTS", "names no public key"));
    }
    if check && encryption.encrypts() && !encryption.decrypts() {
        return Err(source.refuse(
            "BACKUP_AGE_RECIPIENTS",
            "is set without BACKUP_AGE_IDENTITY, so that no backup could be checked; set it to one of the secret keys, or \
             BACKUP_CHECK to false",
        ));
    }
    Ok(encryption)
}

fn target(source: &Source) -> Result<TargetOptions, ConfigError> {
    let Some(target) = source.text("BACKUP_TARGET")? else {
        return Err(source.refuse("BACKUP_TARGET", "must be set: a folder, or s3://bucket/prefix"));
    };
    let Some(place) = target.strip_prefix("s3://") else {
        if target.contains("://") {
            return Err(source.refuse("BACKUP_TARGET", "must be a folder, or s3://bucket/prefix"));
        }
        return Ok(TargetOptions::Folder(target.into()));
    };
    let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
    if bucket.is_empty() {
        return Err(
            source.refuse("BACKUP_TARGET", "names no bucket; it must have the form s3://bucket/prefix")
        );
    }
    let region = source.text("BACKUP_S3_REGION")?.unwrap_or_else(|| "us-east-1".to_owned());
    let given = source.text("BACKUP_S3_ENDPOINT")?;
    let endpoint = given.clone().unwrap_or_else(|| format!("https://s3.{region}.amazonaws.com"));
    let endpoint =
        Url::parse(&endpoint).ok().filter(|url| ["http", "https"].contains(&url.scheme()) && url.has_host());
    let needed = |name| {
        source.text(name)?.ok_or_else(|| source.refuse(name, "must be set for a BACKUP_TARGET in a bucket"))
    };
    Ok(TargetOptions::S3(S3Options {
        endpoint: endpoint
            .ok_or_else(|| source.refuse("BACKUP_S3_ENDPOINT", "must have the form https://host:port"))?,
        bucket: bucket.to_owned(),
        prefix: prefix.trim_matches('/').to_owned(),
        region,
        access_key: needed("BACKUP_S3_ACCESS_KEY")?,
        secret_key: SecretString::from(needed("BACKUP_S3_SECRET_KEY")?),
        // Names of buckets as names of hosts need a domain that is made for it.
        path_style: source.parse("BACKUP_S3_PATH_STYLE", "`true` or `false`")?.unwrap_or(given.is_some()),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://u:hunter2@h/d");
    const FOLDER: (&str, &str) = ("BACKUP_TARGET", "/backups");

    fn read(variables: &[(&str, &str)]) -> Result<Options, String> {
        backup(&Source::from_pairs(variables)).map_err(|error| error.to_string())
    }

    #[test]
    fn a_folder_is_all_that_is_needed() {
        let options = read(&[DATABASE, FOLDER]).unwrap();
        assert!(matches!(options.target, TargetOptions::Folder(path) if path.ends_with("backups")));
        assert!(options.check && !options.encryption.encrypts());
        assert_eq!(options.keep, Keep { days: 7, weeks: 4, months: 12 });
        let timetable = timetable(&Source::from_pairs(&[])).unwrap();
        assert_eq!(timetable.backup.to_string(), "0 2 * * *");
    }

    #[test]
    fn a_bucket_has_a_prefix_and_keys() {
        let keys = [("BACKUP_S3_ACCESS_KEY", "key"), ("BACKUP_S3_SECRET_KEY", "hunter2")];
        let bucket = ("BACKUP_TARGET", "s3://bucket/a/b/");
        let options = read(&[&[DATABASE, bucket], keys.as_slice()].concat()).unwrap();
        let TargetOptions::S3(s3) = &options.target else { panic!("a bucket") };
        assert_eq!((s3.bucket.as_str(), s3.prefix.as_str()), ("bucket", "a/b"));
        assert_eq!((s3.endpoint.as_str(), s3.path_style), ("https://s3.us-east-1.amazonaws.com/", false));
        assert!(!format!("{options:?}").contains("hunter2"));
        let missing = read(&[DATABASE, bucket, keys[0]]).unwrap_err();
        assert!(missing.starts_with("BACKUP_S3_SECRET_KEY must be set"), "{missing}");
    }

    #[test]
    fn a_bad_value_names_its_variable_and_keeps_its_secret() {
        for (name, value) in [
            ("BACKUP_TARGET", ""),
            ("BACKUP_TARGET", "ftp://host/x"),
            ("BACKUP_TARGET", "s3:///prefix"),
            ("BACKUP_CHECK", "perhaps"),
            ("BACKUP_KEEP_DAYS", "-1"),
            ("BACKUP_STEP_MINUTES", "0"),
            ("BACKUP_AGE_RECIPIENTS", "hunter2"),
            ("BACKUP_AGE_RECIPIENTS", ""),
            ("BACKUP_AGE_IDENTITY", "hunter2"),
        ] {
            let folder = if name == "BACKUP_TARGET" { None } else { Some(FOLDER) };
            let variables: Vec<_> =
                [Some(DATABASE), folder, Some((name, value))].into_iter().flatten().collect();
            let error = read(&variables).unwrap_err();
            assert!(error.starts_with(name) && !error.contains("hunter2"), "{error}");
        }
        for (name, value) in [
            ("BACKUP_SCHEDULE", "daily"),
            ("BACKUP_VERIFY_SCHEDULE", "61 * * * *"),
            ("BACKUP_AGE_HOURS_MAX", "0"),
        ] {
            let error = timetable(&Source::from_pairs(&[(name, value)])).unwrap_err().to_string();
            assert!(error.starts_with(name), "{error}");
        }
        assert!(read(&[FOLDER]).unwrap_err().starts_with("DATABASE_URL must be set"));
    }
}
