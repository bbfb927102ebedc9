//! The key. Checked before the body is read, and the answer to a wrong one is empty: it gives nothing away.

use actix_web::{
    Error, HttpResponse,
    body::{BoxBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::Next,
    web,
};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::State;

/// Wraps what needs the key.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let key = request.app_data::<web::Data<State>>().and_then(|state| state.options.api_key.as_ref());
    let is_health = request.path() == "/" && [Method::GET, Method::HEAD].contains(request.method());
    if is_health || key.is_none_or(|key| holds(&request, key)) {
        return next.call(request).await.map(ServiceResponse::map_into_boxed_body);
    }
    Ok(request.into_response(HttpResponse::Unauthorized().finish()))
}

fn holds(request: &ServiceRequest, key: &SecretString) -> bool {
    let given = request.headers().get(header::AUTHORIZATION).map(|value| value.as_bytes());
    given.and_then(|given| given.strip_prefix(b"Bearer ")).is_some_and(|given| {
        // Of digests, so that the time it takes does not even tell the key's length.
        Sha256::digest(given).ct_eq(&Sha256::digest(key.expose_secret())).into()
    })
}
