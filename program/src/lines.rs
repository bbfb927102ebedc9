//! Log lines that name where they come from, such as a request. Not by a span of `tracing`: that costs each request more than its
//! line does, and most requests have no other line.

use std::fmt::{self, Display, Write as _};

use tracing::{Event, Subscriber};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

/// Gives what it is called with the names and the values that a line begins with, at the moment when it is written. Both consist of
/// letters, digits, `-`, `_` and `.`.
pub type Origin = fn(&mut dyn FnMut(&str, &dyn Display) -> fmt::Result) -> fmt::Result;

/// The lines of `format`, with the origin first, if there is one: more members of a JSON object, or words.
pub(crate) struct WithOrigin<F> {
    pub format: F,
    pub origin: Option<Origin>,
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
                write!(origin, "{name}={value} ")
            }
        };
        self.origin.map_or(Ok(()), |origin| origin(&mut add))?;
        if origin.is_empty() || !self.is_json {
            writer.write_str(&origin)?;
            return self.format.format_event(context, writer, event);
        }
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        write!(writer, "{{{origin}{}", line.strip_prefix('{').unwrap_or(&line))
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
    fn lines_of_json_begin_with_what_the_origin_says() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder =
            tracing_subscriber::fmt().with_writer(move || writer.clone()).json().flatten_event(true);
        let subscriber = builder
            .map_event_format(|format| WithOrigin { format, origin: Some(number), is_json: true })
            .finish();
        tracing::subscriber::with_default(subscriber, log_both);
        let lines: Vec<serde_json::Value> =
            lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        let of = |line: usize, name: &str| lines[line].get(name).cloned();
        assert_eq!([of(0, "number"), of(0, "letter")], [Some("7".into()), Some("a-1.b".into())]);
        assert_eq!([of(0, "answer"), of(0, "message")], [Some(42.into()), Some("inside".into())]);
        assert_eq!([of(1, "number"), of(1, "message")], [None, Some("outside".into())]);
    }

    #[test]
    fn lines_for_people_do_so_in_words() {
        let lines = Lines::default();
        let writer = lines.clone();
        let builder = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone());
        let subscriber = builder
            .map_event_format(|format| WithOrigin { format, origin: Some(number), is_json: false })
            .finish();
        tracing::subscriber::with_default(subscriber, log_both);
        let text = lines.text();
        assert!(text.starts_with("number=7 letter=a-1.b "), "{text}");
        assert!(text.lines().nth(1).is_some_and(|line| !line.contains("number")), "{text}");
    }
}
