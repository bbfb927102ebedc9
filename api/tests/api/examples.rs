//! The example data of the tour, through the importer, and the questions that the tour asks. A part of it: what concerns
//! chess, and every sixth of the rest.

use std::{fs, process::Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{App, command};

/// A package whose name is in no other's description.
const RARE: &str = "libmathicgb-dev";

fn sample() -> Vec<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/packages.ndjson");
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().enumerate();
    let wanted =
        lines.filter(|(number, line)| number % 6 == 0 || line.contains("chess") || line.contains(RARE));
    wanted.map(|(_, line)| line.to_owned()).collect()
}

fn hits(answer: &Value) -> Vec<(&str, &str)> {
    answer["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|hit| (hit["context"]["key"].as_str().unwrap(), hit["context"]["text"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn the_questions_of_the_tour_have_answers_that_make_sense() {
    let app = App::start().await;
    let lines = sample();
    assert!(lines.len() > 300);
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("sample.ndjson");
    fs::write(&file, lines.join("\n")).unwrap();
    let mut import = command(folder.path(), &[("CONTEXT_API_KEY", &app.key)]);
    import
        .args(["import", file.to_str().unwrap(), "--url", &app.url])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let output = tokio::task::spawn_blocking(move || import.output()).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && said.contains(&format!("{} created", lines.len())), "{output:?}");

    let search = async |query: &str, mode: &str| {
        app.search(json!({"query": query, "mode": mode, "limit": 4})).await.body
    };
    let chess = search("play chess against the computer", "semantic").await;
    assert!(hits(&chess).iter().all(|(_, text)| text.to_lowercase().contains("chess")), "{:?}", hits(&chess));
    for mode in ["keyword", "hybrid"] {
        let rare = search(RARE, mode).await;
        assert_eq!(hits(&rare)[0].0, RARE, "{mode}");
    }
    assert_eq!(chess["candidates"], search("anything", "semantic").await["candidates"]);
    assert_eq!(chess["degraded"], json!([]));
}
