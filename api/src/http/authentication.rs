//! Who is calling: the key of a request, looked up before anything else of it is read.

use std::{future::Ready, marker::PhantomData, sync::Arc};

use super::{State, freshness::insists_on_new, problem::Problem, routed_path};
use crate::{
    domain::{Access, Actor, ApiKey, Principal, Scope},
    error::{Code, Error, Result},
    telemetry::spans,
};
use actix_web::{
    FromRequest, HttpMessage, HttpRequest,
    body::MessageBody,
    dev::{Payload, ServiceRequest, ServiceResponse},
    http::{
        Method,
        header::{self, HeaderMap},
    },
    middleware::Next,
    web,
};

/// The id of a request, left for the handler by what is around it.
#[derive(Clone)]
pub(super) struct RequestId(pub Arc<str>);

/// What the key of a request was found to be, left for [`Caller`].
struct Authenticated(Result<Principal>);

/// Looks up the key of a request to the API and leaves the answer for the handler. Not a handler's own business, because
/// its arguments are made side by side: a body that cannot be read would end a look-up half-way, and a stranger's would be
/// read.
pub(super) async fn authenticate<B: MessageBody>(
    request: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<B>, actix_web::Error> {
    if routed_path(&request).starts_with("/v1/") {
        let found = admit(&request).await;
        request.extensions_mut().insert(Authenticated(found));
    }
    next.call(request).await
}

/// Finds out who calls, and counts the request against what they may send.
async fn admit(request: &ServiceRequest) -> Result<Principal> {
    let state = request.app_data::<web::Data<State>>();
    let state = state.ok_or_else(|| Error::internal("the application has no state"))?;
    let principal = state.service.keys().authenticate(&bearer(request.headers())?).await?;
    if let Some(allowance) = state.service.take_request(&principal).await {
        request.extensions_mut().insert(allowance);
        if let Some(wait) = allowance.wait {
            let detail = "More requests came than this API key, or its tenant, may send.";
            return Err(Error::new(Code::RateLimited, detail).with_retry_after(wait));
        }
    }
    if needs_the_database(request) {
        state.service.admit()?;
    }
    Ok(principal)
}

/// Whether it is plain, before anything else of a request is read, that memory will not do; then it is refused for next to nothing when
/// the database has too much to do. An import takes its time, and may wait.
fn needs_the_database(request: &ServiceRequest) -> bool {
    let path = routed_path(request);
    let reads = request.method() == Method::GET || path == "/v1/contexts/search";
    path != "/v1/contexts/import" && (!reads || insists_on_new(request.headers()))
}

/// The key of `Authorization: Bearer …`. RFC 9110: the scheme is case-insensitive.
fn bearer(headers: &HeaderMap) -> Result<ApiKey> {
    let missing = || Error::new(Code::MissingApiKey, "Send your API key as `Authorization: Bearer ctx_…`.");
    let value = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    key.trim().parse()
}

/// What a key must allow, as a type, so that a handler's signature says what it needs.
pub(super) trait Right: 'static {
    fn require(principal: &Principal) -> Result<()>;
}

pub(super) struct Read;
pub(super) struct Write;
pub(super) struct Admin;
/// An admin of the default tenant.
pub(super) struct Operator;

impl Right for Read {
    fn require(principal: &Principal) -> Result<()> {
        principal.require(Scope::Read)
    }
}

impl Right for Write {
    fn require(principal: &Principal) -> Result<()> {
        principal.require(Scope::Write)
    }
}

impl Right for Admin {
    fn require(principal: &Principal) -> Result<()> {
        principal.require(Scope::Admin)
    }
}

impl Right for Operator {
    fn require(principal: &Principal) -> Result<()> {
        Admin::require(principal)?;
        principal.require_operator()
    }
}

/// Who is calling, with a key that has the right `R`.
pub(super) struct Caller<R> {
    pub principal: Principal,
    request_id: Option<Arc<str>>,
    right: PhantomData<R>,
}

impl<R> Caller<R> {
    pub(super) fn access(&self) -> Access {
        self.principal.access
    }

    pub(super) fn actor(&self) -> Actor {
        Actor { trace: spans::link(), ..self.principal.actor(self.request_id.clone()) }
    }
}

impl<R: Right> FromRequest for Caller<R> {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let found = request.extensions_mut().remove::<Authenticated>();
        let request_id = request.extensions().get::<RequestId>().map(|id| id.0.clone());
        let caller = || {
            let found =
                found.ok_or_else(|| Error::internal("nobody has looked up the key of this request"))?;
            let principal = found.0?;
            R::require(&principal)?;
            Ok(Self { principal, request_id, right: PhantomData })
        };
        std::future::ready(caller().map_err(|error: Error| error.into()))
    }
}
