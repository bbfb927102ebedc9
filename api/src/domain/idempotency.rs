//! Requests that may be sent again: the caller's key, what was asked under it, and the answer that is kept.
//! After draft-ietf-httpapi-idempotency-key-header.

use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::{UserId, limits::IDEMPOTENCY_KEY_CHARS_MAX};
use crate::error::{Error, Result};

/// A write that the caller may send again, and what it asks for.
#[derive(Clone, Debug)]
pub struct IdempotentRequest {
    pub key: IdempotencyKey,
    pub fingerprint: Fingerprint,
}

/// The caller's own name for one write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if (1..=IDEMPOTENCY_KEY_CHARS_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic())
        {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::parameter(
                "Idempotency-Key",
                format!(
                    "must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} visible ASCII characters, such as a UUID"
                ),
            ))
        }
    }
}

/// SHA-256 of all that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of the parts in their order; each goes in with its length, so that no two lists of parts are alike.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = Sha256::new();
        for part in parts {
            digest.update((part.len() as u64).to_le_bytes());
            digest.update(part);
        }
        Self(digest.finalize().into())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The answer to a write, as it is kept and given again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    pub status: u16,
    pub location: Option<String>,
    pub etag: Option<String>,
    /// JSON.
    pub body: String,
    /// Whose data it tells of: it is erased with them.
    pub users: Vec<UserId>,
}

impl KeptAnswer {
    /// For what nobody can send again.
    pub fn nothing() -> Self {
        Self { status: 204, location: None, etag: None, body: String::new(), users: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;

    #[test]
    fn a_key_is_visible_ascii_of_bounded_length() {
        for good in ["a", "0190d5a0-0000-7000-8000-000000000001", &"x".repeat(IDEMPOTENCY_KEY_CHARS_MAX)] {
            assert_eq!(good.parse::<IdempotencyKey>().unwrap().as_str(), good);
        }
        for bad in ["", " ", "a b", "ä", "a\n", &"x".repeat(IDEMPOTENCY_KEY_CHARS_MAX + 1)] {
            assert_eq!(bad.parse::<IdempotencyKey>().unwrap_err().code, Code::InvalidParameter);
        }
    }

    #[test]
    fn a_fingerprint_tells_where_one_part_ends() {
        let of = |parts: &[&str]| Fingerprint::of(parts.iter().map(|part| part.as_bytes()));
        assert_eq!(of(&["a", "bc"]), of(&["a", "bc"]));
        assert_ne!(of(&["a", "bc"]), of(&["ab", "c"]));
    }
}
