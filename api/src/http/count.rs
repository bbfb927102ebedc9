//! `/v1/contexts/count`.

use actix_web::{HttpResponse, post, web};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    State,
    authentication::{Caller, Read},
    body::Body,
    problem::{
        Problem,
        responses::{BodyProblems, Problems, UserProblems},
    },
};
use crate::{
    domain::{Access, ContextType, Filter, Selection, UserId, time_parameter},
    error::{Error, Result},
};

/// What to count.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of this kind.
    #[schema(min_length = 1, max_length = 50, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$")]
    context_type: Option<String>,
    /// See the guide.
    #[schema(value_type = Option<Object>)]
    filter: Option<Box<RawValue>>,
    /// As it was then, as far back as history is kept.
    #[schema(format = DateTime)]
    as_of: Option<String>,
    /// Only what holds then, by `valid_from` and `valid_to`.
    #[schema(format = DateTime)]
    valid_at: Option<String>,
}

impl Count {
    fn check(self, access: Access) -> Result<Selection> {
        let filter = self.filter.filter(|raw| raw.get() != "null");
        let time = |field, text: Option<String>| {
            text.map(|text| {
                time_parameter(field, &text)
                    .map_err(|error| Error::invalid(field, error.violations[0].detail.clone()))
            })
            .transpose()
        };
        Ok(Selection {
            user_id: access.confine(self.user_id.map(UserId))?,
            context_type: self.context_type.map(ContextType::new).transpose()?,
            filter: filter.map(|raw| Filter::parse(&raw).map_err(|error| error.at("/filter"))).transpose()?,
            as_of: time("/as_of", self.as_of)?,
            valid_at: time("/valid_at", self.valid_at)?,
        })
    }
}

/// How many there are.
#[derive(Debug, Serialize, ToSchema)]
pub struct Counted {
    /// How many there are.
    count: u64,
}

/// Count contexts
///
/// Exactly, however many there are, narrowed like a list.
#[utoipa::path(
    tag = "contexts",
    operation_id = "count_contexts",
    security(("api_key" = ["read"])),
    request_body = Count,
    responses((status = 200, description = "Exactly how many there are.", body = Counted),
        Problems, BodyProblems, UserProblems)
)]
#[post("/v1/contexts/count")]
pub async fn count_contexts(
    caller: Caller<Read>,
    state: web::Data<State>,
    body: Body<Count>,
) -> Result<HttpResponse, Problem> {
    let selection = body.value.check(caller.access())?;
    let count = state.service.count_contexts(caller.access(), &selection).await?;
    Ok(HttpResponse::Ok().json(Counted { count }))
}
