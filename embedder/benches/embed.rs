//! How long texts take on one core, and how much memory the process holds. Run it on one core and look at the minimum:
//! `taskset -c 0 cargo bench -p embedder`.
#![expect(clippy::expect_used, reason = "a benchmark that cannot run has no result")]

use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::time::Instant;

use divan::{Bencher, counter::ItemsCount};
use embedder::{Embedder, Options};

static EMBEDDER: LazyLock<Embedder> = LazyLock::new(|| {
    let options = Options { threads: NonZeroUsize::MIN, ..Options::default() };
    Embedder::new(options).expect("the model is compiled in")
});

fn main() {
    println!("resident before: {}", resident());
    let begin = Instant::now();
    LazyLock::force(&EMBEDDER);
    println!("model and tokenizer read in {:?}; resident: {}", begin.elapsed(), resident());
    divan::main();
    println!("resident after: {}", resident());
}

/// A text of exactly this many tokens, the special ones included, and another one for each `seed`.
fn text(tokens: usize, seed: usize) -> String {
    let words = ["time", "house", "river", "music", "paper", "light", "garden", "letter", "window", "summer"];
    (2..tokens).map(|i| words[(i * 7 + seed * 3 + i * i * seed) % words.len()]).collect::<Vec<_>>().join(" ")
}

fn texts(count: usize, tokens: usize) -> Vec<String> {
    let texts: Vec<String> = (0..count).map(|seed| text(tokens, seed)).collect();
    assert!(texts.iter().all(|text| EMBEDDER.count_tokens(text).is_ok_and(|found| found == tokens)));
    texts
}

#[divan::bench(args = [(1, 20), (8, 20), (32, 20), (1, 256), (8, 256)], sample_count = 50, sample_size = 1)]
fn embed(bencher: Bencher<'_, '_>, (count, tokens): (usize, usize)) {
    let texts = texts(count, tokens);
    bencher.counter(ItemsCount::new(count)).bench(|| EMBEDDER.embed_blocking(&texts).expect("embeds"));
}

#[divan::bench(args = [20, 256])]
fn tokenize(bencher: Bencher<'_, '_>, tokens: usize) {
    let text = text(tokens, 1);
    bencher.bench(|| EMBEDDER.count_tokens(&text).expect("tokenizes"));
}

/// Memory held now, that of the binary's own pages in brackets; Linux only.
fn resident() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.map_or("?", |line| line[name.len()..].trim()).to_owned()
    };
    format!("{} (of it from the binary {})", field("VmRSS:"), field("RssFile:"))
}
