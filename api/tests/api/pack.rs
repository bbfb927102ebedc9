//! `/v1/contexts/pack`. How pieces are chosen and written is tested with a thousand random packs beside the code; here it is
//! that they come from a search, and that requests and answers are as documented.

use std::fmt::Write as _;

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

/// A search by words finds at once what was stored.
fn body(query: &str, max_tokens: usize, more: &Value) -> Value {
    let mut body = json!({"query": query, "mode": "keyword", "budget": {"max_tokens": max_tokens}});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn pack(app: &App, body: Value) -> Answer {
    let answer = app.post("/v1/contexts/pack", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer
}

fn text(answer: &Answer) -> &str {
    answer.body["text"].as_str().unwrap()
}

fn count(list: &Value) -> usize {
    list.as_array().unwrap().len()
}

#[tokio::test]
async fn what_was_found_is_one_text_with_citations() {
    let app = App::start().await;
    let note = json!({"key": "heron-1", "text": "The heron stands in the river & waits."});
    let id = app.created(note).await.replace("/v1/contexts/", "");
    app.note("An otter swims in the lake").await;
    for (format, expected) in [
        ("markdown", "### [1] note: heron-1\n```\nThe heron stands in the river & waits.\n```\n"),
        (
            "xml",
            "<contexts>\n<context number=\"1\" type=\"note\" key=\"heron-1\">\nThe heron stands in the river &amp; waits.\n</context>\n</contexts>",
        ),
        (
            "json",
            "[{\"number\":1,\"context_type\":\"note\",\"key\":\"heron-1\",\"text\":\"The heron stands in the river & waits.\"}\n]",
        ),
    ] {
        let answer = pack(&app, body("heron", 100, &json!({"format": format}))).await;
        assert_eq!(text(&answer), expected);
        let official = tiktoken_rs::o200k_base().unwrap().encode_ordinary(expected).len();
        assert_eq!(answer.body["tokens"], official);
        let citation = &answer.body["citations"][0];
        assert_eq!((&citation["number"], &citation["context_id"]), (&json!(1), &json!(id)));
        for (field, value) in [
            ("key", json!("heron-1")),
            ("context_type", json!("note")),
            ("version", json!(1)),
            ("chunk_no", json!(0)),
            ("is_whole", json!(true)),
            ("truncated", json!(false)),
        ] {
            assert_eq!(citation[field], value, "{field}");
        }
        assert!(citation["score"].as_f64().unwrap() > 0.0);
        let at = |end: &str| citation["range"][end].as_u64().unwrap() as usize;
        assert!(expected[at("start")..at("end")].starts_with("The heron stands"));
        assert_eq!((&answer.body["dropped"], &answer.body["degraded"]), (&json!([]), &json!([])));
        assert_eq!((&answer.body["complete"], &answer.body["plan"]), (&json!(true), &Value::Null));
    }
    let nothing = pack(&app, body("penguin", 100, &json!({}))).await;
    assert_eq!((text(&nothing), &nothing.body["tokens"]), ("", &json!(0)));
    let no_room = pack(&app, body("heron", 1, &json!({}))).await;
    assert_eq!((text(&no_room), &no_room.body["dropped"][0]["reason"]), ("", &json!("budget")));
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_place() {
    let app = App::start().await;
    for (body, code, pointer) in [
        (json!({"query": "x"}), "invalid_request", ""),
        (json!({"budget": {"max_tokens": 1}}), "invalid_request", "/query"),
        (json!({"query": "x", "budget": {"max_tokens": 0}}), "invalid_request", "/budget/max_tokens"),
        (json!({"query": "x", "budget": {"max_tokens": 200_001}}), "invalid_request", "/budget/max_tokens"),
        (json!({"query": "x", "budget": {"max_tokens": 1}, "other": 1}), "invalid_request", "/other"),
        (json!({"query": "x", "budget": {"max_tokens": 1, "other": 1}}), "invalid_request", "/budget/other"),
        (json!({"query": "x", "budget": {"max_tokens": 1}, "limit": 101}), "invalid_request", "/limit"),
        (json!({"query": "x", "budget": {"max_tokens": 1}, "format": "yaml"}), "invalid_request", "/format"),
        (json!({"query": "x", "budget": {"max_tokens": 1}, "unit": "page"}), "invalid_request", "/unit"),
        (
            json!({"query": "x", "budget": {"max_tokens": 1}, "quotas": {"a": {}}}),
            "invalid_request",
            "/quotas/a",
        ),
        (
            json!({"query": "x", "budget": {"max_tokens": 1}, "filter": {"metadata.a": {"$no": 1}}}),
            "invalid_request",
            "/filter/metadata.a/$no",
        ),
    ] {
        let answer = app.post("/v1/contexts/pack", body.clone()).await;
        assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, code), "{body}");
        assert_eq!(answer.body["errors"][0]["pointer"], pointer, "{body}: {:?}", answer.body);
    }
    let chars = json!({"query": "x", "budget": {"max_tokens": 1_000_000, "tokenizer": "chars"}});
    pack(&app, chars).await;
}

#[tokio::test]
async fn quotas_duplicates_and_the_search_s_own_fields_are_heeded() {
    let app = App::start().await;
    for n in 0..12 {
        let text = format!("Heron number {n} stands in river {n} and waits for fish");
        app.created(
            json!({"text": text, "context_type": if n < 6 { "note" } else { "memo" }, "metadata": {"n": n}}),
        )
        .await;
    }
    app.created(
        json!({"text": "HERON number 3 — stands in river 3, and waits for fish!", "metadata": {"n": 12}}),
    )
    .await;
    let all = pack(&app, body("heron", 5_000, &json!({}))).await;
    assert_eq!(count(&all.body["citations"]), 12, "more than a search answers by itself");
    let dropped = &all.body["dropped"];
    assert_eq!((count(dropped), &dropped[0]["reason"]), (1, &json!("duplicate")));
    let twin = dropped[0]["duplicate_of"].as_u64().unwrap() as usize;
    let range = &all.body["citations"][twin - 1]["range"];
    let start = range["start"].as_u64().unwrap() as usize;
    let cited: String = text(&all).chars().skip(start).take(14).collect();
    assert_eq!(cited.to_lowercase(), "heron number 3");

    let quotas = json!({"quotas": {"memo": {"max_items": 2}, "note": {"max_tokens": 60}}});
    let bounded = pack(&app, body("heron", 5_000, &quotas)).await;
    let of_type = |kind: &str| {
        let citations = bounded.body["citations"].as_array().unwrap();
        citations.iter().filter(|c| c["context_type"] == kind).cloned().collect::<Vec<_>>()
    };
    assert_eq!(of_type("memo").len(), 2);
    assert!(of_type("note").iter().map(|c| c["tokens"].as_u64().unwrap()).sum::<u64>() <= 60);
    assert!(bounded.body["dropped"].as_array().unwrap().iter().any(|d| d["reason"] == "quota"));

    let few = pack(&app, body("heron", 5_000, &json!({"limit": 3}))).await;
    assert_eq!(count(&few.body["citations"]) + count(&few.body["dropped"]), 3);
    let filtered = pack(&app, body("heron", 5_000, &json!({"filter": {"metadata.n": {"$lt": 2}}}))).await;
    assert_eq!(count(&filtered.body["citations"]), 2);
    let explained = pack(&app, body("heron", 5_000, &json!({"explain": true, "include": []}))).await;
    assert_eq!(explained.body["citations"][0]["explain"]["keyword"]["rank"], 1);
    assert!(explained.body["timings"].is_object() && !text(&explained).is_empty());
}

#[tokio::test]
async fn a_long_text_is_its_chunk_or_as_much_as_there_is_room_for() {
    let app = App::start().await;
    let filler =
        |word: &str| format!("The committee discussed the {word} of the previous meeting. ").repeat(60);
    let long =
        format!("{} The penguin sanctuary received a donation. {}", filler("minutes"), filler("budget"));
    app.created(json!({"text": long})).await;
    let chunk = pack(&app, body("penguin", 10_000, &json!({"unit": "chunk"}))).await;
    let whole = pack(&app, body("penguin", 10_000, &json!({}))).await;
    let part = pack(&app, body("penguin", 700, &json!({}))).await;
    let cut = pack(&app, body("penguin", 700, &json!({"unit": "context"}))).await;
    let tight = pack(&app, body("penguin", 60, &json!({}))).await;
    let facts = |answer: &Answer| {
        let citation = &answer.body["citations"][0];
        (citation["is_whole"].as_bool().unwrap(), citation["truncated"].as_bool().unwrap())
    };
    assert_eq!(facts(&chunk), (false, false));
    assert_eq!(facts(&whole), (true, false));
    assert!(text(&whole).contains(long.trim()));
    assert_eq!((facts(&part), facts(&cut), facts(&tight)), ((false, false), (false, true), (false, true)));
    for answer in [&part, &cut] {
        let tokens = answer.body["tokens"].as_u64().unwrap();
        assert!((630..=700).contains(&tokens), "{tokens}");
        assert!(text(answer).contains("penguin sanctuary"), "what matched is in it");
        assert!(text(answer).contains("minutes") && text(answer).contains("budget"), "and what is around it");
    }
    assert!(tight.body["tokens"].as_u64().unwrap() <= 60 && text(&tight).contains('…'));
}

#[tokio::test]
async fn a_pack_says_what_it_had_to_do_without() {
    let stub = StubProvider::start(Behaviour::Answer(503, "{}"));
    let app = App::start_with(stub.provider()).await;
    app.note("an otter in the river").await;
    let answer = app.post("/v1/contexts/pack", json!({"query": "otter", "budget": {"max_tokens": 50}})).await;
    assert_eq!(answer.body["degraded"], json!(["no_embedding_space"]));
    assert!(text(&answer).contains("an otter in the river"));
}

/// The next number of a sequence that is the same in each run.
fn next(state: &mut u64) -> usize {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as usize
}

fn random_text(state: &mut u64) -> String {
    let words = [
        "heron",
        "the",
        "stands",
        "река",
        "我们今天",
        "😀",
        "```\n",
        "</context>",
        "fn f() {}\n",
        "\"}]",
        "3.14",
        "isn't",
        "\t",
        "naïve",
    ];
    let mut text = String::from("heron ");
    for _ in 0..next(state) % 400 {
        let word = words[next(state) % words.len()];
        let _ = match next(state) % 40 {
            0 => write!(text, "{}", word.repeat(30)),
            1 => write!(text, "{}", "x".repeat(next(state) % 300)),
            _ => write!(text, "{word} "),
        };
    }
    text
}

#[tokio::test]
async fn random_packs_keep_to_their_budget_and_are_the_same_again() {
    let app = App::start().await;
    let mut state = 20_260_101;
    let operations: Vec<Value> = (0..40)
        .map(|n| {
            let kind = ["note", "doc", "a\"b<&>"][n % 3];
            let context =
                json!({"user_id": USER, "context_type": kind, "content": 1, "text": random_text(&mut state)});
            json!({"op": "create", "context": context})
        })
        .collect();
    let written = app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    assert_eq!(written.status, StatusCode::OK, "{:?}", written.body);
    let (o200k, cl100k) = (tiktoken_rs::o200k_base().unwrap(), tiktoken_rs::cl100k_base().unwrap());
    for _ in 0..60 {
        let max_tokens = 1 + next(&mut state) % [100, 1_000, 10_000][next(&mut state) % 3];
        let tokenizer = ["o200k_base", "cl100k_base", "chars"][next(&mut state) % 3];
        let format = ["markdown", "xml", "json"][next(&mut state) % 3];
        let unit = ["auto", "chunk", "context"][next(&mut state) % 3];
        let is_bounded = next(&mut state).is_multiple_of(4);
        let quotas = if is_bounded { json!({"note": {"max_tokens": 200}}) } else { Value::Null };
        let request = json!({
            "query": "heron", "mode": "keyword", "format": format, "unit": unit, "quotas": quotas,
            "budget": {"max_tokens": max_tokens, "tokenizer": tokenizer},
        });
        let answer = pack(&app, request.clone()).await;
        let tokens = match tokenizer {
            "o200k_base" => o200k.encode_ordinary(text(&answer)).len(),
            "cl100k_base" => cl100k.encode_ordinary(text(&answer)).len(),
            _ => text(&answer).chars().count(),
        };
        assert_eq!(answer.body["tokens"], tokens, "{request}");
        assert!(tokens <= max_tokens, "{request}");
        let again = pack(&app, request.clone()).await;
        for part in ["text", "citations", "dropped"] {
            assert_eq!(answer.body[part], again.body[part], "{request}");
        }
    }
}
