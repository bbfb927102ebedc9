//! A pack: the hits of a search as one text, within a budget of tokens.

mod answer;
mod input;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use self::{
    answer::{CharRange, Citation, DropReason, Dropped, PackResponse},
    input::{PackBody, PackInput},
};

/// Whose tokens are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tokenizer {
    /// Of OpenAI's models since GPT-4o.
    #[default]
    O200kBase,
    /// Of GPT-4, GPT-3.5 and `text-embedding-3-…`.
    Cl100kBase,
    /// One for each character: hardly any model makes more of them.
    Chars,
}

/// How the text is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackFormat {
    /// A heading and a fenced block for each piece.
    #[default]
    Markdown,
    /// An element for each piece.
    Xml,
    /// An array with an object for each piece.
    Json,
}

/// How much of a context a piece is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackUnit {
    /// The best chunk of every hit first; what is left of the budget then widens them, up to the whole text.
    #[default]
    Auto,
    /// The best chunk, and no more.
    Chunk,
    /// The whole text of the best hit, then of the next one.
    Context,
}

/// What the text may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    pub max_tokens: usize,
    pub tokenizer: Tokenizer,
}

/// What the pieces of one type may take of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    pub max_tokens: Option<usize>,
    pub max_items: Option<usize>,
}

/// What to make of the hits.
#[derive(Clone, Debug)]
pub struct PackRequest {
    pub budget: Budget,
    /// By type.
    pub quotas: BTreeMap<String, Quota>,
    pub format: PackFormat,
    pub unit: PackUnit,
}
