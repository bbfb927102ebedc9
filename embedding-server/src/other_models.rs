//! Routes for models of other kinds. A client that calls one is told so, rather than that there is no such route.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Deserialize;

use crate::{
    State, body,
    input::{self, AnyInputs, Input},
    problem::{Dialect, Kind, Problem, answer},
};

#[derive(Debug, Deserialize)]
struct SparseRequest {
    inputs: Input,
}

#[derive(Debug, Deserialize)]
struct RerankRequest {
    #[serde(rename = "query")]
    _query: String,
    texts: Vec<String>,
}

fn other(what: &str) -> Problem {
    Problem::new(Kind::Backend, format!("Backend error: {what}")).counted_as("model_type")
}

pub(crate) async fn embed_sparse(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        let asked: SparseRequest = body::json(&request, payload, state.options.body_bytes_max).await?;
        input::check_count(&asked.inputs, &state.options)?;
        Err(other("Model is not an embedding model with SPLADE pooling"))
    };
    refuse(result.await)
}

pub(crate) async fn rerank(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        let asked: RerankRequest = body::json(&request, payload, state.options.body_bytes_max).await?;
        if asked.texts.is_empty() {
            return Err(Problem::new(Kind::Empty, "`texts` cannot be empty"));
        }
        Err(other("model is not a re-ranker model"))
    };
    refuse(result.await)
}

pub(crate) async fn predict(
    request: HttpRequest,
    payload: web::Payload,
    state: web::Data<State>,
) -> HttpResponse {
    let result = async {
        body::json::<AnyInputs>(&request, payload, state.options.body_bytes_max).await?;
        Err(other("Model is not a classifier model"))
    };
    refuse(result.await)
}

/// What was understood is counted, like every other failure of a request for the model.
fn refuse(result: Result<HttpResponse, Problem>) -> HttpResponse {
    if let Err(problem @ Problem::Refused { .. }) = &result {
        metrics::counter!("te_request_failure", "err" => problem.label()).increment(1);
    }
    answer(result, Dialect::Native)
}
