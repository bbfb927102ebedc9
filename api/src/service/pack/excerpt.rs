//! Parts of a text: the chunk that matched, cut or widened, at the ends of sentences or words where that loses little.

use std::ops::Range;

/// Behind a part, and before it, where the text goes on.
const GOES_ON: &str = " …";
const COMES_FROM: &str = "… ";
/// A bound may lie so much of the part before its end, as a divisor of the part's size.
const SLACK_DIVISOR: usize = 12;

/// Where a part may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bounds {
    /// At a sentence or a word.
    Words,
    /// Anywhere between characters.
    Characters,
}

/// A text, and the part of it that matched.
#[derive(Clone, Debug)]
pub(super) struct Passage<'a> {
    pub text: &'a str,
    pub core: Range<usize>,
}

impl<'a> Passage<'a> {
    /// The chunk within its text; the chunk alone when it is not in it.
    pub(super) fn within(text: &'a str, chunk: &'a str) -> Self {
        let (text, chunk) = (text.trim(), chunk.trim());
        match text.find(chunk) {
            Some(start) => Self { text, core: start..start + chunk.len() },
            None => Self::alone(chunk),
        }
    }

    /// The chunk as if there were nothing around it.
    pub(super) fn alone(chunk: &'a str) -> Self {
        let text = chunk.trim();
        Self { text, core: 0..text.len() }
    }

    /// All of the text.
    pub(super) fn whole(&self) -> Range<usize> {
        0..self.text.len()
    }

    /// About `bytes` of what is in `full`, and not more: the beginning of the core when that is longer, else the core with as
    /// much before it as behind it, as far as there is.
    pub(super) fn window(&self, full: &Range<usize>, bytes: usize, bounds: Bounds) -> Range<usize> {
        let core = &self.core;
        if bytes < core.len() {
            let end = self.end_before(core.start + bytes, core.start, bytes, bounds);
            return core.start..end;
        }
        let extra = bytes - core.len();
        let (before, behind) = (core.start - full.start, full.end - core.end);
        let left = (extra / 2).max(extra.saturating_sub(behind)).min(before);
        let right = (extra - left).min(behind);
        let start = if left == before {
            full.start
        } else {
            self.start_after(core.start - left, core.start, bytes, bounds)
        };
        let end = if right == behind {
            full.end
        } else {
            self.end_before(core.end + right, core.end, bytes, bounds)
        };
        start..end
    }

    /// The part as it is shown within `full`.
    pub(super) fn shown(&self, full: &Range<usize>, part: &Range<usize>) -> String {
        let text = &self.text[part.clone()];
        let (before, text) =
            if part.start > full.start { (COMES_FROM, text.trim_start()) } else { ("", text) };
        let (text, behind) = if part.end < full.end { (text.trim_end(), GOES_ON) } else { (text, "") };
        format!("{before}{text}{behind}")
    }

    /// The last bound from `least` to `at`.
    fn end_before(&self, at: usize, least: usize, bytes: usize, bounds: Bounds) -> usize {
        let at = whole_characters(self.text, at).max(least);
        if at == least || bounds == Bounds::Characters {
            return at;
        }
        let least = self.text.ceil_char_boundary(at.saturating_sub(bytes / SLACK_DIVISOR).max(least));
        let ends = || boundaries(self.text, least..at).rev();
        let word = || ends().find(|bound| bound.is_word);
        ends().find(|bound| bound.is_sentence).or_else(word).map_or(at, |bound| bound.end)
    }

    /// The first bound from `at` to `most`.
    fn start_after(&self, at: usize, most: usize, bytes: usize, bounds: Bounds) -> usize {
        let at = self.text.ceil_char_boundary(at).min(most);
        if at == most || bounds == Bounds::Characters {
            return at;
        }
        let most = self.text.floor_char_boundary((at + bytes / SLACK_DIVISOR).min(most));
        let starts = || boundaries(self.text, at..most);
        let word = || starts().find(|bound| bound.is_word);
        starts().find(|bound| bound.is_sentence).or_else(word).map_or(at, |bound| bound.next)
    }
}

/// A place where a text may be cut.
#[derive(Clone, Copy, Debug)]
struct Bound {
    /// What is before it ends here …
    end: usize,
    /// … and what is behind it begins here.
    next: usize,
    is_word: bool,
    is_sentence: bool,
}

/// The places within `range`, character by character.
fn boundaries(text: &str, range: Range<usize>) -> impl DoubleEndedIterator<Item = Bound> {
    let part = &text[range.clone()];
    part.char_indices().map(move |(at, character)| {
        let (end, next) = (range.start + at, range.start + at + character.len_utf8());
        let before = text[..end].chars().next_back();
        // The ideographic full stop needs no blank behind it.
        if matches!(character, '。' | '！' | '？') {
            return Bound { end: next, next, is_word: true, is_sentence: true };
        }
        let is_word = character.is_whitespace();
        let ends_sentence = character == '\n' || before.is_some_and(|c| ".!?…:;\"”»)".contains(c));
        Bound { end, next, is_word, is_sentence: is_word && ends_sentence }
    })
}

/// Not after `at`, and not before what belongs to the character before it: marks, and what joins emoji.
fn whole_characters(text: &str, at: usize) -> usize {
    let mut at = text.floor_char_boundary(at);
    let belongs = |character: char| matches!(character, '\u{300}'..='\u{36f}' | '\u{200d}' | '\u{fe00}'..='\u{fe0f}' | '\u{1f3fb}'..='\u{1f3ff}');
    // Where nothing but marks stands, some of them have to go.
    for _ in 0..16 {
        let joined = text[..at].ends_with('\u{200d}');
        let Some(before) = text[..at].chars().next_back() else { break };
        if !joined && !text[at..].starts_with(belongs) {
            break;
        }
        at -= before.len_utf8();
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "One heron stands. Two herons fly away! Three of them, it is said, sleep\nFour never do.";

    fn passage() -> Passage<'static> {
        Passage::within(TEXT, "Two herons fly away!")
    }

    #[test]
    fn a_chunk_is_found_in_its_text() {
        let passage = passage();
        assert_eq!(&passage.text[passage.core.clone()], "Two herons fly away!");
        let alone = Passage::within(TEXT, "not in it");
        assert_eq!((alone.text, alone.core), ("not in it", 0..9));
        assert_eq!(Passage::within("  a b ", " b\n").core, 2..3);
    }

    #[test]
    fn a_window_has_the_core_in_it_and_no_more_than_was_asked_for() {
        let passage = passage();
        for bounds in [Bounds::Words, Bounds::Characters] {
            for full in [passage.whole(), passage.core.clone(), 10..60] {
                let mut last = 0..0;
                for bytes in 0..=full.len() {
                    let window = passage.window(&full, bytes, bounds);
                    assert!(window.len() <= bytes && full.start <= window.start && window.end <= full.end);
                    if bytes >= passage.core.len() {
                        assert!(window.start <= passage.core.start && window.end >= passage.core.end);
                    } else {
                        assert_eq!(window.start, passage.core.start);
                    }
                    last = window;
                }
                assert_eq!(last, full, "all of it");
            }
        }
    }

    #[test]
    fn a_part_ends_at_a_sentence_or_a_word_and_says_that_the_text_goes_on() {
        let text = format!("{} The end", "A sentence of some words. ".repeat(20));
        let passage = Passage::alone(&text);
        let part = passage.window(&passage.whole(), 300, Bounds::Words);
        assert!(passage.shown(&passage.whole(), &part).ends_with("words. …"));
        let words = "lorem ipsum ".repeat(40);
        let passage = Passage::alone(&words);
        let part = passage.window(&passage.whole(), 100, Bounds::Words);
        assert!(
            passage.shown(&passage.whole(), &part).ends_with("ipsum …")
                || passage.shown(&passage.whole(), &part).ends_with("lorem …")
        );
        let middle = Passage::within(TEXT, "Three of them");
        assert_eq!(middle.shown(&middle.whole(), &middle.core), "… Three of them …");
        assert_eq!(middle.shown(&middle.core, &middle.core), "Three of them");
        let chinese = "我们今天去公园看花。".repeat(20);
        let passage = Passage::alone(&chinese);
        let part = passage.window(&passage.whole(), 400, Bounds::Words);
        assert!(chinese[part].ends_with('。'));
    }

    #[test]
    fn characters_stay_whole() {
        for text in ["👨‍👩‍👧‍👦".repeat(9), "e\u{301}".repeat(40), "é語😀".repeat(20)] {
            let passage = Passage::alone(&text);
            for bytes in 0..text.len() {
                let part = passage.window(&passage.whole(), bytes, Bounds::Characters);
                assert!(!text[part.end..].starts_with(['\u{301}', '\u{200d}']), "{bytes}");
            }
        }
        // No end without bounds.
        assert!(whole_characters(&"\u{301}".repeat(100), 150) > 100);
    }
}
