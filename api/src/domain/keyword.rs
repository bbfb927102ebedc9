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
    /// Words such as `ERR_1234`: a text that has one whole is better than one that has its parts.
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
            let word = word.trim_end_matches(is_punctuation);
            if word.is_empty() {
                continue;
            }
            words.push(word);
            if is_identifier(word)
                && self.identifiers.len() < IDENTIFIERS_MAX
                && !self.identifiers.iter().any(|known| known == word)
            {
                self.identifiers.push(word.to_owned());
            }
        }
    }
}

/// What no word ends in. Not all that is neither letter nor digit: words of Tamil end in the sign that no vowel follows.
fn is_punctuation(c: char) -> bool {
    !c.is_alphanumeric() && (c < '\u{300}' || ('\u{2000}'..'\u{3040}').contains(&c))
}

/// Whether a word has more in it than letters and digits. Letters and hyphens alone are no name: English is full of them,
/// and what is joined by hyphens is a term of its own anyway.
fn is_identifier(word: &str) -> bool {
    let is_special = |c: char| is_punctuation(c) && !matches!(c, '\'' | '’');
    word.contains(is_special) && !word.chars().all(|c| c.is_alphabetic() || matches!(c, '-' | '\'' | '’'))
}

/// Of `err_12*` `err_` and `12`: a text's words are what stands between such characters.
fn split_prefix(word: &str) -> Option<(&str, &str)> {
    let stem = word.strip_suffix('*')?;
    let mut start = 0;
    let mut previous = None;
    for (at, c) in stem.char_indices() {
        if is_punctuation(c) && !matches!(c, '-' | '.') {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> KeywordQuery {
        KeywordQuery::parse(text)
    }

    #[test]
    fn quotes_stars_and_words_are_told_apart() {
        let query = parse(r#"what "exact words" frob* (about) "...""#);
        assert_eq!(query.words, "what about");
        assert_eq!(
            (query.phrases, query.prefixes),
            (vec!["exact words".to_owned()], vec!["frob".to_owned()])
        );
        let unbalanced = parse(r#"one "two three"#);
        assert_eq!((unbalanced.words.as_str(), unbalanced.phrases.len()), ("one two three", 0));
        assert_eq!(parse("* f* ** \"\" !?"), KeywordQuery { words: "f".into(), ..KeywordQuery::default() });
    }

    #[test]
    fn a_beginning_starts_where_the_word_in_a_text_does() {
        for (text, words, prefix) in [
            ("err_12*", "err_", "12"),
            ("libfoo-de*", "", "libfoo-de"),
            ("utf-16*", "utf-", "16"),
            ("src/ke*", "src/", "ke"),
            ("புத்தக*", "", "புத்தக"),
        ] {
            let query = parse(text);
            assert_eq!(
                (query.words.as_str(), query.prefixes.as_slice()),
                (words, &[prefix.to_owned()][..]),
                "{text}"
            );
        }
        assert_eq!(parse("err_1*").prefixes.len(), 0);
    }

    #[test]
    fn names_are_identifiers_and_words_with_hyphens_are_not() {
        let names = "ERR_1234 libfoo2-dev client/server a@b.org v1.2 C++11";
        assert_eq!(parse(names).identifiers, names.split(' ').collect::<Vec<_>>());
        assert_eq!(parse("high-performance don't naïve plain 1234 x86").identifiers.len(), 0);
        assert_eq!(parse("a_b a_b (a_b)").identifiers, ["a_b"]);
    }

    #[test]
    fn signs_without_a_vowel_belong_to_their_word() {
        let query = parse("(புத்தகம்), घर्। x…");
        assert_eq!((query.words.as_str(), query.identifiers.len()), ("புத்தகம் घर्। x", 0));
    }

    #[test]
    fn nothing_is_without_bound() {
        let many = |one: &str, count: usize| parse(&one.repeat(count));
        assert_eq!(many("\"a b\" ", 99).phrases.len(), PHRASES_MAX);
        assert_eq!(many("word ", 999).words.split(' ').count(), QUERY_WORDS_MAX);
        let stars = (0..99).map(|n| format!("ab{n}*")).collect::<Vec<_>>().join(" ");
        assert_eq!(parse(&stars).prefixes.len(), PREFIXES_MAX);
        let names = (0..99).map(|n| format!("a_{n}")).collect::<Vec<_>>().join(" ");
        assert_eq!(parse(&names).identifiers.len(), IDENTIFIERS_MAX);
        assert_eq!(parse("a\0b").words, "a b");
    }

    #[test]
    fn rare_words_weigh_more_and_never_less_than_nothing() {
        assert!(
            idf(1.0, 1e6) > idf(1e3, 1e6)
                && idf(1e6, 1e6) > 0.0
                && idf(5.0, 2.0) > 0.0
                && idf(-1.0, 2.0) > 0.0
        );
    }
}
