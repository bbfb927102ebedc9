//! Long text becomes chunks, because a model reads only its first few hundred tokens, and because one vector for several
//! pages says little. A chunk is as long as the model reads, by an estimate: the service has no provider's vocabulary.

use std::ops::Range;

use text_splitter::{ChunkConfig, TextSplitter};

use crate::{
    domain::limits::{CHUNK_OVERLAP_DIVISOR, CHUNK_TOKENS_DEFAULT, CHUNK_TOKENS_MAX, CHUNK_TOKENS_MIN},
    embedding::Estimate,
    error::{Error, Result},
};

/// Tokens that a model adds to every text: one before it and one behind.
const SPECIAL_TOKENS: usize = 2;
/// Bytes of text that are split at once, for each token of a chunk; usually enough for three chunks. The splitter looks at
/// all that is left for each chunk that it makes, so a long text at once would take a time that grows by its square.
const WINDOW_BYTES_PER_TOKEN: usize = 10;

/// How long chunks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ChunkSize {
    /// Tokens that the model reads of a chunk.
    pub tokens: usize,
}

impl ChunkSize {
    /// For a model that reads `tokens_max` tokens, if that is known.
    pub(super) fn of(tokens_max: Option<i32>) -> Self {
        let known = tokens_max.and_then(|tokens| usize::try_from(tokens).ok());
        Self { tokens: known.unwrap_or(CHUNK_TOKENS_DEFAULT).clamp(CHUNK_TOKENS_MIN, CHUNK_TOKENS_MAX) }
    }

    /// Tokens of the text itself.
    fn capacity(self) -> usize {
        self.tokens - SPECIAL_TOKENS
    }
}

/// Splits at the largest bounds that fit: paragraphs, then sentences, then words. A chunk begins with the last sentences or
/// words of the one before, a tenth of it at most, so that what belongs together is found where it was cut. Blank text has
/// no chunks. The inner error is their number when it is above `chunks_max`: estimated when it is far above.
///
/// # Errors
/// None but a defect of the configuration.
pub(super) fn split(
    text: &str,
    size: ChunkSize,
    chunks_max: usize,
) -> Result<std::result::Result<Vec<String>, usize>> {
    let text = text.trim();
    let estimate = Estimate::of(text);
    let least = estimate.tokens(text).div_ceil(size.capacity());
    if least > chunks_max {
        return Ok(Err(least));
    }
    let chunks = cut(text, estimate, size)?;
    if chunks.len() > chunks_max {
        return Ok(Err(chunks.len()));
    }
    Ok(Ok(chunks.into_iter().map(|chunk| text[chunk].to_owned()).collect()))
}

/// Where the chunks are: what the splitter makes of the whole text, in a time that grows with its length. The last chunk of a
/// window ends where the window does; it is made again, in the next one.
fn cut(text: &str, estimate: Estimate, size: ChunkSize) -> Result<Vec<Range<usize>>> {
    let config = ChunkConfig::new(size.capacity())
        .with_sizer(estimate)
        // Blanks at its ends do not count for the splitter when it trims: it would then go through long blank parts one line
        // after the other.
        .with_trim(false)
        .with_overlap(size.capacity() / CHUNK_OVERLAP_DIVISOR)
        .map_err(Error::internal)?;
    let splitter = TextSplitter::new(config);
    let window_bytes = size.capacity() * WINDOW_BYTES_PER_TOKEN;
    let mut chunks: Vec<Range<usize>> = Vec::new();
    let (mut begin, mut bytes) = (0, window_bytes);
    while begin < text.len() {
        let end = text.floor_char_boundary(begin.saturating_add(bytes));
        let found = splitter.chunk_indices(&text[begin..end]);
        let mut found: Vec<Range<usize>> =
            found.map(|(at, chunk)| begin + at..begin + at + chunk.len()).collect();
        let unfinished = if end < text.len() { found.pop() } else { None };
        begin = match unfinished {
            // It is the only one, of a text with very few tokens.
            Some(_) if found.is_empty() => {
                bytes *= 2;
                continue;
            }
            Some(chunk) => chunk.start,
            None => end,
        };
        bytes = window_bytes;
        chunks.extend(found);
    }
    let mut covered = 0;
    chunks = chunks.into_iter().map(|chunk| trimmed(text, chunk)).collect();
    // What the one before has, too, is no chunk of its own.
    chunks.retain(|chunk| {
        let is_new = !chunk.is_empty() && chunk.end > covered;
        covered = covered.max(chunk.end);
        is_new
    });
    Ok(chunks)
}

/// Without the blanks at its ends.
fn trimmed(text: &str, chunk: Range<usize>) -> Range<usize> {
    let without_end = text[chunk.clone()].trim_end();
    let begin = without_end.len() - without_end.trim_start().len();
    chunk.start + begin..chunk.start + without_end.len()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::domain::limits::{CHUNKS_PER_CONTEXT_MAX, TEXT_BYTES_MAX};

    fn chunks(text: &str) -> Vec<String> {
        split(text, ChunkSize::of(None), usize::MAX).unwrap().unwrap()
    }

    #[test]
    fn short_text_is_one_chunk_and_blank_text_none() {
        assert_eq!(chunks("play chess"), ["play chess"]);
        assert!(chunks("").is_empty() && chunks(" \n\t ").is_empty());
        assert!(chunks(&"\u{3000} \n".repeat(10_000)).is_empty());
    }

    #[test]
    fn chunks_are_as_long_as_the_model_reads_within_bounds() {
        let tokens = |tokens_max| ChunkSize::of(tokens_max).tokens;
        assert_eq!([tokens(None), tokens(Some(256)), tokens(Some(384))], [256, 256, 384]);
        assert_eq!([tokens(Some(8192)), tokens(Some(3)), tokens(Some(-1))], [512, 64, 256]);
    }

    #[test]
    fn long_text_is_cut_at_sentences_with_an_overlap_and_nothing_is_lost() {
        let sentences: Vec<String> =
            (0..400).map(|n| format!("The fox number {n} jumps over the lazy dog near the river.")).collect();
        let text = sentences.join(" ");
        let chunks = chunks(&text);
        assert!(chunks.len() > 10, "{}", chunks.len());
        for pair in chunks.windows(2) {
            assert!(pair[1].starts_with("The fox") && pair[1].ends_with("river."), "{pair:?}");
            let shared =
                (1..pair[1].len()).rev().find(|&len| pair[0].ends_with(&pair[1][..len])).unwrap_or(0);
            assert!(shared > 0 && shared <= pair[0].len() / 8, "{shared} of {pair:?}");
        }
        for sentence in &sentences {
            assert!(chunks.iter().any(|chunk| chunk.contains(sentence)), "{sentence}");
        }
    }

    /// Texts of the greatest length that are hard to split, by what they are made of.
    fn hard_texts() -> Vec<(&'static str, String)> {
        let fill = |unit: &str| unit.repeat(TEXT_BYTES_MAX / unit.len());
        let growing: String = (1..700).flat_map(|n| ["a".to_owned(), "\n".repeat(n)]).collect();
        vec![
            ("letters", fill("x")),
            ("punctuation", fill("!")),
            ("ideographs", fill("語")),
            ("syllables", fill("고객이품질")),
            ("emoji", fill("😀")),
            ("families", fill("👨‍👩‍👧‍👦")),
            ("marks", format!("a{}", fill("\u{301}"))),
            ("Thai", fill("ลูกค้าขอเลื่อนการประชุม")),
            ("lines", fill("a\n")),
            ("line ends", fill("\n")),
            ("more and more line ends", growing),
            ("blanks", format!("x{}x", fill("\u{3000}"))),
            ("blank lines", format!("x{}x", fill("\u{3000} \n"))),
            ("words", fill("a ")),
            ("sentences", fill("a. ")),
            ("English", fill("The quick brown fox jumps over the lazy dog. ")),
        ]
    }

    #[test]
    fn no_text_takes_long_and_each_is_whole_in_its_chunks() {
        for (name, text) in hard_texts() {
            let estimate = Estimate::of(&text);
            for size in [64, 256, 512].map(|tokens| ChunkSize::of(Some(tokens))) {
                let begun = Instant::now();
                let chunks = cut(&text, estimate, size).unwrap();
                let took = begun.elapsed();
                // A machine that does much else takes several times as long as it needs. Without windows it is seconds.
                assert!(took < Duration::from_millis(500), "{name}, {size:?}: {took:?}");
                let fits = |chunk: &Range<usize>| estimate.tokens(&text[chunk.clone()]) <= size.capacity();
                assert!(chunks.iter().all(fits), "{name}, {size:?}");
                let mut end = 0;
                for chunk in &chunks {
                    assert!(chunk.end > end && text[end..chunk.start.max(end)].trim().is_empty(), "{name}");
                    end = chunk.end;
                }
                assert!(text[end..].trim().is_empty(), "{name}: the end is there");
            }
        }
    }

    #[test]
    fn too_many_chunks_are_counted() {
        let text = "The heron stands in the river. ".repeat(TEXT_BYTES_MAX / 31);
        let size = ChunkSize::of(Some(256));
        let count = split(&text, size, CHUNKS_PER_CONTEXT_MAX).unwrap().unwrap_err();
        assert!((300..450).contains(&count), "{count}");
        assert!(split(&text, ChunkSize::of(Some(512)), CHUNKS_PER_CONTEXT_MAX).unwrap().is_ok());
        let half = &text[..TEXT_BYTES_MAX / 2];
        let exact = split(half, size, usize::MAX).unwrap().unwrap().len();
        assert!(exact <= CHUNKS_PER_CONTEXT_MAX);
        assert_eq!(split(half, size, exact).unwrap().unwrap().len(), exact);
        assert_eq!(split(half, size, exact - 1).unwrap(), Err(exact));
    }
}
