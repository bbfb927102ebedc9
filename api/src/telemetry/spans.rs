//! Spans of OpenTelemetry, named and described by its semantic conventions. Without traces, and within one that is not
//! recorded, there is none: nothing is made, and a future runs as it is. What callers send and store is in no span.

use std::future::Future;

use futures_util::{FutureExt as _, future::Either};
use opentelemetry::{
    Context, KeyValue, Value,
    context::FutureExt as _,
    trace::{
        Link, SpanContext, SpanId, SpanKind, Status, TraceContextExt as _, TraceFlags, TraceId, TraceState,
        Tracer as _,
    },
};

use super::{export::tracer, traceparent};
use crate::{
    domain::TraceLink,
    error::{Code, Result},
};

/// Something that takes its time, from when it is made until it is dropped; or nothing.
#[derive(Default)]
pub struct Span(Option<Context>);

/// Where something belongs that goes on elsewhere; or nowhere.
#[derive(Clone, Default)]
pub struct Origin(Option<Context>);

impl Span {
    /// What `future` does is done in this span.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        match &self.0 {
            Some(context) => Either::Left(future.with_context(context.clone())),
            None => Either::Right(future),
        }
    }

    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(name, value));
        }
    }

    /// It did not do what it should: why, as one of a few words.
    pub fn fail(&self, error_type: impl Into<Value>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new("error.type", error_type));
            context.span().set_status(Status::error(""));
        }
    }

    /// What is not the service's or the database's fault is no failure of a span.
    pub fn settle<T>(&self, result: &Result<T>) {
        if let Err(error) = result
            && matches!(error.code, Code::Internal | Code::DatabaseUnavailable | Code::DeadlineExceeded)
        {
            self.fail(error.code.as_str());
        }
    }

    /// How a request came out, and by which route it was answered, if there is one.
    pub fn answered(&self, method: &str, route: Option<&str>, status: u16) {
        let Some(context) = &self.0 else { return };
        let span = context.span();
        if let Some(route) = route {
            span.update_name(format!("{method} {route}"));
            span.set_attribute(KeyValue::new("http.route", route.to_owned()));
        }
        span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
        if status >= 500 {
            self.fail(status.to_string());
        }
    }

    /// How somebody else answered a request.
    pub fn replied(&self, status: u16) {
        self.set("http.response.status_code", i64::from(status));
        if status >= 400 {
            self.fail(status.to_string());
        }
    }

    /// The header `traceparent` of a call that this span is about; without a span, of the trace that it belongs to.
    pub fn traceparent(&self) -> Option<String> {
        let of = |context: &Context| traceparent::write(context.span().span_context());
        tracer()?;
        match &self.0 {
            Some(context) => of(context),
            None => Context::map_current(of),
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let Some(context) = &self.0 {
            context.span().end();
        }
    }
}

impl Origin {
    /// Here.
    pub fn here() -> Self {
        Self(tracer().map(|_| Context::current()))
    }

    pub fn is_recorded(&self) -> bool {
        self.0.as_ref().is_some_and(|context| context.span().span_context().is_sampled())
    }

    /// What `future` does belongs there.
    pub fn around<F: Future>(&self, future: F) -> impl Future<Output = F::Output> + use<F> {
        Span(self.0.clone()).into_around(future)
    }
}

impl Span {
    /// Without ending what is not its own.
    fn into_around<F: Future>(mut self, future: F) -> impl Future<Output = F::Output> + use<F> {
        let future = self.around(future);
        self.0 = None;
        future
    }
}

/// Whether there are traces.
pub fn are_on() -> bool {
    tracer().is_some()
}

/// A span within the present one, if that is recorded.
fn child(kind: SpanKind, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) -> Span {
    let Some(tracer) = tracer() else { return Span(None) };
    let parent = Context::current();
    if !parent.span().span_context().is_sampled() {
        return Span(None);
    }
    let builder = tracer.span_builder(name).with_kind(kind).with_attributes(attributes());
    let span = builder.start_with_context(tracer, &parent);
    Span(Some(parent.with_span(span)))
}

/// A request that has come in, which goes on with the trace that its caller names.
pub fn server(method: &'static str, request_id: &str, traceparent: Option<&str>) -> Span {
    let Some(tracer) = tracer() else { return Span(None) };
    let caller = traceparent.and_then(traceparent::read);
    let parent = Context::new();
    let parent = caller.map_or(parent.clone(), |caller| parent.with_remote_span_context(caller));
    let attributes = vec![
        KeyValue::new("http.request.method", method),
        KeyValue::new("request.id", request_id.to_owned()),
    ];
    let builder = tracer.span_builder(method).with_kind(SpanKind::Server).with_attributes(attributes);
    let span = builder.start_with_context(tracer, &parent);
    Span(Some(parent.with_span(span)))
}

/// Something of the service's own.
pub fn internal(name: &'static str) -> Span {
    child(SpanKind::Internal, name, Vec::new)
}

/// An HTTP request to somebody else. Not its path, which may hold an account's name.
pub fn client(method: &'static str, host: Option<&str>, port: Option<u16>) -> Span {
    child(SpanKind::Client, method, || {
        let mut attributes = vec![KeyValue::new("http.request.method", method)];
        attributes.extend(host.map(|host| KeyValue::new("server.address", host.to_owned())));
        attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        attributes
    })
}

/// A word with Redis.
pub fn redis(command: &'static str) -> Span {
    child(SpanKind::Client, command, || {
        vec![KeyValue::new("db.system.name", "redis"), KeyValue::new("db.operation.name", command)]
    })
}

/// What the database is asked for one purpose, the wait for a connection included; how that ends is [`Span::settle`]d.
pub fn statements(purpose: &'static str) -> Span {
    child(SpanKind::Client, purpose, || {
        vec![KeyValue::new("db.system.name", "postgresql"), KeyValue::new("db.query.summary", purpose)]
    })
}

/// The same around what asks.
pub fn database<T>(
    purpose: &'static str,
    statements: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    let span = self::statements(purpose);
    // Not an `async` block, which would hold the future twice.
    span.around(statements).inspect(move |result| span.settle(result))
}

/// Texts of several contexts that are embedded together, later than they were written: a trace of its own, with links to
/// those in which they were. Without any of those there is no span.
pub fn batch(written: impl IntoIterator<Item = TraceLink>, contexts: usize, chunks: usize) -> Span {
    let Some(tracer) = tracer() else { return Span(None) };
    let links: Vec<Link> = written.into_iter().map(|link| Link::with_context(recorded(link))).collect();
    if links.is_empty() {
        return Span(None);
    }
    let attributes = vec![
        KeyValue::new("embedding.contexts", contexts as i64),
        KeyValue::new("embedding.chunks", chunks as i64),
    ];
    let builder = tracer
        .span_builder("embed batch")
        .with_kind(SpanKind::Consumer)
        .with_links(links)
        .with_attributes(attributes);
    let root = Context::new();
    let span = builder.start_with_context(tracer, &root);
    Span(Some(root.with_span(span)))
}

/// The present span, if it is recorded: what is written now was written in it.
pub fn link() -> Option<TraceLink> {
    tracer()?;
    Context::map_current(|context| {
        let span = context.span();
        let it = span.span_context();
        it.is_sampled()
            .then(|| TraceLink { trace_id: it.trace_id().to_bytes(), span_id: it.span_id().to_bytes() })
    })
}

/// The trace and the span that a log line belongs to, recorded or not.
pub(super) fn present() -> Option<(TraceId, SpanId)> {
    tracer()?;
    Context::map_current(|context| {
        let span = context.span();
        let it = span.span_context();
        it.is_valid().then(|| (it.trace_id(), it.span_id()))
    })
}

fn recorded(link: TraceLink) -> SpanContext {
    let (trace_id, span_id) = (TraceId::from_bytes(link.trace_id), SpanId::from_bytes(link.span_id));
    SpanContext::new(trace_id, span_id, TraceFlags::SAMPLED, true, TraceState::NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_traces_there_is_nothing() {
        let spans = [server("GET", "id", None), internal("x"), redis("GET"), client("POST", None, None)];
        assert!(spans.iter().all(|span| span.0.is_none() && span.traceparent().is_none()));
        let link_of_another = TraceLink { trace_id: [1; 16], span_id: [1; 8] };
        assert!(batch([link_of_another], 1, 1).0.is_none());
        assert!(link().is_none() && present().is_none() && Origin::here().0.is_none());
        assert_eq!(spans[0].around(async { 7 }).await, 7);
    }
}
