//! What clients of text-embeddings-inference rely on, case by case, from the table in `contract.json`.
//!
//! `TEI_URL` names a real server of it, with the same model: then the first part of the table is held against that one.
//! `tei` in a case says why it is not asked of it, or what it answers instead.
//!
//! A case sends `json` (in which `$repeat` makes a long text and `$list` a long list), `text`, `latin1` (bytes, one for
//! each character) or `padded` (a text followed by spaces up to a length). In what is expected, `$vectors`, `$base64`,
//! `$length` and `$any` stand for values that differ.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Method, header::HeaderMap};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::Server;
use crate::support::client;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    servers: Vec<Part>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Part {
    name: String,
    variables: std::collections::BTreeMap<String, String>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    method: Option<String>,
    path: String,
    headers: Option<std::collections::BTreeMap<String, String>>,
    json: Option<Value>,
    text: Option<String>,
    latin1: Option<String>,
    padded: Option<(String, usize)>,
    expect: Expected,
    tei: Option<Other>,
}

/// What is different with the original.
#[derive(Deserialize)]
#[serde(untagged)]
enum Other {
    Skipped(#[expect(dead_code, reason = "for people")] String),
    Expected { expect: Box<Expected> },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    status: u16,
    /// `none`: there is no such header.
    #[serde(rename = "type")]
    content_type: Option<String>,
    body: Option<Value>,
    text: Option<String>,
    #[serde(default)]
    contains: Vec<String>,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    absent: Vec<String>,
}

/// The table's short forms, written out.
fn expand(value: &Value) -> Value {
    match value {
        Value::Object(object) => match (object.get("$repeat"), object.get("$list")) {
            (Some(repeat), _) => {
                let count = usize::try_from(repeat[1].as_u64().unwrap()).unwrap();
                repeat[0].as_str().unwrap().repeat(count).into()
            }
            (_, Some(list)) => {
                vec![list[0].clone(); usize::try_from(list[1].as_u64().unwrap()).unwrap()].into()
            }
            _ => object.iter().map(|(name, value)| (name.clone(), expand(value))).collect(),
        },
        Value::Array(values) => values.iter().map(expand).collect(),
        other => other.clone(),
    }
}

impl Case {
    fn body(&self) -> Option<Vec<u8>> {
        let json = self.json.as_ref().map(|json| expand(json).to_string().into_bytes());
        let text = self.text.as_ref().map(|text| text.clone().into_bytes());
        let latin1 =
            self.latin1.as_ref().map(|text| text.chars().map(|c| u8::try_from(c).unwrap()).collect());
        let padded = self.padded.as_ref().map(|(text, length)| {
            let mut body = text.clone().into_bytes();
            body.resize(*length, b' ');
            body
        });
        json.or(text).or(latin1).or(padded)
    }

    fn request(&self, client: &reqwest::Client, url: &str) -> reqwest::RequestBuilder {
        let method: Method = self.method.as_deref().unwrap_or("POST").parse().unwrap();
        let mut request = client.request(method.clone(), format!("{url}{}", self.path));
        match &self.headers {
            Some(headers) => {
                for (name, value) in headers {
                    request = request.header(name, value);
                }
            }
            None if method == Method::POST => request = request.header("content-type", "application/json"),
            None => {}
        }
        match self.body() {
            Some(body) => request.body(body),
            None => request,
        }
    }
}

impl Expected {
    fn check(&self, status: u16, headers: &HeaderMap, body: &str) -> Result<(), String> {
        let header = |name: &str| headers.get(name).map(|value| value.to_str().unwrap().to_owned());
        if status != self.status {
            return Err(format!("status {status} instead of {}", self.status));
        }
        let content_type = header("content-type").unwrap_or_else(|| "none".to_owned());
        if self.content_type.as_ref().is_some_and(|expected| *expected != content_type) {
            return Err(format!("content type {content_type}"));
        }
        if let Some(name) = self.absent.iter().find(|name| headers.contains_key(name.as_str())) {
            return Err(format!("there is a header {name}"));
        }
        for (name, pattern) in &self.headers {
            let found = header(name).map_or(Value::Null, Value::String);
            matches(pattern, &found).map_err(|error| format!("header {name}: {error}"))?;
        }
        if let Some(missing) = self.contains.iter().find(|part| !body.contains(part.as_str())) {
            return Err(format!("{missing} is missing"));
        }
        if let Some(text) = self.text.as_ref().filter(|text| *text != body) {
            return Err(format!("not the text {text}"));
        }
        let Some(pattern) = &self.body else { return Ok(()) };
        matches(pattern, &serde_json::from_str(body).map_err(|error| error.to_string())?)
    }
}

fn matches(pattern: &Value, found: &Value) -> Result<(), String> {
    let special = pattern.as_object().and_then(|object| object.iter().next());
    match (special, pattern, found) {
        (Some((name, expected)), _, _) if name.starts_with('$') => special_matches(name, expected, found),
        (_, Value::Object(expected), Value::Object(given)) => {
            let names = |object: &Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            if names(expected) != names(given) {
                return Err(format!("fields {:?} instead of {:?}", names(given), names(expected)));
            }
            expected.iter().try_for_each(|(name, pattern)| {
                matches(pattern, &given[name]).map_err(|error| format!("{name}: {error}"))
            })
        }
        (_, Value::Array(expected), Value::Array(given)) if expected.len() == given.len() => {
            expected.iter().zip(given).try_for_each(|(pattern, found)| matches(pattern, found))
        }
        _ if pattern == found => Ok(()),
        _ => Err(format!("{found} instead of {pattern}")),
    }
}

fn special_matches(name: &str, expected: &Value, found: &Value) -> Result<(), String> {
    match name {
        "$any" => {
            let text = found.as_str().unwrap_or_default();
            let holds = match expected.as_str().unwrap() {
                "anything" => true,
                "text" => !text.is_empty(),
                "digits" => text.parse::<u64>().is_ok(),
                other => panic!("{other}"),
            };
            holds.then_some(()).ok_or_else(|| format!("{found} instead of {expected}"))
        }
        "$length" => {
            let length = found.as_array().map(Vec::len);
            (length == expected.as_u64().map(|length| usize::try_from(length).unwrap()))
                .then_some(())
                .ok_or_else(|| format!("{length:?} instead of {expected}"))
        }
        "$base64" => {
            let bytes =
                BASE64_STANDARD.decode(found.as_str().unwrap_or_default()).map_err(|e| e.to_string())?;
            let values = bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()));
            matches(expected, &values.collect())
        }
        "$vectors" => vector_matches(expected, found),
        other => panic!("{other}"),
    }
}

fn vector_matches(expected: &Value, found: &Value) -> Result<(), String> {
    let vector: Vec<f64> = serde_json::from_value(found.clone()).map_err(|error| error.to_string())?;
    // The weights have eight bits: single values are off by about a hundredth, the length of a whole vector is not.
    let within = expected["within"].as_f64().unwrap_or(0.015);
    if Some(vector.len() as u64) != expected["dims"].as_u64() {
        return Err(format!("{} dimensions", vector.len()));
    }
    let norm = vector.iter().map(|value| value * value).sum::<f64>().sqrt();
    let norm_within = if expected["norm"] == 1.0 { 1e-5 } else { within };
    if expected["norm"].as_f64().is_some_and(|expected| (norm - expected).abs() > norm_within) {
        return Err(format!("a length of {norm}"));
    }
    let first = expected["first"].as_array().into_iter().flatten();
    let apart =
        first.zip(&vector).find(|(expected, found)| (expected.as_f64().unwrap() - **found).abs() > within);
    apart.map_or(Ok(()), |(expected, found)| Err(format!("{found} instead of {expected}")))
}

async fn failures(part: &Part, url: &str, is_original: bool) -> Vec<String> {
    let client = client();
    let mut failures = Vec::new();
    for case in &part.cases {
        let expected = match &case.tei {
            Some(Other::Skipped(_)) if is_original => continue,
            Some(Other::Expected { expect }) if is_original => expect,
            _ => &case.expect,
        };
        let answer = async {
            let response = case.request(&client, url).send().await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            Ok::<_, reqwest::Error>((status, headers, response.text().await?))
        };
        match answer.await {
            Ok((status, headers, body)) => {
                if let Err(error) = expected.check(status, &headers, &body) {
                    let body: String = body.chars().take(300).collect();
                    failures.push(format!("{}: {}: {error}\n  {status} {body}", part.name, case.name));
                }
            }
            Err(error) => failures.push(format!("{}: {}: {error:?}", part.name, case.name)),
        }
    }
    failures
}

#[tokio::test]
async fn every_case_of_the_contract_holds() {
    let table: Table = serde_json::from_str(include_str!("contract.json")).unwrap();
    let mut failed = Vec::new();
    if let Ok(url) = std::env::var("TEI_URL") {
        failed = failures(&table.servers[0], url.trim_end_matches('/'), true).await;
    } else {
        for part in &table.servers {
            let variables: Vec<_> = part.variables.iter().map(|(name, value)| (&**name, &**value)).collect();
            let server = Server::start(&variables).await;
            failed.extend(failures(part, &server.process.url, false).await);
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
