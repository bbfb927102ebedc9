//! What handlers take: a caller with a scope, and a JSON body with errors that say where.

use std::{future::Future, marker::PhantomData, pin::Pin, sync::Arc};

use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    dev::Payload,
    http::header,
    web::{self, Bytes},
};
use serde::de::DeserializeOwned;

use super::{State, problem::Problem};
use crate::{
    domain::{
        Access, Actor, ApiKey, Fingerprint, IdempotentRequest, Principal, Scope, from_json,
        limits::BODY_BYTES_MAX,
    },
    error::{Code, Error, Result},
};

type Extracting<T> = Pin<Box<dyn Future<Output = Result<T, Problem>>>>;

/// Names one write, so that sending it again does not do it again.
pub(super) const IDEMPOTENCY_KEY: &str = "idempotency-key";

/// The id of a request, left for the handler by what is around it.
#[derive(Clone)]
pub(super) struct RequestId(pub Arc<str>);

/// A scope as a type, so that a handler's signature says what it needs.
pub(super) trait RequiredScope: 'static {
    const SCOPE: Scope;
}

pub(super) struct Read;
pub(super) struct Write;
pub(super) struct Admin;

impl RequiredScope for Read {
    const SCOPE: Scope = Scope::Read;
}

impl RequiredScope for Write {
    const SCOPE: Scope = Scope::Write;
}

impl RequiredScope for Admin {
    const SCOPE: Scope = Scope::Admin;
}

/// Who is calling, with a key that has the scope `S`.
pub(super) struct Caller<S> {
    pub principal: Principal,
    request_id: Option<Arc<str>>,
    scope: PhantomData<S>,
}

impl<S> Caller<S> {
    pub(super) fn access(&self) -> Access {
        self.principal.access
    }

    pub(super) fn actor(&self) -> Actor {
        self.principal.actor(self.request_id.clone())
    }
}

impl<S: RequiredScope> FromRequest for Caller<S> {
    type Error = Problem;
    type Future = Extracting<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let state = request.app_data::<web::Data<State>>().cloned();
        let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
        let key = bearer(request);
        Box::pin(async move {
            let state = state.ok_or_else(|| Error::internal("the application has no state"))?;
            let principal = state.service.keys().authenticate(&key?).await?;
            principal.require(S::SCOPE)?;
            Ok(Self { principal, request_id, scope: PhantomData })
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
