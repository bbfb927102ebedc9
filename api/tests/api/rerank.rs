//! Searches whose hits a reranker puts in order, and what becomes of them without it.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider};

/// By BM25 the short one is first; by the stub, the one of which most is asked for.
const TEXTS: [&str; 3] = ["heron", "heron river heron river", "heron lake otter boat"];

async fn filled(stub: &StubProvider) -> App {
    let embedder = StubProvider::start(Behaviour::Work);
    let app = App::start_reranking(embedder.provider(), stub.reranker()).await;
    for text in TEXTS {
        app.note(text).await;
    }
    app
}

async fn search(app: &App, rerank: bool) -> Answer {
    app.search(json!({"query": "heron river", "mode": "keyword", "rerank": rerank})).await
}

fn texts(answer: &Answer) -> Vec<&str> {
    answer.body["data"].as_array().unwrap().iter().map(|hit| hit["chunk"]["text"].as_str().unwrap()).collect()
}

fn score(answer: &Answer, place: usize) -> f64 {
    answer.body["data"][place]["score"].as_f64().unwrap()
}

#[tokio::test]
async fn hits_stand_in_the_reranker_s_order_with_its_scores() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = filled(&stub).await;
    for n in 0..60 {
        app.note(&format!("heron boat {n}")).await;
    }
    let plain = search(&app, false).await;
    assert_eq!(stub.calls(), 0, "asked only when the request says so");
    assert_eq!(texts(&plain)[0], TEXTS[1]);
    let answer = app
        .search(json!({"query": "heron", "mode": "keyword", "rerank": true, "limit": 2, "explain": true}))
        .await;
    assert_eq!((texts(&answer)[0], score(&answer, 0)), (TEXTS[0], 1.0));
    assert_eq!((texts(&answer).len(), &answer.body["degraded"]), (2, &json!([])));
    assert!(answer.body["timings"]["rerank_ms"].as_f64().unwrap() > 0.0);
    assert_eq!(
        (stub.calls(), stub.texts()),
        (2, 50),
        "more than are answered, in calls that the server takes"
    );
    let packed =
        json!({"query": "heron river", "mode": "keyword", "rerank": true, "budget": {"max_tokens": 20}});
    let packed = app.post("/v1/contexts/pack", packed).await;
    assert_eq!(packed.body["citations"][0]["score"], 1.0, "{:?}", packed.body);
}

#[tokio::test]
async fn a_reranker_that_fails_leaves_the_search_s_own_order_and_is_left_alone() {
    for fault in [
        Behaviour::Answer(
            424,
            r#"{"error":"Backend error: model is not a re-ranker model","error_type":"Backend"}"#,
        ),
        Behaviour::Answer(429, r#"{"error":"Model is overloaded","error_type":"Overloaded"}"#),
        Behaviour::Answer(401, ""),
        Behaviour::Answer(200, r#"[{"index":0,"score":1e999}]"#),
        Behaviour::Answer(200, "garbage"),
        Behaviour::TooFew,
        Behaviour::WrongDimension,
        Behaviour::BreakOff,
        Behaviour::Hang(Duration::from_secs(30)),
    ] {
        let stub = StubProvider::start(Behaviour::Work);
        let app = filled(&stub).await;
        let expected = search(&app, false).await;
        stub.behave(fault.clone());
        let began = Instant::now();
        let answer = search(&app, true).await;
        assert!(began.elapsed() < Duration::from_secs(10), "{fault:?}");
        assert_eq!(answer.body["degraded"], json!(["reranker_unavailable"]), "{fault:?}");
        assert_eq!((texts(&answer), score(&answer, 0)), (texts(&expected), score(&expected, 0)), "{fault:?}");
        let calls = stub.calls();
        let again = search(&app, true).await;
        assert_eq!(again.body["degraded"], json!(["reranker_unavailable"]), "{fault:?}");
        assert_eq!(stub.calls(), calls, "{fault:?}: not asked again at once");
    }
}

#[tokio::test]
async fn without_a_reranker_the_answer_says_so() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    for path in ["search", "pack"] {
        let mut body = json!({"query": "otter", "rerank": true});
        if path == "pack" {
            body["budget"] = json!({"max_tokens": 1});
        }
        let answer = app.post(&format!("/v1/contexts/{path}"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}");
        assert_eq!(answer.body["degraded"], json!(["reranker_unavailable"]), "{path}");
    }
    let by_vector = json!({"vector": [1.0], "mode": "semantic", "rerank": true});
    let answer = app.post("/v1/contexts/search", by_vector).await;
    assert_eq!(
        (answer.status, &answer.body["errors"][0]["pointer"]),
        (StatusCode::BAD_REQUEST, &Value::from("/rerank"))
    );
}
