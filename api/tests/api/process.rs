//! The binary as users run it: first start, second start, kill −9, SIGTERM, bad configuration, import.

use std::{collections::HashSet, path::Path, time::Duration};

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Database, Engine, Process, USER, client, command, eventually, free_port};

fn variables(database: &Database) -> Vec<(&'static str, String)> {
    match database.engine {
        Engine::Native => vec![("DATABASE_URL", database.url.clone()), ("BOOTSTRAP_API_KEY", KEY.to_owned())],
        Engine::Embedded => {
            vec![("DATA_DIR", database.folder().display().to_string()), ("BOOTSTRAP_API_KEY", KEY.to_owned())]
        }
    }
}

const KEY: &str = "ctx_bootstrap_key_of_the_tests_0123456789";

fn serve(folder: &Path, port: u16, variables: &[(&'static str, String)]) -> Process {
    let variables: Vec<(&str, &str)> =
        variables.iter().map(|(name, value)| (*name, value.as_str())).collect();
    Process::serve(folder, port, &variables)
}

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

/// `count` lines, each with a key.
/// Each second line has a key, each tenth a text to embed.
fn write_lines(path: &Path, count: usize) {
    let lines: Vec<String> = (0..count)
        .map(|n| {
            let key = (n % 2 == 0).then(|| format!("key-{n}"));
            let text = if n % 10 == 0 { format!("document number {n}") } else { String::new() };
            let body = json!({"user_id": USER, "context_type": "note", "key": key, "content": {"n": n}, "text": text});
            body.to_string()
        })
        .collect();
    std::fs::write(path, lines.join("\n")).unwrap();
}

async fn all_contexts(client: &Client, url: &str) -> Vec<Value> {
    let mut contexts = Vec::new();
    let mut cursor = String::new();
    loop {
        let page: Value = client
            .get(format!("{url}/v1/contexts?limit=200{cursor}"))
            .bearer_auth(KEY)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        contexts.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return contexts,
        }
    }
}

#[tokio::test]
async fn killed_in_the_middle_of_an_import_nothing_acknowledged_is_lost_or_doubled() {
    const LINES: usize = 6_000;
    let database = Database::create().await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("lines.ndjson");
    write_lines(&file, LINES);
    let (port, variables) = (free_port(), variables(&database));
    let client = client();
    let mut service = serve(folder.path(), port, &variables);
    service.ready().await;
    let url = service.url.clone();
    let complaints = folder.path().join("import.log");
    let mut import = command(folder.path(), &[("CONTEXT_API_KEY", KEY)])
        .args(["import", file.to_str().unwrap(), "--url", &url])
        .stdout(std::process::Stdio::null())
        .stderr(std::fs::File::create(&complaints).unwrap())
        .spawn()
        .unwrap();
    for round in 1..=3 {
        eventually("the import to get on", Duration::from_secs(60), async || {
            let counted = post(&client, &url, KEY, "/v1/contexts/count", json!({})).await;
            (counted["count"].as_u64().unwrap() as usize >= round * LINES / 5).then_some(())
        })
        .await;
        let before: HashSet<String> =
            all_contexts(&client, &url).await.iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect();
        service.kill();
        service = serve(folder.path(), port, &variables);
        service.ready().await;
        let after: HashSet<String> =
            all_contexts(&client, &url).await.iter().map(|c| c["id"].as_str().unwrap().to_owned()).collect();
        assert!(
            before.is_subset(&after),
            "{} of {} were lost",
            before.difference(&after).count(),
            before.len()
        );
    }
    // The importer rode over all of it: it sends the file again until all of it is acknowledged.
    let status = tokio::task::spawn_blocking(move || import.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{}", std::fs::read_to_string(&complaints).unwrap());
    let contexts = eventually("every embedding", Duration::from_secs(90), async || {
        let contexts = all_contexts(&client, &url).await;
        contexts.iter().all(|c| c["embedding_status"] == "ready").then_some(contexts)
    })
    .await;
    let numbers: HashSet<u64> = contexts.iter().map(|c| c["content"]["n"].as_u64().unwrap()).collect();
    assert_eq!((contexts.len(), numbers.len()), (LINES, LINES));
    assert!(contexts.iter().all(|c| c["version"] == 1), "no line was written twice");
    let found = post(
        &client,
        &url,
        KEY,
        "/v1/contexts/search",
        json!({"query": "document", "mode": "semantic", "limit": 1}),
    )
    .await;
    assert_eq!(found["candidates"], json!(LINES / 10), "each text is embedded exactly once");
}

#[tokio::test]
async fn an_import_tells_which_lines_were_refused_and_stores_the_rest() {
    let database = Database::create().await;
    let folder = TempDir::new().unwrap();
    let mut service = serve(folder.path(), free_port(), &variables(&database));
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
    let mut service = serve(folder.path(), port, &variables(&database));
    service.ready().await;
    assert!(check());
}
