//! JSON merge patch (RFC 7396) of a context. Works on raw JSON, because a number that went through a double may have lost
//! digits: what the patch does not name comes out as it went in.

use indexmap::IndexMap;
use serde_json::value::{RawValue, to_raw_value};
use time::format_description::well_known::Rfc3339;

use super::{Context, ContextInput, NewContext, parse::from_json};
use crate::error::{Code, Error, Result};

type Object = IndexMap<String, Box<RawValue>>;

/// Levels of a patch: those of a document and some around it. What the result may have is checked as for any other.
const DEPTH_MAX: usize = 100;

/// Changes of a context's writable fields.
#[derive(Debug)]
pub struct ContextPatch(Object);

impl ContextPatch {
    /// # Errors
    /// [`Code::InvalidJson`] or [`Code::InvalidRequest`] when it is no object.
    pub fn parse(json: &[u8]) -> Result<Self> {
        from_json(json).map(Self)
    }

    /// Whether it brings an embedding of the caller's own.
    pub fn gives_embedding(&self) -> bool {
        self.sets("embedding")
    }

    /// Whether it gives `name` a value.
    fn sets(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|value| value.get() != "null")
    }

    /// What `context` becomes.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] and the like, with pointers into the patched context.
    pub fn apply(&self, context: &Context) -> Result<NewContext> {
        let mut target = self.writable(context)?;
        merge_into(&mut target, &self.0, 1)?;
        let merged = serde_json::to_vec(&target).map_err(Error::internal)?;
        let mut new = from_json::<ContextInput>(&merged)?.check()?;
        if !self.0.contains_key("content") && !self.0.contains_key("text") {
            // The text stays as it is, also where it was extracted from content in an order that nobody remembers.
            new.text.clone_from(&context.text);
            new.text_given = context.text_given;
        }
        Ok(new)
    }

    /// The fields of `context` that a caller may write, but for those that the patch puts out of force.
    fn writable(&self, context: &Context) -> Result<Object> {
        let sets_ttl = self.sets("ttl_seconds");
        let mut object = Object::new();
        let mut put = |name: &str, value: serde_json::Result<Box<RawValue>>| {
            value.map(|value| object.insert(name.to_owned(), value)).map_err(Error::internal)
        };
        put("user_id", to_raw_value(&context.user_id))?;
        put("context_type", to_raw_value(&context.context_type))?;
        if let Some(key) = &context.key {
            put("key", to_raw_value(key))?;
        }
        put("content", Ok(context.content.clone()))?;
        put("metadata", Ok(context.metadata.clone()))?;
        if context.text_given {
            put("text", to_raw_value(&context.text))?;
        }
        put("language", to_raw_value(&context.language))?;
        let sliding = context.sliding_ttl_seconds.filter(|_| !sets_ttl);
        if let Some(seconds) = sliding {
            put("sliding_ttl_seconds", to_raw_value(&seconds))?;
        }
        let expires_at = context.expires_at.filter(|_| !sets_ttl && !self.sets("sliding_ttl_seconds"));
        for (name, at) in
            [("expires_at", expires_at), ("valid_from", context.valid_from), ("valid_to", context.valid_to)]
        {
            if let Some(at) = at {
                put(name, to_raw_value(&at.format(&Rfc3339).map_err(Error::internal)?))?;
            }
        }
        Ok(object)
    }
}

fn merge_into(target: &mut Object, patch: &Object, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        return Err(Error::new(Code::InvalidJson, "The patch is nested too deeply."));
    }
    for (name, change) in patch {
        if change.get() == "null" {
            target.shift_remove(name);
        } else if is_object(change) {
            let mut inner = match target.get(name) {
                Some(present) if is_object(present) => from_json(present.get().as_bytes())?,
                _ => Object::new(),
            };
            merge_into(&mut inner, &from_json(change.get().as_bytes())?, depth + 1)?;
            target.insert(name.clone(), to_raw_value(&inner).map_err(Error::internal)?);
        } else {
            target.insert(name.clone(), change.clone());
        }
    }
    Ok(())
}

fn is_object(value: &RawValue) -> bool {
    value.get().starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(target: &str, patch: &str) -> String {
        let mut object: Object = from_json(format!(r#"{{"a":{target}}}"#).as_bytes()).unwrap();
        let patch: Object = from_json(format!(r#"{{"a":{patch}}}"#).as_bytes()).unwrap();
        merge_into(&mut object, &patch, 1).unwrap();
        object.get("a").map_or_else(|| "nothing".to_owned(), |value| value.get().to_owned())
    }

    /// The table of RFC 7396, appendix A, one level down.
    #[test]
    fn the_examples_of_the_standard_come_out_right() {
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"b":"c"}"#, r#"{"a":"b","b":"c"}"#),
            (r#"{"a":"b"}"#, r#"{"a":null}"#, "{}"),
            (r#"{"a":"b","b":"c"}"#, r#"{"a":null}"#, r#"{"b":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":"c"}"#, r#"{"a":["b"]}"#, r#"{"a":["b"]}"#),
            (r#"{"a":{"b":"c"}}"#, r#"{"a":{"b":"d","c":null}}"#, r#"{"a":{"b":"d"}}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"b"}"#, r#"["c"]"#, r#"["c"]"#),
            (r#"{"a":"foo"}"#, "null", "nothing"),
            (r#"{"a":"foo"}"#, r#""bar""#, r#""bar""#),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            assert_eq!(merged(target, patch), result, "{target} patched with {patch}");
        }
    }

    #[test]
    fn numbers_keep_their_digits() {
        let number = "12345678901234567890.123456789012345678901";
        assert_eq!(
            merged(&format!(r#"{{"n":{number}}}"#), r#"{"m":1}"#),
            format!(r#"{{"n":{number},"m":1}}"#)
        );
    }

    #[test]
    fn a_patch_is_an_object_of_bounded_depth() {
        for patch in ["[]", "1", "null", ""] {
            assert!(ContextPatch::parse(patch.as_bytes()).is_err());
        }
        let deep = |levels: usize| {
            let patch = format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels));
            let mut target = Object::new();
            from_json(patch.as_bytes()).and_then(|patch| merge_into(&mut target, &patch, 1))
        };
        assert!(deep(DEPTH_MAX).is_ok());
        assert_eq!(deep(DEPTH_MAX + 1).unwrap_err().code, Code::InvalidJson);
        assert!(deep(100_000).is_err());
    }
}
