//! The names that callers give: kinds, keys.

use crate::{
    domain::limits::{CONTEXT_TYPE_CHARS_MAX, KEY_CHARS_MAX},
    error::{Error, Result},
};

/// A text of 1 to `chars_max` characters that PostgreSQL can keep.
pub(super) fn bounded_name(pointer: &str, text: String, chars_max: usize) -> Result<String> {
    if text.trim().is_empty() || text.chars().count() > chars_max {
        return Err(Error::invalid(pointer, format!("must have 1 to {chars_max} characters, not all blank")));
    }
    if text.contains('\0') {
        return Err(Error::invalid(pointer, "must not hold the character U+0000"));
    }
    Ok(text)
}

/// The kind of a context, in the caller's own words: `note`, `message`, `profile` …
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextType(String);

impl ContextType {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] at `/context_type`.
    pub fn new(text: String) -> Result<Self> {
        bounded_name("/context_type", text, CONTEXT_TYPE_CHARS_MAX).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for ContextType {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        Self::new(text.to_owned())
    }
}

/// The caller's own name for a context, unique per user. Writing to a key that exists updates its context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextKey(String);

impl ContextKey {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] at `/key`.
    pub fn new(text: String) -> Result<Self> {
        bounded_name("/key", text, KEY_CHARS_MAX).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_in_characters_not_bytes() {
        assert!(ContextType::new("ä".repeat(CONTEXT_TYPE_CHARS_MAX)).is_ok());
        assert!(ContextType::new("ä".repeat(CONTEXT_TYPE_CHARS_MAX + 1)).is_err());
        assert!(ContextKey::new("ä".repeat(KEY_CHARS_MAX)).is_ok());
        assert!(ContextKey::new("ä".repeat(KEY_CHARS_MAX + 1)).is_err());
        assert!(ContextKey::new(" ".into()).is_err() && ContextKey::new("a\0".into()).is_err());
    }
}
