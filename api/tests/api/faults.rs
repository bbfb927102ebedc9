//! What happens when something that the service depends on is away, slow or wrong.

use std::time::{Duration, Instant};

use context_api::{
    cache::RedisOptions,
    domain::Vector,
    embedding::{self, EmbedError, OpenAiOptions, Provider, Purpose},
};
use futures_util::{StreamExt, stream};
use serde_json::json;

use crate::support::{App, Behaviour, Database, OwnTime, StubProvider, USER, eventually, give_up_after};

/// Writes so many notes in one batch.
async fn notes(app: &App, count: u64, text: impl Fn(u64) -> String) -> serde_json::Value {
    let note = |number| {
        let context = json!({"user_id": USER, "context_type": "note", "content": text(number)});
        json!({"op": "create", "context": context})
    };
    let operations: Vec<_> = (0..count).map(note).collect();
    app.post("/v1/contexts/batch", json!({"operations": operations})).await.body
}

/// How many contexts have this `embedding_status`.
async fn count(app: &App, status: &str) -> u64 {
    let filter = json!({"filter": {"embedding_status": status}});
    app.post("/v1/contexts/count", filter).await.body["count"].as_u64().unwrap()
}

async fn degraded_by(app: &App) -> serde_json::Value {
    app.search(json!({"query": "otter"})).await.body["degraded"].clone()
}

#[tokio::test]
async fn while_the_provider_is_away_writes_wait_and_searches_say_so_and_it_mends_itself() {
    let stub =
        StubProvider::start(Behaviour::Answer(503, r#"{"error":"starting","error_type":"Unhealthy"}"#));
    let app = App::start_with(stub.provider()).await;
    let id = app.note("an otter in the river").await.id();
    let found = app.search(json!({"query": "otter"})).await;
    assert_eq!(found.body["data"][0]["context"]["id"], json!(id), "found by its words at once");
    assert_eq!(found.body["degraded"], json!(["no_embedding_space"]));
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.body["embedding_status"], "pending");
    stub.behave(Behaviour::Work);
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready");
    eventually("a whole answer", Duration::from_secs(5), async || {
        (degraded_by(&app).await == json!([])).then_some(())
    })
    .await;
}

/// More notes than all loops of a worker take at once are written while the provider does this. They wait, it is not asked too
/// often, and they are embedded as soon as it works again.
async fn assert_loses_no_write(fault: Behaviour) {
    const NOTES: u64 = 150;
    const OUTAGE: Duration = Duration::from_secs(4);
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("the first one makes the space").await.id()).await;
    stub.behave(fault.clone());
    let (calls, began) = (stub.calls(), Instant::now());
    notes(&app, NOTES, |number| format!("otter {number}")).await;
    eventually("failed attempts", Duration::from_secs(20), async || {
        (stub.calls() >= calls + 4 && began.elapsed() >= OUTAGE).then_some(())
    })
    .await;
    let (calls, seconds) = (stub.calls() - calls, began.elapsed().as_secs() as usize);
    assert_eq!(count(&app, "pending").await, NOTES, "{fault:?}");
    let during = app.get("/v1/contexts?limit=200").await.body;
    assert!(!during.to_string().contains("secret"), "{during}");
    // An answer that may be about a text is tried with fewer of them, and with a harmless one.
    let calls_a_second = match fault {
        Behaviour::Answer(401 | 429 | 502, _) | Behaviour::BreakOff => 2,
        _ => 6,
    };
    assert!(calls <= 8 + calls_a_second * seconds, "{fault:?}: {calls} calls in {seconds} s");
    stub.behave(Behaviour::Work);
    let recovered = OwnTime::start();
    eventually("all of them", Duration::from_secs(30), async || {
        (count(&app, "ready").await == NOTES + 1).then_some(())
    })
    .await;
    println!("{fault:?}: {calls} calls in {seconds} s, ready after {:?}", recovered.elapsed());
    assert!(recovered.elapsed() < Duration::from_secs(5), "{fault:?}: {:?}", recovered.elapsed());
    app.stop().await.remove().await;
}

#[tokio::test]
async fn nothing_that_a_provider_does_loses_a_write() {
    let faults = [
        Behaviour::Answer(429, r#"{"error":"Model is overloaded","error_type":"Overloaded"}"#),
        Behaviour::Answer(424, r#"{"error":"Backend error","error_type":"Backend"}"#),
        Behaviour::Answer(500, "<html>oops</html>"),
        Behaviour::Answer(502, "<html>Bad Gateway</html>"),
        Behaviour::Answer(401, ""),
        // A wrong configuration: no text is to blame that every text is refused.
        Behaviour::Answer(400, r#"{"error":"unknown parameter at host secret"}"#),
        Behaviour::Answer(200, "<html>Welcome to this network</html>"),
        Behaviour::Answer(200, "[[0.1, 0.2"),
        Behaviour::BreakOff,
        Behaviour::Answer(200, r#"{"not": "vectors"}"#),
        Behaviour::TooFew,
        Behaviour::WrongDimension,
        Behaviour::NotFinite,
        // No JSON, but what some servers send.
        Behaviour::Answer(200, "[[NaN, 0.1], [0.2, NaN]]"),
    ];
    // They wait most of the time.
    stream::iter(faults).for_each_concurrent(4, assert_loses_no_write).await;
}

/// A thousand notes in one batch, the one in the middle with `text`; answers its id.
async fn thousand_notes(app: &App, text: &str) -> String {
    let note = |number| if number == 517 { text.to_owned() } else { format!("harmless {number}") };
    let written = notes(app, 1_000, note).await;
    written["results"][517]["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn one_poisoned_text_of_a_thousand_fails_alone_with_its_reason() {
    let stub = StubProvider::start(Behaviour::Poison("venom"));
    let app = App::start_with(stub.provider()).await;
    let bad = thousand_notes(&app, "this one is venom").await;
    eventually("all the others", Duration::from_secs(20), async || {
        (count(&app, "ready").await == 999).then_some(())
    })
    .await;
    let failed = app.embedded(&bad).await;
    assert_eq!(failed["embedding_status"], "failed");
    assert!(failed["embedding_error"].as_str().unwrap().contains("poisoned"), "{failed}");
    let found = app.search(json!({"query": "venom"})).await.body;
    assert_eq!(found["data"][0]["context"]["id"], json!(bad), "found by words");
    // Thirty-two batches, some of them begun by two loops, and a dozen halves.
    assert!(stub.calls() < 100, "{} calls", stub.calls());
}

#[tokio::test]
async fn one_text_that_spoils_every_answer_does_not_hold_up_its_neighbours() {
    let stub = StubProvider::start(Behaviour::Spoil("rotten"));
    let app = App::start_with(stub.provider()).await;
    let bad = thousand_notes(&app, "this one is rotten").await;
    let began = Instant::now();
    eventually("all the others", Duration::from_secs(20), async || {
        (count(&app, "ready").await == 999).then_some(())
    })
    .await;
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let waiting = app.get(&format!("/v1/contexts/{bad}")).await.body;
    assert_eq!(waiting["embedding_status"], "pending", "the provider may yet be mended");
    assert_eq!(waiting["embedding_error"], "the embedding provider gave no usable answer");
    stub.behave(Behaviour::Work);
    assert_eq!(app.embedded(&bad).await["embedding_status"], "ready");
    assert!(stub.calls() < 120, "{} calls", stub.calls());
}

#[tokio::test]
async fn a_text_that_spoils_every_answer_is_given_up_at_last() {
    let stub = StubProvider::start(Behaviour::Spoil("rotten"));
    let app = App::start_with(stub.provider()).await;
    let bad = app.note("this one is rotten").await.id();
    let given_up = eventually("a failure", Duration::from_secs(50), async || {
        let context = app.get(&format!("/v1/contexts/{bad}")).await.body;
        (context["embedding_status"] == "failed").then_some(context)
    })
    .await;
    assert_eq!(given_up["embedding_error"], "the embedding provider gave no usable answer");
    assert!(stub.calls() < 40, "{} calls", stub.calls());
}

#[tokio::test]
async fn a_provider_that_hangs_costs_a_search_its_deadline_once_and_then_nothing() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    stub.behave(Behaviour::Hang(Duration::from_secs(60)));
    let started = Instant::now();
    let found = app.search(json!({"query": "otter alone"})).await;
    assert_eq!(found.body["degraded"], json!(["embedder_unavailable"]));
    assert_eq!(found.body["data"].as_array().unwrap().len(), 1);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    for number in 0..5 {
        let started = Instant::now();
        let found = app.search(json!({"query": format!("otter again {number}")})).await;
        assert_eq!(found.body["degraded"], json!(["embedder_unavailable"]));
        assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    }
    stub.behave(Behaviour::Work);
    eventually("the provider to be trusted again", Duration::from_secs(15), async || {
        (degraded_by(&app).await == json!([])).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_long_query_that_is_late_costs_no_other_one_its_embedding() {
    let stub = StubProvider::start_reading(Behaviour::Work, Some(128));
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    stub.hold("endless");
    let late = app.search(json!({"query": "endless ".repeat(300)})).await;
    assert_eq!(late.body["degraded"], json!(["embedder_unavailable"]));
    assert_eq!(degraded_by(&app).await, json!([]));
}

#[tokio::test]
async fn another_model_never_mixes_with_the_space_that_is_there() {
    let first = StubProvider::start(Behaviour::Work);
    let app = App::start_with(first.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let database = app.stop().await;
    let second = StubProvider::start(Behaviour::Work);
    let app = App::start_on(database, second.provider()).await;
    let id = app.note("a second otter").await.id();
    eventually("the mismatch", Duration::from_secs(5), async || {
        (degraded_by(&app).await == json!(["embedding_model_mismatch"])).then_some(())
    })
    .await;
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.body["embedding_status"], "pending");
    assert_eq!(second.texts(), 0);
    let database = app.stop().await;
    let app = App::start_on(database, first.provider()).await;
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready", "back with its model, the work goes on");
}

/// The server comes back under its old address with another model of the same dimension, while a text is with it, and before
/// anybody has looked.
#[tokio::test]
async fn what_another_model_answers_under_the_same_address_is_thrown_away() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let first = app.note("an otter").await.id();
    app.embedded(&first).await;
    stub.hold("heron");
    let calls = stub.calls();
    let id = app.note("a heron").await.id();
    eventually("the call", Duration::from_secs(10), async || (stub.calls() > calls).then_some(())).await;
    stub.serve_model(1);
    let query = json!({"query": "an otter", "mode": "semantic"});
    let found = app.search(query.clone()).await.body;
    assert_ne!(found["degraded"], json!([]), "{found}");
    stub.release();
    eventually("the mismatch", Duration::from_secs(10), async || {
        (degraded_by(&app).await == json!(["embedding_model_mismatch"])).then_some(())
    })
    .await;
    assert_eq!(app.get(&format!("/v1/contexts/{id}")).await.body["embedding_status"], "pending");
    stub.serve_model(0);
    assert_eq!(app.embedded(&id).await["embedding_status"], "ready", "by its own model");
    let nearest = async |body| {
        let found = app.search(body).await.body;
        let score = found["data"][0]["score"].as_f64().unwrap();
        (found["degraded"] == json!([])).then(|| (found["data"][0]["context"]["id"].clone(), score))
    };
    let vector = StubProvider::vector_of("a heron");
    let (hit, score) = nearest(json!({"vector": vector.as_slice(), "mode": "semantic"})).await.unwrap();
    assert!(hit == json!(id) && score > 0.999, "the text has its own model's vector: {hit} {score}");
    let by_meaning = async || nearest(query.clone()).await;
    let (hit, score) = eventually("an answer by meaning", Duration::from_secs(15), by_meaning).await;
    assert!(hit == json!(first) && score > 0.999, "nothing else was kept for the query: {hit} {score}");
}

#[tokio::test]
async fn a_query_that_is_refused_stands_in_no_other_ones_way() {
    let stub = StubProvider::start(Behaviour::Poison("venom"));
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let refused = app.search(json!({"query": "venom"})).await;
    assert_eq!(refused.body["degraded"], json!(["embedder_unavailable"]));
    let calls = stub.calls();
    assert_eq!(degraded_by(&app).await, json!([]));
    assert_eq!(stub.calls(), calls + 1, "the provider was asked");
}

#[tokio::test]
async fn without_redis_everything_still_works() {
    let dead = RedisOptions::new("redis://127.0.0.1:1/0");
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_full(Database::create().await, [stub.provider()], Some(dead)).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let health = crate::support::answer(app.request(reqwest::Method::GET, "/health")).await;
    assert_eq!((health.status.as_u16(), &health.body["status"]), (200, &json!("degraded")));
    assert_eq!(health.body["checks"]["cache"]["status"], "degraded");
    let started = Instant::now();
    for number in 0..20 {
        let found = app.search(json!({"query": format!("otter {number}"), "user_id": USER})).await;
        assert_eq!(found.body["degraded"], json!([]));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a dead Redis must not cost each request: {:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_repeated_query_is_embedded_once() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    app.embedded(&app.note("an otter").await.id()).await;
    let calls = stub.calls();
    let searches = (0..10).map(|_| app.search(json!({"query": "the very same", "mode": "semantic"})));
    stream::iter(searches).buffer_unordered(10).collect::<Vec<_>>().await;
    assert_eq!(stub.calls() - calls, 1);
}

#[tokio::test]
async fn a_server_with_openais_route_embeds_each_text_as_its_own() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.openai_provider()).await;
    let ids = [app.note("an otter").await.id(), app.note("zzz").await.id(), app.note("Quarterly").await.id()];
    for id in &ids {
        assert_eq!(app.embedded(id).await["embedding_status"], "ready");
    }
    let found = app.search(json!({"query": "zzz", "mode": "semantic", "limit": 1})).await;
    assert_eq!(found.body["data"][0]["context"]["id"], json!(ids[1]), "vectors went to their own texts");
    assert_eq!(found.body["space"]["provider"], "openai");
}

#[tokio::test]
async fn vectors_come_as_base64_or_as_numbers_from_whoever_knows_only_those() {
    let stub = StubProvider::start(Behaviour::Work);
    let (organization, project) = (Some("org-1".to_owned()), Some("proj-2".to_owned()));
    let account = [organization.clone(), project.clone()];
    let options = OpenAiOptions { organization, project, ..stub.openai_options() };
    let texts = vec!["an otter".to_owned(), "zzz".to_owned()];
    let mut seen: Vec<Vec<Vector>> = Vec::new();
    for (behaviour, calls) in
        [(Behaviour::Work, 1), (Behaviour::IgnoreBase64, 1), (Behaviour::RefuseBase64, 2)]
    {
        stub.behave(behaviour.clone());
        let embedder = embedding::connect(&Provider::OpenAi(options.clone())).unwrap();
        let before = stub.calls();
        seen.push(embedder.embed(Purpose::Document, texts.clone()).await.unwrap());
        assert_eq!(stub.calls() - before, calls, "{behaviour:?}");
        let before = stub.calls();
        seen.push(embedder.embed(Purpose::Document, texts.clone()).await.unwrap());
        assert_eq!(stub.calls() - before, 1, "{behaviour:?}: what it knows is kept in mind");
    }
    assert!(seen.iter().flatten().zip(seen[0].iter().cycle()).all(|(a, b)| a.as_slice() == b.as_slice()));
    assert_eq!(stub.account(), account);
    // A refusal of the text is none of base64.
    stub.behave(Behaviour::Poison("otter"));
    let embedder = embedding::connect(&Provider::OpenAi(options)).unwrap();
    let before = stub.calls();
    let refused = embedder.embed(Purpose::Document, texts).await;
    assert!(matches!(refused, Err(EmbedError::Permanent { .. })), "{refused:?}");
    assert_eq!(stub.calls() - before, 2);
}

#[tokio::test]
async fn vectors_of_another_length_are_not_taken_for_those_that_were_asked_for() {
    let stub = StubProvider::start(Behaviour::Work);
    let options = OpenAiOptions { dimensions: Some(4), ..stub.openai_options() };
    let embedder = embedding::connect(&Provider::OpenAi(options)).unwrap();
    let embed = || embedder.embed(Purpose::Document, vec!["an otter".to_owned()]);
    assert_eq!(embed().await.unwrap()[0].dimensions(), 4);
    stub.behave(Behaviour::WrongDimension);
    let refused = embed().await;
    assert!(matches!(refused, Err(EmbedError::Unusable { .. })), "{refused:?}");
}

#[tokio::test]
async fn a_connection_that_nobody_waited_for_is_in_nobodys_way() {
    let database = Database::create().await;
    let store = database.open().await;
    let mut given_up = 0;
    for polls in 1..40 {
        given_up += usize::from(give_up_after(polls, Box::pin(store.ping())).await.is_none());
    }
    assert!(given_up > 0);
    store.ping().await.unwrap();
}
