//! Text to token ids. It wraps the `tokenizers` crate with the published tokenizer.json and adds what that crate does
//! not do: truncate a huge text without reading all of it.

use tokenizers::Tokenizer as Inner;

use crate::{Error, Keep, TOKENS_MAX};

/// One token of a text, in the shape in which text-embeddings-inference's `/tokenize` answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Index into the vocabulary.
    pub id: u32,
    /// The bytes of the text that the token stands for; the token's name if it is special.
    pub text: String,
    /// Added around the text: `[CLS]`, `[SEP]`.
    pub special: bool,
    /// First byte in the text; none if special.
    pub start: Option<usize>,
    /// Byte after the last; none if special.
    pub stop: Option<usize>,
}

/// `[CLS]` and `[SEP]`, which take two of the [`TOKENS_MAX`] places.
const SPECIAL_TOKENS: usize = 2;

/// Bytes looked at first: 254 tokens of English are about 1,200 bytes.
const PART_BYTES: usize = 2048;

pub(crate) struct Tokenizer(Inner);

impl Tokenizer {
    pub(crate) fn new() -> Result<Self, Error> {
        let mut inner =
            Inner::from_bytes(include_bytes!("../model/tokenizer.json")).map_err(|error| failed(&*error))?;
        // The published file pads to and truncates at 128 tokens; neither is how the model is used.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| failed(&*error))?;
        Ok(Self(inner))
    }

    /// The ids that go into the model: at most [`TOKENS_MAX`], special tokens included, the rest cut off; and whether nothing
    /// was.
    pub(crate) fn encode(&self, text: &str, keep: Keep) -> Result<(Vec<i32>, bool), Error> {
        let contributing = self.contributing(text, keep)?;
        let encoding = self.0.encode_fast(contributing, true).map_err(|error| failed(&*error))?;
        let mut ids: Vec<i32> = encoding.get_ids().iter().map(|&id| id.cast_signed()).collect();
        let is_whole = ids.len() <= TOKENS_MAX && contributing.len() == text.len();
        if let Some(excess) = ids.len().checked_sub(TOKENS_MAX) {
            // The first and the last one are special and stay.
            let begin = match keep {
                Keep::Beginning => TOKENS_MAX - 1,
                Keep::End => 1,
            };
            ids.drain(begin..begin + excess);
        }
        Ok((ids, is_whole))
    }

    /// A part of the text, from one of its ends, that has all the tokens that survive truncation; usually the whole
    /// text.
    ///
    /// The number of characters says nothing: any run of letters is one unknown token, spaces are none. So longer and
    /// longer parts are tried until one has enough tokens. Each is cut where the tokenizer splits in any case, so
    /// that its tokens are those of the whole text.
    fn contributing<'a>(&self, text: &'a str, keep: Keep) -> Result<&'a str, Error> {
        let mut bytes = PART_BYTES;
        let part = |bytes| match keep {
            Keep::Beginning => split_after(text, bytes).map(|end| &text[..end]),
            Keep::End => split_before(text, bytes).map(|begin| &text[begin..]),
        };
        while let Some(part) = part(bytes) {
            let tokens = self.0.encode_fast(part, false).map_err(|error| failed(&*error))?.len();
            if tokens >= TOKENS_MAX - SPECIAL_TOKENS {
                return Ok(part);
            }
            bytes = part.len() * 4;
        }
        Ok(text)
    }

    /// All tokens, not truncated, with special ones.
    pub(crate) fn tokenize(&self, text: &str) -> Result<Vec<Token>, Error> {
        let encoding = self.0.encode(text, true).map_err(|error| failed(&*error))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_tokens());
        let places = encoding.get_offsets().iter().zip(encoding.get_special_tokens_mask());
        Ok(tokens
            .zip(places)
            .map(|((&id, name), (&(start, stop), &special))| {
                if special == 1 {
                    Token { id, text: name.clone(), special: true, start: None, stop: None }
                } else {
                    let text = text.get(start..stop).unwrap_or_default().to_owned();
                    Token { id, text, special: false, start: Some(start), stop: Some(stop) }
                }
            })
            .collect())
    }

    /// The number of tokens, not truncated, with special ones.
    pub(crate) fn count(&self, text: &str) -> Result<usize, Error> {
        Ok(self.0.encode_fast(text, true).map_err(|error| failed(&*error))?.len())
    }
}

/// The end of the first character at or after byte `from` behind which the tokenizer always splits; none if that is
/// the end of the text.
fn split_after(text: &str, from: usize) -> Option<usize> {
    let from = text.ceil_char_boundary(from);
    let (at, found) = text.get(from..)?.char_indices().find(|&(_, c)| splits(c))?;
    let end = from + at + found.len_utf8();
    (end < text.len()).then_some(end)
}

/// The end of the last character behind which the tokenizer always splits and at least `bytes` are left; none if there
/// is no such character.
fn split_before(text: &str, bytes: usize) -> Option<usize> {
    let to = text.floor_char_boundary(text.len().checked_sub(bytes)?);
    let (at, found) = text.get(..to)?.char_indices().rfind(|&(_, c)| splits(c))?;
    Some(at + found.len_utf8())
}

/// Whether the tokenizer splits behind this character, whatever follows.
///
/// Those are ASCII spaces and line ends (other space characters may be control characters, which are removed), ASCII
/// punctuation (except `[`, which may open a special token) and CJK ideographs.
fn splits(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{4e00}'..='\u{9fff}') || (c.is_ascii_punctuation() && c != '[')
}

fn failed(error: &(dyn std::error::Error + Send + Sync)) -> Error {
    Error::Tokenizer(error.to_string())
}
