//! `/v1/contexts/search`, with the real model.

use reqwest::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{Answer, App, USER};

const TEXTS: [&str; 6] = [
    "gnuchess: a program that lets you face a machine opponent in the game of kings",
    "The recipe asks for two eggs, flour, sugar and a pinch of salt",
    "libfrobnicate2-dev: development files for the frobnication toolkit",
    "A spreadsheet with formulas, charts and pivot tables",
    "Watch the night sky: a planetarium that shows stars and constellations",
    "Encrypts files and mail with public keys",
];

async fn filled() -> App {
    let app = App::start().await;
    let mut ids = Vec::new();
    for text in TEXTS {
        ids.push(app.note(text).await.id());
    }
    for id in ids {
        assert_eq!(app.embedded(&id).await["embedding_status"], "ready");
    }
    app
}

fn texts(answer: &Answer) -> Vec<&str> {
    answer.body["data"].as_array().unwrap().iter().map(|hit| hit["chunk"]["text"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn meaning_is_found_without_a_common_word() {
    let app = filled().await;
    for (question, expected) in [
        ("play chess against the computer", TEXTS[0]),
        ("how do I bake a cake", TEXTS[1]),
        ("accounting in rows and columns", TEXTS[3]),
        ("astronomy", TEXTS[4]),
        ("keep my letters secret", TEXTS[5]),
    ] {
        let answer = app.search(json!({"query": question, "mode": "semantic", "limit": 3})).await;
        assert_eq!(texts(&answer)[0], expected, "{question}");
        assert_eq!(
            (&answer.body["plan"], &answer.body["candidates"]),
            (&json!("exact"), &json!(TEXTS.len()))
        );
        assert_eq!((&answer.body["complete"], &answer.body["degraded"]), (&json!(true), &json!([])));
        assert_eq!(
            (&answer.body["space"]["provider"], &answer.body["space"]["dims"]),
            (&json!("builtin"), &json!(384))
        );
        let scores: Vec<f64> =
            answer.body["data"].as_array().unwrap().iter().map(|h| h["score"].as_f64().unwrap()).collect();
        assert!(
            scores.is_sorted_by(|a, b| a >= b) && scores.iter().all(|score| score.abs() <= 1.001),
            "{scores:?}"
        );
    }
}

#[tokio::test]
async fn an_exact_name_is_on_top_in_keyword_and_hybrid() {
    let app = filled().await;
    for mode in ["keyword", "hybrid"] {
        let answer = app.search(json!({"query": "libfrobnicate2-dev", "mode": mode})).await;
        assert_eq!(texts(&answer)[0], TEXTS[2], "{mode}");
    }
    let hybrid = app.search(json!({"query": "stars in the night"})).await;
    assert_eq!(texts(&hybrid)[0], TEXTS[4]);
    assert_eq!(
        hybrid.body["data"].as_array().unwrap().len(),
        TEXTS.len(),
        "hybrid is the default, and fills up"
    );
}

#[tokio::test]
async fn one_word_of_many_is_enough_but_more_are_better() {
    let app = filled().await;
    let answer = app.search(json!({"query": "stars and spreadsheet formulas", "mode": "keyword"})).await;
    assert_eq!(texts(&answer), [TEXTS[3], TEXTS[4]]);
    // Nothing that a query language could trip over.
    for query in ["a & b | ! (", "':*", "\\ '' \"", "https://a.b/?x=1&y=2|z", "the", "!!!"] {
        app.search(json!({"query": query, "mode": "keyword"})).await;
    }
}

#[tokio::test]
async fn a_search_keeps_to_its_user_and_types() {
    let app = filled().await;
    let other = Uuid::new_v4();
    let body = json!({"user_id": other, "context_type": "memo", "content": {"t": "chess opening theory"}});
    let id = app.post("/v1/contexts", body).await.id();
    app.embedded(&id).await;
    for mode in ["semantic", "keyword", "hybrid"] {
        let mine = app.search(json!({"query": "chess", "mode": mode, "user_id": USER})).await;
        assert!(!texts(&mine).contains(&"chess opening theory"), "{mode}");
        let theirs = app.search(json!({"query": "chess", "mode": mode, "user_id": other})).await;
        assert_eq!(texts(&theirs), ["chess opening theory"], "{mode}");
        let memos =
            app.search(json!({"query": "chess", "mode": mode, "context_types": ["memo", "other"]})).await;
        assert_eq!(texts(&memos), ["chess opening theory"], "{mode}");
    }
}

#[tokio::test]
async fn a_long_text_is_found_by_its_end_and_answered_once() {
    let app = App::start().await;
    let filler = "The committee discussed the minutes of the previous meeting at length. ".repeat(80);
    let long = format!("{filler}\n\nFinally, the penguin sanctuary received a donation.");
    let id = app.note(&long).await.id();
    app.embedded(&id).await;
    for mode in ["semantic", "keyword", "hybrid"] {
        let answer = app.search(json!({"query": "penguin sanctuary", "mode": mode})).await;
        let hits = answer.body["data"].as_array().unwrap();
        assert_eq!(hits.len(), 1, "{mode}");
        assert!(hits[0]["chunk"]["text"].as_str().unwrap().contains("penguin"), "{mode}");
        assert!(hits[0]["chunk"]["chunk_no"].as_i64().unwrap() > 0);
        assert_eq!(hits[0]["context"]["text"], Value::String(long.clone()));
    }
}

#[tokio::test]
async fn a_given_vector_is_searched_for_and_checked() {
    let app = filled().await;
    let mut vector = vec![0.0_f32; 384];
    vector[0] = 1.0;
    let answer = app.search(json!({"vector": vector, "mode": "semantic", "limit": 100})).await;
    assert_eq!(answer.body["data"].as_array().unwrap().len(), TEXTS.len());
    for (vector, status, code) in [
        (json!([1.0, 2.0]), StatusCode::UNPROCESSABLE_ENTITY, "invalid_vector"),
        (json!(vec![0.0; 384]), StatusCode::UNPROCESSABLE_ENTITY, "invalid_vector"),
        (json!([]), StatusCode::UNPROCESSABLE_ENTITY, "invalid_vector"),
        (json!(["x"]), StatusCode::BAD_REQUEST, "invalid_request"),
    ] {
        let answer = app.post("/v1/contexts/search", json!({"vector": vector, "mode": "semantic"})).await;
        assert_eq!((answer.status, answer.code()), (status, code), "{:?}", answer.body);
    }
}

#[tokio::test]
async fn before_anything_is_embedded_a_search_says_so() {
    let app = App::start().await;
    let answer = app.search(json!({"query": "anything"})).await;
    assert_eq!(
        (&answer.body["data"], &answer.body["degraded"]),
        (&json!([]), &json!(["no_embedding_space"]))
    );
}
