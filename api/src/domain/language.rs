//! The language of a text: which ending of a word keyword search leaves out, and which words it does not look for.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};
use utoipa::ToSchema;

use crate::error::{Error, Result};

/// The language that the text is written in, by its code of ISO 639-1. `und` is any other: its words are looked for as they are.
// To the database each is the PostgreSQL text search configuration of its name.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Deserialize,
    Serialize,
    ToSchema,
    EnumIter,
    EnumString,
    IntoStaticStr,
)]
#[strum(serialize_all = "snake_case")]
pub enum Language {
    #[serde(rename = "ar")]
    Arabic,
    #[serde(rename = "ca")]
    Catalan,
    #[serde(rename = "da")]
    Danish,
    #[serde(rename = "de")]
    German,
    #[serde(rename = "el")]
    Greek,
    #[default]
    #[serde(rename = "en")]
    English,
    #[serde(rename = "es")]
    Spanish,
    #[serde(rename = "eu")]
    Basque,
    #[serde(rename = "fi")]
    Finnish,
    #[serde(rename = "fr")]
    French,
    #[serde(rename = "ga")]
    Irish,
    #[serde(rename = "hi")]
    Hindi,
    #[serde(rename = "hu")]
    Hungarian,
    #[serde(rename = "hy")]
    Armenian,
    #[serde(rename = "id")]
    Indonesian,
    #[serde(rename = "it")]
    Italian,
    #[serde(rename = "lt")]
    Lithuanian,
    #[serde(rename = "ne")]
    Nepali,
    #[serde(rename = "nl")]
    Dutch,
    #[serde(rename = "no")]
    Norwegian,
    #[serde(rename = "pt")]
    Portuguese,
    #[serde(rename = "ro")]
    Romanian,
    #[serde(rename = "ru")]
    Russian,
    #[serde(rename = "sr")]
    Serbian,
    #[serde(rename = "sv")]
    Swedish,
    #[serde(rename = "ta")]
    Tamil,
    #[serde(rename = "tr")]
    Turkish,
    #[serde(rename = "yi")]
    Yiddish,
    #[serde(rename = "und")]
    Simple,
}

impl Language {
    /// By the name of its configuration.
    ///
    /// # Errors
    /// When the database holds a language that this version does not know.
    pub fn parse(configuration: &str) -> Result<Self> {
        Self::from_str(configuration)
            .map_err(|_| Error::internal(format!("unknown language `{configuration}`")))
    }

    /// The name of its configuration.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    pub fn all() -> impl Iterator<Item = Self> {
        Self::iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_a_code_of_its_own_and_the_name_of_its_configuration() {
        let codes: Vec<String> =
            Language::all().map(|language| serde_json::to_string(&language).unwrap()).collect();
        assert_eq!(codes.iter().collect::<std::collections::HashSet<_>>().len(), 29, "{codes:?}");
        for language in Language::all() {
            assert_eq!(Language::parse(language.as_str()).unwrap(), language);
        }
        assert_eq!(serde_json::from_str::<Language>("\"und\"").unwrap().as_str(), "simple");
        assert_eq!(Language::default().as_str(), "english");
        assert!(Language::parse("en").is_err() && serde_json::from_str::<Language>("\"english\"").is_err());
    }

    #[test]
    fn they_are_those_of_the_database() {
        let migration = include_str!("../../../migrations/0008_keyword_ranking.sql");
        for language in Language::all() {
            assert!(migration.contains(&format!("when '{}' then ", language.as_str())), "{language:?}");
        }
        assert_eq!(migration.matches("when '").count(), 29);
    }
}
