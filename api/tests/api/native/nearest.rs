//! Search by meaning over more than is compared one by one, under filters of every width: never fewer hits than there are, none
//! that the filter does not take, and nearly always the nearest.

use proptest::{prelude::*, sample::select, strategy::ValueTree, test_runner::RngSeed};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::support::{App, Behaviour, StubProvider, USER, client, evaluator, random};

const ROWS: usize = 12_000;
const ROWS_TOGETHER: usize = 1_000;
const DIMENSIONS: usize = 8;
const LIMIT: usize = 10;
const FILTERS: u32 = 1_000;
/// The narrow user has one of so many.
const USER_SHARE: usize = 50;
const SEED: u64 = 11;
const QUERIES_OF_THE_PAST: usize = 100;

fn other_user() -> String {
    USER.replace("aa", "bb")
}

/// A context and its vector, as the test knows it and as it is sent.
struct Row {
    body: Value,
    vector: Vec<f64>,
}

/// Pseudo-random, the same in each run; neighbours in meaning come in clusters, as in real corpora.
fn rows() -> Vec<Row> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1_u64 << 53) as f64 - 0.5
    };
    let centres: Vec<Vec<f64>> = (0..100).map(|_| (0..DIMENSIONS).map(|_| next()).collect()).collect();
    (0..ROWS)
        .map(|n| {
            let vector: Vec<f64> = centres[n * 7 % 100].iter().map(|centre| centre + 0.3 * next()).collect();
            let length = vector.iter().map(|x| x * x).sum::<f64>().sqrt();
            let vector: Vec<f64> = vector.into_iter().map(|x| x / length).collect();
            let body = json!({
                "user_id": if n % USER_SHARE == 0 { USER.to_owned() } else { other_user() },
                "context_type": (["note", "memo", "fact"][n % 3]),
                "key": format!("row {n}"),
                "content": n,
                "text": format!("row {n}"),
                "metadata": {"n": n, "tenth": n % 10, "hundredth": n % 100, "tags": [n % 7, "x"]},
                "embedding": vector,
            });
            Row { body, vector }
        })
        .collect()
}

/// Of every selectivity, from all to one row and none.
fn filter() -> impl Strategy<Value = Value> {
    let range = (0..ROWS, 1..ROWS)
        .prop_map(|(from, count)| json!({"metadata.n": {"$gte": from, "$lt": from + count}}));
    let narrow = (0..ROWS, 1..60_usize)
        .prop_map(|(from, count)| json!({"metadata.n": {"$gte": from, "$lt": from + count}}));
    let leaf = prop_oneof![
        range,
        narrow,
        (0..11).prop_map(|n| json!({"metadata.tenth": n})),
        (0..101).prop_map(|n| json!({"metadata.hundredth": n})),
        (0..8).prop_map(|n| json!({"metadata.tags": {"$contains": n}})),
        select(vec!["note", "memo", "none"]).prop_map(|kind| json!({"context_type": kind})),
        Just(json!({"user_id": USER})),
        Just(json!({})),
    ];
    leaf.prop_recursive(2, 4, 2, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"$and": [a, b]})),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| json!({"$or": [a, b]})),
            inner.prop_map(|inner| json!({"$not": inner})),
        ]
    })
}

#[test]
fn filtered_searches_by_meaning_are_full_and_right() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let rows = rows();
    let app = runtime.block_on(async {
        let app = App::start_with(StubProvider::start(Behaviour::Work).provider()).await;
        let first = app.note("the first one makes the space").await.id();
        app.embedded(&first).await;
        app.delete(&format!("/v1/contexts/{first}")).await;
        // No more than is done within the client's patience: each is put among its neighbours.
        for some in rows.chunks(ROWS_TOGETHER) {
            let lines: String = some.iter().map(|row| row.body.to_string() + "\n").collect();
            let request = client().post(format!("{}/v1/contexts/import", app.url)).bearer_auth(&app.key);
            let request = request.header("content-type", "application/x-ndjson").body(lines);
            let report: Value = request.send().await.unwrap().json().await.unwrap();
            assert_eq!(report["created"], some.len(), "{report}");
        }
        // As every `serve` and `worker` has it done when a table has grown so much.
        sqlx::raw_sql("analyze").execute(&mut app.database.superuser().await).await.unwrap();
        app
    });
    let mut runner = random::runner(SEED, FILTERS);
    assert_ne!(runner.config().rng_seed, RngSeed::Random);
    let (mut found_in_all, mut wanted_in_all, mut by_index, mut low_by_index) = (0, 0, 0, 0);
    for turn in 0..runner.config().cases as usize {
        let filter = filter().new_tree(&mut runner).unwrap().current();
        let query = &rows[turn * 17 % ROWS].vector;
        let mut expected: Vec<f64> = rows
            .iter()
            .filter(|row| evaluator::matches(&filter, &row.body))
            .map(|row| cosine(&row.vector, query))
            .collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        // Mostly the normal one.
        let effort = ["normal", "low", "normal", "exact", "normal"][turn % 5];
        let body = json!({"vector": query, "mode": "semantic", "limit": LIMIT, "filter": filter,
                          "effort": effort, "include": ["metadata"]});
        let answer = runtime.block_on(app.search(body)).body;
        let hits = answer["data"].as_array().unwrap();
        let wanted = expected.len().min(LIMIT);
        assert!(hits.len() >= wanted, "{} of {wanted} under {filter}: {answer}", hits.len());
        for hit in hits {
            let n = hit["context"]["metadata"]["n"].as_u64().unwrap() as usize;
            assert!(evaluator::matches(&filter, &rows[n].body), "{filter} does not take {}", rows[n].body);
        }
        // A hit as near as the last that is wanted counts, whichever of several it is. Half precision rounds.
        let near_enough = expected.get(wanted.wrapping_sub(1)).map_or(f64::MAX, |last| last - 1e-3);
        let right = hits.iter().filter(|hit| hit["score"].as_f64().unwrap() >= near_enough).count();
        if answer["plan"] == "exact" {
            assert_eq!(right, wanted, "an exact answer is right: {filter}: {answer}");
            assert_eq!(answer["complete"], true);
        }
        let is_by_index = answer["plan"] == "hnsw";
        by_index += usize::from(is_by_index);
        match effort {
            "exact" => assert!(!is_by_index, "{filter}"),
            "low" => {
                low_by_index += usize::from(is_by_index);
                assert_eq!(answer["complete"], !is_by_index, "{filter}");
            }
            _ => {
                found_in_all += right;
                wanted_in_all += wanted;
            }
        }
    }
    assert!(by_index > 50 && low_by_index > 5, "only {by_index} and {low_by_index} searches used the index");
    let recall = found_in_all as f64 / wanted_in_all as f64;
    assert!(recall >= 0.98, "recall {recall:.4} over {wanted_in_all} hits");
    runtime.block_on(search_the_past(&app, &rows));
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// What was changed and deleted since is found as it was, though the index has only the present.
async fn search_the_past(app: &App, rows: &[Row]) {
    let then = OffsetDateTime::now_utc().format(&Rfc3339).unwrap();
    let changed = rows.iter().step_by(40).map(|row| {
        let mut body = row.body.clone();
        body["text"] = json!("changed since");
        body["embedding"] = row.vector.iter().map(|x| -x).collect();
        body.to_string() + "\n"
    });
    let request = client().post(format!("{}/v1/contexts/import", app.url)).bearer_auth(&app.key);
    let request = request.header("content-type", "application/x-ndjson").body(changed.collect::<String>());
    let report: Value = request.send().await.unwrap().json().await.unwrap();
    assert_eq!(report["updated"], ROWS / 40, "{report}");
    let search = async |vector: &[f64], as_of: Option<&str>| {
        let mut body = json!({"vector": vector, "mode": "semantic", "limit": LIMIT});
        if let Some(as_of) = as_of {
            body["as_of"] = json!(as_of);
        }
        app.search(body).await.body
    };
    let present = search(&rows[1].vector, None).await;
    let gone = present["data"][0]["context"]["id"].as_str().unwrap();
    app.delete(&format!("/v1/contexts/{gone}")).await;
    let mut found = 0;
    for turn in 0..QUERIES_OF_THE_PAST {
        let query = &rows[turn * 40 + turn % 2].vector;
        let mut expected: Vec<f64> = rows.iter().map(|row| cosine(&row.vector, query)).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        let answer = search(query, Some(&then)).await;
        assert_eq!(answer["plan"], "hnsw", "{answer}");
        let hits = answer["data"].as_array().unwrap();
        assert_eq!(hits.len(), LIMIT, "{answer}");
        for hit in hits {
            let n = hit["context"]["metadata"]["n"].as_u64().unwrap() as usize;
            let (score, text) = (hit["score"].as_f64().unwrap(), format!("row {n}"));
            assert!(
                (score - cosine(&rows[n].vector, query)).abs() < 2e-3,
                "ranked by the vector of then: {hit}"
            );
            assert_eq!((&hit["context"]["text"], &hit["chunk"]["text"]), (&json!(text), &json!(text)));
            found += usize::from(score >= expected[LIMIT - 1] - 1e-3);
        }
    }
    let recall = found as f64 / (QUERIES_OF_THE_PAST * LIMIT) as f64;
    assert!(recall >= 0.98, "recall {recall:.4} in the past");
}
