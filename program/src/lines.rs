//! Log lines that name where they come from, such as a request. Not by a span of `tracing`: that costs each request more than its
//! line does, and most requests have no other line.

use std::fmt::{self, Display, Write as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Calls what it is given with the names and the values that a line says besides its own, at the moment when it is written. Both
/// consist of letters, digits, `-`, `_` and `.`.
pub type LineOrigin = fn(&mut dyn FnMut(&str, &dyn Display) -> fmt::Result) -> fmt::Result;

/// The lines of `format` with their origin, if there is one: as the first members of a JSON object, or as the last words, because
/// people look for the time first.
pub(crate) struct WithOrigin<F> {
    pub format: F,
    pub origin: Option<LineOrigin>,
    pub is_json: bool,
}

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
        let mut origin = String::new();
        let mut add = |name: &str, value: &dyn Display| {
            if self.is_json {
                write!(origin, "\"{name}\":\"{value}\",")
            } else {
                write!(origin, " {name}={value}")
            }
        };
        self.origin.map_or(Ok(()), |origin| origin(&mut add))?;
        if origin.is_empty() {
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        match line.strip_prefix('{').filter(|_| self.is_json) {
            Some(members) => write!(writer, "{{{origin}{members}"),
            None => writeln!(writer, "{}{origin}", line.trim_end_matches('\n')),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        io,
        sync::{Arc, Mutex, PoisonError},
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

    thread_local! {
        static NUMBER: Cell<Option<u8>> = const { Cell::new(None) };
    }

    fn number(add: &mut dyn FnMut(&str, &dyn Display) -> fmt::Result) -> fmt::Result {
        NUMBER.get().map_or(Ok(()), |number| {
            add("number", &number)?;
            add("letter", &"a-1.b")
        })
    }

    fn log_both() {
        NUMBER.set(Some(7));
        tracing::info!(answer = 42, "inside");
        NUMBER.set(None);
        tracing::info!("outside");
    }

    #[test]
    fn lines_of_json_begin_with_their_origin() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let subscriber = builder
            .map_event_format(|format| WithOrigin { format, origin: Some(number), is_json: true })
            .finish();
        tracing::subscriber::with_default(subscriber, log_both);
        let text = lines.text();
        assert!(text.starts_with(r#"{"number":"7","letter":"a-1.b","#), "{text}");
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let of = |line: usize, name: &str| lines[line].get(name).cloned();
        assert_eq!([of(0, "answer"), of(0, "message")], [Some(42.into()), Some("inside".into())]);
        assert_eq!([of(1, "number"), of(1, "message")], [None, Some("outside".into())]);
    }

    #[test]
    fn lines_for_people_end_with_it() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = builder
            .map_event_format(|format| WithOrigin { format, origin: Some(number), is_json: false })
            .finish();
        tracing::subscriber::with_default(subscriber, log_both);
        let text = lines.text();
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].ends_with(" inside answer=42 number=7 letter=a-1.b"), "{text}");
        assert!(lines.len() == 2 && lines[1].ends_with(" outside"), "{text}");
    }
}
