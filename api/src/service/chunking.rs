//! Long text becomes chunks, because a model reads only its first few hundred tokens and would silently ignore the rest.

use text_splitter::{ChunkConfig, ChunkSizer, TextSplitter};

use crate::{
    domain::limits::{CHUNK_BYTES_MAX, CHUNKS_PER_CONTEXT_MAX, TEXT_BYTES_MAX},
    error::{Code, Error, Result},
};

/// Measures in bytes. A word of English has about five of them and one to two tokens, a Chinese character three and
/// one token: 800 bytes fit into the 256 tokens of the smallest model in either. What does not fit loses its end only.
struct Bytes;

impl ChunkSizer for Bytes {
    fn size(&self, chunk: &str) -> usize {
        chunk.len()
    }
}

const _: () = assert!(CHUNKS_PER_CONTEXT_MAX * CHUNK_BYTES_MAX > 2 * TEXT_BYTES_MAX);

/// Splits at the largest bounds that fit: paragraphs, then sentences, then words. Blank text has no chunks.
///
/// # Errors
/// [`crate::error::Code::TextTooLong`] when a text of permitted length still makes too many.
pub(super) fn split(text: &str) -> Result<Vec<String>> {
    let config = ChunkConfig::new(CHUNK_BYTES_MAX).with_sizer(Bytes);
    let chunks: Vec<String> = TextSplitter::new(config).chunks(text).map(str::to_owned).collect();
    if chunks.len() > CHUNKS_PER_CONTEXT_MAX {
        return Err(Error::new(
            Code::TextTooLong,
            format!(
                "The text makes {} chunks, {CHUNKS_PER_CONTEXT_MAX} at most; split it into several contexts.",
                chunks.len()
            ),
        ));
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_text_is_one_chunk_and_blank_text_none() {
        assert_eq!(split("play chess").unwrap(), ["play chess"]);
        assert!(split("").unwrap().is_empty() && split(" \n\t ").unwrap().is_empty());
    }

    #[test]
    fn long_text_is_cut_at_sentences_and_nothing_is_lost() {
        let sentence = "The quick brown fox jumps over the lazy dog near the river bank. ";
        let text = sentence.repeat(100);
        let chunks = split(&text).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX && chunk.ends_with("bank.")));
        let words = |text: &str| text.split_whitespace().count();
        assert_eq!(chunks.iter().map(|chunk| words(chunk)).sum::<usize>(), words(&text));
    }

    #[test]
    fn the_longest_text_without_any_bound_is_still_accepted() {
        let chunks = split(&"x".repeat(TEXT_BYTES_MAX)).unwrap();
        assert_eq!(chunks.iter().map(String::len).sum::<usize>(), TEXT_BYTES_MAX);
        let chunks = split(&"語".repeat(TEXT_BYTES_MAX / 3)).unwrap();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES_MAX));
    }
}
