//! The service itself as a client, by both of the ways that it knows to an embedding server.

use std::{num::NonZeroUsize, time::Duration};

use context_api::embedding::{self, OpenAiOptions, Provider, Purpose};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::Server;
use crate::support::{App, Database, KEY, Process, USER, client, eventually, free_port};

/// Stores a note, and finds it by its meaning.
async fn found_by_meaning(variables: &[(&str, &str)]) -> Value {
    let database = Database::create().await;
    let folder = TempDir::new().unwrap();
    let variables = [&[database.variable(), ("BOOTSTRAP_API_KEY", KEY)], variables].concat();
    let mut service = Process::serve(folder.path(), free_port(), &variables);
    service.ready().await;
    let (client, url) = (client(), service.url.clone());
    let post = async |path: &str, body: Value| {
        let response = client.post(format!("{url}{path}")).bearer_auth(KEY).json(&body).send().await.unwrap();
        let status = response.status();
        let answer: Value = response.json().await.unwrap();
        assert!(status == StatusCode::OK || status == StatusCode::CREATED, "{answer}");
        answer
    };
    let text = "The chess club meets on Tuesday evening.";
    let note = json!({"user_id": USER, "context_type": "note", "content": {"text": text}});
    let id = post("/v1/contexts", note).await["id"].clone();
    eventually("an embedded note", Duration::from_secs(30), async || {
        let asked = client.get(format!("{url}/v1/contexts/{}", id.as_str().unwrap())).bearer_auth(KEY);
        let context: Value = asked.send().await.unwrap().json().await.unwrap();
        assert_ne!(context["embedding_status"], "failed", "{context}");
        (context["embedding_status"] == "ready").then_some(())
    })
    .await;
    let found = post("/v1/contexts/search", json!({"query": "board game", "mode": "semantic"})).await;
    assert_eq!(found["data"][0]["context"]["id"], id, "{found}");
    assert_eq!(found["degraded"], json!([]), "{found}");
    assert!(service.terminate().success());
    found
}

#[tokio::test]
async fn the_service_embeds_with_it_by_the_routes_of_text_embeddings_inference() {
    let server = Server::start(&[("API_KEY", "secret")]).await;
    let found = found_by_meaning(&[
        ("EMBEDDING_PROVIDER", "tei"),
        ("EMBEDDING_SERVICE_URL", &server.process.url),
        ("EMBEDDING_API_KEY", "secret"),
    ])
    .await;
    assert_eq!(found["space"]["provider"], "tei");
    assert_eq!(found["space"]["model"], embedder::MODEL_ID);
    assert_eq!(found["space"]["dims"], embedder::DIMENSIONS);
}

#[tokio::test]
async fn the_service_embeds_with_it_by_the_route_of_openai() {
    let server = Server::start(&[("API_KEY", "secret")]).await;
    let found = found_by_meaning(&[
        ("EMBEDDING_PROVIDER", "openai"),
        ("EMBEDDING_SERVICE_URL", &server.process.url),
        ("EMBEDDING_MODEL", "mini"),
        ("OPENAI_API_KEY", "secret"),
    ])
    .await;
    assert_eq!(found["space"]["provider"], "openai");
    assert_eq!(found["space"]["dims"], embedder::DIMENSIONS);
}

/// Two texts of some 400 tokens, of which the model reads 256 at once, that differ in their ends only.
#[tokio::test]
async fn whatever_the_way_to_the_model_no_text_is_cut_off() {
    let server = Server::start(&[("AUTO_TRUNCATE", "false")]).await;
    let url = server.process.url.clone();
    let model = embedder::MODEL_ID.to_owned();
    for provider in [
        Provider::Builtin { threads: NonZeroUsize::MIN },
        Provider::Tei { url: url.clone(), api_key: None },
        Provider::OpenAi(OpenAiOptions { url, model, ..OpenAiOptions::default() }),
    ] {
        let embedder = embedding::connect(&provider).unwrap();
        let text = |end: &str| "The heron stands in the river. ".repeat(40) + &end.repeat(20);
        let texts = vec![text("An otter comes by. "), "short".to_owned(), text("The castle is on fire. ")];
        let vectors = embedder.embed(Purpose::Document, texts).await.unwrap();
        let [otter, short, castle] = [0, 1, 2].map(|index| vectors[index].as_slice());
        let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!(cosine(otter, castle) < 0.99, "{provider:?}: the ends count: {}", cosine(otter, castle));
        assert!(cosine(otter, castle) > cosine(otter, short), "{provider:?}");
    }
}

#[tokio::test]
async fn openais_route_gives_the_same_vectors_and_shorter_ones() {
    let server = Server::start(&[]).await;
    let url = server.process.url.clone();
    let openai = |dimensions| {
        let (url, model) = (url.clone(), "mini".to_owned());
        Provider::OpenAi(OpenAiOptions { url, model, dimensions, ..OpenAiOptions::default() })
    };
    let embed = async |provider: Provider| {
        let embedder = embedding::connect(&provider).unwrap();
        let vectors = embedder.embed(Purpose::Document, vec!["a heron".to_owned()]).await.unwrap();
        (vectors[0].as_slice().to_vec(), embedder.model().await.unwrap().name)
    };
    let (tei, _) = embed(Provider::Tei { url: url.clone(), api_key: None }).await;
    let (whole, name) = embed(openai(None)).await;
    assert_eq!(name, "mini");
    assert!(tei.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-6));
    let (short, name) = embed(openai(Some(128))).await;
    assert_eq!((short.len(), name.as_str()), (128, "mini@128"));
    assert!(short[0] / whole[0] > 1.0, "scaled to the length one");
}

#[tokio::test]
async fn a_server_that_takes_few_texts_is_never_given_more() {
    let server = Server::start(&[("MAX_CLIENT_BATCH_SIZE", "3"), ("MAX_CONCURRENT_REQUESTS", "8")]).await;
    let app = App::start_with(Provider::Tei { url: server.process.url.clone(), api_key: None }).await;
    let note = |n| json!({"user_id": USER, "context_type": "note", "content": format!("note number {n}")});
    let operations: Vec<Value> = (0..40).map(|n| json!({"op": "create", "context": note(n)})).collect();
    app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    eventually("all of them", Duration::from_secs(20), async || {
        let embedding = app.get("/v1/usage").await.body["embedding"].clone();
        (embedding["pending"] == 0 && embedding["failed"] == 0).then_some(())
    })
    .await;
    let metrics = client().get(format!("{}/metrics", server.process.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    let embedded = metrics.lines().find_map(|line| line.strip_prefix("te_embed_success ")).unwrap();
    // And a text to learn the dimension, by each loop that came before there was a space.
    assert!((41..=42).contains(&embedded.parse::<u32>().unwrap()), "{metrics}");
    assert!(!metrics.contains("te_request_failure{"), "{metrics}");
}
