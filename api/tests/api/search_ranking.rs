//! What becomes of hits when they are more than alike: weights, age, the lowest score, diversity; and what `explain` and `include`
//! add to an answer and take from it.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{App, Behaviour, StubProvider};

/// Those of the stub's vectors.
const DIMENSIONS: usize = 8;

/// A unit vector in the plane of the first two dimensions.
fn at_degrees(degrees: f64) -> Vec<f64> {
    let (sine, cosine) = degrees.to_radians().sin_cos();
    let mut vector = vec![0.0; DIMENSIONS];
    (vector[0], vector[1]) = (cosine, sine);
    vector
}

async fn app() -> App {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let first = app.note("the first one makes the space").await.id();
    app.embedded(&first).await;
    app.delete(&format!("/v1/contexts/{first}")).await;
    app
}

async fn make(app: &App, key: &str, degrees: f64, text: &str) -> String {
    app.created(json!({"key": key, "text": text, "metadata": {"a": 1}, "embedding": at_degrees(degrees)}))
        .await
}

fn keys(answer: &Value) -> Vec<&str> {
    answer["data"].as_array().unwrap().iter().map(|hit| hit["context"]["key"].as_str().unwrap()).collect()
}

fn scores(answer: &Value) -> Vec<f64> {
    answer["data"].as_array().unwrap().iter().map(|hit| hit["score"].as_f64().unwrap()).collect()
}

#[tokio::test]
async fn diversity_lets_a_copy_give_way() {
    let app = app().await;
    for (key, degrees) in [("near", 1.0), ("copy", 2.0), ("nearly a copy", 3.0), ("other side", -70.0)] {
        make(&app, key, degrees, key).await;
    }
    let search = async |diversity: f64| {
        let body = json!({"vector": at_degrees(0.0), "mode": "semantic", "limit": 2, "diversity": diversity, "explain": true});
        app.search(body).await.body
    };
    let plain = search(0.0).await;
    assert_eq!(keys(&plain), ["near", "copy"]);
    assert_eq!(plain["data"][0]["explain"]["similarity"], Value::Null);
    let diverse = search(0.7).await;
    assert_eq!(keys(&diverse), ["near", "other side"]);
    let likeness = diverse["data"][1]["explain"]["similarity"].as_f64().unwrap();
    assert!((likeness - 71_f64.to_radians().cos()).abs() < 0.01, "{likeness}");
}

#[tokio::test]
async fn the_lowest_score_is_a_bound_and_counts_after_age() {
    let app = app().await;
    for (key, degrees) in [("near", 10.0), ("far", 80.0)] {
        make(&app, key, degrees, key).await;
    }
    let search = async |more: Value| {
        let mut body = json!({"vector": at_degrees(0.0), "mode": "semantic", "explain": true});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.search(body).await.body
    };
    assert_eq!(keys(&search(json!({})).await), ["near", "far"]);
    assert_eq!(keys(&search(json!({"min_score": 0.5})).await), ["near"]);
    assert_eq!(keys(&search(json!({"min_score": 1.5})).await), [""; 0]);
    // So short a half-life that all of its share is lost by now.
    let aged = search(json!({"recency": {"half_life_seconds": 1e-6, "weight": 0.5}, "min_score": 0.1})).await;
    assert_eq!(keys(&aged), ["near"]);
    let hit = &aged["data"][0];
    let (score, fused) = (hit["score"].as_f64().unwrap(), hit["explain"]["fused"].as_f64().unwrap());
    assert!(
        (score - fused * 0.5).abs() < 1e-9
            && (hit["explain"]["recency"].as_f64().unwrap() - 0.5).abs() < 1e-9
    );
}

#[tokio::test]
async fn what_was_written_last_comes_first_when_age_is_all() {
    let app = app().await;
    let older = make(&app, "older", 10.0, "older").await;
    make(&app, "newer", 40.0, "newer").await;
    // Each write is some time after the one before, if only microseconds: to such a half-life that is much.
    let body = || json!({"vector": at_degrees(0.0), "mode": "semantic", "recency": {"half_life_seconds": 1e-5, "weight": 1}});
    let zero = app.search(body()).await.body;
    assert!(scores(&zero).iter().all(|score| *score < 1e-6), "{zero}");
    let kind = json!({"vector": at_degrees(0.0), "mode": "semantic", "recency": {"half_life_seconds": 1e8, "weight": 1}});
    assert_eq!(keys(&app.search(kind).await.body), ["older", "newer"]);
    app.send(Method::PATCH, &older, json!({"metadata": {"a": 2}}).to_string()).await;
    let far = json!({"vector": at_degrees(0.0), "mode": "semantic", "recency": {"half_life_seconds": 1e8, "weight": 0}});
    let untouched = app.search(far).await.body;
    assert!((scores(&untouched)[0] - 10_f64.to_radians().cos()).abs() < 1e-3);
}

#[tokio::test]
async fn weights_turn_a_leg_up_or_off() {
    let app = app().await;
    let query = "otters";
    let near = app
        .created(json!({"key": "words", "text": "otters and otters", "embedding": at_degrees(90.0)}))
        .await;
    assert!(near.starts_with("/v1"));
    make(&app, "meaning", 0.0, "sleek animals of the river").await;
    let search = async |weights: Value| {
        app.search(json!({"query": query, "weights": weights, "explain": true})).await.body
    };
    let words = search(json!({"semantic": 0})).await;
    assert_eq!(keys(&words)[0], "words");
    assert!((scores(&words)[0] - 1.0).abs() < 1e-9, "first in the only leg that counts: {words}");
    let both = search(json!({})).await;
    let hit = &both["data"][0];
    assert_eq!(hit["context"]["key"], "words");
    assert_eq!(hit["explain"]["keyword"]["rank"], 1);
    assert!(hit["explain"]["keyword"]["score"].as_f64().unwrap() > 0.0);
    assert!(both["data"].as_array().unwrap().iter().all(|hit| hit["explain"]["semantic"]["rank"].is_u64()));
    for stage in ["embed_ms", "semantic_ms", "keyword_ms", "rank_ms", "load_ms"] {
        assert!(both["timings"][stage].as_f64().is_some_and(|ms| ms >= 0.0), "{stage}");
    }
}

#[tokio::test]
async fn an_answer_has_what_was_asked_for_and_no_more() {
    let app = app().await;
    make(&app, "one", 0.0, "an otter").await;
    let search = async |more: Value| {
        let mut body = json!({"query": "otter", "mode": "keyword"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        app.search(body).await.body
    };
    let plain = search(json!({})).await;
    assert!(plain.get("timings").is_none() && plain["data"][0].get("explain").is_none());
    let context = &plain["data"][0]["context"];
    assert_eq!((&context["text"], &context["metadata"]), (&json!("an otter"), &json!({"a": 1})));
    for (include, expected) in [
        (json!([]), [false; 3]),
        (json!(["text"]), [false, false, true]),
        (json!(["metadata", "content"]), [true, true, false]),
    ] {
        let answer = search(json!({"include": include})).await;
        let context = &answer["data"][0]["context"];
        let has = ["content", "metadata", "text"].map(|field| context.get(field).is_some());
        assert_eq!(has, expected, "{include}");
        assert_eq!(
            (&context["key"], &answer["data"][0]["chunk"]["text"]),
            (&json!("one"), &json!("an otter"))
        );
    }
    let refused = app.post("/v1/contexts/search", json!({"query": "x", "include": ["embedding"]})).await;
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
}
