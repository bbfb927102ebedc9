//! The header by which a trace goes on from one program to the next: `traceparent` of W3C Trace Context.

use opentelemetry::trace::{SpanContext, SpanId, TraceFlags, TraceId, TraceState};

/// None for a span that is none.
pub(super) fn write(span: &SpanContext) -> Option<String> {
    let flags = span.trace_flags() & TraceFlags::SAMPLED;
    span.is_valid().then(|| format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), flags.to_u8()))
}

/// To the letter: the crate's own reading takes shorter numbers and signs. Whatever else
/// comes is as if there were none. `tracestate` is not read: it is the callers' own text, and would be passed on.
pub(super) fn read(text: &str) -> Option<SpanContext> {
    const LENGTH: usize = 55;
    let (known, rest) = text.as_bytes().split_at_checked(LENGTH)?;
    let known = str::from_utf8(known).ok()?;
    let mut parts = known.split('-');
    let mut next = |digits: usize| {
        parts.next().filter(|part| {
            part.len() == digits && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        })
    };
    let (version, trace_id, span_id, flags) = (next(2)?, next(32)?, next(16)?, next(2)?);
    // A later version may say more, behind another dash.
    if version == "ff" || !rest.is_empty() && (version == "00" || rest[0] != b'-') {
        return None;
    }
    let flags = TraceFlags::new(u8::from_str_radix(flags, 16).ok()?) & TraceFlags::SAMPLED;
    let (trace_id, span_id) = (TraceId::from_hex(trace_id).ok()?, SpanId::from_hex(span_id).ok()?);
    let caller = SpanContext::new(trace_id, span_id, flags, true, TraceState::NONE);
    caller.is_valid().then_some(caller)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_read_to_the_letter() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for (text, sampled) in [
            (format!("00-{trace}-{span}-01"), true),
            (format!("00-{trace}-{span}-00"), false),
            (format!("00-{trace}-{span}-03"), true),
            (format!("cc-{trace}-{span}-01"), true),
            (format!("cc-{trace}-{span}-01-what-comes-later"), true),
        ] {
            let caller = read(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(
                (caller.trace_id().to_string(), caller.span_id().to_string()),
                (trace.into(), span.into())
            );
            assert_eq!((caller.is_sampled(), caller.is_remote()), (sampled, true), "{text}");
        }
        let written = read(&format!("00-{trace}-{span}-03")).and_then(|caller| write(&caller));
        assert_eq!(written, Some(format!("00-{trace}-{span}-01")));
        assert!(write(&SpanContext::NONE).is_none());
        for malformed in [
            String::new(),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{trace}-{span}-01-"),
            format!("00-{trace}-{span}-01-more"),
            format!("cc-{trace}-{span}-01more"),
            format!("ff-{trace}-{span}-01"),
            format!("+0-{trace}-{span}-01"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-+{}-{span}-01", &trace[1..]),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}{span}--01"),
            format!("00-{trace}-{span}-0g"),
            format!("é{}", "0".repeat(53)),
            "é".repeat(40),
        ] {
            assert!(read(&malformed).is_none(), "{malformed}");
        }
    }
}
