//! How a text is cut for search: as the model of the active space reads, and not in too many pieces.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

/// An app whose model says that it reads so many tokens, and that has a space.
async fn reading(tokens_max: Option<u32>) -> App {
    let app = App::start_with(StubProvider::start_reading(Behaviour::Work, tokens_max).provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    app
}

fn note(fields: Value) -> Value {
    let mut note = json!({"user_id": USER, "context_type": "note", "content": 1});
    for (name, value) in fields.as_object().unwrap() {
        note[name] = value.clone();
    }
    note
}

async fn chunks(app: &App) -> i64 {
    app.get("/v1/usage").await.body["stored"]["chunks"].as_i64().unwrap()
}

#[tokio::test]
async fn a_chunk_is_as_long_as_the_model_of_the_space_reads() {
    let text = "A heron stands in the river and waits for a fish. ".repeat(200);
    let mut made = Vec::new();
    for tokens_max in [Some(64), None, Some(256), Some(512), Some(8192)] {
        let app = reading(tokens_max).await;
        let written = app.post("/v1/contexts?wait=ready", note(json!({"text": text}))).await;
        assert_eq!(written.body["embedding_status"], "ready");
        made.push(chunks(&app).await - 1);
    }
    let [tiny, unknown, short, long, page] = made[..] else { panic!("{made:?}") };
    assert_eq!((unknown, page), (short, long), "{made:?}");
    assert!(tiny > 3 * short && short > long && long > 3, "{made:?}");
}

fn assert_too_many(answer: &Value, pointer: &str) {
    assert_eq!(answer["code"], "text_too_long", "{answer}");
    let (detail, violation) = (answer["detail"].as_str().unwrap(), &answer["errors"][0]);
    assert!(detail.contains("chunks of 256 tokens, 256 at most") && detail.contains("split it"), "{detail}");
    assert_eq!(violation["pointer"], pointer);
    let words = violation["detail"].as_str().unwrap();
    let count: usize = words.split(' ').find_map(|word| word.parse().ok()).unwrap();
    assert!((257..600).contains(&count), "{words}");
}

#[tokio::test]
async fn too_many_chunks_are_refused_with_their_number_wherever_the_text_comes_from() {
    let app = reading(None).await;
    let text = "hay ".repeat(60_000);
    let refused = app.post("/v1/contexts", note(json!({"text": text}))).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_too_many(&refused.body, "/text");
    assert_too_many(&app.post("/v1/contexts", note(json!({"content": {"a": text}}))).await.body, "/content");
    let path = app.created(note(json!({"text": "short"}))).await;
    let patched: Answer = app.send(Method::PATCH, &path, json!({"text": text}).to_string()).await;
    assert_too_many(&patched.body, "/text");
    let create = json!({"op": "create", "context": note(json!({"text": text}))});
    let batch = app.post("/v1/contexts/batch", json!({"operations": [create]})).await;
    assert_too_many(&batch.body["results"][0]["error"], "/context/text");
    assert_eq!(chunks(&app).await, 2, "nothing of it was stored");
}

/// It may have become too long since, for the model of another space; here it was one chunk of the caller's own.
#[tokio::test]
async fn a_text_that_is_stored_is_not_too_long_for_a_change_of_something_else() {
    let app = reading(None).await;
    let text = "hay ".repeat(60_000);
    let whole = note(json!({"text": text, "embedding": vec![1; 8]}));
    let path = app.created(whole).await;
    let patched = app.send(Method::PATCH, &path, json!({"metadata": {"a": 1}}).to_string()).await;
    assert_eq!(
        (patched.status, &patched.body["version"]),
        (StatusCode::OK, &json!(2)),
        "{:?}",
        patched.body["detail"]
    );
    let same = note(json!({"text": text, "metadata": {"a": 2}}));
    let replaced = app.send(Method::PUT, &path, same.to_string()).await;
    assert_eq!((replaced.status, &replaced.body["version"]), (StatusCode::OK, &json!(3)));
    assert_eq!(chunks(&app).await, 2, "it stays one");
    app.delete(&path).await;
    let restored = app.post(&format!("{path}/restore"), json!({})).await;
    assert_eq!(restored.status, StatusCode::OK);
}
