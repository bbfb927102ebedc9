//! The tokenizer: offsets, counts, and texts of any size and kind.

use std::time::{Duration, Instant};

use embedder::{DIMENSIONS, Token};

use crate::{EMBEDDER, cosine};

fn special(id: u32, name: &str) -> Token {
    Token { id, text: name.to_owned(), special: true, start: None, stop: None }
}

fn word(id: u32, text: &str, start: usize) -> Token {
    Token { id, text: text.to_owned(), special: false, start: Some(start), stop: Some(start + text.len()) }
}

#[test]
fn tokens_have_the_ids_of_the_published_vocabulary() {
    let expected =
        [special(101, "[CLS]"), word(7592, "hello", 0), word(2088, "world", 6), special(102, "[SEP]")];
    assert_eq!(EMBEDDER.tokenize("hello world").unwrap(), expected);
}

#[test]
fn offsets_are_bytes_of_the_text_as_it_was_given() {
    let text = "  Ça coûte 5 € — TOKENIZATION 👍 日本";
    let tokens = EMBEDDER.tokenize(text).unwrap();
    let mut end = 0;
    for token in tokens.iter().filter(|token| !token.special) {
        let (start, stop) = (token.start.unwrap(), token.stop.unwrap());
        assert_eq!(&text[start..stop], token.text);
        assert!(end <= start && start < stop, "{token:?}");
        end = stop;
    }
    assert_eq!(end, text.len());
    let texts: Vec<&str> = tokens.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(texts[1], "Ça");
    assert!(texts.windows(2).any(|pair| pair == ["TOKEN", "IZATION"]), "{texts:?}");
}

#[test]
fn counting_does_not_truncate() {
    assert_eq!(EMBEDDER.count_tokens("").unwrap(), 2);
    assert_eq!(EMBEDDER.count_tokens("hello world").unwrap(), 4);
    assert_eq!(EMBEDDER.count_tokens(&"word ".repeat(300)).unwrap(), 302);
    assert_eq!(EMBEDDER.tokenize(&"word ".repeat(300)).unwrap().len(), 302);
}

#[test]
fn odd_texts_have_vectors() {
    let odd = [
        "",
        " ",
        "\n\t\r",
        "\0",
        "\0\0a\0",
        "\u{301}",
        "\u{301}\u{301}\u{200d}",
        "\u{fffd}",
        "\u{feff}",
        "👩‍👩‍👧‍👦",
        "🏳️‍🌈🎉",
        "[CLS]",
        "[SEP][PAD][MASK]",
        "[UNK",
        "\u{202e}abc",
        "ﷺ",
        "Z͑ͫ̓ͪ̂ͫ̽͏̴̙̤̞͉͚̯̞̠͍A̴̵̜̰͔ͫ͗͢L̠ͨͧͩ͘G̴̻͈͍͔̹̑͗̎̅͛́Ǫ̵̹̻̝̳͂̌̌͘",
        "\u{10ffff}",
        "ß",
        "İ",
    ];
    let vectors = EMBEDDER.embed_blocking(&odd).unwrap();
    for (text, vector) in odd.iter().zip(&vectors) {
        assert_eq!(vector.len(), DIMENSIONS, "{text:?}");
        let norm = vector.iter().map(|value| value * value).sum::<f32>();
        assert!((norm - 1.0).abs() < 1e-4, "{text:?} {norm}");
        let tokens = EMBEDDER.tokenize(text).unwrap();
        assert_eq!(tokens.len(), EMBEDDER.count_tokens(text).unwrap());
    }
    // What the tokenizer removes leaves nothing behind.
    assert_eq!(vectors[0], vectors[1]);
    assert_eq!(vectors[0], vectors[3]);
}

/// Units of 1 MB texts: words, one endless word, no spaces at all, only spaces, nothing but marks and so on.
const UNITS: [&str; 12] =
    ["lorem ipsum ", "x", "!", " ", "日", "かな", "\u{301}", "👍", "\u{0}", "[", "Привет, мир! ", "สวัสดี"];

#[test]
fn a_megabyte_is_truncated_quickly() {
    for unit in UNITS {
        let text = unit.repeat(1_000_000 / unit.len());
        let begin = Instant::now();
        let vectors = EMBEDDER.embed_blocking(&[text]).unwrap();
        assert_eq!(vectors[0].len(), DIMENSIONS);
        // Debug builds on a busy machine have to pass as well; without the short cut the words alone take longer.
        assert!(begin.elapsed() < Duration::from_secs(5), "{unit:?}: {:?}", begin.elapsed());
    }
}

#[test]
fn truncating_early_changes_no_token() {
    // Around each unit and size there is a text that the short cut reads in part; the beginning of the same text,
    // short enough to be read as a whole, is what it must agree with.
    let units = [
        "lorem ipsum ",
        "a!b?",
        "日本語",
        "x-[CLS] y",
        "foo\u{b}bar\u{2028}baz ",
        "e\u{301}. ",
        "[[[",
        "- \u{301}-",
    ];
    for unit in units {
        let tokens = EMBEDDER.count_tokens(unit).unwrap() - 2;
        let short = unit.repeat(254_usize.div_ceil(tokens) + 8);
        let texts = [short.clone(), short.repeat(40)];
        let [short, long] = EMBEDDER.embed_blocking(&texts).unwrap().try_into().unwrap();
        assert!(cosine(&short, &long) > 0.999_99, "{unit:?}: {}", cosine(&short, &long));
    }
}
