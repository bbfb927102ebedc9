//! Answers as they are kept and sent.

use actix_web::{HttpResponse, http::StatusCode, http::header};
use serde::Serialize;

use super::conditions::etag;
use crate::{
    domain::{Context, KeptAnswer, UserId},
    error::{Error, Result},
};

/// An answer with this body.
pub(super) fn answer(status: StatusCode, body: &impl Serialize) -> Result<KeptAnswer> {
    let body = serde_json::to_string(body).map_err(Error::internal)?;
    Ok(KeptAnswer { status: status.as_u16(), location: None, etag: None, body, users: Vec::new() })
}

/// An answer with a context.
pub(super) fn context_answer(status: StatusCode, context: &Context) -> Result<KeptAnswer> {
    let location = (status == StatusCode::CREATED).then(|| format!("/v1/contexts/{}", context.id));
    let (etag, users) = (Some(etag(context.version)), vec![context.user_id]);
    Ok(KeptAnswer { location, etag, users, ..answer(status, context)? })
}

/// An answer that tells of these users.
pub(super) fn answer_about(
    status: StatusCode,
    body: &impl Serialize,
    users: Vec<UserId>,
) -> Result<KeptAnswer> {
    Ok(KeptAnswer { users, ..answer(status, body)? })
}

pub(super) fn send(answer: KeptAnswer) -> Result<HttpResponse> {
    let status = StatusCode::from_u16(answer.status).map_err(Error::internal)?;
    let mut response = HttpResponse::build(status);
    if let Some(location) = answer.location {
        response.insert_header((header::LOCATION, location));
    }
    if let Some(etag) = answer.etag {
        response.insert_header((header::ETAG, etag));
    }
    Ok(response.content_type("application/json").body(answer.body))
}

/// One page of a list, with a name of its own in the OpenAPI document.
macro_rules! page {
    ($(#[$doc:meta])* $name:ident of $row:ty) => {
        $(#[$doc])*
        #[derive(serde::Serialize, utoipa::ToSchema)]
        pub struct $name {
            /// What the page holds.
            data: Vec<$row>,
            /// Pass it as `cursor` to get the next page; null on the last one.
            #[schema(required)]
            next_cursor: Option<String>,
            /// Whether there is another page.
            has_more: bool,
        }

        impl From<crate::domain::Page<$row>> for $name {
            fn from(page: crate::domain::Page<$row>) -> Self {
                Self { data: page.data, next_cursor: page.next_cursor, has_more: page.has_more }
            }
        }
    };
}
pub(super) use page;
