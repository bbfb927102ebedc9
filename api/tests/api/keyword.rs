//! The keyword leg: what is found by words, and in which order. Whether its scores are those of BM25 is computed here once
//! more, from the texts.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Answer, App, Behaviour, StubProvider, USER};

async fn app() -> App {
    App::start_with(StubProvider::start(Behaviour::Work).provider()).await
}

async fn filled(texts: &[&str]) -> App {
    let app = app().await;
    write(&app, texts).await;
    app
}

/// Their ids, in the order of the texts.
async fn write(app: &App, texts: &[&str]) -> Vec<String> {
    let create = |text: &&str| json!({"op": "create", "context": {"user_id": USER, "context_type": "note", "content": {}, "text": text}});
    let operations: Vec<Value> = texts.iter().map(create).collect();
    let answer = app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    let results = answer.body["results"].as_array().unwrap();
    results
        .iter()
        .map(|result| result["id"].as_str().unwrap_or_else(|| panic!("{result}")).to_owned())
        .collect()
}

fn hits(answer: &Answer) -> Vec<(String, f64)> {
    let hit =
        |hit: &Value| (hit["chunk"]["text"].as_str().unwrap().to_owned(), hit["score"].as_f64().unwrap());
    answer.body["data"].as_array().unwrap().iter().map(hit).collect()
}

async fn scored(app: &App, query: &str) -> Vec<(String, f64)> {
    let answer = app.search(json!({"query": query, "mode": "keyword", "limit": 100})).await;
    assert_eq!(answer.body["complete"], true, "{query}");
    hits(&answer)
}

async fn found(app: &App, query: &str) -> Vec<String> {
    scored(app, query).await.into_iter().map(|(text, _)| text).collect()
}

/// BM25 by the book, for words that no stemmer changes.
struct ByTheBook {
    texts: Vec<(String, HashMap<String, f64>, f64)>,
}

impl ByTheBook {
    fn new(texts: &[String]) -> Self {
        let of = |text: &String| {
            let mut times: HashMap<String, f64> = HashMap::new();
            for word in text.split_whitespace() {
                *times.entry(word.to_owned()).or_default() += 1.0;
            }
            let length = times.values().sum();
            (text.clone(), times, length)
        };
        Self { texts: texts.iter().map(of).collect() }
    }

    fn score(&self, query: &str) -> Vec<(String, f64)> {
        let count = self.texts.len() as f64;
        let average = self.texts.iter().map(|(_, _, length)| length).sum::<f64>() / count;
        let words: HashSet<&str> = query.split_whitespace().collect();
        let idf = |word: &str| {
            let with = self.texts.iter().filter(|(_, times, _)| times.contains_key(word)).count() as f64;
            (1.0 + (count - with + 0.5) / (with + 0.5)).ln()
        };
        let weights: Vec<(&str, f64)> = words.into_iter().map(|word| (word, idf(word))).collect();
        let mut scored: Vec<(String, f64)> = self
            .texts
            .iter()
            .map(|(text, times, length)| {
                let part = |(word, idf): &(&str, f64)| {
                    let times = times.get(*word).copied().unwrap_or_default();
                    idf * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * length / average))
                };
                (text.clone(), weights.iter().map(part).sum())
            })
            .filter(|(_, score)| *score > 0.0)
            .collect();
        scored.sort_by(|a, b| b.1.total_cmp(&a.1));
        scored
    }
}

/// Texts of words `w1` (in most of them) to `w60` (in few), of very different lengths.
fn random_texts(count: usize) -> Vec<String> {
    let mut state = 42_u64;
    let mut random = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = |number: usize| {
        let length = 1 + random(60);
        let words = (0..length).map(|_| {
            let most = 1 + random(60);
            format!("w{}", 1 + random(most))
        });
        format!("t{number} {}", words.collect::<Vec<_>>().join(" "))
    };
    (0..count).map(&mut text).collect()
}

fn assert_scores(found: &[(String, f64)], expected: &[(String, f64)], what: &str) {
    assert_eq!(found.len(), expected.len().min(100), "{what}");
    for (index, ((text, score), (_, expected_score))) in found.iter().zip(expected).enumerate() {
        assert!((score - expected_score).abs() < 1e-6, "{what}, hit {index}: {score}, not {expected_score}");
        let own = expected.iter().find(|(other, _)| other == text).unwrap().1;
        assert!((score - own).abs() < 1e-6, "{what}, hit {index}: {score}, not {own}: {text}");
    }
}

#[tokio::test]
async fn scores_are_those_of_bm25_before_and_after_words_are_counted() {
    let texts = random_texts(100);
    let app = app().await;
    write(&app, &texts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let book = ByTheBook::new(&texts);
    for counted in [false, true] {
        if counted {
            app.service.count_words().await.unwrap();
        }
        for query in [
            "w1",
            "w59",
            "w1 w2 w3",
            "w50 w1",
            "w40 w41 w42 w43 w1 w1",
            "t7 w1 w60",
            "nowhere w30",
            "nowhere",
        ] {
            assert_scores(
                &scored(&app, query).await,
                &book.score(query),
                &format!("{query}, counted: {counted}"),
            );
        }
    }
}

#[tokio::test]
async fn rare_words_weigh_more_and_long_texts_do_not_win_by_length() {
    let long = format!("{} heron heron", "lorem ipsum dolor sit amet consectetur ".repeat(12));
    let mut texts = vec![long.as_str(), "a heron", "the common otter", "a rare zyzzyva"];
    texts.extend(["common common common word", "common again", "common once more"]);
    let app = filled(&texts).await;
    assert_eq!(found(&app, "common zyzzyva").await[0], "a rare zyzzyva");
    assert_eq!(found(&app, "heron").await, ["a heron", long.trim()]);
}

#[tokio::test]
async fn identifiers_are_found_and_stand_above_what_shares_their_parts() {
    let whole = format!(
        "{} ERR_1234 {}",
        "something went wrong once more today ".repeat(8),
        "and nobody knows why ".repeat(8)
    );
    let path = format!(
        "look into src/store/keyword.rs {}",
        "for everything else there is to know about it ".repeat(8)
    );
    let app = filled(&[
        "1234 1234 see err err",
        "err, err and 1234 times 1234",
        &whole,
        "development files: libfoo2 dev dev libfoo2",
        "libfoo2-dev is what to install, if development is what it shall be installed for on this machine",
        "libfoo2",
        "store keyword.rs src store src keyword.rs",
        &path,
        "PROJ-77 was closed",
        "joe@example.com wrote",
        "fn first(all: Vec<Option<Gadget>>)",
    ])
    .await;
    for (query, best) in [
        ("ERR_1234", whole.trim()),
        ("err_1234", whole.trim()),
        ("what is ERR_1234?", whole.trim()),
        (
            "libfoo2-dev",
            "libfoo2-dev is what to install, if development is what it shall be installed for on this machine",
        ),
        ("src/store/keyword.rs", path.trim()),
        ("keyword.rs", "store keyword.rs src store src keyword.rs"),
        ("PROJ-77", "PROJ-77 was closed"),
        ("proj 77", "PROJ-77 was closed"),
        ("joe@example.com", "joe@example.com wrote"),
        ("example.com", "joe@example.com wrote"),
        ("gadget", "fn first(all: Vec<Option<Gadget>>)"),
    ] {
        assert_eq!(found(&app, query).await.first().map(String::as_str), Some(best), "{query}");
    }
}

#[tokio::test]
async fn phrases_are_required_and_beginnings_are_found() {
    let app = filled(&[
        "the quick brown fox",
        "a brown fox is quick",
        "quick, said the fox",
        "frobnicate it",
        "frobnicator",
        "frog",
        "libfrob-dev",
        "café frobé",
    ])
    .await;
    for (query, expected) in [
        (r#""quick brown""#, vec!["the quick brown fox"]),
        (r#""brown fox" quick"#, vec!["the quick brown fox", "a brown fox is quick"]),
        (r#""brown fox" "fox is quick""#, vec!["a brown fox is quick"]),
        (r#""fox quick""#, vec![]),
        (r#""foxes""#, vec!["the quick brown fox", "a brown fox is quick", "quick, said the fox"]),
        // Nothing that texts could be compared with is nothing that they must have.
        (r#""the" frog"#, vec!["frog"]),
        (r#"frog """#, vec!["frog"]),
        ("libfrob-d*", vec!["libfrob-dev"]),
        ("FROBNIC*", vec!["frobnicate it", "frobnicator"]),
        ("frobé*", vec!["café frobé"]),
        // A star alone and one after a single letter are none; quotes without a partner neither.
        ("f* *", vec![]),
        (r#"frog "brown"#, vec!["frog", "the quick brown fox", "a brown fox is quick"]),
    ] {
        let mut found = found(&app, query).await;
        let mut expected: Vec<String> = expected.into_iter().map(str::to_owned).collect();
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{query}");
    }
    assert_eq!(found(&app, "fro* frog").await[0], "frog");
}

#[tokio::test]
async fn accents_make_no_difference_and_other_scripts_are_found() {
    let app = filled(&[
        "Crème brûlée in a Café",
        "cafe without",
        "Straße nach Łódź",
        "cafe\u{301} decomposed",
        "Привет, йод",
        "東京 is a city",
        "ﬁne ligature",
        "Øresund æon",
    ])
    .await;
    for (query, count) in [
        ("café", 3),
        ("CAFE", 3),
        ("cafe\u{301}", 3),
        ("creme brulee", 1),
        ("strasse", 1),
        ("lodz", 1),
        ("ЙОД", 1),
        ("иод", 0),
        ("東京", 1),
        ("fine", 1),
        ("oresund", 1),
        ("AEON", 1),
    ] {
        assert_eq!(found(&app, query).await.len(), count, "{query}");
    }
}

#[tokio::test]
async fn a_write_is_seen_by_the_very_next_search_and_so_is_its_end() {
    let app = filled(&["otter one", "otter two", "something else"]).await;
    for counted in [false, true] {
        let id = write(&app, &["a platypus"]).await.pop().unwrap();
        if counted {
            app.service.count_words().await.unwrap();
        }
        assert_eq!(found(&app, "platypus").await, ["a platypus"]);
        let path = format!("/v1/contexts/{id}");
        let changed = app.send(Method::PATCH, &path, json!({"text": "a wombat"}).to_string()).await;
        assert_eq!(changed.status, StatusCode::OK, "{:?}", changed.body);
        assert_eq!(found(&app, "platypus").await, Vec::<String>::new());
        assert_eq!(found(&app, "wombat").await, ["a wombat"]);
        // What is no longer there no longer counts: the word is as rare as if it had never been in two texts.
        let (_, score) = scored(&app, "wombat").await.remove(0);
        assert_eq!(app.delete(&path).await.status, StatusCode::NO_CONTENT);
        assert_eq!(found(&app, "wombat").await, Vec::<String>::new());
        write(&app, &["a wombat"]).await;
        let (_, again) = scored(&app, "wombat").await.remove(0);
        assert!((score - again).abs() < 1e-9, "{score} and {again}");
        let gone = app.search(json!({"query": "wombat", "mode": "keyword"})).await.body["data"][0]["context"]
            ["id"]
            .clone();
        app.delete(&format!("/v1/contexts/{}", gone.as_str().unwrap())).await;
    }
}

#[tokio::test]
async fn what_other_tenants_write_changes_no_score() {
    let app = filled(&["otter in the river", "a river", "an otter"]).await;
    let before = scored(&app, "otter river").await;
    let other = app.new_tenant().await;
    let key = app.new_key(other, context_api::domain::Scope::all()).await;
    let line = json!({"user_id": USER, "context_type": "note", "content": {}, "text": "otter otter and more of the otter"});
    for _ in 0..5 {
        let answer = app.send_as(&key, Method::POST, "/v1/contexts", Some(line.to_string().into())).await;
        assert_eq!(answer.status, StatusCode::CREATED);
    }
    app.service.count_words().await.unwrap();
    assert_eq!(scored(&app, "otter river").await, before);
    let body = json!({"query": "river", "mode": "keyword"}).to_string();
    let theirs = app.send_as(&key, Method::POST, "/v1/contexts/search", Some(body.into())).await;
    assert_eq!(theirs.body["data"], json!([]));
}

#[tokio::test]
async fn a_scope_is_kept_however_it_is_read() {
    let app = app().await;
    let mine = "0190d5a0-0000-7000-8000-0000000000bb";
    let theirs = "0190d5a0-0000-7000-8000-0000000000cc";
    let create = |n: usize| {
        let (user, kind) = if n % 10 < 1 { (mine, "memo") } else { (theirs, "note") };
        json!({"op": "create", "context": {"user_id": user, "context_type": kind, "content": {}, "text": format!("otter {n}")}})
    };
    let operations: Vec<Value> = (0..50).map(create).collect();
    app.post("/v1/contexts/batch", json!({"operations": operations})).await;
    for (body, count) in [
        (json!({"query": "otter"}), 50),
        (json!({"query": "otter", "user_id": mine}), 5),
        (json!({"query": "otter", "context_types": ["memo"]}), 5),
        (json!({"query": "otter", "user_id": mine, "context_types": ["note"]}), 0),
        // Fewer have the word than are in the scope.
        (json!({"query": "41", "user_id": theirs}), 1),
        (json!({"query": "40", "user_id": theirs}), 0),
        (json!({"query": "\"otter 40\"", "user_id": mine}), 1),
    ] {
        let mut body = body;
        body["mode"] = json!("keyword");
        body["limit"] = json!(100);
        let answer = app.search(body.clone()).await;
        assert_eq!(hits(&answer).len(), count, "{body}");
    }
}

#[tokio::test]
async fn no_query_is_too_strange() {
    let app = filled(&["an otter or 1", "the river"]).await;
    let many_words = (0..2_000).map(|n| format!("w{n}")).collect::<Vec<_>>().join(" ");
    let odd: Vec<(String, usize)> = vec![
        ("the and of it".into(), 0),
        ("!!! ??? ...".into(), 0),
        ("😀 🦦".into(), 0),
        (r#"""""""#.into(), 0),
        (r#""otter"#.into(), 1),
        ("' or 1=1 --".into(), 1),
        ("'; drop table chunks; --".into(), 0),
        ("otter & | ! ( ) <-> :* \\".into(), 1),
        ("'otter':*ABCD".into(), 1),
        ("*".into(), 0),
        ("**otter**".into(), 1),
        ("\u{202e}otter\u{200b}".into(), 1),
        (format!("{}otter", &many_words[..8_000]), 0),
        (format!("otter {}", &many_words[..8_000]), 1),
        ("x".repeat(8_192), 0),
        ("ä".repeat(4_096), 0),
        ("\"a b\" ".repeat(1_300), 0),
        ("ab* ".repeat(2_000), 0),
        ("a_b ".repeat(2_000), 0),
        ("\"".repeat(8_192), 0),
        ("a-".repeat(4_096), 0),
        ("\u{1}otter\u{7f}".into(), 1),
        (r#""otter \" or"#.into(), 1),
    ];
    for (query, count) in odd {
        let start: String = query.chars().take(40).collect();
        let started = Instant::now();
        for mode in ["keyword", "hybrid"] {
            let answer = app.search(json!({"query": query, "mode": mode})).await;
            if mode == "keyword" {
                assert_eq!(hits(&answer).len(), count, "{start}");
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5), "{start}: {:?}", started.elapsed());
    }
}

#[tokio::test]
async fn a_text_of_long_words_is_stored_and_found() {
    let long = "z".repeat(2_040);
    let app = filled(&[&format!("{long} otter"), &"ä".repeat(3_000)]).await;
    assert_eq!(found(&app, "otter").await.len(), 1);
}
