//! Sends spans to a collector by OTLP, as protobuf over HTTP. They may be lost, and nothing waits for them: they are handed to
//! a thread of their own by way of a queue of bounded length, and what does not fit in is left out.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry::{
    Context, KeyValue,
    trace::{Link, SpanKind, TraceId, TraceState, TracerProvider as _},
};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    resource::TelemetryResourceDetector,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, Sampler, SamplingDecision, SamplingResult, SdkTracer,
        SdkTracerProvider, ShouldSample, SpanData, SpanLimits,
    },
};
use secrecy::{ExposeSecret as _, SecretString};
use uuid::Uuid;

/// Which traces are recorded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Sampling {
    All,
    None,
    /// This share of them.
    Share(f64),
}

/// Where spans go, and which.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// With its path; the exporter adds none.
    pub endpoint: String,
    pub headers: Vec<(String, SecretString)>,
    /// For one request to the collector.
    pub timeout: Duration,
    pub service_name: String,
    /// What else is said of this process.
    pub resource: Vec<(String, String)>,
    pub sampling: Sampling,
    /// Whether a trace that the caller has begun is recorded if the caller says so.
    pub as_the_caller_says: bool,
    /// How long a span waits for others to be sent with it.
    pub delay: Duration,
    /// Spans that wait; further ones are left out.
    pub queue_max: usize,
}

/// Spans that are sent together at most.
const BATCH_SPANS_MAX: usize = 512;
const CONNECT_DEADLINE: Duration = Duration::from_secs(2);
/// For the last spans when the process ends.
const FLUSH_DEADLINE: Duration = Duration::from_secs(2);
/// How often it is said that the collector does not take spans.
const SAY_EVERY: Duration = Duration::from_secs(60);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// None without traces.
pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// Sends the last spans when it is dropped, which takes two seconds at most and is not for a thread of the runtime.
pub struct TraceGuard(SdkTracerProvider);

impl Drop for TraceGuard {
    fn drop(&mut self) {
        // What was not sent in time was said where it failed, or it still waits for the collector.
        self.0.shutdown_with_timeout(FLUSH_DEADLINE).ok();
    }
}

/// Starts recording traces; not within a runtime. A provider of TLS has to be installed before.
///
/// # Errors
/// When the HTTP client cannot be made.
pub fn start_traces(options: TraceOptions) -> Result<TraceGuard, Box<dyn std::error::Error>> {
    let client = reqwest::blocking::Client::builder()
        .timeout(options.timeout)
        .connect_timeout(CONNECT_DEADLINE.min(options.timeout))
        // The headers are for this collector alone.
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let headers: HashMap<String, String> = options
        .headers
        .iter()
        .map(|(name, value)| (name.clone(), value.expose_secret().to_owned()))
        .collect();
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(options.endpoint)
        .with_timeout(options.timeout)
        .with_headers(headers)
        // The next spans wait meanwhile, and there is no room for many.
        .with_retry_policy(RetryPolicy::disabled())
        .build()?;
    let batches = BatchConfigBuilder::default()
        .with_max_queue_size(options.queue_max)
        .with_max_export_batch_size(BATCH_SPANS_MAX.min(options.queue_max))
        .with_scheduled_delay(options.delay)
        .build();
    let exporter = Reported { exporter, lost: Mutex::default() };
    // Not `builder()`, which reads variables by its own rules.
    let resource = Resource::builder_empty()
        .with_detector(Box::new(TelemetryResourceDetector))
        .with_attribute(KeyValue::new("service.instance.id", Uuid::now_v7().to_string()))
        .with_attributes(options.resource.into_iter().map(|(name, value)| KeyValue::new(name, value)))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_service_name(options.service_name)
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::new(exporter, batches))
        .with_sampler(LinkedToo(sampler(options.sampling, options.as_the_caller_says)))
        .with_span_limits(SpanLimits::default())
        .with_resource(resource)
        .build();
    TRACER.get_or_init(|| provider.tracer("context-api"));
    Ok(TraceGuard(provider))
}

fn sampler(sampling: Sampling, as_the_caller_says: bool) -> Sampler {
    let own = match sampling {
        Sampling::All => Sampler::AlwaysOn,
        Sampling::None => Sampler::AlwaysOff,
        Sampling::Share(share) => Sampler::TraceIdRatioBased(share),
    };
    if as_the_caller_says { Sampler::ParentBased(Box::new(own)) } else { own }
}

/// As the sampler inside says; and what comes of a trace that is recorded is recorded as well, though it is a trace of its
/// own: a story without its end helps nobody.
#[derive(Clone, Debug)]
struct LinkedToo(Sampler);

impl ShouldSample for LinkedToo {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        if links.iter().any(|link| link.span_context.is_sampled()) {
            return SamplingResult {
                decision: SamplingDecision::RecordAndSample,
                attributes: Vec::new(),
                trace_state: TraceState::default(),
            };
        }
        self.0.should_sample(parent, trace_id, name, kind, attributes, links)
    }
}

/// Counts and says what was lost; the crate itself would say it each time.
struct Reported<E> {
    exporter: E,
    lost: Mutex<Lost>,
}

#[derive(Default)]
struct Lost {
    /// Since it was last said.
    spans: usize,
    said_at: Option<Instant>,
}

impl<E> Reported<E> {
    fn note(&self, spans: usize, error: &impl fmt::Display) {
        metrics::counter!("trace_spans_lost_total").increment(spans as u64);
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.spans += spans;
        if lost.said_at.is_some_and(|at| at.elapsed() < SAY_EVERY) {
            return;
        }
        // Neither the address nor what the collector answered is in it.
        tracing::warn!(%error, spans = lost.spans, "the collector did not take spans; they are lost");
        *lost = Lost { spans: 0, said_at: Some(Instant::now()) };
    }
}

impl<E: fmt::Debug> fmt::Debug for Reported<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The exporter's own would show the headers.
        f.write_str("Reported")
    }
}

impl<E: opentelemetry_sdk::trace::SpanExporter> opentelemetry_sdk::trace::SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        if let Err(error) = &result {
            self.note(spans, error);
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
