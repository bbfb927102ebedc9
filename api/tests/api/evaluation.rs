//! `context-api eval`, from its files to its report, on some of the example data. Whether it measures right is seen from runs
//! whose figures are known: a perfect one, one that is always second, and its own.

use std::{
    fs,
    path::Path,
    process::{Output, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{App, command};

/// Every fortieth package, as contexts.
fn sample() -> Vec<Value> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/packages.ndjson");
    let text = fs::read_to_string(file).unwrap();
    text.lines().step_by(40).map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn write(folder: &Path, name: &str, lines: impl Iterator<Item = String>) {
    fs::write(folder.join(name), lines.map(|line| line + "\n").collect::<String>()).unwrap();
}

/// The files of an evaluation: each package is asked for by its summary.
fn write_files(folder: &Path, packages: &[Value]) {
    let key = |package: &Value| package["key"].as_str().unwrap().to_owned();
    let keys: Vec<String> = packages.iter().map(key).collect();
    write(folder, "corpus", packages.iter().map(Value::to_string));
    let query =
        |package: &Value| json!({"id": key(package), "query": package["content"]["summary"]}).to_string();
    write(folder, "queries", packages.iter().map(query));
    // Nothing is known about the first one.
    write(folder, "judgements", keys[1..].iter().map(|key| format!("{key} 0 {key} 1")));
    write(folder, "perfect", keys.iter().map(|key| format!("{key} Q0 {key} 1 1 perfect")));
    let second = |key: &String| [format!("{key} Q0 other 1 2 second"), format!("{key} Q0 {key} 2 1 second")];
    write(folder, "second", keys.iter().flat_map(second));
    let filters = [
        json!({"name": "a section", "filter": {"metadata.section": "games"}}),
        json!({"name": "a section", "filter": {"metadata.section": "net"}}),
        json!({"name": "a user", "user_id": packages[0]["user_id"]}),
    ];
    write(folder, "filters", filters.iter().map(Value::to_string));
}

async fn run(app: &App, folder: &Path, arguments: &[&str]) -> Output {
    let mut program = command(folder, &[("CONTEXT_API_KEY", &app.key)]);
    program.args(arguments).args(["--url", &app.url]).stdout(Stdio::piped()).stderr(Stdio::piped());
    tokio::task::spawn_blocking(move || program.output()).await.unwrap().unwrap()
}

fn close(value: &Value, expected: f64) {
    assert!((value.as_f64().unwrap() - expected).abs() < 1e-9, "{value} instead of {expected}");
}

const FILES: [&str; 5] = ["eval", "--queries", "queries", "--judgements", "judgements"];

#[tokio::test]
async fn the_example_data_is_evaluated_and_known_runs_have_their_known_figures() {
    let (app, folder) = (App::start().await, TempDir::new().unwrap());
    let folder = folder.path();
    let packages = sample();
    write_files(folder, &packages);
    let imported = run(&app, folder, &["import", "corpus"]).await;
    assert!(imported.status.success(), "{imported:?}");

    let more =
        ["--against", "perfect", "--against", "second", "--recall-filters", "filters", "--runs", "runs"];
    let output =
        ["--json", "report.json", "--plot", "report.svg", "--at-least", "/modes/hybrid/mrr_at_10=0.9"];
    let done = run(&app, folder, &[&FILES[..], &more, &output].concat()).await;
    assert!(done.status.success(), "{done:?}");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("report.json")).unwrap()).unwrap();
    assert_eq!((&report["queries"], &report["unjudged"]), (&json!(packages.len() - 1), &json!(1)));
    let (perfect, second) = (&report["others"]["perfect"], &report["others"]["second"]);
    for measure in ["recall_at_1", "recall_at_100", "mrr_at_10", "ndcg_at_10"] {
        close(&perfect[measure], 1.0);
    }
    close(&second["recall_at_1"], 0.0);
    close(&second["recall_at_10"], 1.0);
    close(&second["mrr_at_10"], 0.5);
    close(&second["ndcg_at_10"], 1.0 / 3.0_f64.log2());
    for name in ["everything", "a section", "a user"] {
        let kept = &report["index"][name];
        // So few are compared one by one anyway.
        close(&kept["recall_at_10"], 1.0);
        assert_eq!((&kept["short"], &kept["plans"]["exact"]), (&json!(0), &report["queries"]), "{kept}");
    }
    let table = String::from_utf8_lossy(&done.stdout);
    assert!(
        ["keyword", "semantic", "hybrid", "perfect", "a section"].iter().all(|row| table.contains(row)),
        "{table}"
    );
    let picture = fs::read_to_string(folder.join("report.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("hybrid") && picture.contains("a section"));

    // What it wrote as a run is judged as it judged itself.
    let again =
        ["--limit", "20", "--recall-queries", "0", "--against", "runs/hybrid.run", "--json", "again.json"];
    let own =
        run(&app, folder, &[&FILES[..], &again, &["--at-least", "/modes/hybrid/mrr_at_10=1.1"]].concat())
            .await;
    assert!(!own.status.success() && String::from_utf8_lossy(&own.stderr).contains("below 1.1"), "{own:?}");
    let report: Value = serde_json::from_slice(&fs::read(folder.join("again.json")).unwrap()).unwrap();
    assert_eq!((&report["queries"], &report["index"]), (&json!(20), &json!({})));
    assert_eq!(report["others"]["hybrid"]["recall_at_100"], report["modes"]["hybrid"]["recall_at_100"]);
}

#[tokio::test]
async fn a_refusal_ends_the_evaluation_and_says_why() {
    let (app, folder) = (App::start().await, TempDir::new().unwrap());
    write_files(folder.path(), &sample()[..3]);
    let refused =
        run(&app, folder.path(), &[&FILES[..], &["--with", r#"{"colour": "green"}"#]].concat()).await;
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(!refused.status.success() && said.contains("colour"), "{refused:?}");
    let missing =
        run(&app, folder.path(), &["eval", "--queries", "nowhere", "--judgements", "judgements"]).await;
    assert!(String::from_utf8_lossy(&missing.stderr).contains("nowhere cannot be read"), "{missing:?}");
}
