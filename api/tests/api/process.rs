//! The binary as users run it: first start, second start, SIGTERM, bad configuration, import.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Database, Engine, KEY, Process, USER, client, command, eventually, free_port};

async fn post(client: &Client, url: &str, key: &str, path: &str, body: Value) -> Value {
    let response = client.post(format!("{url}{path}")).bearer_auth(key).json(&body).send().await.unwrap();
    assert!(response.status().is_success(), "{:?}", response.text().await);
    response.json().await.unwrap()
}

#[tokio::test]
async fn the_first_start_prints_a_key_and_a_line_that_works_when_pasted() {
    let folder = TempDir::new().unwrap();
    let mut service = Process::serve(folder.path(), free_port(), &[]);
    service.ready().await;
    let (key, curl) = service.printed_welcome();
    let output = std::process::Command::new("sh").arg("-c").arg(&curl).output().unwrap();
    let answer: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{curl}: {output:?}"));
    assert_eq!(answer["version"], 1, "{answer}");
    assert!(folder.path().join("data").is_dir());
    assert!(service.terminate().success());

    let mut again = Process::serve(folder.path(), free_port(), &[]);
    let took = again.ready().await;
    assert!(took < Duration::from_secs(10), "the second start took {took:?}");
    let client = client();
    let found = eventually("the stored note, by meaning", Duration::from_secs(30), async || {
        let found = post(
            &client,
            &again.url,
            &key,
            "/v1/contexts/search",
            json!({"query": "board game", "mode": "semantic"}),
        )
        .await;
        found["data"].as_array().is_some_and(|hits| !hits.is_empty()).then_some(found)
    })
    .await;
    assert_eq!(found["data"][0]["context"]["id"], answer["id"]);
    let url = again.url.clone();
    assert!(again.terminate().success());
    assert!(client.get(url).send().await.is_err(), "it is gone");

    let made = command(folder.path(), &[])
        .args(["keys", "create", "--name", "reader", "--scope", "read"])
        .output()
        .unwrap();
    let made = String::from_utf8(made.stdout).unwrap();
    assert!(made.starts_with("ctx_") && made.trim().lines().count() == 1, "{made}");
    let listed = command(folder.path(), &[]).args(["keys", "list"]).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("reader") && listed.contains(&made[..12]) && !listed.contains(made.trim()),
        "{listed}"
    );
}

#[tokio::test]
async fn two_services_do_not_share_one_folder() {
    let folder = TempDir::new().unwrap();
    let mut first = Process::serve(folder.path(), free_port(), &[]);
    first.ready().await;
    let other_log = TempDir::new().unwrap();
    let data = folder.path().join("data").display().to_string();
    let (status, said) = Process::serve(other_log.path(), free_port(), &[("DATA_DIR", &data)]).exit();
    assert!(!status.success() && said.contains("DATA_DIR"), "{said}");
}

#[tokio::test]
async fn a_bad_configuration_is_one_sentence_that_names_the_variable() {
    let folder = TempDir::new().unwrap();
    for (name, value) in [
        ("BIND_ADDR", "nowhere"),
        ("DATABASE_URL", "mysql://u:hunter2@h/d"),
        ("LOG_LEVEL", "a=b=c"),
        ("BOOTSTRAP_API_KEY", "hunter2"),
    ] {
        let output = command(folder.path(), &[(name, value)]).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && said.contains(name) && !said.contains("hunter2"), "{said}");
        assert_eq!(said.trim().lines().count(), 1, "{said}");
    }
    let occupied = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (status, said) = Process::serve(folder.path(), occupied.local_addr().unwrap().port(), &[]).exit();
    assert!(!status.success() && said.contains("BIND_ADDR"), "{said}");
}

#[tokio::test]
async fn an_import_tells_which_lines_were_refused_and_stores_the_rest() {
    let database = Database::create().await;
    let folder = TempDir::new().unwrap();
    let mut service = Process::serve_on(folder.path(), free_port(), database.variable());
    service.ready().await;
    let good = json!({"user_id": USER, "context_type": "note", "key": "good", "content": 1});
    let file = folder.path().join("mixed.ndjson");
    std::fs::write(&file, format!("{good}\n\n{{\"user_id\":1}}\nnot json\n")).unwrap();
    let import = || {
        let output = command(folder.path(), &[("CONTEXT_API_KEY", KEY)])
            .args(["import", file.to_str().unwrap(), "--url", &service.url])
            .output()
            .unwrap();
        (output.status, String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, said, complained) = import();
    assert!(
        !status.success() && said.contains("1 created, 0 updated, 0 there already, 2 failed"),
        "{said} {complained}"
    );
    assert!(
        complained.contains("line 3 was refused") && complained.contains("line 4 was refused"),
        "{complained}"
    );
    assert!(import().1.contains("0 created, 0 updated, 1 there already, 2 failed"));
}

#[tokio::test]
async fn the_health_check_command_agrees_with_the_service() {
    let database = Database::create().await;
    let folder = TempDir::new().unwrap();
    let port = free_port();
    let bind = format!("0.0.0.0:{port}");
    let check = || {
        command(folder.path(), &[("BIND_ADDR", &bind)]).arg("healthcheck").output().unwrap().status.success()
    };
    assert!(!check(), "nobody is there");
    let mut service = Process::serve_on(folder.path(), port, database.variable());
    service.ready().await;
    assert!(check());
}

/// Whoever has a handle left: a thread that ends late must not keep the next one from starting.
#[tokio::test]
async fn a_store_that_is_closed_frees_its_folder() {
    let database = Database::create_on(Engine::Embedded).await;
    let store = database.open().await;
    let left_behind = store.clone();
    store.close().await;
    database.open().await.close().await;
    drop(left_behind);
}

/// A pipe holds 64 KiB; whoever writes more waits until somebody reads.
#[tokio::test]
async fn a_log_that_nobody_reads_holds_up_no_request() {
    const REQUESTS: usize = 1_000;
    let folder = TempDir::new().unwrap();
    let variables = [("BOOTSTRAP_API_KEY", KEY), ("LOG_FORMAT", "json")];
    let mut service = Process::serve_unread(folder.path(), free_port(), &variables);
    service.ready().await;
    let (client, url) = (client(), format!("{}/v1/usage", service.url));
    for number in 0..REQUESTS {
        let answer = client.get(&url).bearer_auth(KEY).timeout(Duration::from_secs(10)).send().await;
        assert!(answer.is_ok_and(|answer| answer.status().is_success()), "request {number}");
    }
    assert!(service.terminate().success());
}
