//! What a storage answers.

use std::fmt;

use bytes::Bytes;
use reqwest::{Response, StatusCode};

use crate::backup::{Failure, Result, Stage, failure::In};

/// Bytes of an answer of the storage itself; a page of a list has a thousand names.
const ANSWER_BYTES_MAX: usize = 8 << 20;
/// Of what the storage says when it refuses.
const COMPLAINT_CHARS_MAX: usize = 300;

/// Not an answer, or not this time.
pub(super) enum Refusal {
    /// Worth another try.
    Passing(String),
    NotFound(String),
    Final(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Passing(words) | Self::NotFound(words) | Self::Final(words)) = self;
        write!(f, "The storage {words}")
    }
}

/// What an answer means. Never with its URL, which holds a signature.
pub(super) async fn settle(sent: reqwest::Result<Response>) -> Result<Response, Refusal> {
    let response = sent.map_err(|error| Refusal::Passing(format!("does not answer: {}.", told(error))))?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let words = whole(response).await.unwrap_or_default();
    let words = format!("answers {status}: {}", clip(&words));
    Err(match status {
        StatusCode::NOT_FOUND => Refusal::NotFound(words),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => Refusal::Passing(words),
        status if status.is_server_error() => Refusal::Passing(words),
        _ => Refusal::Final(words),
    })
}

/// An error with its causes, without the URL.
pub(super) fn told(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        words = format!("{words}: {error}");
        cause = error.source();
    }
    words
}

pub(super) fn clip(text: &str) -> String {
    text.chars().take(COMPLAINT_CHARS_MAX).collect()
}

pub(super) async fn whole(mut response: Response) -> Result<String> {
    let mut bytes = Vec::new();
    let chunk = |response: Result<Option<Bytes>, reqwest::Error>| {
        response.map_err(|error| {
            Failure::new(Stage::Storage, format!("The storage's answer broke off: {}.", told(error)))
        })
    };
    while let Some(part) = chunk(response.chunk().await)? {
        bytes.extend_from_slice(&part);
        if bytes.len() > ANSWER_BYTES_MAX {
            return Err(Failure::new(Stage::Storage, "The storage's answer has no end."));
        }
    }
    String::from_utf8(bytes).in_stage(Stage::Storage)
}
