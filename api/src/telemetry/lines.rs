//! Log lines that name the request and the trace they belong to. Not by a span of `tracing`: that costs each request more than its line does,
//! and most requests have no other line.

use std::{fmt, fmt::Write as _, future::Future, sync::Arc};

use tokio::task::futures::TaskLocalFuture;
use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use super::spans::present;

tokio::task_local! {
    static REQUEST: Arc<str>;
}

/// Has the lines that `future` logs name this request: an id of letters, digits, `-`, `_` and `.`.
pub fn of_request<F: Future>(id: Arc<str>, future: F) -> TaskLocalFuture<Arc<str>, F> {
    REQUEST.scope(id, future)
}

/// The lines of `F`, with trace, span and request first where there are any: more members of a JSON object, or words.
pub(super) struct WithOrigin<F>(pub F);

impl<F, S, N> FormatEvent<S, N> for WithOrigin<F>
where
    F: FormatEvent<S, N>,
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let (trace, request) = (present(), REQUEST.try_with(Arc::clone).ok());
        if trace.is_none() && request.is_none() {
            return self.0.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.0.format_event(context, Writer::new(&mut line), event)?;
        let members = line.strip_prefix('{');
        let mut origin = String::new();
        let mut add = |name: &str, value: &dyn fmt::Display| match members {
            Some(_) => write!(origin, "\"{name}\":\"{value}\","),
            None => write!(origin, "{name}={value} "),
        };
        if let Some((trace, span)) = trace {
            add("trace_id", &trace)?;
            add("span_id", &span)?;
        }
        if let Some(request) = request {
            add("request.id", &request)?;
        }
        match members {
            Some(members) => write!(writer, "{{{origin}{members}"),
            None => write!(writer, "{origin}{line}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap()
        }
    }

    #[tokio::test]
    async fn what_is_logged_for_a_request_names_it() {
        let (json, text) = (Lines::default(), Lines::default());
        let writer = json.clone();
        let subscriber =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let guard = tracing::subscriber::set_default(subscriber.map_event_format(WithOrigin).finish());
        of_request("a-1.b".into(), async { tracing::info!(answer = 42, "inside") }).await;
        tracing::info!("outside");
        drop(guard);
        let lines: Vec<serde_json::Value> =
            json.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((&lines[0]["request.id"], &lines[0]["answer"]), (&"a-1.b".into(), &42.into()));
        assert_eq!((lines.len(), lines[1].get("request.id")), (2, None));

        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let guard = tracing::subscriber::set_default(subscriber.map_event_format(WithOrigin).finish());
        of_request("a-1.b".into(), async { tracing::info!("inside") }).await;
        drop(guard);
        assert!(text.text().starts_with("request.id=a-1.b "), "{}", text.text());
    }
}
