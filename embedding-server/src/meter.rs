//! What was done, in the metrics of text-embeddings-inference and in the headers of an answer.

use std::time::{Duration, Instant};

use actix_web::HttpResponseBuilder;
use embedder::Embedding;

/// A request for embeddings that has begun. When it goes without a word, its client has gone.
pub(crate) struct Request {
    begun_at: Instant,
    method: &'static str,
    ended: bool,
}

/// What an answer took.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    pub texts: usize,
    pub characters: usize,
    pub tokens: usize,
    /// Sums over the texts.
    pub tokenizing: Duration,
    pub waiting: Duration,
    pub computing: Duration,
}

impl Cost {
    pub(crate) fn of(embeddings: &[Embedding], characters: usize) -> Self {
        let mut cost = Self { texts: embeddings.len(), characters, ..Self::default() };
        for embedding in embeddings {
            cost.tokens += embedding.tokens;
            cost.tokenizing += embedding.tokenizing;
            cost.waiting += embedding.waiting;
            cost.computing += embedding.computing;
        }
        cost
    }

    fn mean(&self, sum: Duration) -> Duration {
        sum / u32::try_from(self.texts).unwrap_or(u32::MAX).max(1)
    }
}

impl Request {
    pub(crate) fn begin(is_list: bool, texts: usize) -> Self {
        let method = if is_list { "batch" } else { "single" };
        metrics::counter!("te_request_count", "method" => method).increment(1);
        metrics::counter!("te_embed_count").increment(texts as u64);
        Self { begun_at: Instant::now(), method, ended: false }
    }

    pub(crate) fn fail(mut self, err: &'static str) {
        self.ended = true;
        metrics::counter!("te_request_failure", "err" => err).increment(1);
    }

    /// Counts the success and tells it to the client.
    pub(crate) fn succeed(mut self, embeddings: &Cost, response: &mut HttpResponseBuilder) {
        self.ended = true;
        let (cost, total) = (embeddings, self.begun_at.elapsed());
        let [tokenizing, waiting, computing] =
            [cost.tokenizing, cost.waiting, cost.computing].map(|sum| cost.mean(sum));
        metrics::counter!("te_request_success", "method" => self.method).increment(1);
        metrics::counter!("te_embed_success").increment(cost.texts as u64);
        metrics::histogram!("te_request_duration").record(total);
        metrics::histogram!("te_request_tokenization_duration").record(tokenizing);
        metrics::histogram!("te_request_queue_duration").record(waiting);
        metrics::histogram!("te_request_inference_duration").record(computing);

        let milliseconds = |time: Duration| time.as_millis().to_string();
        response
            .insert_header(("x-compute-type", "cpu"))
            .insert_header(("x-compute-time", milliseconds(total)))
            .insert_header(("x-total-time", milliseconds(total)))
            .insert_header(("x-tokenization-time", milliseconds(tokenizing)))
            .insert_header(("x-queue-time", milliseconds(waiting)))
            .insert_header(("x-inference-time", milliseconds(computing)))
            .insert_header(("x-compute-characters", cost.characters.to_string()))
            .insert_header(("x-compute-tokens", cost.tokens.to_string()));
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.ended {
            metrics::counter!("te_request_failure", "err" => "dropped").increment(1);
        }
    }
}

/// Each text of an answer.
pub(crate) fn count_texts(embeddings: &[Embedding]) {
    for embedding in embeddings {
        let Embedding { tokens, waiting, tokenizing, computing, .. } = *embedding;
        metrics::histogram!("te_request_input_length").record(tokens as f64);
        metrics::histogram!("te_embed_duration").record(waiting + tokenizing + computing);
        metrics::histogram!("te_embed_tokenization_duration").record(tokenizing);
        metrics::histogram!("te_embed_queue_duration").record(waiting);
        metrics::histogram!("te_embed_inference_duration").record(computing);
    }
}

/// What the metrics mean; for whoever reads them.
pub(crate) fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_counter!("te_request_count", "Requests for embeddings, by method: of one text, or of a list.");
    describe_counter!("te_request_success", "Those that were answered.");
    describe_counter!("te_request_failure", "Those that were not, by what was in the way.");
    describe_counter!("te_embed_count", "Texts that were to be embedded.");
    describe_counter!("te_embed_success", "Texts that were embedded.");
    describe_gauge!("te_queue_size", "Texts that wait for the model.");
    describe_histogram!("te_request_input_length", "Tokens of a text, as far as the model reads it.");
    for (unit, of) in [("request", "a request"), ("embed", "a text")] {
        describe_histogram!(format!("te_{unit}_duration"), format!("Time to answer {of}."));
        for (part, what) in [
            ("tokenization", "tokenizing"),
            ("queue", "waiting for the model"),
            ("inference", "in the model"),
        ] {
            describe_histogram!(format!("te_{unit}_{part}_duration"), format!("Of that, {what}."));
        }
    }
}
