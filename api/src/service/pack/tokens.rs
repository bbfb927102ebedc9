//! Counting tokens as the target model does. The vocabularies are loaded when they are first asked for, once per service:
//! about 30 and 45 MB.
//!
//! Texts may be made to cost time: what is counted for one pack is bounded in bytes. Runs of blanks above half a million
//! would be too much for the pattern that splits the text; no context has so many (`TEXT_BYTES_MAX`).

use std::sync::OnceLock;

use tiktoken_rs::CoreBPE;

use crate::{
    domain::Tokenizer,
    error::{Error, Result},
};

/// Bytes of the longest token of either vocabulary: a row of blanks.
const TOKEN_BYTES_MAX: usize = 128;
/// Tokens below which there is no piece: its frame has more.
pub(super) const PIECE_TOKENS_MIN: usize = 8;
/// Bytes that may be counted for one pack: so many in any case …
const COUNTED_BYTES_BASE: usize = 1024 * 1024;
/// … and so many for each token of the budget. A token has four bytes of English, and each is counted two or three times.
/// One piece gets half of what is left, so that one text that takes many tries leaves some for others.
const COUNTED_BYTES_PER_TOKEN: usize = 16;

/// The tokenizers of one service.
#[derive(Default)]
pub(super) struct Tokenizers {
    o200k: OnceLock<Result<CoreBPE, String>>,
    cl100k: OnceLock<Result<CoreBPE, String>>,
}

impl Tokenizers {
    /// Takes a third of a second the first time.
    ///
    /// # Errors
    /// None but a defect of the vocabulary that is compiled in.
    pub(super) fn meter(&self, tokenizer: Tokenizer, max_tokens: usize) -> Result<Meter<'_>> {
        let bpe = match tokenizer {
            Tokenizer::O200kBase => {
                Some(self.o200k.get_or_init(|| tiktoken_rs::o200k_base().map_err(|error| error.to_string())))
            }
            Tokenizer::Cl100kBase => Some(
                self.cl100k.get_or_init(|| tiktoken_rs::cl100k_base().map_err(|error| error.to_string())),
            ),
            Tokenizer::Chars => None,
        };
        let bpe = bpe.map(Result::as_ref).transpose().map_err(|error| Error::internal(error.as_str()))?;
        let bytes_left = COUNTED_BYTES_BASE + COUNTED_BYTES_PER_TOKEN * max_tokens;
        Ok(Meter { bpe, bytes_left, piece_bytes_left: bytes_left })
    }
}

/// Counts for one pack.
pub(super) struct Meter<'a> {
    /// None where each character counts.
    bpe: Option<&'a CoreBPE>,
    bytes_left: usize,
    piece_bytes_left: usize,
}

/// What counting came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    Tokens(usize),
    /// More than was asked for, however many.
    TooMany,
    /// Enough was counted for this piece.
    Exhausted,
}

impl Meter<'_> {
    /// The tokens of `text`; not counted when they are surely more than `most`.
    pub(super) fn count(&mut self, text: &str, most: usize) -> Count {
        // Somebody has made the text to have it counted, which costs, too.
        if text.len() > self.piece_bytes_left {
            return Count::Exhausted;
        }
        self.piece_bytes_left -= text.len();
        self.bytes_left -= text.len();
        match self.bpe {
            None => Count::Tokens(text.chars().count()),
            Some(_) if text.len() / TOKEN_BYTES_MAX > most => Count::TooMany,
            Some(bpe) => Count::Tokens(bpe.count_ordinary(text)),
        }
    }

    /// From here on another piece is counted.
    pub(super) fn next_piece(&mut self) {
        self.piece_bytes_left = self.bytes_left / 2;
    }

    /// Tokens of `bytes` of text, about.
    pub(super) fn guess(&self, bytes: usize) -> usize {
        if self.bpe.is_some() { bytes / 4 } else { bytes }
    }

    /// Tokens below which a gap is too small for a piece that is cut: its frame takes half of them.
    pub(super) fn part_min(&self) -> usize {
        if self.bpe.is_some() { 32 } else { 128 }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::domain::limits::TEXT_BYTES_MAX;

    #[test]
    fn tokens_are_those_of_the_models() {
        let tokenizers = Tokenizers::default();
        let count = |tokenizer, text: &str| tokenizers.meter(tokenizer, 1).unwrap().count(text, usize::MAX);
        // As the tokenizers' own documentation has it.
        assert_eq!(count(Tokenizer::Cl100kBase, "tiktoken is great!"), Count::Tokens(6));
        assert_eq!(count(Tokenizer::Cl100kBase, "お誕生日おめでとう"), Count::Tokens(9));
        assert_eq!(count(Tokenizer::O200kBase, "お誕生日おめでとう"), Count::Tokens(8));
        assert_eq!(count(Tokenizer::Chars, "お誕生日おめでとう"), Count::Tokens(9));
        // Text is text, also where it looks like something else.
        assert_ne!(count(Tokenizer::O200kBase, "<|endoftext|>"), Count::Tokens(1));
    }

    #[test]
    fn no_token_is_longer_than_is_believed() {
        for bpe in [tiktoken_rs::cl100k_base().unwrap(), tiktoken_rs::o200k_base().unwrap()] {
            let longest = (0..200_000).filter_map(|rank| Some(bpe.decode_bytes(&[rank]).ok()?.len())).max();
            assert_eq!(longest, Some(TOKEN_BYTES_MAX));
        }
    }

    #[test]
    fn what_is_counted_is_bounded() {
        let tokenizers = Tokenizers::default();
        let mut meter = tokenizers.meter(Tokenizer::Cl100kBase, 1).unwrap();
        let text = "word ".repeat(TEXT_BYTES_MAX / 5);
        assert_eq!(meter.count(&text, text.len() / TOKEN_BYTES_MAX - 1), Count::TooMany);
        for _ in 0..3 {
            assert!(matches!(meter.count(&text, usize::MAX), Count::Tokens(_)));
        }
        assert_eq!(meter.count(&text, usize::MAX), Count::Exhausted);
        let mut meter = tokenizers.meter(Tokenizer::Chars, 1).unwrap();
        meter.next_piece();
        assert_eq!(
            [(); 3].map(|()| meter.count(&text, usize::MAX)),
            [Count::Tokens(text.len()), Count::Tokens(text.len()), Count::Exhausted]
        );
        meter.next_piece();
        assert_eq!(meter.count(&text, usize::MAX), Count::Tokens(text.len()));
    }

    /// The longest texts there are, of what is hard to count.
    #[test]
    fn no_text_takes_long_or_breaks_the_tokenizer() {
        let tokenizers = Tokenizers::default();
        for tokenizer in [Tokenizer::Cl100kBase, Tokenizer::O200kBase] {
            tokenizers.meter(tokenizer, 1).unwrap();
            for unit in [
                "x",
                "!",
                "語",
                "我们今天去公园看花",
                "A",
                "aA",
                " ",
                "\t",
                "\n",
                " \n",
                "\n/",
                "\u{3000}",
                "7",
                "😀",
                "a\u{301}",
                "'s",
            ] {
                for (before, after) in [("", ""), ("x", "x"), ("!", "A"), ("\n", "!")] {
                    let text = format!("{before}{}{after}", unit.repeat(TEXT_BYTES_MAX / unit.len()));
                    let mut meter = tokenizers.meter(tokenizer, 1).unwrap();
                    let begun = Instant::now();
                    assert!(matches!(meter.count(&text, usize::MAX), Count::Tokens(_)));
                    let took = begun.elapsed();
                    // A fifth of a second at worst on an idle machine.
                    assert!(took < Duration::from_secs(2), "{unit:?}: {took:?}");
                }
            }
        }
    }

    /// What lets a pack count its pieces one by one: no token reaches from a line into one that begins with a sign other
    /// than `/`, and none in either depends on the other.
    #[test]
    fn lines_that_begin_with_a_sign_count_alone() {
        let tokenizers = Tokenizers::default();
        let ends = [
            "```", "a", "1", "!", "'", "/", " ", "\t", "\u{3000}", "\r", "\n", "\n \n", "é", "語", "😀",
            "\u{301}", "{}", ">",
        ];
        for tokenizer in [Tokenizer::Cl100kBase, Tokenizer::O200kBase] {
            let count = |text: &str| match tokenizers.meter(tokenizer, 1).unwrap().count(text, usize::MAX) {
                Count::Tokens(tokens) => tokens,
                other => panic!("{other:?}"),
            };
            for end in ends {
                for begin in ["###", "<context", "</contexts>", "[{\"n", ",{\"n", "]", "```"] {
                    let (before, after) = (format!("some text{end}\n"), format!("{begin} 1"));
                    assert_eq!(
                        count(&format!("{before}{after}")),
                        count(&before) + count(&after),
                        "{before}{after}"
                    );
                }
            }
        }
    }
}
