//! Start and stop: what a bad configuration says, and what becomes of requests under way.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use reqwest::StatusCode;
use tempfile::TempDir;
use tokio::time::Instant;

use super::Server;
use crate::support::{Process, command, eventually};

#[tokio::test]
async fn a_stop_closes_the_port_and_lets_a_running_list_finish() {
    let server = Server::start(&[]).await;
    let running = server.occupy(32).await;
    server.process.signal("TERM");
    let address = server.process.url.trim_start_matches("http://").to_owned();
    eventually("a closed port", Duration::from_secs(5), async || TcpStream::connect(&address).err()).await;
    assert!(!running.is_finished(), "the list was done before the port was closed");
    let response = running.await.unwrap().unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.json::<Vec<Vec<f32>>>().await.unwrap().len(), 32);
    let (status, log) = server.process.exit();
    assert!(status.success() && log.contains("stopped"), "{log}");
}

#[tokio::test]
async fn a_client_in_the_middle_of_its_request_holds_a_stop_up_no_longer_than_its_grace() {
    let server = Server::start(&[("SHUTDOWN_GRACE_SECONDS", "1")]).await;
    let address = server.process.url.trim_start_matches("http://").to_owned();
    let mut slow = TcpStream::connect(&address).unwrap();
    // A body that never ends. The interim answer tells that it is being waited for.
    slow.write_all(
        b"POST /embed HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 99\r\nexpect: 100-continue\r\n\r\n",
    )
    .unwrap();
    let mut interim = [0; 12];
    slow.read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    slow.write_all(b"{\"inputs\":").unwrap();
    let begin = Instant::now();
    server.process.signal("INT");
    let (status, log) = server.process.exit();
    assert!(status.success(), "{log}");
    let took = begin.elapsed();
    assert!(took >= Duration::from_millis(900) && took < Duration::from_secs(6), "{took:?}");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_a_stop_up() {
    let server = Server::start(&[]).await;
    // The client keeps its connection.
    assert!(server.client.get(server.url("/health")).send().await.unwrap().status().is_success());
    let begin = Instant::now();
    server.process.signal("TERM");
    assert!(server.process.exit().0.success());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_bad_configuration_is_one_sentence_that_names_the_variable() {
    let folder = TempDir::new().unwrap();
    for (name, value, words) in [
        ("API_KEY", "", "API_KEY is empty; leave it out, or give it a value."),
        ("API_KEY", "hunter2 ", "API_KEY must not begin or end with a space"),
        ("MAX_CLIENT_BATCH_SIZE", "0", "MAX_CLIENT_BATCH_SIZE must be a whole number from 1 to"),
        ("AUTO_TRUNCATE", "1", "AUTO_TRUNCATE must be `true` or `false`."),
        ("PAYLOAD_LIMIT", "2MB", "PAYLOAD_LIMIT must be a whole number"),
        ("BIND_ADDR", "nowhere", "BIND_ADDR must be an address and a port, such as 127.0.0.1:3000."),
    ] {
        let output = command(folder.path(), &[(name, value)]).arg("embedder").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(words) && !said.contains("hunter2"), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = occupied.local_addr().unwrap().port();
    let (status, said) = Process::embedder(folder.path(), port, &[]).exit();
    assert!(!status.success() && said.contains("BIND_ADDR"), "{said}");
}

#[tokio::test]
async fn neither_key_nor_text_is_in_the_log() {
    let server = Server::start(&[("API_KEY", "hunter2"), ("LOG_LEVEL", "trace")]).await;
    let body = serde_json::json!({"inputs": "correct horse battery staple"});
    let response = server.embed(&body).bearer_auth("hunter2").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    server.process.signal("TERM");
    let (_, log) = server.process.exit();
    assert!(log.contains("/embed") && !log.contains("hunter2") && !log.contains("battery"), "{log}");
}
