//! Reads a JSON body with a limit and a deadline. Its refusals have the words of text-embeddings-inference, because
//! people search for them and programs match them.

use std::time::Duration;

use actix_web::{
    HttpMessage, HttpRequest,
    error::PayloadError,
    http::{StatusCode, header},
    web::{Bytes, BytesMut, Payload},
};
use futures_util::StreamExt;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use crate::problem::Problem;

const BODY_DEADLINE: Duration = Duration::from_secs(30);

/// The body, which has to be declared as JSON.
pub(crate) async fn json<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    bytes_max: usize,
) -> Result<T, Problem> {
    if !is_json(request) {
        return Err(Problem::not_understood(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Expected request with `Content-Type: application/json`",
        ));
    }
    let late = |_| {
        let text = format!("Failed to buffer the request body: not complete within {BODY_DEADLINE:?}");
        Problem::not_understood(StatusCode::REQUEST_TIMEOUT, text)
    };
    let bytes =
        tokio::time::timeout(BODY_DEADLINE, read(request, payload, bytes_max)).await.map_err(late)??;
    parse(&bytes)
}

fn is_json(request: &HttpRequest) -> bool {
    request.mime_type().ok().flatten().is_some_and(|mime| {
        mime.type_() == "application"
            && (mime.subtype() == "json" || mime.suffix().is_some_and(|suffix| suffix == "json"))
    })
}

async fn read(request: &HttpRequest, mut payload: Payload, bytes_max: usize) -> Result<Bytes, Problem> {
    let too_large = || {
        let text = "Failed to buffer the request body: length limit exceeded";
        Problem::not_understood(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    // Said before a byte is read.
    if length.is_some_and(|length| length > bytes_max) {
        return Err(too_large());
    }
    let mut body = BytesMut::with_capacity(length.unwrap_or_default());
    while let Some(piece) = payload.next().await {
        let piece = piece.map_err(|error: PayloadError| {
            let text = format!("Failed to buffer the request body: {error}");
            Problem::not_understood(StatusCode::BAD_REQUEST, text)
        })?;
        if body.len() + piece.len() > bytes_max {
            return Err(too_large());
        }
        body.extend_from_slice(&piece);
    }
    Ok(body.freeze())
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let malformed = |error: &dyn std::fmt::Display| {
        let text = format!("Failed to parse the request body as JSON: {error}");
        Problem::not_understood(StatusCode::BAD_REQUEST, text)
    };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        match error.inner().classify() {
            Category::Data => {
                let text = format!("Failed to deserialize the JSON body into the target type: {error}");
                Problem::not_understood(StatusCode::UNPROCESSABLE_ENTITY, text)
            }
            Category::Syntax | Category::Eof | Category::Io => malformed(&error),
        }
    })?;
    deserializer.end().map_err(|error| malformed(&error))?;
    Ok(value)
}
