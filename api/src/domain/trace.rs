//! The span in which something was written, kept with it so that later work can point back to it.

/// A span of a trace that is recorded, as W3C Trace Context numbers both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceLink {
    pub trace_id: [u8; 16],
    pub span_id: [u8; 8],
}

impl TraceLink {
    /// As it is stored: the trace, then the span.
    pub fn to_bytes(self) -> [u8; 24] {
        let mut bytes = [0; 24];
        bytes[..16].copy_from_slice(&self.trace_id);
        bytes[16..].copy_from_slice(&self.span_id);
        bytes
    }

    /// None for bytes of another length.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace_id, span_id) = bytes.split_first_chunk()?;
        Some(Self { trace_id: *trace_id, span_id: span_id.try_into().ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_survives_its_bytes_and_other_lengths_are_none() {
        let link = TraceLink { trace_id: *b"0123456789abcdef", span_id: *b"ghijklmn" };
        assert_eq!(&link.to_bytes(), b"0123456789abcdefghijklmn");
        assert_eq!(TraceLink::from_bytes(&link.to_bytes()), Some(link));
        for other in [&b""[..], b"0123456789abcdef", b"0123456789abcdefghijklm", b"0123456789abcdefghijklmno"]
        {
            assert_eq!(TraceLink::from_bytes(other), None);
        }
    }
}
