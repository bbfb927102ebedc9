//! Filters of lists and counts: random ones against an evaluator that knows no SQL, and those that a random choice
//! would never hit on.

use std::{cell::Cell, collections::BTreeSet};

use proptest::{prelude::*, test_runner::TestCaseError};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider, USER, evaluator, random};

const ROWS: usize = 60;
/// `PROPTEST_CASES` asks for more, `PROPTEST_RNG_SEED` for others.
const CASES: u32 = 400;
const SEED: u64 = 7;

pub fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect::<Vec<_>>().concat()
}

/// What the list answers, and the count, which must agree with it.
async fn ask(app: &App, filter: &str) -> Result<BTreeSet<String>, TestCaseError> {
    let list = app.get(&format!("/v1/contexts?limit=200&filter={}", percent_encoded(filter))).await;
    prop_assert_eq!(list.status, StatusCode::OK, "{:?}", list.body);
    prop_assert_eq!(&list.body["has_more"], &json!(false));
    let rows = list.body["data"].as_array().expect("a list");
    let ids = rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect::<BTreeSet<_>>();
    let count = app.send(Method::POST, "/v1/contexts/count", format!(r#"{{"filter":{filter}}}"#)).await;
    prop_assert_eq!(count.status, StatusCode::OK, "{:?}", count.body);
    prop_assert_eq!(&count.body["count"], &json!(ids.len()));
    Ok(ids)
}

async fn write(app: &App, body: String) -> String {
    let answer = app.send(Method::POST, "/v1/contexts", body).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    answer.id()
}

#[test]
fn random_filters_take_the_contexts_that_they_describe() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = random::runner(SEED, CASES);
    let cases = runner.config().cases;
    let bodies: Vec<String> =
        (0..ROWS).map(|_| random::context().new_tree(&mut runner).unwrap().current()).collect();
    let (app, rows) = runtime.block_on(async {
        let stub = StubProvider::start(Behaviour::Poison("poison"));
        let app = App::start_with(stub.provider()).await;
        let mut ids = BTreeSet::new();
        for body in bodies {
            ids.insert(write(&app, body).await);
        }
        let mut rows = Vec::new();
        for id in &ids {
            // Else its status would change while it is being asked for.
            rows.push(app.embedded(id).await);
        }
        (app, rows)
    });
    let telling = Cell::new(0);
    let result = runner.run(&random::filter(&rows), |filter| {
        let parsed: Value = serde_json::from_str(&filter).expect("JSON");
        let expected: BTreeSet<String> = rows
            .iter()
            .filter(|row| evaluator::matches(&parsed, row))
            .map(|row| row["id"].as_str().expect("an id").to_owned())
            .collect();
        let found = runtime.block_on(ask(&app, &filter))?;
        let wrong: Vec<&Value> = rows
            .iter()
            .filter(|row| row["id"].as_str().is_some_and(|id| expected.contains(id) != found.contains(id)))
            .collect();
        prop_assert!(wrong.is_empty(), "{filter}\nis wrong about\n{}", json!(wrong));
        prop_assert_eq!(&found, &expected, "found what was never written");
        telling.set(telling.get() + u32::from(!found.is_empty() && found.len() < rows.len()));
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}\nrows: {}", json!(rows));
    }
    assert!(telling.get() > cases / 4, "only {} of {cases} filters took some and left some", telling.get());
}

/// What `docs/filters.md` says, sentence by sentence.
#[tokio::test]
async fn the_documented_cases_hold() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let metadata =
        r#"{"tags":["x",5,null,{"k":1,"l":[2,3]}],"s":"some text","n":null,"o":{"a":1,"b":"2"},"a.b":1}"#;
    let body = r#"{"user_id":"USER","context_type":"note","content":[[1],"two"],"text":"a text","metadata":METADATA,
                   "expires_at":"2200-01-01T00:00:00.123456789Z"}"#;
    let id = write(&app, body.replace("USER", USER).replace("METADATA", metadata)).await;
    let context = app.embedded(&id).await;
    for (filter, expected) in [
        ("{}", true),
        (r#"{"metadata.s":"some text"}"#, true),
        (r#"{"metadata.s":{"$contains":"me te"}}"#, true),
        (r#"{"metadata.s":{"$contains":["some text"]}}"#, false),
        (r#"{"metadata.tags":"x"}"#, false),
        (r#"{"metadata.tags":{"$contains":"x"}}"#, true),
        (r#"{"metadata.tags":{"$contains":5.0}}"#, true),
        (r#"{"metadata.tags":{"$contains":null}}"#, true),
        (r#"{"metadata.tags":{"$contains":[5,"x"]}}"#, true),
        (r#"{"metadata.tags":{"$contains":[{"l":[3]}]}}"#, true),
        (r#"{"metadata.tags":{"$contains":[3]}}"#, false),
        (r#"{"metadata.tags":{"$contains":{"k":1}}}"#, false),
        (r#"{"metadata.tags.3.l":{"$contains":[2]}}"#, true),
        (r#"{"metadata.tags.0":"x"}"#, true),
        (r#"{"metadata.tags.-1.k":1}"#, true),
        (r#"{"metadata.tags.4":{"$exists":true}}"#, false),
        (r#"{"metadata.tags.2":{"$exists":true}}"#, true),
        (r#"{"metadata":{"$contains":{"o":{"a":1}}}}"#, true),
        (r#"{"metadata.o":{"$contains":{"b":"2"}}}"#, true),
        (r#"{"metadata.o":{"a":1}}"#, false),
        (r#"{"metadata.o":{"b":"2","a":1.0}}"#, true),
        (r#"{"metadata.o.a":{"$gt":0,"$lt":2}}"#, true),
        (r#"{"metadata.o.b":{"$gt":0}}"#, false),
        (r#"{"metadata.o.b":{"$not":{"$gt":0}}}"#, true),
        (r#"{"metadata.n":null}"#, true),
        (r#"{"metadata.n":{"$exists":true}}"#, true),
        (r#"{"metadata.missing":null}"#, true),
        (r#"{"metadata.missing":{"$in":["x",null]}}"#, true),
        (r#"{"metadata.missing":{"$exists":true}}"#, false),
        (r#"{"metadata.missing":{"$ne":1}}"#, true),
        (r#"{"metadata.missing":{"$nin":[]}}"#, true),
        (r#"{"metadata.missing":{"$in":[]}}"#, false),
        (r#"{"metadata.missing":{"$lt":1}}"#, false),
        (r#"{"metadata.a\\.b":1}"#, true),
        (r#"{"metadata.a.b":1}"#, false),
        (r#"{"content":{"$contains":"two"}}"#, true),
        (r#"{"content.0":[1.0]}"#, true),
        (r#"{"content.0":1}"#, false),
        (r#"{"key":null}"#, true),
        (r#"{"key":{"$ne":"k"}}"#, true),
        (r#"{"key":{"$lt":"k"}}"#, false),
        (r#"{"context_type":{"$gt":"Z"}}"#, true),
        (r#"{"expires_at":"2200-01-01T02:00:00.1234569+02:00"}"#, true),
        (r#"{"expires_at":{"$gt":"2200-01-01T00:00:00.123456Z"}}"#, false),
        (r#"{"$or":[{"key":"k"},{"version":1}],"$not":{"text":{"$contains":"T"}}}"#, true),
    ] {
        let found = ask(&app, filter).await.unwrap().contains(&id);
        assert_eq!(found, expected, "{filter}");
        assert_eq!(
            evaluator::matches(&serde_json::from_str(filter).unwrap(), &context),
            expected,
            "{filter}"
        );
    }
}

#[tokio::test]
async fn numbers_are_compared_by_every_digit() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let body = |document: &str| format!(r#"{{"user_id":"{USER}","context_type":"note",{document}}}"#);
    let content = write(&app, body(r#""content":{"n":12345678901234567890.1}"#)).await;
    let metadata = write(
        &app,
        body(r#""content":1,"metadata":{"n":12345678901234567890.1,"s":"12345678901234567890.1"}"#),
    )
    .await;
    for (filter, expected) in [
        (r#"{"content.n":12345678901234567890.1}"#, Some(&content)),
        (r#"{"content.n":12345678901234567890.10}"#, Some(&content)),
        (r#"{"content.n":12345678901234567890.2}"#, None),
        (r#"{"content.n":{"$gt":12345678901234567890.05}}"#, Some(&content)),
        (r#"{"content.n":{"$gt":12345678901234567890.1}}"#, None),
        (r#"{"content.n":{"$lt":1e300,"$gte":12345678901234567890.1}}"#, Some(&content)),
        (r#"{"content.n":{"$in":[12345678901234567890.2]}}"#, None),
        (r#"{"metadata.n":12345678901234567890.1}"#, Some(&metadata)),
        (r#"{"metadata.n":12345678901234567890.2}"#, None),
        (r#"{"metadata.n":{"$lt":12345678901234567890.15}}"#, Some(&metadata)),
        (r#"{"metadata.s":{"$gt":1}}"#, None),
        (r#"{"metadata.s":{"$gt":"1"}}"#, Some(&metadata)),
    ] {
        assert_eq!(ask(&app, filter).await.unwrap(), expected.into_iter().cloned().collect(), "{filter}");
    }
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused_wherever_it_is_given() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let deep = |levels: usize| format!("{}{{}}{}", r#"{"$not":"#.repeat(levels), "}".repeat(levels));
    for filter in [
        "[]".to_owned(),
        r#"{"colour":1}"#.to_owned(),
        r#"{"id":"x"}"#.to_owned(),
        r#"{"metadata.a":{"$foo":1}}"#.to_owned(),
        r#"{"metadata.a\u0000":1}"#.to_owned(),
        r#"{"metadata.a":"\u0000"}"#.to_owned(),
        r#"{"$or":[]}"#.to_owned(),
        deep(9),
        deep(1_000),
    ] {
        let counted = app.send(Method::POST, "/v1/contexts/count", format!(r#"{{"filter":{filter}}}"#)).await;
        let listed = app.get(&format!("/v1/contexts?filter={}", percent_encoded(&filter))).await;
        for answer in [counted, listed] {
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{filter}: {:?}", answer.body);
        }
    }
    let counted =
        app.send(Method::POST, "/v1/contexts/count", format!(r#"{{"filter":{}}}"#, deep(10_000))).await;
    assert_eq!(counted.status, StatusCode::BAD_REQUEST, "{:?}", counted.body);
    assert_eq!(ask(&app, &deep(8)).await.unwrap(), BTreeSet::new());
}

#[tokio::test]
async fn superseded_versions_count_as_ready() {
    let app = App::start().await;
    let created = app.note("first").await;
    let (id, at) = (created.id(), created.body["updated_at"].as_str().unwrap().to_owned());
    app.embedded(&id).await;
    let patched = app.send(Method::PATCH, &format!("/v1/contexts/{id}"), r#"{"text":"second"}"#).await;
    assert_eq!(patched.status, StatusCode::OK, "{:?}", patched.body);
    for (status, count) in [("ready", 1), ("failed", 0)] {
        let body = json!({"as_of": at, "filter": {"embedding_status": status}});
        let counted = app.post("/v1/contexts/count", body).await;
        assert_eq!(counted.body["count"], json!(count), "{status}: {:?}", counted.body);
    }
}
