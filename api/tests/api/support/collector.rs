//! A collector of traces that speaks OTLP as protobuf over HTTP, and shows what it was sent. A real one has no faults on
//! request, and shows its spans in as many ways as there are products.

use std::{
    collections::HashMap,
    net::TcpListener,
    sync::{Arc, Mutex},
    time::Duration,
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, web};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value},
    trace::v1::span::SpanKind,
};
use prost::Message;

use super::eventually;

/// What the collector does with spans.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taking {
    All,
    /// Answers 503.
    None,
    /// Answers nothing.
    Hanging,
    /// Says yes, in a language that nobody knows.
    Garbage,
}

/// A span as it came.
#[derive(Clone, Debug)]
pub struct Received {
    pub name: String,
    pub kind: SpanKind,
    pub trace_id: String,
    pub span_id: String,
    /// Empty when it is the first of its trace.
    pub parent: String,
    /// Traces and spans.
    pub links: Vec<(String, String)>,
    pub attributes: HashMap<String, String>,
    pub is_error: bool,
    /// Of what sent it.
    pub service: String,
}

struct Shared {
    taking: Taking,
    spans: Mutex<Vec<Received>>,
    calls: Mutex<usize>,
    authorization: Mutex<Option<String>>,
}

pub struct Collector {
    pub url: String,
    shared: Arc<Shared>,
}

impl Collector {
    pub fn start(taking: Taking) -> Self {
        let (spans, calls, authorization) = Default::default();
        let shared = Arc::new(Shared { taking, spans, calls, authorization });
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("its address"));
        let data = web::Data::from(shared.clone());
        let server = HttpServer::new(move || {
            App::new()
                .app_data(data.clone())
                .app_data(web::PayloadConfig::default().limit(16_000_000))
                .route("/v1/traces", web::post().to(take))
        })
        .workers(1)
        .shutdown_timeout(0)
        .disable_signals()
        .listen(listener)
        .expect("a server")
        .run();
        tokio::spawn(server);
        Self { url, shared }
    }

    /// What it was sent so far.
    pub fn spans(&self) -> Vec<Received> {
        self.shared.spans.lock().expect("the lock").clone()
    }

    /// How often it was sent something.
    pub fn calls(&self) -> usize {
        *self.shared.calls.lock().expect("the lock")
    }

    /// The header of the last call.
    pub fn authorization(&self) -> Option<String> {
        self.shared.authorization.lock().expect("the lock").clone()
    }

    /// The first span of this name, as soon as it has come.
    pub async fn span(&self, name: &str) -> Received {
        eventually(name, Duration::from_secs(30), async || {
            self.spans().into_iter().find(|span| span.name == name)
        })
        .await
    }

    /// The first span of this name within another one, as soon as it has come.
    pub async fn child(&self, parent: &Received, name: &str) -> Received {
        eventually(name, Duration::from_secs(30), async || {
            let is_it = |span: &Received| {
                span.name == name && span.parent == parent.span_id && span.trace_id == parent.trace_id
            };
            self.spans().into_iter().find(is_it)
        })
        .await
    }
}

async fn take(shared: web::Data<Shared>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    *shared.calls.lock().expect("the lock") += 1;
    let header = |name| Some(request.headers().get(name)?.to_str().ok()?.to_owned());
    *shared.authorization.lock().expect("the lock") = header("authorization");
    match shared.taking {
        Taking::None => return HttpResponse::ServiceUnavailable().finish(),
        Taking::Hanging => std::future::pending().await,
        Taking::All | Taking::Garbage => {}
    }
    assert_eq!(header("content-type").as_deref(), Some("application/x-protobuf"));
    let sent = ExportTraceServiceRequest::decode(body).expect("protobuf of OTLP");
    let mut spans = shared.spans.lock().expect("the lock");
    for resource in sent.resource_spans {
        let service = text_of(&resource.resource.unwrap_or_default().attributes, "service.name");
        let received = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
        spans.extend(received.map(|span| Received {
            kind: span.kind(),
            trace_id: hex(&span.trace_id),
            span_id: hex(&span.span_id),
            parent: hex(&span.parent_span_id),
            links: span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect(),
            attributes: span.attributes.iter().map(|pair| (pair.key.clone(), text(pair))).collect(),
            is_error: span.status.as_ref().is_some_and(|status| status.code == 2),
            name: span.name,
            service: service.clone(),
        }));
    }
    let garbage = if shared.taking == Taking::Garbage { &b"\xff\xff<html>"[..] } else { b"" };
    HttpResponse::Ok().content_type("application/x-protobuf").body(garbage)
}

fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from_digit(u32::from(digit), 16).expect("a digit")).collect()
}

fn text(pair: &KeyValue) -> String {
    match pair.value.as_ref().and_then(|value| value.value.clone()) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

fn text_of(pairs: &[KeyValue], key: &str) -> String {
    pairs.iter().find(|pair| pair.key == key).map(text).unwrap_or_default()
}
