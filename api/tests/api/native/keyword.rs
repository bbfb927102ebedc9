//! The keyword leg over many chunks, and its statistics against what they should be, seen directly.

use std::collections::HashMap;

use context_api::domain::Scope;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::PgConnection;

use crate::support::{App, Behaviour, StubProvider, USER};

/// What does not agree: terms whose number of chunks is another, and totals that are others.
async fn wrong_counts(superuser: &mut PgConnection) -> (i64, i64, i64) {
    sqlx::query_as(
        "with truth as (
             select k.tenant_id, t.lexeme collate \"C\" as lexeme, count(*)::integer as chunks
             from chunks k cross join unnest(tsvector_to_array(k.terms)) as t (lexeme) group by 1, 2
         ), totals as (
             select tenant_id, language, count(*) as chunks,
                    sum((select coalesce(sum(cardinality(u.positions)), 0) from unnest(k.terms) u))::bigint as length
             from chunks k group by 1, 2
         )
         select (select count(*) from truth full join lexemes l using (tenant_id, lexeme)
                 where truth.chunks is distinct from l.chunks),
                (select count(*) from totals full join (select * from keyword_totals where chunks <> 0) t
                                              using (tenant_id, language)
                 where (totals.chunks, totals.length) is distinct from (t.chunks, t.length)),
                (select count(*) from keyword_changes)",
    )
    .fetch_one(superuser)
    .await
    .unwrap()
}

#[tokio::test]
async fn whatever_is_written_the_words_are_counted_right() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let tenant = app.new_tenant().await;
    let keys = [app.key.clone(), app.new_key(tenant, Scope::all()).await];
    let mut ids: Vec<(usize, String)> = Vec::new();
    let mut superuser = app.database.superuser().await;
    for step in 0..120_usize {
        let owner = step % 2;
        let key = &keys[owner];
        let text = format!("otter {} river-{} {}", step % 7, step % 3, "word ".repeat(step % 40));
        let send = async |method: Method, path: &str, body: Value| {
            app.send_as(key, method, path, Some(body.to_string().into())).await
        };
        let own = ids.iter().rev().find(|(of, _)| *of == owner).map(|(_, id)| format!("/v1/contexts/{id}"));
        match (step % 10, own) {
            (5, Some(path)) => {
                let language = ["de", "en", "und"][step / 10 % 3];
                drop(send(Method::PATCH, &path, json!({"language": language})).await)
            }
            (6, Some(path)) => drop(send(Method::PATCH, &path, json!({"text": text})).await),
            (7, Some(path)) => drop(
                send(Method::PATCH, &path, json!({"metadata": {"n": step}, "context_type": "memo"})).await,
            ),
            (8, Some(path)) => drop(app.send_as(key, Method::DELETE, &path, None).await),
            (9, Some(path)) => {
                drop(app.send_as(key, Method::DELETE, &format!("{path}?purge=true"), None).await)
            }
            _ => {
                let body = json!({"user_id": USER, "context_type": "note", "content": {}, "text": text});
                ids.push((owner, send(Method::POST, "/v1/contexts", body).await.id()));
            }
        }
        if step % 25 == 24 {
            app.service.count_words().await.unwrap();
            assert_eq!(wrong_counts(&mut superuser).await, (0, 0, 0), "after step {step}");
        }
    }
    let erased = app.send_as(&keys[0], Method::DELETE, &format!("/v1/users/{USER}"), None).await;
    assert!(erased.status.is_success(), "{:?}", erased.body);
    while app.service.run_operations().await.unwrap() {}
    app.service.count_words().await.unwrap();
    assert_eq!(wrong_counts(&mut superuser).await, (0, 0, 0), "after all of a user is gone");
}

#[tokio::test]
async fn many_who_count_at_once_count_once() {
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let lines: Vec<String> = (0..1_500)
        .map(|n| {
            let text = format!("otter {} of {}", n % 100, n % 11);
            json!({"user_id": USER, "context_type": "note", "content": {}, "text": text}).to_string()
        })
        .collect();
    let lines = lines.join("\n");
    import(&app, lines).await;
    let counting = (0..4).map(|_| app.service.count_words());
    for counted in futures_util::future::join_all(counting).await {
        counted.unwrap();
    }
    assert_eq!(wrong_counts(&mut app.database.superuser().await).await, (0, 0, 0));
}

async fn import(app: &App, lines: String) {
    let request = app
        .request(Method::POST, "/v1/contexts/import")
        .bearer_auth(&app.key)
        .header("content-type", "application/x-ndjson")
        .body(lines);
    let answer = crate::support::answer(request).await;
    assert!(answer.status.is_success(), "{:?}", answer.body);
}

/// `all` is in each text, `half` in every second one, `tenth`, and so on; the number only in its own.
fn text_of(n: usize) -> String {
    let mut text = format!("all number{n}");
    for (every, word) in [(2, "half"), (3, "third"), (10, "tenth"), (97, "seldom"), (2_000, "rare")] {
        if n.is_multiple_of(every) {
            text.push(' ');
            text.push_str(word);
        }
    }
    text.push_str(&" filler".repeat(n % 13));
    text
}

#[tokio::test]
async fn among_many_chunks_the_best_are_found_without_scoring_all() {
    const COUNT: usize = 8_000;
    let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
    let texts: Vec<String> = (0..COUNT).map(text_of).collect();
    for part in texts.chunks(2_000) {
        let line = |text: &String| {
            format!("{}\n", json!({"user_id": USER, "context_type": "note", "content": {}, "text": text}))
        };
        import(&app, part.iter().map(line).collect()).await;
    }
    while app.service.count_words().await.unwrap() {}
    let words: Vec<HashMap<&str, f64>> = texts
        .iter()
        .map(|text| {
            text.split(' ').fold(HashMap::new(), |mut times, word| {
                *times.entry(word).or_default() += 1.0;
                times
            })
        })
        .collect();
    let length = |times: &HashMap<&str, f64>| times.values().sum::<f64>() - times.get("all").unwrap();
    let average = words.iter().map(length).sum::<f64>() / COUNT as f64;
    // `all` is a stop word.
    for query in [
        "rare half",
        "half third",
        "seldom half third tenth",
        "number77 half",
        "half",
        "rare seldom",
        "filler half third",
    ] {
        let mut expected: Vec<f64> = words
            .iter()
            .map(|times| {
                let norm = 1.2 * (0.25 + 0.75 * length(times) / average);
                let part = |word: &str| {
                    let with = words.iter().filter(|times| times.contains_key(word)).count() as f64;
                    let idf = (1.0 + (COUNT as f64 - with + 0.5) / (with + 0.5)).ln();
                    times.get(word).map_or(0.0, |n| idf * n * 2.2 / (n + norm))
                };
                query.split(' ').map(part).sum()
            })
            .collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        let answer = app.search(json!({"query": query, "mode": "keyword", "limit": 20})).await;
        assert_eq!(answer.body["complete"], true, "{query}");
        let hits = answer.body["data"].as_array().unwrap();
        assert_eq!(hits.len(), expected.iter().filter(|score| **score > 0.0).count().min(20), "{query}");
        for (index, hit) in hits.iter().enumerate() {
            let score = hit["score"].as_f64().unwrap();
            assert!(
                (score - expected[index]).abs() < 1e-6,
                "{query}, {index}: {score}, not {}",
                expected[index]
            );
        }
    }
}
