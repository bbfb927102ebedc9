//! What a table cannot say: the vectors themselves, and many requests at once.

use std::time::Duration;

use embedder::{Embedder, Options};
use futures_util::{StreamExt, stream};
use reqwest::StatusCode;
use serde_json::{Value, json};

use super::Server;
use crate::support::{command, eventually};

async fn vectors(server: &Server, body: Value) -> Vec<Vec<f32>> {
    let response = server.embed(&body).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    response.json().await.unwrap()
}

#[tokio::test]
async fn vectors_are_those_of_the_model_in_process() {
    let server = Server::start(&[]).await;
    let embedder = Embedder::new(Options::default()).unwrap();
    for text in ["hello world", "What is Deep Learning?", "Ça coûte 5 €", &"word ".repeat(400)] {
        let expected = embedder.embed_blocking(&[text]).unwrap();
        assert_eq!(vectors(&server, json!({"inputs": text})).await, expected, "{text}");
        assert_eq!(vectors(&server, json!({"inputs": [text]})).await, expected, "{text}");
    }
    let (music, money) = ("violin ".repeat(254), "refund ".repeat(254));
    let both = format!("{music}{money}");
    let left = vectors(&server, json!({"inputs": both, "truncation_direction": "left"})).await;
    let right = vectors(&server, json!({"inputs": both})).await;
    assert_eq!(left, embedder.embed_blocking(&[money]).unwrap());
    assert_eq!(right, embedder.embed_blocking(&[music]).unwrap());

    // Cut first, then of length one: another direction would be wrong, too.
    let whole = &embedder.embed_blocking(&["hello world"]).unwrap()[0];
    let cut = &vectors(&server, json!({"inputs": "hello world", "dimensions": 128})).await[0];
    let norm = whole[..128].iter().map(|value| value * value).sum::<f32>().sqrt();
    assert!(cut.iter().zip(whole).all(|(cut, whole)| (cut * norm - whole).abs() < 1e-6));
}

#[tokio::test]
async fn a_busy_model_refuses_what_is_too_much_and_recovers_when_its_client_goes() {
    let variables = [("MAX_CONCURRENT_REQUESTS", "128"), ("MAX_CLIENT_BATCH_SIZE", "128")];
    let server = Server::start(&variables).await;
    let running = server.occupy(127).await;
    let refused = server.embed(&json!({"inputs": ["a", "b"]})).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(!running.is_finished(), "the model was not busy");
    running.abort();
    eventually("room again", Duration::from_secs(10), async || {
        let response = server.embed(&json!({"inputs": ["a", "b"]})).send().await.unwrap();
        (response.status() == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(server.process.metric("te_request_failure{err=\"dropped\"}").await, Some(1.0));
    assert_eq!(server.process.metric("te_queue_size").await, Some(0.0));
}

#[tokio::test]
async fn neither_health_nor_a_question_waits_for_a_long_list() {
    let variables = [("MAX_CLIENT_BATCH_SIZE", "128")];
    let server = Server::start(&variables).await;
    let running = server.occupy(128).await;
    let health = (0..50).map(|_| server.client.get(server.url("/health")).send());
    let answers: Vec<_> = stream::iter(health).buffer_unordered(50).collect().await;
    assert_eq!(answers.len(), 50);
    assert!(answers.into_iter().all(|answer| answer.unwrap().status() == StatusCode::OK));
    assert!(!running.is_finished(), "health was asked of a busy server");
    vectors(&server, json!({"inputs": "a question"})).await;
    assert!(!running.is_finished(), "the question waited for the list");
    // Nor do a few that say so: queries of a service that sends those of one moment together.
    let urgent = server.embed(&json!({"inputs": ["a question", "another"]})).header("priority", "u=1");
    assert_eq!(urgent.send().await.unwrap().status(), StatusCode::OK);
    assert!(!running.is_finished(), "urgent ones waited for the list");
    // Nor does what tokenizes: that goes on beside the model.
    vectors(&server, json!({"inputs": "a question", "truncate": false})).await;
    assert!(!running.is_finished(), "counting tokens waited for the list");
    running.abort();
}

#[tokio::test]
async fn a_body_that_does_not_say_its_length_is_limited_all_the_same() {
    let server = Server::start(&[("PAYLOAD_LIMIT", "1000")]).await;
    let send = async |spaces: usize| {
        let pieces = [b"{\"inputs\":\"a\"}".to_vec(), vec![b' '; spaces]];
        let body = reqwest::Body::wrap_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)));
        let request = server.client.post(server.url("/embed")).header("content-type", "application/json");
        request.body(body).send().await.unwrap().status()
    };
    assert_eq!(send(1000 - 14).await, StatusCode::OK);
    assert_eq!(send(1000 - 13).await, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_health_check_of_the_command_line_asks_it() {
    let server = Server::start(&[("API_KEY", "secret")]).await;
    let folder = tempfile::TempDir::new().unwrap();
    let check = |address: &str| {
        let mut command = command(folder.path(), &[("BIND_ADDR", address)]);
        command.args(["healthcheck", "--embedder"]).output().unwrap().status.success()
    };
    assert!(check(server.process.url.trim_start_matches("http://")));
    assert!(!check("127.0.0.1:1"));
}
