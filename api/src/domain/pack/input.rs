//! The body of a pack: all that a search takes, and besides it the members of a pack. They are told apart before either is
//! read, so that each keeps refusing what it does not know.

use serde::Deserialize;
use utoipa::ToSchema;

use super::{Budget, PackFormat, PackRequest, PackUnit, Quota, Tokenizer};
use crate::{
    domain::{
        ContextType, Members, ObjectOf, from_json,
        limits::{PACK_CHARS_MAX, PACK_QUOTAS_MAX, PACK_TOKENS_MAX, SEARCH_LIMIT_MAX},
        optional_whole, whole,
    },
    error::{Error, Result},
};

/// The members of [`PackInput`]; all others belong to the search.
const OWN: [&str; 4] = ["budget", "quotas", "format", "unit"];

/// A search, and what to make of its hits: all fields of a search, and these.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Pack)]
pub struct PackInput {
    #[schema(value_type = BudgetInput)]
    budget: ObjectOf<BudgetInput>,
    /// Bounds for the types that it names; the others share what the budget leaves.
    #[schema(value_type = Option<std::collections::BTreeMap<String, QuotaInput>>)]
    quotas: Option<Members<ObjectOf<QuotaInput>>>,
    #[serde(default)]
    format: PackFormat,
    #[serde(default)]
    unit: PackUnit,
}

/// What the text may take, frame and all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PackBudget)]
struct BudgetInput {
    /// At most 200,000; with `chars` 1,000,000.
    #[serde(deserialize_with = "whole")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_tokens: u32,
    #[serde(default)]
    tokenizer: Tokenizer,
}

/// What the pieces of one type may take. Give one of them, or both.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PackQuota)]
struct QuotaInput {
    /// Tokens of its pieces together, each with its frame.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 1_000_000)]
    max_tokens: Option<u32>,
    /// How many pieces.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 100)]
    max_items: Option<u32>,
}

/// The two parts of a body.
#[derive(Debug)]
pub struct PackBody {
    pub pack: PackInput,
    /// The search, as JSON.
    pub search: String,
    /// Whether it says how many hits it wants.
    pub has_limit: bool,
}

impl PackBody {
    /// # Errors
    /// [`crate::error::Code::InvalidJson`] or `InvalidRequest`, with the pointer.
    pub fn read(json: &[u8]) -> Result<Self> {
        let all: Members<Box<serde_json::value::RawValue>> = from_json(json)?;
        let has_limit = all.0.iter().any(|(name, value)| name == "limit" && value.get() != "null");
        let (own, search): (Vec<_>, Vec<_>) =
            all.0.into_iter().partition(|(name, _)| OWN.contains(&name.as_str()));
        let pack = from_json(Members(own).to_json()?.as_bytes())?;
        Ok(Self { pack, search: Members(search).to_json()?, has_limit })
    }
}

impl PackInput {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] with the pointer to the field.
    pub fn check(self) -> Result<PackRequest> {
        let tokenizer = self.budget.0.tokenizer;
        let most = if tokenizer == Tokenizer::Chars { PACK_CHARS_MAX } else { PACK_TOKENS_MAX };
        let max_tokens = in_range("/budget/max_tokens", self.budget.0.max_tokens, most)?;
        let quotas = self.quotas.map(|quotas| quotas.0).unwrap_or_default();
        if quotas.len() > PACK_QUOTAS_MAX {
            return Err(Error::invalid("/quotas", format!("{PACK_QUOTAS_MAX} types at most")));
        }
        let quotas = quotas
            .into_iter()
            .map(|(name, quota)| {
                let pointer = format!("/quotas/{}", name.replace('~', "~0").replace('/', "~1"));
                let quota = quota.0.check(&pointer)?;
                ContextType::new(name.clone())
                    .map_err(|error| Error::invalid(pointer, error.violations[0].detail.clone()))?;
                Ok((name, quota))
            })
            .collect::<Result<_>>()?;
        let (format, unit) = (self.format, self.unit);
        Ok(PackRequest { budget: Budget { max_tokens, tokenizer }, quotas, format, unit })
    }
}

impl QuotaInput {
    fn check(self, pointer: &str) -> Result<Quota> {
        let bound = |name, given: Option<u32>, most| {
            given.map(|given| in_range(&format!("{pointer}/{name}"), given, most)).transpose()
        };
        let quota = Quota {
            max_tokens: bound("max_tokens", self.max_tokens, PACK_CHARS_MAX)?,
            max_items: bound("max_items", self.max_items, SEARCH_LIMIT_MAX)?,
        };
        if quota == Quota::default() {
            return Err(Error::invalid(pointer, "give `max_tokens`, `max_items` or both"));
        }
        Ok(quota)
    }
}

fn in_range(pointer: &str, given: u32, most: u32) -> Result<usize> {
    if (1..=most).contains(&given) {
        Ok(given as usize)
    } else {
        Err(Error::invalid(pointer, format!("must be 1 to {most}, not {given}")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::error::Code;

    fn check(body: &Value) -> Result<PackRequest> {
        PackBody::read(body.to_string().as_bytes())?.pack.check()
    }

    #[test]
    fn a_body_is_divided_into_a_pack_and_a_search() {
        let body =
            br#" {"query":"x", "budget":{"max_tokens":7.0}, "other":[1.50], "limit":null,"unit":"chunk"}"#;
        let body = PackBody::read(body).unwrap();
        assert_eq!(
            (body.search.as_str(), body.has_limit),
            (r#"{"query":"x","other":[1.50],"limit":null}"#, false)
        );
        let request = body.pack.check().unwrap();
        assert_eq!(request.budget, Budget { max_tokens: 7, tokenizer: Tokenizer::O200kBase });
        assert_eq!((request.format, request.unit), (PackFormat::Markdown, PackUnit::Chunk));
        assert!(PackBody::read(br#"{"budget":{"max_tokens":1},"limit":3}"#).unwrap().has_limit);
    }

    #[test]
    fn limits_hold_at_both_ends() {
        for (max_tokens, tokenizer, good) in [
            (0, "o200k_base", false),
            (1, "o200k_base", true),
            (PACK_TOKENS_MAX, "cl100k_base", true),
            (PACK_TOKENS_MAX + 1, "cl100k_base", false),
            (PACK_CHARS_MAX, "chars", true),
            (PACK_CHARS_MAX + 1, "chars", false),
        ] {
            let checked = check(&json!({"budget": {"max_tokens": max_tokens, "tokenizer": tokenizer}}));
            assert_eq!(checked.is_ok(), good, "{max_tokens} {tokenizer}");
        }
        let quotas = |count: usize| {
            let quotas: serde_json::Map<_, _> =
                (0..count).map(|n| (format!("t{n}"), json!({"max_items": 1}))).collect();
            check(&json!({"budget": {"max_tokens": 1}, "quotas": quotas}))
        };
        assert_eq!(quotas(PACK_QUOTAS_MAX).unwrap().quotas.len(), PACK_QUOTAS_MAX);
        assert!(quotas(PACK_QUOTAS_MAX + 1).is_err());
    }

    #[test]
    fn what_is_wrong_has_its_pointer() {
        for (body, pointer) in [
            (r#"{"query":"x"}"#, ""),
            (r"[]", ""),
            (r#"{"budget":{"max_tokens":10},"budget":{"max_tokens":11}}"#, ""),
            (r#"{"budget":{}}"#, "/budget"),
            (r#"{"budget":{"max_tokens":null}}"#, "/budget/max_tokens"),
            (r#"{"budget":{"max_tokens":1.5}}"#, "/budget/max_tokens"),
            (r#"{"budget":{"max_tokens":0}}"#, "/budget/max_tokens"),
            (r#"{"budget":{"max_tokens":1,"tokens":2}}"#, "/budget/tokens"),
            (r#"{"budget":{"max_tokens":1,"tokenizer":"p50k"}}"#, "/budget/tokenizer"),
            (r#"{"budget":{"max_tokens":1},"format":null}"#, "/format"),
            (r#"{"budget":{"max_tokens":1},"quotas":{"a/b":{}}}"#, "/quotas/a~1b"),
            (r#"{"budget":{"max_tokens":1},"quotas":{"a":{"max_items":101}}}"#, "/quotas/a/max_items"),
            (r#"{"budget":{"max_tokens":1},"quotas":{"a":{"max_tokens":0}}}"#, "/quotas/a/max_tokens"),
            (r#"{"budget":{"max_tokens":1},"quotas":{" ":{"max_items":1}}}"#, "/quotas/ "),
            (r#"{"budget":{"max_tokens":1},"quotas":[]}"#, "/quotas"),
        ] {
            let read = PackBody::read(body.as_bytes()).and_then(|body| body.pack.check());
            let error = read.expect_err(body);
            assert_eq!(
                (error.code, error.violations[0].pointer.as_str()),
                (Code::InvalidRequest, pointer),
                "{body}"
            );
        }
        assert_eq!(PackBody::read(b"{").unwrap_err().code, Code::InvalidJson);
        assert!(check(&json!({"budget": {"max_tokens": 1}, "quotas": null})).unwrap().quotas.is_empty());
    }
}
