//! A search as it is sent, and how it is checked.

use serde::Deserialize;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Effort, Fusion, Included, Mode, Ranking, Recency, SearchQuery, SearchRequest, SearchScope, Weights,
};
use crate::{
    domain::{
        Access, ContextType, Filter, ObjectOf, UserId, Vector,
        limits::{
            CONTEXT_TYPES_MAX, HALF_LIFE_SECONDS_MAX, QUERY_BYTES_MAX, SEARCH_LIMIT_DEFAULT,
            SEARCH_LIMIT_MAX, WEIGHT_MAX,
        },
        optional_whole, time_parameter,
    },
    error::{Error, Result},
};

/// What to look for. Give `query` or `vector`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Search)]
pub struct SearchInput {
    /// Words or a question, at most 8 KiB.
    #[schema(min_length = 1, max_length = 8192)]
    query: Option<String>,
    /// A vector of the active embedding space; with `mode: semantic` only.
    #[schema(min_items = 1, max_items = 4000)]
    vector: Option<Vec<f32>>,
    #[serde(default)]
    mode: Mode,
    /// Only contexts of this user.
    user_id: Option<Uuid>,
    /// Only contexts of these types; all when left out.
    #[serde(default)]
    #[schema(max_items = 20)]
    context_types: Vec<String>,
    /// Only contexts that pass, such as `{"metadata.source": "manual"}`; see the guide.
    #[schema(value_type = Option<Object>)]
    filter: Option<Box<RawValue>>,
    /// Only what holds then, by `valid_from` and `valid_to`; left out: what holds now, or at `as_of`.
    #[schema(format = DateTime)]
    valid_at: Option<String>,
    /// As everything was then, as far back as history is kept.
    #[schema(format = DateTime)]
    as_of: Option<String>,
    /// Hits wanted; 10 when left out.
    #[serde(default, deserialize_with = "optional_whole")]
    #[schema(minimum = 1, maximum = 100, default = 10)]
    limit: Option<u32>,
    /// How a hybrid search makes one list of two.
    #[serde(default)]
    fusion: Fusion,
    /// How much each leg of a hybrid search counts.
    #[schema(value_type = Option<WeightsInput>)]
    weights: Option<ObjectOf<WeightsInput>>,
    /// Prefer what was written lately.
    #[schema(value_type = Option<RecencyInput>)]
    recency: Option<ObjectOf<RecencyInput>>,
    /// Leave out hits with a lower `score`. What scores are depends on the mode; see there.
    min_score: Option<f64>,
    /// From 0 to 1: how much a hit loses by being like those before it (maximal marginal relevance).
    #[schema(minimum = 0.0, maximum = 1.0)]
    diversity: Option<f64>,
    /// How much is done for what is nearest in meaning to be among the hits.
    #[serde(default)]
    effort: Effort,
    /// Have the hits put in order by the reranker, which reads the query and each chunk together. Their `score` is then its own.
    #[serde(default)]
    rerank: bool,
    /// Say of each hit how it got its place, and how long each stage took.
    #[serde(default)]
    explain: bool,
    /// The large fields that each hit's context brings along; all three when left out.
    #[schema(max_items = 3)]
    include: Option<Vec<Part>>,
}

/// How much each leg of a hybrid search counts: 0.4 and 0.6 when left out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SearchWeights)]
struct WeightsInput {
    /// Of the meaning; 0.4 when left out.
    #[schema(minimum = 0.0, maximum = 1000.0, default = 0.4)]
    semantic: Option<f64>,
    /// Of the words; 0.6 when left out.
    #[schema(minimum = 0.0, maximum = 1000.0, default = 0.6)]
    keyword: Option<f64>,
}

/// How fast contexts grow old.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SearchRecency)]
struct RecencyInput {
    /// Seconds since the last write, after which half of the share is lost.
    #[schema(exclusive_minimum = 0.0, maximum = 316_224_000.0)]
    half_life_seconds: f64,
    /// The share of a hit's score that age can take, from 0 to 1; 0.5 when left out.
    #[schema(minimum = 0.0, maximum = 1.0, default = 0.5)]
    weight: Option<f64>,
}

/// A large field of a context.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = SearchPart)]
enum Part {
    Content,
    Metadata,
    Text,
}
const PARTS: usize = 3;

impl SearchInput {
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`] or `InvalidVector` with the pointer to the field; `UserNotAllowed`.
    pub fn check(self, access: Access) -> Result<SearchRequest> {
        let scope = SearchScope {
            user_id: access.confine(self.user_id.map(UserId))?,
            context_types: checked_types(self.context_types)?,
            filter: self
                .filter
                .filter(|raw| raw.get() != "null")
                .map(|raw| Filter::parse(&raw).map_err(|error| error.at("/filter")))
                .transpose()?,
            valid_at: checked_time("/valid_at", self.valid_at)?,
            as_of: checked_time("/as_of", self.as_of)?,
        };
        let ranking = Ranking {
            fusion: self.fusion,
            weights: self.weights.map(|weights| weights.0.check()).transpose()?.unwrap_or_default(),
            recency: self.recency.map(|recency| recency.0.check()).transpose()?,
            min_score: self.min_score,
            diversity: in_range("/diversity", self.diversity.unwrap_or(0.0), 1.0)?,
        };
        let include = self.include.map_or(Ok(Included::ALL), |parts| checked_parts(&parts))?;
        let limit = match self.limit.unwrap_or(SEARCH_LIMIT_DEFAULT) {
            limit @ 1..=SEARCH_LIMIT_MAX => limit,
            limit => {
                return Err(Error::invalid(
                    "/limit",
                    format!("must be 1 to {SEARCH_LIMIT_MAX}, not {limit}"),
                ));
            }
        };
        let query = checked_query(self.query, self.vector, self.mode)?;
        let (mode, effort, explain, rerank) = (self.mode, self.effort, self.explain, self.rerank);
        if rerank && matches!(query, SearchQuery::Vector(_)) {
            return Err(Error::invalid(
                "/rerank",
                "a search by `vector` has no words that texts could be compared with",
            ));
        }
        Ok(SearchRequest { query, mode, scope, limit, ranking, effort, explain, include, rerank })
    }
}

impl WeightsInput {
    fn check(self) -> Result<Weights> {
        let usual = Weights::default();
        let weights = Weights {
            semantic: in_range("/weights/semantic", self.semantic.unwrap_or(usual.semantic), WEIGHT_MAX)?,
            keyword: in_range("/weights/keyword", self.keyword.unwrap_or(usual.keyword), WEIGHT_MAX)?,
        };
        if weights.semantic + weights.keyword > 0.0 {
            Ok(weights)
        } else {
            Err(Error::invalid("/weights", "one of them must be above 0"))
        }
    }
}

impl RecencyInput {
    fn check(self) -> Result<Recency> {
        let half_life_seconds = self.half_life_seconds;
        if !(half_life_seconds > 0.0 && half_life_seconds <= HALF_LIFE_SECONDS_MAX) {
            return Err(Error::invalid(
                "/recency/half_life_seconds",
                format!("must be above 0, {HALF_LIFE_SECONDS_MAX} at most"),
            ));
        }
        let weight = in_range("/recency/weight", self.weight.unwrap_or(0.5), 1.0)?;
        Ok(Recency { half_life_seconds, weight })
    }
}

fn in_range(pointer: &str, value: f64, max: f64) -> Result<f64> {
    if (0.0..=max).contains(&value) {
        Ok(value)
    } else {
        Err(Error::invalid(pointer, format!("must be 0 to {max}, not {value}")))
    }
}

fn checked_parts(parts: &[Part]) -> Result<Included> {
    if parts.len() > PARTS {
        return Err(Error::invalid("/include", format!("there are only {PARTS} to name")));
    }
    Ok(Included {
        content: parts.contains(&Part::Content),
        metadata: parts.contains(&Part::Metadata),
        text: parts.contains(&Part::Text),
    })
}

fn checked_time(pointer: &'static str, text: Option<String>) -> Result<Option<OffsetDateTime>> {
    let parse = |text: String| {
        time_parameter(pointer, &text)
            .map_err(|error| Error::invalid(pointer, error.violations[0].detail.clone()))
    };
    text.map(parse).transpose()
}

fn checked_types(types: Vec<String>) -> Result<Vec<ContextType>> {
    if types.len() > CONTEXT_TYPES_MAX {
        return Err(Error::invalid("/context_types", format!("{CONTEXT_TYPES_MAX} types at most")));
    }
    let check = |(index, text)| {
        ContextType::new(text).map_err(|mut error| {
            error.violations.iter_mut().for_each(|v| v.pointer = format!("/context_types/{index}"));
            error
        })
    };
    types.into_iter().enumerate().map(check).collect()
}

fn checked_query(query: Option<String>, vector: Option<Vec<f32>>, mode: Mode) -> Result<SearchQuery> {
    match (query, vector) {
        (Some(text), None) => checked_text(text).map(SearchQuery::Text),
        (None, Some(values)) if mode == Mode::Semantic => {
            Vector::new(values).map(SearchQuery::Vector).map_err(|error| error.at("/vector"))
        }
        (None, Some(_)) => Err(Error::invalid("/mode", "a search by `vector` has no words; use `semantic`")),
        (Some(_), Some(_)) => Err(Error::invalid("/vector", "give either `query` or `vector`, not both")),
        (None, None) => Err(Error::invalid("/query", "give `query` or `vector`")),
    }
}

fn checked_text(text: String) -> Result<String> {
    if text.trim().is_empty() {
        return Err(Error::invalid("/query", "must not be blank"));
    }
    if text.len() > QUERY_BYTES_MAX {
        return Err(Error::invalid("/query", format!("is {} bytes, {QUERY_BYTES_MAX} at most", text.len())));
    }
    if text.contains('\0') {
        return Err(Error::invalid("/query", "must not hold the character U+0000"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::domain::DEFAULT_TENANT;

    fn check(body: Value) -> Result<SearchRequest> {
        let input: SearchInput = serde_json::from_str(&body.to_string()).unwrap();
        input.check(Access { tenant: DEFAULT_TENANT, user: None })
    }

    fn pointer(body: Value) -> String {
        check(body).unwrap_err().violations[0].pointer.clone()
    }

    #[test]
    fn a_search_has_either_words_or_a_vector() {
        assert!(check(json!({"query": "x"})).is_ok());
        assert!(check(json!({"vector": [1.0], "mode": "semantic"})).is_ok());
        assert_eq!(pointer(json!({"vector": [1.0]})), "/mode");
        assert_eq!(pointer(json!({"query": "x", "vector": [1.0], "mode": "semantic"})), "/vector");
        assert_eq!(pointer(json!({})), "/query");
        assert!(check(json!({"query": "x", "rerank": true})).unwrap().rerank);
        assert_eq!(pointer(json!({"vector": [1.0], "mode": "semantic", "rerank": true})), "/rerank");
    }

    #[test]
    fn limits_hold_at_both_ends() {
        assert!(check(json!({"query": "x", "limit": SEARCH_LIMIT_MAX})).is_ok());
        for limit in [0, SEARCH_LIMIT_MAX + 1] {
            assert_eq!(pointer(json!({"query": "x", "limit": limit})), "/limit");
        }
        assert!(check(json!({"query": "x".repeat(QUERY_BYTES_MAX)})).is_ok());
        assert!(check(json!({"query": "x".repeat(QUERY_BYTES_MAX + 1)})).is_err());
        assert!(check(json!({"query": " \n"})).is_err());
        let types = |count: usize| json!({"query": "x", "context_types": vec!["t"; count]});
        assert!(check(types(CONTEXT_TYPES_MAX)).is_ok());
        assert_eq!(pointer(types(CONTEXT_TYPES_MAX + 1)), "/context_types");
    }

    #[test]
    fn every_knob_has_its_range_and_its_pointer() {
        for (field, good, bad, at) in [
            ("diversity", json!(1), json!(1.01), "/diversity"),
            ("diversity", json!(0), json!(-0.01), "/diversity"),
            ("weights", json!({"semantic": 0}), json!({"semantic": 0, "keyword": 0}), "/weights"),
            ("weights", json!({"keyword": 1000}), json!({"keyword": 1000.5}), "/weights/keyword"),
            (
                "recency",
                json!({"half_life_seconds": 0.5}),
                json!({"half_life_seconds": 0}),
                "/recency/half_life_seconds",
            ),
            (
                "recency",
                json!({"half_life_seconds": 60, "weight": 1}),
                json!({"half_life_seconds": 60, "weight": 1.1}),
                "/recency/weight",
            ),
            ("filter", json!({"metadata.a": 1}), json!({"metadata.a": {"$no": 1}}), "/filter/metadata.a/$no"),
            ("include", json!([]), json!(["text", "text", "text", "text"]), "/include"),
            ("as_of", json!("2026-01-01T00:00:00Z"), json!("yesterday"), "/as_of"),
            ("valid_at", json!("2026-01-01T00:00:00Z"), json!("1900-01-01T00:00:00Z"), "/valid_at"),
        ] {
            let body = |value: &Value| json!({"query": "x", field: value});
            assert!(check(body(&good)).is_ok(), "{field} {good}");
            assert_eq!(pointer(body(&bad)), at, "{field} {bad}");
        }
    }

    #[test]
    fn what_is_included_is_what_was_named() {
        assert_eq!(check(json!({"query": "x"})).unwrap().include, Included::ALL);
        let include = check(json!({"query": "x", "include": ["text"]})).unwrap().include;
        assert_eq!(include, Included { content: false, metadata: false, text: true });
    }
}
