//! What is random and the same in each run. Contexts, and filters about them, for the test of filters: as text, so that
//! `1.0` and repeated names stay what they are on their way.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::select,
    strategy::Union,
    test_runner::{Config, RngSeed, TestRunner},
};
use serde_json::{Value, json};

use super::USER;

/// Chooses by `seed`, unless `PROPTEST_RNG_SEED` asks for another, and says which; `PROPTEST_CASES` asks for more cases.
pub fn runner(seed: u64, cases: u32) -> TestRunner {
    let config = Config::default();
    let rng_seed = if config.rng_seed == RngSeed::Random { RngSeed::Fixed(seed) } else { config.rng_seed };
    println!("random: {rng_seed:?}");
    let cases = config.cases.max(cases);
    TestRunner::new(Config { cases, rng_seed, failure_persistence: None, ..config })
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

fn object(members: &[(impl AsRef<str>, impl AsRef<str>)]) -> String {
    let members: Vec<String> =
        members.iter().map(|(name, value)| format!("{}:{}", quoted(name.as_ref()), value.as_ref())).collect();
    format!("{{{}}}", members.join(","))
}

fn array(items: &[impl AsRef<str>]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(","))
}

fn name() -> impl Strategy<Value = &'static str> + Clone {
    prop_oneof![4 => select(vec!["a", "b"]), 1 => select(vec!["a.b", "é\\", "", "0", "-1"])]
}

fn ordered() -> BoxedStrategy<String> {
    let numbers = ["1", "1.0", "10", "2e0", "-0.5", "0"];
    // The last two: by code points in this order, by UTF-16 in the other.
    let strings = [r#""""#, r#""a""#, r#""ab""#, r#""B""#, r#""10""#, r#""é""#, "\"\u{ff5e}\"", r#""😀""#];
    select([&numbers[..], &strings[..]].concat()).prop_map(str::to_owned).boxed()
}

fn json_text() -> BoxedStrategy<String> {
    let leaf =
        prop_oneof![6 => ordered(), 2 => select(vec!["null", "true", "false"]).prop_map(str::to_owned)];
    leaf.prop_recursive(3, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(|items| array(&items)),
            json_object(inner.boxed()),
        ]
    })
    .boxed()
}

fn json_object(value: BoxedStrategy<String>) -> BoxedStrategy<String> {
    prop::collection::vec((name(), value), 0..3).prop_map(|members| object(&members)).boxed()
}

/// The body of a write. Some are of the same user and key, so that some contexts have several versions.
pub fn context() -> BoxedStrategy<String> {
    let users = ["0190d5a0-0000-7000-8000-0000000000aa", "ffffffff-0000-4000-8000-000000000001"];
    let any_of = |values: &[&str]| select(values.iter().map(|value| quoted(value)).collect::<Vec<_>>());
    let or_null = |values: &[&str]| prop_oneof![any_of(values), Just("null".to_owned())];
    (
        (any_of(&users), any_of(&["note", "Note", "é"]), or_null(&["k", "K", "key%", "ké"])),
        (json_text(), json_object(json_text())),
        any_of(&["", "a b", "Ab", "naïve 😀", "poison"]),
        or_null(&["2200-01-01T00:00:00Z", "2300-06-01T12:30:00.123456+02:00"]),
        or_null(&["2001-01-01T00:00:00Z", "2002-02-02T02:02:02.000002Z"]),
        or_null(&["2400-01-01T00:00:00Z", "2500-01-01T00:00:00-12:00"]),
    )
        .prop_map(|((user, kind, key), (content, metadata), text, expires, from, to)| {
            let members = [
                ("user_id", user),
                ("context_type", kind),
                ("key", key),
                ("content", content),
                ("metadata", metadata),
                ("text", text),
                ("expires_at", expires),
                ("valid_from", from),
                ("valid_to", to),
            ];
            object(&members)
        })
        .boxed()
}

/// A name and what stands behind it.
type Member = BoxedStrategy<(String, String)>;

fn member(names: &[&'static str], value: BoxedStrategy<String>) -> Member {
    (select(names.to_vec()), value).prop_map(|(name, value)| (name.to_owned(), value)).boxed()
}

/// One object of several members, each name once.
fn joined(member: &Member, count: std::ops::Range<usize>) -> BoxedStrategy<String> {
    prop::collection::vec(member.clone(), count)
        .prop_map(|members| {
            object(&members.into_iter().collect::<BTreeMap<_, _>>().into_iter().collect::<Vec<_>>())
        })
        .boxed()
}

/// A bare value or operators. `contained` is what `$contains` takes, if there is such a thing for the field.
fn condition(
    equal: BoxedStrategy<String>,
    ordered: Option<BoxedStrategy<String>>,
    contained: Option<BoxedStrategy<String>>,
) -> BoxedStrategy<String> {
    let list = prop::collection::vec(equal.clone(), 0..3).prop_map(|items| array(&items)).boxed();
    let mut tests = vec![member(&["$eq", "$ne"], equal.clone()), member(&["$in", "$nin"], list)];
    if let Some(ordered) = ordered {
        let truth = select(vec!["true", "false"]).prop_map(str::to_owned).boxed();
        tests.push(member(&["$gt", "$gte", "$lt", "$lte"], ordered));
        tests.push(member(&["$exists"], truth));
    }
    tests.extend(contained.map(|contained| member(&["$contains"], contained)));
    let test = Union::new(tests).boxed();
    let negated = member(&["$not"], joined(&test, 1..3));
    prop_oneof![2 => equal, 3 => joined(&test, 1..3), 2 => joined(&prop_oneof![test, negated].boxed(), 1..3)]
        .boxed()
}

fn escaped(segment: &str) -> String {
    segment.replace('\\', r"\\").replace('.', r"\.")
}

/// A place in a document.
#[derive(Clone, Debug)]
struct Place {
    path: String,
    value: String,
    /// Something that the value contains.
    part: String,
}

/// Every place in a document.
fn places(path: &str, value: &Value, found: &mut Vec<Place>) {
    let mut add = |part: &Value| {
        found.push(Place { path: path.to_owned(), value: value.to_string(), part: part.to_string() });
    };
    add(value);
    match value {
        Value::Object(members) => {
            for (name, part) in members {
                add(&json!({name.as_str(): part}));
            }
            for (name, value) in members {
                places(&format!("{path}.{}", escaped(name)), value, found);
            }
        }
        Value::Array(items) => {
            items.iter().for_each(add);
            for (index, value) in items.iter().enumerate() {
                places(&format!("{path}.{index}"), value, found);
            }
        }
        _ => {}
    }
}

fn json_field(rows: &[Value]) -> Member {
    let mut found = Vec::new();
    for row in rows {
        places("metadata", &row["metadata"], &mut found);
        places("content", &row["content"], &mut found);
    }
    let (paths, values): (Vec<_>, Vec<_>) =
        found.iter().cloned().map(|place| (place.path, place.value)).unzip();
    let segment = prop_oneof![6 => name(), 1 => select(vec!["1", "+0", " -1", "00", "2147483648"])];
    let path = (select(vec!["metadata", "metadata", "content"]), prop::collection::vec(segment, 0..3));
    let path = path.prop_map(move |(document, segments)| {
        segments.iter().fold(document.to_owned(), |path, segment| path + "." + &escaped(segment))
    });
    let path = prop_oneof![1 => path, 2 => select(paths)];
    let value = prop_oneof![1 => json_text(), 1 => select(values)].boxed();
    let anywhere = (path, condition(value.clone(), Some(ordered()), Some(value)));
    // What is there, so that equality is met more often than by chance.
    let there = select(found).prop_flat_map(|Place { path, value, part }| {
        let equal = prop_oneof![4 => Just(value), 1 => json_text()].boxed();
        (Just(path), condition(equal, None, Some(Just(part).boxed())))
    });
    prop_oneof![anywhere, there].boxed()
}

/// Compared with the values that the rows have, and some that they have not.
fn column_field(rows: &[Value], column: &'static str, others: &[Value]) -> Member {
    let values: BTreeSet<String> = rows
        .iter()
        .map(|row| &row[column])
        .chain(others)
        .filter(|v| !v.is_null())
        .map(Value::to_string)
        .collect();
    let value = select(values.into_iter().collect::<Vec<_>>()).boxed();
    let equal = prop_oneof![3 => value.clone(), 1 => Just("null".to_owned())].boxed();
    let part = || select(vec![r#""""#, r#""a""#, r#""é""#, r#""%""#]).prop_map(str::to_owned).boxed();
    let contained = ["context_type", "key", "text"].contains(&column).then(part);
    let condition =
        condition(equal, (!["embedding_status", "language"].contains(&column)).then_some(value), contained);
    (Just(column.to_owned()), condition).boxed()
}

pub fn filter(rows: &[Value]) -> BoxedStrategy<String> {
    let time = [json!("2300-06-01T10:30:00.123456999Z"), json!("1999-12-31T23:59:59.9+05:30")];
    let text = [json!(""), json!("N"), json!("zz")];
    let field = prop_oneof![
        14 => json_field(rows),
        1 => column_field(rows, "id", &[json!(USER)]),
        1 => column_field(rows, "user_id", &[json!("00000000-0000-0000-0000-000000000000")]),
        1 => column_field(rows, "context_type", &text),
        3 => column_field(rows, "key", &text),
        1 => column_field(rows, "text", &text),
        1 => column_field(rows, "created_at", &time),
        1 => column_field(rows, "updated_at", &time),
        2 => column_field(rows, "expires_at", &time),
        2 => column_field(rows, "valid_from", &time),
        2 => column_field(rows, "valid_to", &time),
        1 => column_field(rows, "version", &[json!(0), json!(i64::MAX)]),
        1 => column_field(rows, "embedding_status", &[json!("pending"), json!("failed")]),
        1 => column_field(rows, "language", &[json!("de"), json!("und")]),
    ]
    .boxed();
    prop_oneof![1 => joined(&field, 0..1), 20 => joined(&field, 1..3)]
        .prop_recursive(3, 6, 2, move |inner| {
            let list = prop::collection::vec(inner.clone(), 1..3).prop_map(|filters| array(&filters)).boxed();
            let junction =
                prop_oneof![member(&["$and", "$or", "$or"], list), member(&["$not"], inner.boxed())];
            joined(&prop_oneof![3 => junction, 1 => field.clone()].boxed(), 1..3)
        })
        .boxed()
}
