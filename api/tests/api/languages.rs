//! The language of a context: which words find it, and what becomes of it in every way of writing and reading.

use context_api::domain::Scope;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::{
    support::{App, Behaviour, StubProvider, USER},
    transfer::{app, export, import},
};

fn note(key: &str, text: &str, more: Value) -> Value {
    let mut body = json!({"user_id": USER, "context_type": "note", "key": key, "content": 1, "text": text});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

async fn write(app: &App, key: &str, text: &str, language: &str) -> Value {
    let answer = app.post("/v1/contexts", note(key, text, json!({"language": language}))).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
    assert_eq!(answer.body["language"], language);
    answer.body
}

fn path(context: &Value) -> String {
    format!("/v1/contexts/{}", context["id"].as_str().unwrap())
}

async fn patch(app: &App, context: &Value, change: Value) -> Value {
    let answer = app.send(Method::PATCH, &path(context), change.to_string()).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
    answer.body
}

/// The keys of what is found by its words, each with its language.
async fn found_by(app: &App, search: Value) -> Vec<(String, String)> {
    let mut body = json!({"mode": "keyword", "limit": 100});
    body.as_object_mut().unwrap().extend(search.as_object().unwrap().clone());
    let answer = app.search(body).await;
    let text = |hit: &Value, field: &str| hit["context"][field].as_str().unwrap().to_owned();
    let hits = answer.body["data"].as_array().unwrap();
    let mut found: Vec<_> = hits.iter().map(|hit| (text(hit, "key"), text(hit, "language"))).collect();
    found.sort();
    found
}

async fn keys(app: &App, query: &str) -> Vec<String> {
    found_by(app, json!({"query": query})).await.into_iter().map(|(key, _)| key).collect()
}

#[tokio::test]
async fn words_are_read_in_the_language_of_their_text() {
    let app = app().await;
    let text = "das alte Viertel und seine Häuser";
    write(&app, "de", text, "de").await;
    write(&app, "en", text, "en").await;
    write(&app, "und", "cats", "und").await;
    assert_eq!(keys(&app, "Haus").await, ["de"]);
    assert_eq!(keys(&app, "Häuser").await, ["de", "en"]);
    assert_eq!(keys(&app, "das").await, ["en"], "a stop word in German");
    assert_eq!(keys(&app, "\"alten viertels\"").await, ["de"], "a phrase");
    assert_eq!(keys(&app, "cat").await, Vec::<String>::new());
    assert_eq!(keys(&app, "cats").await, ["und"]);
}

#[tokio::test]
async fn one_query_finds_texts_of_two_languages_and_none_of_another_tenant() {
    let app = app().await;
    write(&app, "a", "zwei Computer im Haus", "de").await;
    write(&app, "b", "two computers in a house", "en").await;
    app.service.count_words().await.unwrap();
    assert_eq!(
        found_by(&app, json!({"query": "computer"})).await,
        [("a".to_owned(), "de".to_owned()), ("b".to_owned(), "en".to_owned())]
    );
    assert_eq!(keys(&app, "houses Häusern").await, ["a", "b"]);
    let tenant = app.new_tenant().await;
    let key = app.new_key(tenant, Scope::all()).await;
    let body = json!({"query": "ordinateur computers", "mode": "keyword"}).to_string();
    let search =
        async || app.send_as(&key, Method::POST, "/v1/contexts/search", Some(body.clone().into())).await.body;
    assert_eq!(search().await["data"], json!([]));
    let own = note("c", "ordinateurs et computers", json!({"language": "fr"})).to_string();
    app.send_as(&key, Method::POST, "/v1/contexts", Some(own.into())).await;
    let found = search().await;
    assert_eq!((&found["data"][0]["context"]["key"], &found["data"][1]), (&json!("c"), &Value::Null));
    assert_eq!(keys(&app, "ordinateur").await, Vec::<String>::new());
}

/// Each language, a word of it, another form of the word, and a word that every text has where there is a list of them.
const WORDS: [(&str, &str, &str, &str); 29] = [
    ("ar", "الكتاب", "كتاب", ""),
    ("ca", "gats", "gat", ""),
    ("da", "husene", "huset", "og"),
    ("de", "Häuser", "Haus", "das"),
    ("el", "σπίτια", "σπίτι", ""),
    ("en", "cats", "cat", "the"),
    ("es", "canciones", "canción", "como"),
    ("eu", "mendietan", "mendiak", ""),
    ("fi", "talossa", "talon", "mutta"),
    ("fr", "chevaux", "cheval", "dans"),
    ("ga", "bpáistí", "páistí", ""),
    ("hi", "किताबें", "किताब", ""),
    ("hu", "házak", "ház", "hogy"),
    ("hy", "քաղաքների", "քաղաք", ""),
    ("id", "bukunya", "buku", ""),
    ("it", "gatti", "gatto", "della"),
    ("lt", "namas", "namai", ""),
    ("ne", "घरहरू", "घर", "अगाडि"),
    ("nl", "katten", "kat", "een"),
    ("no", "husene", "huset", "og"),
    ("pt", "gatos", "gato", "uma"),
    ("ro", "casele", "casa", ""),
    ("ru", "книги", "книга", "что"),
    ("sr", "куће", "кућа", ""),
    ("sv", "hundar", "hund", "och"),
    ("ta", "புத்தகங்கள்", "புத்தகம்", ""),
    ("tr", "kitaplar", "kitap", "ama"),
    ("yi", "ביכלעך", "ביכל", ""),
    ("und", "zebras", "zebras", ""),
];

#[tokio::test]
async fn every_language_finds_another_form_of_its_words_and_no_stop_words() {
    let app = app().await;
    for (language, word, ..) in WORDS {
        write(&app, language, &format!("{word} 2026"), language).await;
    }
    assert_eq!(keys(&app, "2026").await.len(), WORDS.len());
    for counted in [false, true] {
        if counted {
            app.service.count_words().await.unwrap();
        }
        for (language, _, form, _) in WORDS {
            let found = keys(&app, form).await;
            assert!(found.iter().any(|key| key == language), "{form} ({language}) finds {found:?}");
        }
    }
    for (language, word, _, stop_word) in WORDS.into_iter().filter(|(.., stop_word)| !stop_word.is_empty()) {
        write(&app, language, &format!("{word} {stop_word}"), language).await;
        assert_eq!(keys(&app, stop_word).await, Vec::<String>::new(), "{language}");
    }
    let answer = app.post("/v1/contexts", note("x", "x", json!({"language": "xx"}))).await;
    let detail = answer.body["errors"][0]["detail"].as_str().unwrap().to_owned();
    assert!(WORDS.iter().all(|(code, ..)| detail.contains(&format!("`{code}`"))), "{detail}");
}

#[tokio::test]
async fn what_is_no_language_is_refused_with_the_name_of_the_field() {
    let app = app().await;
    let context = write(&app, "a", "Häuser", "de").await;
    for wrong in [json!("xx"), json!("german"), json!("DE"), json!(""), json!(1), json!(["de"])] {
        let body = note("b", "text", json!({"language": wrong}));
        let patch = json!({"language": wrong}).to_string();
        for answer in [
            app.post("/v1/contexts", body.clone()).await,
            app.send(Method::PUT, &path(&context), body.to_string()).await,
            app.send(Method::PATCH, &path(&context), patch).await,
        ] {
            assert_eq!((answer.status, answer.code()), (StatusCode::BAD_REQUEST, "invalid_request"));
            assert_eq!(answer.body["errors"][0]["pointer"], "/language", "{wrong}");
        }
        let batch = json!({"operations": [{"op": "create", "context": body}]});
        let result = app.post("/v1/contexts/batch", batch).await.body["results"][0].clone();
        assert_eq!(result["status"], 400, "{result}");
        let imported = import(&app, "", None, body.to_string()).await.body;
        assert_eq!(imported["errors"][0]["error"]["errors"][0]["pointer"], "/language", "{imported}");
    }
    let filtered = app.post("/v1/contexts/count", json!({"filter": {"language": "german"}})).await;
    assert_eq!((filtered.status, filtered.code()), (StatusCode::BAD_REQUEST, "invalid_request"));
}

#[tokio::test]
async fn a_patch_of_the_language_alone_is_searched_at_once_and_keeps_the_embedding() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let long = "Im Dorf stehen alte Häuser. ".repeat(400);
    let context = write(&app, "a", &long, "en").await;
    app.embedded(context["id"].as_str().unwrap()).await;
    let embedded = stub.texts();
    let vectors = async || {
        let body = json!({"query": "something", "mode": "semantic"});
        app.search(body).await.body["data"][0]["score"].as_f64().unwrap()
    };
    let score = vectors().await;
    assert_eq!(keys(&app, "Haus").await, Vec::<String>::new());
    for (change, language, version, hits) in [
        (json!({"language": "de"}), "de", 2, 1),
        // No change at all.
        (json!({"language": "de"}), "de", 2, 1),
        (json!({"metadata": {"a": 1}}), "de", 3, 1),
        (json!({"language": null}), "en", 4, 0),
        (json!({"language": "de", "context_type": "memo", "valid_from": "2020-01-01T00:00:00Z"}), "de", 5, 1),
    ] {
        let patched = patch(&app, &context, change.clone()).await;
        assert_eq!(
            (&patched["language"], &patched["version"]),
            (&json!(language), &json!(version)),
            "{change}"
        );
        assert_eq!(patched["embedding_status"], "ready", "{change}");
        assert_eq!(keys(&app, "Haus").await.len(), hits, "{change}");
        assert!((vectors().await - score).abs() < 1e-6, "{change}");
    }
    let scoped = found_by(&app, json!({"query": "Haus", "context_types": ["memo"]})).await;
    assert_eq!(scoped.len(), 1, "what the chunks carry along came with the change");
    let queries = stub.texts() - embedded;
    assert!(queries <= 1, "only the query was embedded, not {queries} texts");
    let stale = app
        .request(Method::PATCH, &path(&context))
        .bearer_auth(&app.key)
        .header("if-match", "\"4\"")
        .json(&json!({"language": "fr"}));
    assert_eq!(crate::support::answer(stale).await.status, StatusCode::PRECONDITION_FAILED);
}

#[tokio::test]
async fn a_given_embedding_and_one_that_is_still_awaited_survive_a_change_of_language() {
    let stub = StubProvider::start(Behaviour::Work);
    let app = App::start_with(stub.provider()).await;
    let first = write(&app, "z", "the first one makes the space", "en").await;
    app.embedded(first["id"].as_str().unwrap()).await;
    let mut vector = vec![0.0; 8];
    vector[3] = -1.0;
    let long = "Häuser im Dorf. ".repeat(1_000);
    let body = note("a", &long, json!({"embedding": vector, "language": "en"}));
    let given = app.post("/v1/contexts", body).await.body;
    let score = async |as_of: &Value| {
        let body = json!({"vector": vector, "mode": "semantic", "limit": 1, "as_of": as_of});
        let found = app.search(body).await.body["data"][0].clone();
        assert_eq!(found["context"]["key"], "a", "{found}");
        found["score"].as_f64().unwrap()
    };
    let changed = patch(&app, &given, json!({"language": "de"})).await;
    assert_eq!(changed["embedding_status"], "ready");
    let put = note("a", &long, json!({"embedding": vector, "language": "fr"}));
    let put = app.send(Method::PUT, &path(&given), put.to_string()).await.body;
    assert_eq!(
        (&put["language"], &put["version"], &put["embedding_status"]),
        (&json!("fr"), &json!(3), &json!("ready"))
    );
    for at in [&given["updated_at"], &changed["updated_at"], &put["updated_at"], &Value::Null] {
        assert!((score(at).await - 1.0).abs() < 1e-3);
    }
    let restored = app.post(&format!("{}/restore", path(&given)), json!({"version": 1})).await.body;
    assert_eq!((&restored["language"], &restored["embedding_status"]), (&json!("en"), &json!("ready")));
    assert!((score(&Value::Null).await - 1.0).abs() < 1e-3);

    stub.behave(Behaviour::Answer(503, ""));
    let pending = write(&app, "b", "Häuser am See", "en").await;
    let pending = patch(&app, &pending, json!({"language": "de"})).await;
    assert_eq!(pending["embedding_status"], "pending");
    stub.behave(Behaviour::Work);
    assert_eq!(app.embedded(pending["id"].as_str().unwrap()).await["embedding_status"], "ready");
}

#[tokio::test]
async fn what_a_write_leaves_out_is_english_and_what_a_patch_leaves_out_stays() {
    let app = app().await;
    let context = write(&app, "a", "Häuser", "de").await;
    let language = async |method: Method, body: Value| {
        app.send(method, &path(&context), body.to_string()).await.body["language"].clone()
    };
    assert_eq!(language(Method::PATCH, json!({"text": "alte Häuser"})).await, "de");
    assert_eq!(keys(&app, "Haus").await, ["a"], "also a new text");
    assert_eq!(language(Method::PUT, note("a", "alte Häuser", json!({}))).await, "en");
    assert_eq!(keys(&app, "Haus").await, Vec::<String>::new());
    let upsert = app.post("/v1/contexts", note("a", "alte Häuser", json!({"language": "de"}))).await;
    assert_eq!((&upsert.body["language"], &upsert.body["version"]), (&json!("de"), &json!(4)));
    assert_eq!(keys(&app, "Haus").await, ["a"]);
    let upsert = app.post("/v1/contexts", note("a", "alte Häuser", json!({}))).await;
    assert_eq!((&upsert.body["language"], &upsert.body["version"]), (&json!("en"), &json!(5)));
    let id = &context["id"];
    let batch = json!({"operations": [
        {"op": "create", "context": note("b", "Häuser", json!({"language": "de"}))},
        {"op": "upsert", "context": note("c", "Häuser", json!({}))},
        {"op": "update", "id": id, "context": note("a", "alte Häuser", json!({"language": "de"}))},
    ]});
    assert_eq!(app.post("/v1/contexts/batch", batch).await.body["results"][2]["status"], 200);
    assert_eq!(keys(&app, "Haus").await, ["a", "b"]);
    for (filter, languages) in [
        (json!({"language": "de"}), vec!["de", "de"]),
        (json!({"language": {"$nin": ["de", "fr"]}}), vec!["en"]),
        (json!({"language": null}), vec![]),
    ] {
        let url =
            format!("/v1/contexts?filter={}", filter.to_string().replace('"', "%22").replace('$', "%24"));
        let listed = app.get(&url).await.body;
        let found: Vec<&str> =
            listed["data"].as_array().unwrap().iter().map(|c| c["language"].as_str().unwrap()).collect();
        assert_eq!(found, languages, "{filter}");
        let count = app.post("/v1/contexts/count", json!({"filter": filter})).await.body["count"].clone();
        assert_eq!(count, languages.len(), "{filter}");
    }
}

#[tokio::test]
async fn each_version_has_its_language_and_the_past_is_read_in_it() {
    let app = app().await;
    let first = write(&app, "a", "alte Häuser", "de").await;
    app.embedded(first["id"].as_str().unwrap()).await;
    let second = patch(&app, &first, json!({"language": "en"})).await;
    let third = patch(&app, &first, json!({"metadata": {"n": 3}})).await;
    let fourth = patch(&app, &first, json!({"language": "de"})).await;
    let fifth = patch(&app, &first, json!({"text": "old houses", "language": "en"})).await;
    for (at, language, german, english) in [
        (&first, "de", 1, 0),
        (&second, "en", 0, 0),
        (&third, "en", 0, 0),
        (&fourth, "de", 1, 0),
        (&fifth, "en", 0, 1),
    ] {
        let as_of = &at["updated_at"];
        for (query, hits) in [("Haus", german), ("house", english)] {
            let found = found_by(&app, json!({"query": query, "as_of": as_of})).await;
            assert_eq!(found.len(), hits, "{query} at version {}", at["version"]);
            assert!(found.iter().all(|hit| *hit == ("a".to_owned(), language.to_owned())), "{found:?}");
        }
        let words = found_by(&app, json!({"query": "Häuser houses", "as_of": as_of})).await;
        assert_eq!(words, [("a".to_owned(), language.to_owned())], "once, at version {}", at["version"]);
        let then = app.search(json!({"query": "Häuser", "as_of": as_of})).await.body;
        assert_eq!(then["data"][0]["context"]["version"], at["version"], "hybrid");
        if at["version"] != fifth["version"] {
            assert_eq!(then["degraded"], json!([]), "version {} kept its embedding", at["version"]);
        }
        let got = app.get(&format!("{}?as_of={}", path(&first), as_of.as_str().unwrap())).await.body;
        assert_eq!(got["language"], language);
        let count = json!({"as_of": as_of, "filter": {"language": language}});
        assert_eq!(app.post("/v1/contexts/count", count).await.body["count"], 1);
    }
    let versions = app.get(&format!("{}/versions", path(&first))).await.body;
    let languages: Vec<&str> = versions["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|version| version["context"]["language"].as_str().unwrap())
        .collect();
    assert_eq!(languages, ["de", "en", "en", "de"]);
    let restored = app.post(&format!("{}/restore", path(&first)), json!({"version": 1})).await.body;
    assert_eq!((&restored["language"], &restored["text"]), (&json!("de"), &json!("alte Häuser")));
    assert_eq!(keys(&app, "Haus").await, ["a"]);
    app.delete(&path(&first)).await;
    assert_eq!(keys(&app, "Haus").await, Vec::<String>::new());
    let back = app.post(&format!("{}/restore", path(&first)), json!({})).await.body;
    assert_eq!(back["language"], "de");
    assert_eq!(keys(&app, "Haus").await, ["a"]);
}

#[tokio::test]
async fn an_export_brings_the_language_along() {
    let source = app().await;
    for (key, language) in [("a", "de"), ("b", "en"), ("c", "und")] {
        write(&source, key, "alte Häuser", language).await;
    }
    let (lines, _) = export(&source, "").await;
    let target = app().await;
    assert_eq!(import(&target, "", None, lines.clone()).await.body["created"], 3);
    assert_eq!(export(&target, "").await.0, lines);
    assert_eq!(keys(&target, "Haus").await, ["a"]);
    assert_eq!(import(&target, "", None, lines).await.body["unchanged"], 3);
    let replaced = note("a", "alte Häuser", json!({})).to_string();
    assert_eq!(import(&target, "", None, replaced).await.body["updated"], 1);
    assert_eq!(keys(&target, "Haus").await, Vec::<String>::new());
}

/// Words of one language that are stop words in the other are nothing that a text of the other could have.
#[tokio::test]
async fn a_second_language_changes_no_score_of_the_first_and_no_phrase() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let text = "the price of the blue house";
    for (key, text) in [("house", text), ("frog", "the frog"), ("boat", "a boat")] {
        app.embedded(write(&app, key, text, "en").await["id"].as_str().unwrap()).await;
    }
    let found = async || {
        let whole = app.search(json!({"query": "what is the price of the blue house"})).await.body;
        let phrase = app.search(json!({"query": r#""the" frog"#, "mode": "keyword"})).await.body;
        let texts = phrase["data"].as_array().unwrap().iter().map(|hit| hit["context"]["key"].clone());
        (whole["data"][0]["score"].as_f64().unwrap(), texts.collect::<Vec<_>>())
    };
    let (alone, by_phrase) = found().await;
    assert_eq!(by_phrase, ["frog"]);
    app.embedded(write(&app, "haus", "ein blaues Haus am See", "de").await["id"].as_str().unwrap()).await;
    let (beside, by_phrase) = found().await;
    assert!((beside - alone).abs() < 0.1, "{alone} alone, {beside} beside a German text");
    assert_eq!(by_phrase, ["frog"]);
}

#[tokio::test]
async fn a_beginning_that_is_longer_than_the_stem_finds_the_word() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    write(&app, "a", "two computers", "en").await;
    write(&app, "b", "neue Häuser", "de").await;
    for (query, expected) in [("comput*", "a"), ("computer*", "a"), ("computers*", "a"), ("häuser*", "b")] {
        assert_eq!(keys(&app, query).await, [expected], "{query}");
    }
}
