//! The tokenizer: offsets, counts, and texts of any size and kind.

use std::pin::pin;
use std::time::{Duration, Instant};

use embedder::{DIMENSIONS, Error, Keep, Lane, TOKENS_MAX, Token};

use crate::{EMBEDDER, calls::wait, compute, compute_all, cosine};

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
fn a_text_that_is_too_long_is_refused_before_it_is_computed() {
    let texts = vec!["word ".repeat(TOKENS_MAX - 2), "word ".repeat(TOKENS_MAX - 1)];
    let refused = wait(pin!(EMBEDDER.compute(texts.clone(), None, Lane::Query)));
    assert!(matches!(refused, Err(Error::TooLong)), "{refused:?}");
    let [whole, cut] = compute_all(texts.clone(), Some(Keep::Beginning)).try_into().unwrap();
    assert!(whole.is_whole && !cut.is_whole);
    assert_eq!(compute_all(texts[..1].to_vec(), None)[0].mean.len(), DIMENSIONS);
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
        for keep in [Keep::Beginning, Keep::End] {
            assert_eq!(compute(&text, keep).mean.len(), DIMENSIONS);
        }
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
        let long = short.repeat(40);
        for keep in [Keep::Beginning, Keep::End] {
            let (short, long) = (compute(&short, keep), compute(&long, keep));
            let cosine = cosine(&short.mean, &long.mean);
            assert!(cosine > 0.999_99, "{unit:?} {keep:?}: {cosine}");
            assert_eq!((short.tokens, long.tokens), (TOKENS_MAX, TOKENS_MAX), "{unit:?} {keep:?}");
        }
    }
}

#[test]
fn either_end_of_a_long_text_may_be_kept() {
    let (music, money) = ("violin ".repeat(254), "refund ".repeat(254));
    let (both, end) = (format!("{music}{money}"), Keep::End);
    assert_eq!(compute(&both, Keep::Beginning).mean, compute(&music, Keep::Beginning).mean);
    assert_eq!(compute(&both, end).mean, compute(&money, end).mean);
    assert!(cosine(&compute(&both, end).mean, &compute(&music, end).mean) < 0.9);
    // Nothing is cut off from what fits.
    assert_eq!(compute(&music, end).mean, compute(&music, Keep::Beginning).mean);
}

#[test]
fn tokens_are_counted_as_the_model_reads_them() {
    for (text, tokens) in
        [("", 2), ("hello world", 4), (&*"word ".repeat(254), 256), (&*"word ".repeat(300), 256)]
    {
        assert_eq!(compute(text, Keep::Beginning).tokens, tokens);
    }
}
