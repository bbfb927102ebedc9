//! HTTP as the providers need it: one client with deadlines, and their many error bodies read as one sentence.

use std::time::Duration;

use reqwest::{
    Client, Method, Request, RequestBuilder, Response, StatusCode,
    header::{HeaderName, HeaderValue, RETRY_AFTER},
};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::EmbedError;
use crate::{
    error::{Error, Result},
    telemetry::spans::{self, Span},
};

/// One batch of documents on a small machine takes seconds.
pub(super) const EMBED_DEADLINE: Duration = Duration::from_secs(20);
/// A server may answer a probe only when its running batch is done.
pub(super) const PROBE_DEADLINE: Duration = Duration::from_secs(5);
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// 128 vectors of 4,000 numbers as JSON.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Of which trace and span a call is, as W3C Trace Context has it.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Characters of a provider's own words that are kept.
const DETAIL_CHARS_MAX: usize = 300;

pub(super) fn client() -> Result<Client> {
    Client::builder()
        .timeout(EMBED_DEADLINE)
        .connect_timeout(CONNECT_DEADLINE)
        // A server that was restarted leaves dead connections behind; do not keep many or long.
        .pool_idle_timeout(Duration::from_secs(15))
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .map_err(Error::internal)
}

pub(super) fn authorize(request: RequestBuilder, api_key: Option<&SecretString>) -> RequestBuilder {
    match api_key {
        Some(key) => request.bearer_auth(key.expose_secret()),
        None => request,
    }
}

/// Sends `request`, as part of the trace that it belongs to, and reads its answer.
pub(super) async fn send<T: DeserializeOwned>(request: RequestBuilder) -> Result<T, EmbedError> {
    let (client, request) = request.build_split();
    let mut request = request.map_err(|error| EmbedError::transient(describe(&error)))?;
    let url = request.url();
    let method = if request.method() == Method::GET { "GET" } else { "POST" };
    let span = spans::client(method, url.host_str(), url.port_or_known_default());
    if let Some(traceparent) = span.traceparent().and_then(|text| HeaderValue::from_str(&text).ok()) {
        request.headers_mut().insert(TRACEPARENT, traceparent);
    }
    let exchanged = span.around(exchange(&client, request, &span)).await;
    if exchanged.is_err() {
        span.fail("connection");
    }
    let (status, retry_after, body) = exchanged?;
    if !status.is_success() {
        return Err(refusal(status, &body, retry_after));
    }
    serde_json::from_slice(&body).map_err(|error| {
        EmbedError::unusable(format!("the provider sent something else than expected: {error}"))
    })
}

async fn exchange(
    client: &Client,
    request: Request,
    span: &Span,
) -> Result<(StatusCode, Option<Duration>, Vec<u8>), EmbedError> {
    // A refused or reset connection is a provider that restarts; a deadline is one that is busy.
    let response = client.execute(request).await.map_err(|error| EmbedError::transient(describe(&error)))?;
    let (status, retry_after) = (response.status(), retry_after(&response));
    span.replied(status.as_u16());
    Ok((status, retry_after, read_body(response).await?))
}

/// Whether there is a server that lets us in, whatever it answers otherwise.
pub(super) async fn answers(request: RequestBuilder) -> Result<(), EmbedError> {
    let response = request.send().await.map_err(|error| EmbedError::transient(describe(&error)))?;
    match response.status().as_u16() {
        code @ (401 | 403 | 429 | 500..) => {
            Err(EmbedError::transient(format!("the provider answered {code}")))
        }
        _ => Ok(()),
    }
}

async fn read_body(mut response: Response) -> Result<Vec<u8>, EmbedError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| EmbedError::transient(describe(&error)))? {
        if body.len() + piece.len() > ANSWER_BYTES_MAX {
            return Err(EmbedError::unusable("the provider sent an endless answer"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// 400, 413, 415 and 422 are about the input and will be the same next time. 401, 403 and 404 are about our configuration,
/// which an operator can mend while the work waits; their words may repeat the key. 408, 429 and what gateways say are
/// about the moment. The rest may be about one of the texts.
fn refusal(status: StatusCode, body: &[u8], retry_after: Option<Duration>) -> EmbedError {
    let code = status.as_u16();
    let detail = || format!("the provider answered {code}: {}", words(body));
    match code {
        400 | 413 | 422 if is_about_length(&words(body)) => EmbedError::TooLong { detail: detail() },
        400 | 413 | 415 | 422 => EmbedError::Permanent { detail: detail() },
        401 | 403 => EmbedError::Transient { detail: format!("the provider answered {code}"), retry_after },
        404 | 408 | 425 | 429 | 502..=504 => EmbedError::Transient { detail: detail(), retry_after },
        _ => EmbedError::unusable(detail()),
    }
}

/// Whether a refusal says that a text has more tokens than the model reads. TEI: "`inputs` must have less than 256 tokens";
/// OpenAI: "This model's maximum context length is 8192 tokens"; others put it like one of them.
fn is_about_length(words: &str) -> bool {
    let words = words.to_ascii_lowercase();
    ["must have less than", "maximum context length", "exceeds the context length"]
        .iter()
        .any(|sentence| words.contains(sentence))
}

/// The sentence in an error body: TEI says `{"error": …}` on its own routes and `{"message": …}` on OpenAI's, OpenAI
/// `{"error": {"message": …}}`, frameworks plain text, and some nothing at all.
fn words(body: &[u8]) -> String {
    let text = match serde_json::from_slice::<Value>(body) {
        Ok(value) => ["/error/message", "/message", "/error"]
            .iter()
            .find_map(|pointer| value.pointer(pointer).and_then(Value::as_str).map(str::to_owned))
            .unwrap_or_else(|| value.to_string()),
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text: String = text.trim().chars().filter(|c| !c.is_control()).take(DETAIL_CHARS_MAX).collect();
    if text.is_empty() { "(no words)".to_owned() } else { text }
}

fn retry_after(response: &Response) -> Option<Duration> {
    let seconds: u64 = response.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(300)))
}

/// The error and its causes, without the URL, which may hold a secret.
fn describe(error: &reqwest::Error) -> String {
    let kind = if error.is_timeout() {
        "the provider did not answer in time"
    } else if error.is_connect() {
        "the provider cannot be reached"
    } else {
        "the connection to the provider broke"
    };
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    format!("{kind} ({cause})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shape_of_error_body_is_read() {
        for (body, expected) in [
            (r#"{"error":"Model is overloaded","error_type":"Overloaded"}"#, "Model is overloaded"),
            (r#"{"message":"too long","code":422,"type":"Validation"}"#, "too long"),
            (r#"{"error":{"message":"bad key","type":"x"}}"#, "bad key"),
            ("Failed to buffer the request body", "Failed to buffer the request body"),
            ("", "(no words)"),
        ] {
            assert_eq!(words(body.as_bytes()), expected);
        }
        assert_eq!(words("x".repeat(10_000).as_bytes()).len(), DETAIL_CHARS_MAX);
    }

    #[test]
    fn refusals_of_the_input_are_permanent_and_others_are_not() {
        for status in [400, 413, 415, 422] {
            assert!(matches!(
                refusal(StatusCode::from_u16(status).unwrap(), b"", None),
                EmbedError::Permanent { .. }
            ));
        }
        for status in [424, 500] {
            assert!(matches!(
                refusal(StatusCode::from_u16(status).unwrap(), b"", None),
                EmbedError::Unusable { .. }
            ));
        }
        for words in [
            r#"{"error":"Input validation error: `inputs` must have less than 256 tokens. Given: 302"}"#,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens, however …"}}"#,
        ] {
            let refused = refusal(StatusCode::UNPROCESSABLE_ENTITY, words.as_bytes(), None);
            assert!(matches!(refused, EmbedError::TooLong { .. }), "{words}");
        }
        let denied = refusal(StatusCode::UNAUTHORIZED, b"bad key sk-123", None);
        assert!(!denied.to_string().contains("sk-123"));
        for status in [401, 403, 404, 408, 429, 502, 503] {
            assert!(matches!(
                refusal(StatusCode::from_u16(status).unwrap(), b"", None),
                EmbedError::Transient { .. }
            ));
        }
    }
}
