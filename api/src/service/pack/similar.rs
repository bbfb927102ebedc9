//! Whether two texts say the same: by how many of their sequences of three words they share, whatever their case and their
//! punctuation. Texts in which other numbers stand never do, because where all else is a form to be filled in, the numbers
//! are what is said.

/// Words of a sequence.
const SHINGLE_WORDS: usize = 3;
/// The share of sequences, of all that either text has, from which on they say the same.
const SIMILARITY_MIN: f64 = 0.85;
/// Sequences that are kept of a text: all of one with so many, and of a longer one a sample. Two samples show the share of
/// their texts to about 2 %.
const SKETCH_MAX: usize = 512;
/// So many of the smallest are sorted to find them.
const SAMPLED_MAX: usize = 8 * SKETCH_MAX;

/// What is kept of a text to compare it by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sketch {
    /// The smallest hashes of its sequences, in order.
    shingles: Vec<u64>,
    /// Of all its numbers, in order.
    numbers: u64,
}

impl Sketch {
    pub(super) fn of(text: &str) -> Self {
        let words = words(text);
        let numbers =
            words.iter().filter(|word| word.is_number).fold(BASIS, |hash, word| mixed(hash, word.hash));
        let joined = |words: &[Word]| words.iter().fold(BASIS, |hash, word| mixed(hash, word.hash));
        let mut shingles: Vec<u64> = match words.len() {
            // Signs alone: the same only when they are the same.
            0 => vec![text.trim().chars().fold(BASIS, |hash, character| mixed(hash, character.into()))],
            1..=SHINGLE_WORDS => vec![joined(&words)],
            _ => words.windows(SHINGLE_WORDS).map(joined).collect(),
        };
        // A text that repeats itself has fewer different ones, which costs the sample nothing but size.
        if shingles.len() > SAMPLED_MAX {
            shingles.select_nth_unstable(SAMPLED_MAX);
            shingles.truncate(SAMPLED_MAX);
        }
        shingles.sort_unstable();
        shingles.dedup();
        shingles.truncate(SKETCH_MAX);
        Self { shingles, numbers }
    }

    pub(super) fn says_the_same(&self, other: &Self) -> bool {
        self.numbers == other.numbers && self.similarity(other) >= SIMILARITY_MIN
    }

    /// The Jaccard coefficient, by the smallest hashes of both together.
    fn similarity(&self, other: &Self) -> f64 {
        let (mut left, mut right) = (self.shingles.iter().peekable(), other.shingles.iter().peekable());
        let (mut all, mut shared) = (0_usize, 0_usize);
        while all < SKETCH_MAX {
            let least = match (left.peek(), right.peek()) {
                (Some(a), Some(b)) => **a.min(b),
                (Some(a), None) | (None, Some(a)) => **a,
                (None, None) => break,
            };
            let in_left = left.next_if(|hash| **hash == least).is_some();
            let in_right = right.next_if(|hash| **hash == least).is_some();
            all += 1;
            shared += usize::from(in_left && in_right);
        }
        shared as f64 / all.max(1) as f64
    }
}

/// A word in small letters.
#[derive(Clone, Copy, Debug)]
struct Word {
    hash: u64,
    /// Whether it has a digit.
    is_number: bool,
}

impl Word {
    fn add(&mut self, character: char) {
        let mut add = |small: char| self.hash = (self.hash ^ u64::from(small)).wrapping_mul(PRIME);
        if character.is_ascii() {
            add(character.to_ascii_lowercase());
        } else {
            character.to_lowercase().for_each(add);
        }
        self.is_number |= character.is_numeric();
    }
}

/// Those of FNV-1a, by which the letters of a word are put together.
const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x100_0000_01b3;

/// One more value in a hash, spread over all its bits (the finaliser of splitmix64). The same in each run and on each
/// machine.
fn mixed(hash: u64, value: u64) -> u64 {
    let mut mixed = (hash ^ value).wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

fn words(text: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut word: Option<Word> = None;
    for character in text.chars() {
        let is_part = character.is_alphanumeric();
        if !is_part || is_written_without_blanks(character) {
            words.extend(word.take());
        }
        if is_part {
            let word = word.get_or_insert(Word { hash: BASIS, is_number: false });
            word.add(character);
        }
        if is_written_without_blanks(character) {
            words.extend(word.take());
        }
    }
    words.extend(word);
    words
}

/// Thai to Burmese, Khmer, Chinese and Japanese; Korean has blanks.
fn is_written_without_blanks(character: char) -> bool {
    matches!(character,
        '\u{e00}'..='\u{109f}' | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{a4cf}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let (a, b) = (Sketch::of(a), Sketch::of(b));
        assert_eq!(a.says_the_same(&b), b.says_the_same(&a));
        a.says_the_same(&b)
    }

    fn long() -> Vec<String> {
        (0..200)
            .map(|n| format!("{}word", ["a", "b", "c", "d", "e", "f", "g"][n * n % 7].repeat(n % 11 + 1)))
            .collect()
    }

    #[test]
    fn case_blanks_and_punctuation_do_not_matter() {
        assert!(same("The heron stands.", "  the HERON —\nstands!!"));
        assert!(same("", " ") && same("!!!", " !!!") && !same("!!!", "???"));
        assert!(same("ÉTÉ à la mer, déjà vu", "été à la mer déjà vu"));
    }

    #[test]
    fn one_word_matters_in_a_short_text_and_not_in_a_long_one() {
        assert!(!same("The capital of France is Paris", "The capital of Spain is Madrid"));
        assert!(!same(
            "the heron stands in the river at dawn today",
            "the heron stands in the river at dusk today"
        ));
        let (text, mut other) = (long(), long());
        other[100] = "otherwise".to_owned();
        assert!(same(&text.join(" "), &other.join(" ")));
        for n in (0..200).step_by(8) {
            other[n] = format!("new{}", "x".repeat(n));
        }
        assert!(!same(&text.join(" "), &other.join(" ")));
    }

    #[test]
    fn a_form_with_other_numbers_says_something_else() {
        let form = |amount: &str| {
            format!("{} The amount due is {amount} euros. {}", long().join(" "), long().join(" "))
        };
        assert!(same(&form("17"), &form("17")));
        assert!(!same(&form("17"), &form("71")));
    }

    #[test]
    fn scripts_without_blanks_are_compared_by_their_characters() {
        let text = "我们今天去公园看花，天气很好，人也不多，大家都很高兴，晚上一起吃饭，然后坐地铁回家休息。";
        assert!(same(text, &text.replace('，', " ")));
        assert!(same(text, &text.replace("休息", "睡觉")) || text.chars().count() < 60);
        assert!(!same(text, "明天我们要去学校上课，老师会讲新的内容，请大家准备好笔记本。"));
    }

    #[test]
    fn long_texts_are_compared_by_a_sample() {
        let text: Vec<String> = (0..20_000)
            .map(|n: u32| format!("w{}x", char::from(b'a' + (n % 26) as u8)).repeat((n % 37 + 1) as usize))
            .collect();
        let sketch = Sketch::of(&text.join(" "));
        assert!(sketch.shingles.len() <= SKETCH_MAX);
        let mut half = text.clone();
        half[10_000..].iter_mut().for_each(|word| word.push_str("other"));
        assert!(!same(&text.join(" "), &half.join(" ")));
        assert!(same(&text.join(" "), &text.join("\n")));
    }
}
