//! The texts of a request, and what has to hold for them before they cost anything.

use embedder::TOKENS_MAX;
use serde::{Deserialize, de::IgnoredAny};

use crate::{
    options::Options,
    problem::{Kind, Problem},
};

/// Characters of a text for each token that the model reads. What is longer is not even tokenized.
const CHARS_PER_TOKEN_MAX: usize = 250;
pub(crate) const TEXT_CHARS_MAX: usize = CHARS_PER_TOKEN_MAX * TOKENS_MAX;

/// One text or several. The name appears in the words for what is neither.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Input {
    Single(Item),
    Batch(Vec<Item>),
}

/// A text, or the ids of its tokens, which are recognised but not accepted.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Item {
    Text(String),
    Ids(Vec<u32>),
}

/// The same for `/tokenize`, which never took ids.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum TokenizeInput {
    Single(String),
    Batch(Vec<String>),
}

/// What is sent to routes of other models.
#[derive(Debug, Deserialize)]
pub(crate) struct AnyInputs {
    #[serde(rename = "inputs")]
    pub _inputs: IgnoredAny,
}

impl Input {
    pub(crate) fn is_list(&self) -> bool {
        // An empty list could be one of texts or one text without tokens; which one makes no difference.
        matches!(self, Self::Batch(_))
    }

    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Single(_) => 1,
            Self::Batch(items) => items.len(),
        }
    }

    /// The texts, none of them empty.
    pub(crate) fn into_texts(self) -> Result<Vec<String>, Problem> {
        let items = match self {
            Self::Single(item) => vec![item],
            Self::Batch(items) => items,
        };
        if items.is_empty() {
            return Err(Problem::empty());
        }
        let text = |item| match item {
            Item::Text(text) if text.is_empty() => Err(Problem::empty()),
            Item::Ids(ids) if ids.is_empty() => Err(Problem::empty()),
            Item::Text(text) => Ok(text),
            Item::Ids(_) => {
                Err(Problem::invalid("`inputs` must be texts: ids of tokens are not accepted here"))
            }
        };
        items.into_iter().map(text).collect()
    }
}

impl From<TokenizeInput> for Input {
    fn from(input: TokenizeInput) -> Self {
        match input {
            TokenizeInput::Single(text) => Self::Single(Item::Text(text)),
            TokenizeInput::Batch(texts) => Self::Batch(texts.into_iter().map(Item::Text).collect()),
        }
    }
}

/// A list is not longer than a request may have it.
pub(crate) fn check_count(input: &Input, options: &Options) -> Result<(), Problem> {
    let (count, max) = (input.len(), options.request_texts_max);
    if input.is_list() && count > max {
        let text = format!("batch size {count} > maximum allowed batch size {max}");
        return Err(Problem::new(Kind::Validation, text).counted_as("batch_size"));
    }
    Ok(())
}

/// There are no prompts here, so none can be named.
pub(crate) fn check_prompt(name: Option<&str>) -> Result<(), Problem> {
    let Some(name) = name else { return Ok(()) };
    Err(Problem::invalid(&format!(
        "`default-prompt-name` is set to `{name}` but no prompts were found in the Sentence Transformers configuration"
    )))
}

/// A text is short enough to be tokenized.
pub(crate) fn check_chars(text: &str) -> Result<(), Problem> {
    // Counting takes time, and most texts have fewer bytes than they may have characters.
    if text.len() <= TEXT_CHARS_MAX {
        return Ok(());
    }
    let count = text.chars().count();
    if count <= TEXT_CHARS_MAX {
        return Ok(());
    }
    Err(Problem::invalid(&format!(
        "`inputs` must have less than {TEXT_CHARS_MAX} characters. Given: {count}"
    )))
}
