//! What a search by words looks for, and how a chunk that has some of the words is scored: by BM25, so that rare words
//! weigh more and long chunks do not win by being long.

use super::limits::{
    IDENTIFIERS_MAX, PHRASES_MAX, PREFIX_CHARS_MAX, PREFIX_CHARS_MIN, PREFIXES_MAX, QUERY_WORDS_MAX,
};

/// How soon more of the same word stops counting. The usual value, as is the next one: Robertson, Zaragoza, "The
/// Probabilistic Relevance Framework: BM25 and Beyond", 2009.
const K1: f64 = 1.2;
/// How much the length of a chunk counts.
const B: f64 = 0.75;

/// The weight of a word that is in `chunks` of all the tenant's chunks.
pub fn idf(chunks: f64, all_chunks: f64) -> f64 {
    let chunks = chunks.clamp(0.0, all_chunks);
    (1.0 + (all_chunks - chunks + 0.5) / (chunks + 0.5)).ln()
}

/// A word that a chunk has `n` times adds its idf times `FULL_WEIGHT · n / (n + norm)`: never more than `FULL_WEIGHT` times.
pub const FULL_WEIGHT: f64 = K1 + 1.0;

/// The norm of a chunk of `length` words is `base + per_word · length`.
pub fn norm(average_length: f64) -> (f64, f64) {
    (K1 * (1.0 - B), K1 * B / average_length.max(1.0))
}

/// The words of a query. `"several words"` must stand in a text as they are, one after the other; `begin*` is any word
/// that begins so; everything else is words of which more are better. There is nothing that a query could do wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeywordQuery {
    /// What stands in no quotes and has no star, divided by blanks.
    pub words: String,
    /// Words that have more in them than letters and digits, such as `ERR_1234`: a text that has one whole is better than
    /// one that has its parts.
    pub identifiers: Vec<String>,
    pub phrases: Vec<String>,
    /// Without the star.
    pub prefixes: Vec<String>,
}

impl KeywordQuery {
    pub fn parse(text: &str) -> Self {
        let text = text.replace('\0', " ");
        let mut query = Self::default();
        let mut words = Vec::new();
        // What stands between the first and the second quote, the third and the fourth …; a last one alone quotes nothing.
        let mut parts: Vec<&str> = text.split('"').collect();
        let unbalanced = if parts.len().is_multiple_of(2) { parts.pop() } else { None };
        for (index, part) in parts.into_iter().enumerate() {
            if index % 2 == 0 || query.phrases.len() >= PHRASES_MAX {
                query.read_words(part, &mut words);
            } else if part.chars().any(char::is_alphanumeric) {
                query.phrases.push(first_words(part));
            }
        }
        query.read_words(unbalanced.unwrap_or_default(), &mut words);
        query.words = words.join(" ");
        query
    }

    fn read_words<'t>(&mut self, text: &'t str, words: &mut Vec<&'t str>) {
        for word in text.split_whitespace() {
            if words.len() >= QUERY_WORDS_MAX {
                return;
            }
            let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
            if let Some((before, prefix)) = split_prefix(word)
                && self.prefixes.len() < PREFIXES_MAX
            {
                words.extend((!before.is_empty()).then_some(before));
                let prefix: String = prefix.chars().take(PREFIX_CHARS_MAX).collect();
                if !self.prefixes.contains(&prefix) {
                    self.prefixes.push(prefix);
                }
                continue;
            }
            let word = word.trim_end_matches(|c: char| !c.is_alphanumeric());
            if word.is_empty() {
                continue;
            }
            words.push(word);
            let is_identifier = word.contains(|c: char| !c.is_alphanumeric() && !matches!(c, '\'' | '’'));
            if is_identifier
                && self.identifiers.len() < IDENTIFIERS_MAX
                && !self.identifiers.iter().any(|known| known == word)
            {
                self.identifiers.push(word.to_owned());
            }
        }
    }
}

/// Of `err_12*` `err_` and `12`: a text's words are what stands between such characters.
fn split_prefix(word: &str) -> Option<(&str, &str)> {
    let stem = word.strip_suffix('*')?;
    let mut start = 0;
    let mut previous = None;
    for (at, c) in stem.char_indices() {
        if !c.is_alphanumeric() && !matches!(c, '-' | '.') {
            start = at + c.len_utf8();
        } else if c.is_ascii_digit() && previous == Some('-') {
            start = at;
        }
        previous = Some(c);
    }
    let (before, prefix) = stem.split_at(start);
    (prefix.chars().filter(|c| c.is_alphanumeric()).count() >= PREFIX_CHARS_MIN).then_some((before, prefix))
}

fn first_words(text: &str) -> String {
    text.split_whitespace().take(QUERY_WORDS_MAX).collect::<Vec<_>>().join(" ")
}
