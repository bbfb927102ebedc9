//! What a request brings with it: a JSON body, with errors that say where, and the name that it gives itself.

use std::{future::Future, pin::Pin};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header,
    web::{self, Bytes},
};
use serde::{Deserialize, de::DeserializeOwned};

use super::problem::Problem;
use crate::{
    domain::{Fingerprint, IdempotentRequest, from_json, limits::BODY_BYTES_MAX},
    error::{Code, Error, Result},
};

/// A body without any field.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nothing {}

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, Problem>>>>;

/// Names one write, so that sending it again does not do it again.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// A JSON body.
pub(super) struct Body<T> {
    pub value: T,
    /// When the request names itself.
    pub idempotent: Option<IdempotentRequest>,
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (head, request, bytes) = (check_head(request), request.clone(), read(request, payload));
        Box::pin(async move {
            head?;
            let bytes = bytes.await?;
            Ok(Self { idempotent: idempotent(&request, &bytes)?, value: from_json(&bytes)? })
        })
    }
}

/// A JSON body that may be left out, or null.
pub(super) struct OptionalBody<T> {
    pub value: T,
    pub idempotent: Option<IdempotentRequest>,
}

impl<T: DeserializeOwned + Default + 'static> FromRequest for OptionalBody<T> {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (head, request, bytes) = (check_head(request), request.clone(), read(request, payload));
        Box::pin(async move {
            let bytes = bytes.await?;
            let idempotent = idempotent(&request, &bytes)?;
            if bytes.is_empty() {
                return Ok(Self { value: T::default(), idempotent });
            }
            head?;
            Ok(Self { value: from_json::<Option<T>>(&bytes)?.unwrap_or_default(), idempotent })
        })
    }
}

/// A body as it came; JSON by its declaration.
pub(super) struct RawBody(pub Bytes);

impl FromRequest for RawBody {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let (head, bytes) = (check_head(request), read(request, payload));
        Box::pin(async move {
            head?;
            Ok(Self(bytes.await?))
        })
    }
}

fn read(request: &HttpRequest, payload: &mut Payload) -> impl Future<Output = Result<Bytes>> + use<> {
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let payload = web::Payload::from_request(request, payload).into_inner();
    async move {
        // Said before a byte is read.
        if length.is_some_and(|length| length > BODY_BYTES_MAX) {
            return Err(too_large());
        }
        let payload = payload.map_err(|error| Error::internal(error.to_string()))?;
        payload.to_bytes_limited(BODY_BYTES_MAX).await.map_err(|_| too_large())?.map_err(|error| {
            Error::new(Code::InvalidJson, "The body ended too early.").with_source(error.to_string())
        })
    }
}

/// The name that the request has given itself, with all that it asks for.
fn idempotent(request: &HttpRequest, body: &[u8]) -> Result<Option<IdempotentRequest>> {
    let Some(key) = request.headers().get(IDEMPOTENCY_KEY) else { return Ok(None) };
    // What is no ASCII is refused like any other key that is not acceptable.
    let key = key.to_str().unwrap_or_default().parse()?;
    let (path, query) = (request.path(), request.query_string());
    let condition = |name| request.headers().get(name).map_or(&[][..], |value| value.as_bytes());
    let fingerprint = Fingerprint::of([
        request.method().as_str().as_bytes(),
        path.as_bytes(),
        query.as_bytes(),
        condition(header::IF_MATCH),
        condition(header::IF_NONE_MATCH),
        body,
    ]);
    Ok(Some(IdempotentRequest { key, fingerprint }))
}

fn check_head(request: &HttpRequest) -> Result<()> {
    let is_json = request.mime_type().ok().flatten().is_some_and(|mime| {
        mime.type_() == "application"
            && (mime.subtype() == "json" || mime.suffix().is_some_and(|s| s == "json"))
    });
    if !is_json {
        return Err(Error::new(
            Code::UnsupportedMediaType,
            "Send the body with `Content-Type: application/json`.",
        ));
    }
    Ok(())
}

fn too_large() -> Error {
    Error::new(Code::BodyTooLarge, format!("The body is larger than {BODY_BYTES_MAX} bytes."))
}
