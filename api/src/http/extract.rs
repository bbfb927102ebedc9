//! What handlers take: a caller with a scope, and a JSON body with errors that say where.

use std::{future::Future, marker::PhantomData, pin::Pin};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload, http::header, web};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use serde_path_to_error::Segment;

use super::{State, problem::Problem};
use crate::{
    domain::{ApiKey, Principal, Scope, limits::BODY_BYTES_MAX},
    error::{Code, Error, Result},
};

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, Problem>>>>;

/// A scope as a type, so that a handler's signature says what it needs.
pub(super) trait RequiredScope: 'static {
    const SCOPE: Scope;
}

pub(super) struct Read;
pub(super) struct Write;

impl RequiredScope for Read {
    const SCOPE: Scope = Scope::Read;
}

impl RequiredScope for Write {
    const SCOPE: Scope = Scope::Write;
}

/// Who is calling, with a key that has the scope `S`.
pub(super) struct Caller<S> {
    pub principal: Principal,
    scope: PhantomData<S>,
}

impl<S: RequiredScope> FromRequest for Caller<S> {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<State>>().cloned();
        let key = bearer(request);
        Box::pin(async move {
            let state = state.ok_or_else(|| Error::internal("the application has no state"))?;
            let principal = state.service.keys().authenticate(&key?).await?;
            principal.require(S::SCOPE)?;
            Ok(Self { principal, scope: PhantomData })
        })
    }
}

/// The key of `Authorization: Bearer …`. RFC 9110: the scheme is case-insensitive.
fn bearer(request: &HttpRequest) -> Result<ApiKey> {
    let missing = || Error::new(Code::MissingApiKey, "Send your API key as `Authorization: Bearer ctx_…`.");
    let value = request.headers().get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    key.trim().parse()
}

/// A JSON body.
pub(super) struct Body<T>(pub T);

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let head = check_head(request);
        let payload = web::Payload::from_request(request, payload).into_inner();
        Box::pin(async move {
            head?;
            let payload = payload.map_err(|error| Error::internal(error.to_string()))?;
            let bytes = payload.to_bytes_limited(BODY_BYTES_MAX).await.map_err(|_| too_large())?.map_err(
                |error| {
                    Error::new(Code::InvalidJson, "The body ended too early.").with_source(error.to_string())
                },
            )?;
            Ok(parse(&bytes).map(Self)?)
        })
    }
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
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    // Said before a byte is read.
    if length.is_some_and(|length| length > BODY_BYTES_MAX) { Err(too_large()) } else { Ok(()) }
}

fn too_large() -> Error {
    Error::new(Code::BodyTooLarge, format!("The body is larger than {BODY_BYTES_MAX} bytes."))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    if bytes.is_empty() {
        return Err(Error::new(Code::InvalidJson, "The body is empty; send a JSON object."));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        let error = error.into_inner();
        match error.classify() {
            Category::Data => Error::invalid(pointer, sentence(&error)),
            _ => not_json(&error),
        }
    })?;
    deserializer.end().map_err(|error| not_json(&error))?;
    Ok(value)
}

fn not_json(error: &serde_json::Error) -> Error {
    Error::new(Code::InvalidJson, format!("The body is not JSON: {error}."))
}

/// The parser's words without the position, which the pointer gives better.
fn sentence(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(end) => text[..end].to_owned(),
        None => text,
    }
}

/// RFC 6901.
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether it parses matters")]
    struct Sample {
        name: String,
        numbers: Vec<u8>,
    }

    #[test]
    fn errors_say_where() {
        for (body, code, pointer) in [
            ("", Code::InvalidJson, None),
            ("{", Code::InvalidJson, None),
            ("nonsense", Code::InvalidJson, None),
            (r#"{"name":"a","numbers":[1]} x"#, Code::InvalidJson, None),
            ("[]", Code::InvalidRequest, Some("")),
            (r#"{"name":"a","numbers":[1,"2"]}"#, Code::InvalidRequest, Some("/numbers/1")),
            (r#"{"name":"a","numbers":[300]}"#, Code::InvalidRequest, Some("/numbers/0")),
            (r#"{"name":"a"}"#, Code::InvalidRequest, Some("")),
            (r#"{"name":"a","numbers":[],"other":1}"#, Code::InvalidRequest, Some("/other")),
        ] {
            let error = parse::<Sample>(body.as_bytes()).unwrap_err();
            assert_eq!(error.code, code, "{body}");
            assert_eq!(error.violations.first().map(|v| v.pointer.as_str()), pointer, "{body}: {error}");
        }
        assert!(parse::<Sample>(br#"{"name":"a","numbers":[1]}"#).is_ok());
        assert_eq!(
            parse::<Sample>(b"{\"name\":\"\xff\",\"numbers\":[]}").unwrap_err().code,
            Code::InvalidJson
        );
    }
}
