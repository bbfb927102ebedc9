//! What the server says of itself: `/info`, `/health`, `/metrics`.

use actix_web::{HttpResponse, web};
use embedder::{BATCH_TEXTS_MAX, BATCH_TOKENS_MAX, Lane, MODEL_ID, TOKENS_MAX};
use metrics_exporter_prometheus::PrometheusHandle;
use serde_json::json;

use crate::State;

pub(crate) async fn info(state: web::Data<State>) -> HttpResponse {
    let options = &state.options;
    HttpResponse::Ok().json(json!({
        "model_id": MODEL_ID,
        "model_sha": null,
        "model_dtype": "int8",
        "served_model_name": options.served_model_name,
        "model_type": {"embedding": {"pooling": "mean"}},
        "max_concurrent_requests": options.concurrent_texts_max,
        "max_input_length": TOKENS_MAX,
        "max_batch_tokens": BATCH_TOKENS_MAX,
        "max_batch_requests": BATCH_TEXTS_MAX,
        "max_client_batch_size": options.request_texts_max,
        "auto_truncate": options.truncate,
        "tokenization_workers": options.threads,
        "version": env!("CARGO_PKG_VERSION"),
        "sha": null,
        "docker_label": null,
    }))
}

/// The port opens only when the model is there, and the model cannot go away. So this never waits for anything.
pub(crate) async fn health() -> HttpResponse {
    HttpResponse::Ok().finish()
}

pub(crate) async fn metrics(state: web::Data<State>, handle: web::Data<PrometheusHandle>) -> HttpResponse {
    let waiting = state.embedder.waiting(Lane::Query) + state.embedder.waiting(Lane::Backfill);
    metrics::gauge!("te_queue_size").set(waiting as f64);
    HttpResponse::Ok().content_type("text/plain; version=0.0.4; charset=utf-8").body(handle.render())
}
