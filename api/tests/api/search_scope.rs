//! What a search looks at: filters, validity, and how many are compared.

use std::{cell::Cell, collections::BTreeSet};

use proptest::{prelude::*, test_runner::TestCaseError};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider, USER, evaluator, random};

const ROWS: usize = 60;
const CASES: u32 = 300;
const SEED: u64 = 5;
/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

fn ids(answer: &Value) -> BTreeSet<String> {
    let hits = answer["data"].as_array().expect("hits");
    hits.iter().map(|hit| hit["context"]["id"].as_str().expect("an id").to_owned()).collect()
}

async fn found(app: &App, filter: &str) -> Result<BTreeSet<String>, TestCaseError> {
    let body = format!(
        r#"{{"vector":{},"mode":"semantic","limit":100,"valid_at":"2100-01-01T00:00:00Z","filter":{filter}}}"#,
        json!(vec![1.0; DIMENSIONS])
    );
    let answer = app.send(reqwest::Method::POST, "/v1/contexts/search", body).await;
    prop_assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    prop_assert_eq!((&answer.body["plan"], &answer.body["complete"]), (&json!("exact"), &json!(true)));
    let ids = ids(&answer.body);
    prop_assert_eq!(&answer.body["candidates"], &json!(ids.len()), "each has one chunk");
    Ok(ids)
}

/// The filters of lists, and the same evaluator.
#[test]
fn a_search_takes_the_filters_of_a_list() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = random::runner(SEED, CASES);
    let cases = runner.config().cases;
    let bodies: Vec<String> =
        (0..ROWS).map(|_| random::context().new_tree(&mut runner).unwrap().current()).collect();
    let (app, rows) = runtime.block_on(async {
        let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
        let mut ids = BTreeSet::new();
        for body in bodies {
            ids.insert(app.send(reqwest::Method::POST, "/v1/contexts", body).await.id());
        }
        let mut rows = Vec::new();
        for id in &ids {
            rows.push(app.embedded(id).await);
        }
        (app, rows)
    });
    // What has no text cannot be found by its meaning.
    let with_text = |row: &&Value| row["text"] != "";
    let telling = Cell::new(0);
    let result = runner.run(&random::filter(&rows), |filter| {
        let parsed: Value = serde_json::from_str(&filter).expect("JSON");
        let expected: BTreeSet<String> = rows
            .iter()
            .filter(with_text)
            .filter(|row| evaluator::matches(&parsed, row))
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect();
        prop_assert_eq!(&runtime.block_on(found(&app, &filter))?, &expected, "{}", filter);
        telling.set(telling.get() + u32::from(!expected.is_empty() && expected.len() < rows.len()));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}\nrows: {}", json!(rows));
    }
    assert!(telling.get() > cases / 4, "only {} of {cases} filters took some and left some", telling.get());
}

#[tokio::test]
async fn every_mode_keeps_to_the_filter_and_to_what_holds() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let make = async |text: &str, more: Value| {
        let mut fields = json!({"text": text});
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let path = app.created(fields).await;
        let id = path.rsplit('/').next().unwrap().to_owned();
        app.embedded(&id).await;
        id
    };
    let red = make("an otter swims", json!({"metadata": {"colour": "red"}})).await;
    let blue = make("an otter dives", json!({"metadata": {"colour": "blue"}})).await;
    let past = make("an otter slept", json!({"valid_to": "2020-01-01T00:00:00Z"})).await;
    for mode in ["semantic", "keyword", "hybrid"] {
        let search = async |more: Value| {
            let mut body = json!({"query": "otter", "mode": mode});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            ids(&app.search(body).await.body)
        };
        let set = |ids: &[&String]| ids.iter().map(|id| (*id).clone()).collect::<BTreeSet<_>>();
        assert_eq!(search(json!({})).await, set(&[&red, &blue]), "{mode}: what holds now");
        assert_eq!(search(json!({"filter": {"metadata.colour": "red"}})).await, set(&[&red]), "{mode}");
        assert_eq!(
            search(json!({"filter": {"$not": {"metadata.colour": "red"}}})).await,
            set(&[&blue]),
            "{mode}"
        );
        assert_eq!(search(json!({"filter": {"metadata.colour": "green"}})).await, set(&[]), "{mode}");
        assert_eq!(search(json!({"filter": null, "user_id": USER})).await, set(&[&red, &blue]), "{mode}");
        let then = json!({"valid_at": "2019-06-01T00:00:00Z"});
        assert_eq!(search(then).await, set(&[&red, &blue, &past]), "{mode}: what held then");
    }
    let wrong =
        app.post("/v1/contexts/search", json!({"query": "x", "filter": {"metadata.a": {"$x": 1}}})).await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::BAD_REQUEST, "invalid_request"));
    assert_eq!(wrong.body["errors"][0]["pointer"], "/filter/metadata.a/$x");
}

#[tokio::test]
async fn a_change_of_metadata_counts_in_the_very_next_search() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let path = app.created(json!({"text": "an otter", "metadata": {"step": 0}})).await;
    app.embedded(path.rsplit('/').next().unwrap()).await;
    for step in 1..10 {
        app.send(reqwest::Method::PATCH, &path, json!({"metadata": {"step": step}}).to_string()).await;
        let hits = async |step: i32| {
            let body = json!({"query": "otter", "filter": {"metadata.step": step}});
            app.search(body).await.body["data"].as_array().unwrap().len()
        };
        assert_eq!((hits(step).await, hits(step - 1).await), (1, 0));
    }
}

#[tokio::test]
async fn what_is_not_asked_for_makes_no_answer_shorter() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let large = "x".repeat(900_000);
    for n in 0..12 {
        app.created(json!({"content": large, "text": format!("heron {n}")})).await;
    }
    let search = json!({"query": "heron", "mode": "keyword", "limit": 12});
    let whole = app.search(search.clone()).await.body;
    assert_eq!(whole["complete"], false, "more than an answer holds");
    assert!(whole["data"].as_array().unwrap().len() < 12);
    let with = |member: &str, value: Value| {
        let mut body = search.clone();
        body[member] = value;
        body
    };
    let slim = app.search(with("include", json!([]))).await.body;
    assert_eq!((slim["data"].as_array().unwrap().len(), &slim["complete"]), (12, &json!(true)));
    let pack = app.post("/v1/contexts/pack", with("budget", json!({"max_tokens": 2_000}))).await.body;
    assert_eq!((pack["citations"].as_array().unwrap().len(), &pack["complete"]), (12, &json!(true)));
}
