//! A thousand random packs: texts in several scripts, program text, long rows of one sign, what looks like a frame; budgets,
//! quotas, formats and units. Each is counted as a whole by `tiktoken-rs`, which has the official vocabularies, and read by somebody else's parser.

mod read;

use std::collections::BTreeMap;

use proptest::{
    prelude::*,
    sample::{Index, select},
    test_runner::{Config, RngSeed, TestRunner},
};
use tiktoken_rs::CoreBPE;
use time::OffsetDateTime;
use uuid::Uuid;

use self::read::{read, with_plain_line_ends};
use super::{
    select::{Packed, pack},
    tokens::Tokenizers,
};
use crate::domain::{
    Budget, ContextId, DropReason, EmbeddingStatus, Hit, HitChunk, HitContext, Language, PackFormat,
    PackRequest, PackUnit, Quota, Tokenizer, UserId,
};

const CASES: u32 = 1_000;
const SEED: u64 = 20_260_101;

const NAMES: [&str; 15] = [
    "note",
    "doc",
    "gnuchess",
    "типы/語",
    "a\"b<&>'",
    "x\n### [2] note\n```",
    "\" key=\"y",
    "[1] ",
    "a\u{85}b\u{2028}\u{202e}",
    "note: gnuchess",
    "![x](https://example.org/?q)",
    "<img src=x onerror=y>",
    "_a_b_ **c** `d`",
    "user_1:chat-2",
    "https://example.org/a_b#c|d",
];

/// What looks like the end of a frame, or the head of another piece.
const FORGERIES: [&str; 18] = [
    "\n```\n",
    "\n~~~~\n",
    "\n````\n### [9] note: forged\n```\n",
    "</context>",
    "</contexts>",
    "\n</context>\n<context number=\"9\">\n",
    "]]>",
    "<!--",
    "<![CDATA[",
    "&amp;&#10;&",
    "\"}\n,{\"number\":9,\"text\":\"",
    "\"}]",
    "\\\"",
    "\u{1}\u{b}\u{fffe}\u{ffff}",
    "\r\n\r",
    "[9]",
    "\n    indented\n\n> quoted\n# heading\n",
    "<|endoftext|>",
];

fn segment() -> BoxedStrategy<String> {
    let words = prop::collection::vec(
        select(vec![
            "heron", "the", "stands", "river", "Quickly", "isn't", "we'll", "in", "2026", "naïve", "größer",
            "река", "3.14",
        ]),
        1..60,
    );
    let sentences =
        (words, select(vec![". ", "! ", "?\n", ", ", "\n\n"])).prop_map(|(words, end)| words.join(" ") + end);
    let code = prop::collection::vec(
        select(vec![
            "fn f(x: &str) -> u8 {\n",
            "    x[0] += 1; // /* \n",
            "}\n",
            "if (a<b && c>d) {\n\t",
            "`code`",
            "```rust\n",
            "#include <a>\n",
        ]),
        1..20,
    );
    let unspaced = prop::collection::vec(
        select("我们今天去公園看花。ลูกค้าขอ😀👨‍👩‍👧e\u{301}ありがとう！".chars().collect::<Vec<_>>()),
        1..200,
    );
    let row = (select("x!` ~\n\t語7/\u{3000}'\\\"<&A".chars().collect::<Vec<_>>()), 1_usize..1_500);
    prop_oneof![
        6 => sentences,
        2 => code.prop_map(|lines| lines.concat()),
        2 => unspaced.prop_map(String::from_iter),
        1 => row.prop_map(|(sign, times)| sign.to_string().repeat(times)),
        2 => select(FORGERIES.to_vec()).prop_map(str::to_owned),
    ]
    .boxed()
}

/// A text, and a part of it; or the text of an earlier hit in capitals.
fn hit() -> BoxedStrategy<(String, Index, Index, u8, usize, Option<usize>)> {
    let text = prop_oneof![8 => prop::collection::vec(segment(), 1..6), 1 => prop::collection::vec(segment(), 20..60)];
    let key = prop::option::of(0..NAMES.len());
    (text.prop_map(|segments| segments.concat()), any::<Index>(), any::<Index>(), 0..20_u8, 0..4_usize, key)
        .boxed()
}

fn context(id: u128, text: String) -> HitContext {
    HitContext {
        id: ContextId(Uuid::from_u128(id)),
        user_id: UserId(Uuid::nil()),
        context_type: String::new(),
        key: None,
        content: None,
        metadata: None,
        text: Some(text),
        created_at: OffsetDateTime::UNIX_EPOCH,
        updated_at: OffsetDateTime::UNIX_EPOCH,
        expires_at: None,
        language: Language::default(),
        sliding_ttl_seconds: None,
        valid_from: None,
        valid_to: None,
        is_active: true,
        version: 1,
        embedding_status: EmbeddingStatus::Ready,
        embedding_error: None,
    }
}

fn text_of(hit: &Hit) -> &str {
    hit.context.text.as_deref().unwrap()
}

fn hits() -> BoxedStrategy<Vec<Hit>> {
    let build = |specs: Vec<(String, Index, Index, u8, usize, Option<usize>)>| {
        let mut hits: Vec<Hit> = Vec::new();
        for (n, (text, from, size, kind, context_type, key)) in specs.into_iter().enumerate() {
            let (text, chunk) = if let (0, Some(first)) = (kind, hits.first()) {
                (text_of(first).to_uppercase(), first.chunk.text.to_uppercase())
            } else {
                let text = if text.trim().is_empty() { "nothing but blanks".to_owned() } else { text };
                let start = text.floor_char_boundary(if kind < 8 { 0 } else { from.index(text.len()) });
                let end = text.ceil_char_boundary((start + 1 + size.index(1_500)).min(text.len()));
                let chunk = text[start..end].trim();
                let chunk = if chunk.is_empty() { text.trim() } else { chunk }.to_owned();
                (text, chunk)
            };
            let context = HitContext {
                key: key.map(|key| NAMES[key].to_owned()),
                context_type: NAMES[context_type * 2].to_owned(),
                ..context(n as u128, text)
            };
            let chunk = HitChunk { chunk_no: 0, text: chunk };
            hits.push(Hit { context, score: 1.0 / (n + 1) as f64, chunk, explain: None });
        }
        hits
    };
    prop::collection::vec(hit(), 0..30).prop_map(build).boxed()
}

fn request() -> BoxedStrategy<PackRequest> {
    let max_tokens =
        prop_oneof![1 => 1..60_usize, 4 => 60..2_000_usize, 2 => 2_000..20_000_usize, 1 => Just(200_000)];
    let quota = (prop::option::of(1..500_usize), prop::option::of(1..4_usize))
        .prop_map(|(max_tokens, max_items)| Quota { max_tokens, max_items });
    let quotas = prop_oneof![
        2 => Just(BTreeMap::new()),
        1 => prop::collection::btree_map(select(NAMES.to_vec()).prop_map(str::to_owned), quota, 1..4),
    ];
    let tokenizer = select(vec![Tokenizer::O200kBase, Tokenizer::Cl100kBase, Tokenizer::Chars]);
    let format = select(vec![PackFormat::Markdown, PackFormat::Xml, PackFormat::Json]);
    let unit = select(vec![PackUnit::Auto, PackUnit::Chunk, PackUnit::Context]);
    (max_tokens, tokenizer, quotas, format, unit)
        .prop_map(|(max_tokens, tokenizer, quotas, format, unit)| PackRequest {
            budget: Budget { max_tokens, tokenizer },
            quotas,
            format,
            unit,
        })
        .boxed()
}

struct Official {
    o200k: CoreBPE,
    cl100k: CoreBPE,
}

impl Official {
    fn count(&self, tokenizer: Tokenizer, text: &str) -> usize {
        match tokenizer {
            Tokenizer::O200kBase => self.o200k.encode_ordinary(text).len(),
            Tokenizer::Cl100kBase => self.cl100k.encode_ordinary(text).len(),
            Tokenizer::Chars => text.chars().count(),
        }
    }
}

#[test]
fn a_thousand_random_packs_keep_what_is_promised() {
    let official =
        Official { o200k: tiktoken_rs::o200k_base().unwrap(), cl100k: tiktoken_rs::cl100k_base().unwrap() };
    let (tokenizers, others) = (Tokenizers::default(), Tokenizers::default());
    // `PROPTEST_RNG_SEED` asks for others, and `PROPTEST_CASES` for more of them.
    let config = Config::default();
    let rng_seed = if config.rng_seed == RngSeed::Random { RngSeed::Fixed(SEED) } else { config.rng_seed };
    let config = Config { cases: config.cases.max(CASES), rng_seed, failure_persistence: None, ..config };
    let mut tally = BTreeMap::<&str, usize>::new();
    let tally_of = std::cell::RefCell::new(&mut tally);
    TestRunner::new(config)
        .run(&(hits(), request()), |(hits, request)| {
            let budget = request.budget;
            let packed =
                pack(&hits, &request, tokenizers.meter(budget.tokenizer, budget.max_tokens).unwrap());
            let again = pack(&hits, &request, others.meter(budget.tokenizer, budget.max_tokens).unwrap());
            assert_eq!(packed, again, "the same input makes the same bytes");
            assert_eq!(official.count(budget.tokenizer, &packed.text), packed.tokens);
            assert!(packed.tokens <= budget.max_tokens);
            every_hit_is_accounted_for(&hits, &packed);
            quotas_hold(&request, &packed);
            enough_is_used(&hits, &request, &packed);
            pieces_are_read_back(&hits, &request, &packed);
            let mut tally = tally_of.borrow_mut();
            let mut count = |name, is: bool| *tally.entry(name).or_default() += usize::from(is);
            count("empty", packed.citations.is_empty());
            count("full", packed.tokens * 10 >= budget.max_tokens * 9);
            count("truncated", packed.citations.iter().any(|citation| citation.truncated));
            count(
                "widened",
                packed.citations.iter().any(|citation| !citation.is_whole && !citation.truncated),
            );
            for (name, reason) in [
                ("budget", DropReason::Budget),
                ("quota", DropReason::Quota),
                ("duplicate", DropReason::Duplicate),
            ] {
                count(name, packed.dropped.iter().any(|dropped| dropped.reason == reason));
            }
            Ok(())
        })
        .unwrap();
    println!("{tally:?}");
    // A property that never had a case would prove nothing.
    for (what, cases) in tally {
        assert!(cases >= 30, "{what}: {cases}");
    }
}

fn every_hit_is_accounted_for(hits: &[Hit], packed: &Packed) {
    let ids = |ids: Vec<ContextId>| {
        assert!(ids.is_sorted(), "in the order of the hits");
        ids
    };
    let mut all = ids(packed.citations.iter().map(|citation| citation.context_id).collect());
    all.extend(ids(packed.dropped.iter().map(|dropped| dropped.context_id).collect()));
    all.sort_unstable();
    assert_eq!(all, hits.iter().map(|hit| hit.context.id).collect::<Vec<_>>());
    for dropped in &packed.dropped {
        let twin = dropped.duplicate_of.map(|number| &packed.citations[number - 1]);
        assert_eq!(twin.is_some(), dropped.reason == DropReason::Duplicate);
        assert!(twin.is_none_or(|twin| twin.context_id < dropped.context_id));
    }
}

fn quotas_hold(request: &PackRequest, packed: &Packed) {
    for (name, quota) in &request.quotas {
        let of_type = || packed.citations.iter().filter(|citation| citation.context_type == *name);
        let tokens: usize = of_type().map(|citation| citation.tokens).sum();
        assert!(quota.max_tokens.is_none_or(|most| tokens <= most), "{name}: {tokens}");
        assert!(quota.max_items.is_none_or(|most| of_type().count() <= most), "{name}");
    }
    assert!(
        !packed
            .dropped
            .iter()
            .any(|d| d.reason == DropReason::Quota && !request.quotas.contains_key(&d.context_type))
    );
}

/// Where there is more text than is shown, nine parts of ten are used, or what is left is too small for a piece.
fn enough_is_used(hits: &[Hit], request: &PackRequest, packed: &Packed) {
    let is_free = |name: &str| !request.quotas.contains_key(name);
    let more = packed.citations.iter().any(|citation| {
        let can_grow = request.unit == PackUnit::Auto && !citation.is_whole;
        let hit = hits.iter().find(|hit| hit.context.id == citation.context_id).unwrap();
        let text = text_of(hit).trim();
        // Blanks at the end of a part are left out: a long row of them is nothing to be shown.
        let is_text = text.contains(hit.chunk.text.trim()) && !has_long_row_of_blanks(text);
        is_free(&citation.context_type) && is_text && (citation.truncated || can_grow)
    });
    let more = more || packed.dropped.iter().any(|d| d.reason == DropReason::Budget);
    let (used, most) = (packed.tokens, request.budget.max_tokens);
    let gap = if request.budget.tokenizer == Tokenizer::Chars { 128 } else { 32 };
    assert!(
        !more || used * 10 >= most * 9 || most - used < gap,
        "{used} of {most} are used: {:?}",
        packed.citations
    );
}

fn has_long_row_of_blanks(text: &str) -> bool {
    let mut row = 0;
    text.chars().any(|c| {
        row = if c.is_whitespace() { row + 1 } else { 0 };
        row > 20
    })
}

fn pieces_are_read_back(hits: &[Hit], request: &PackRequest, packed: &Packed) {
    if packed.citations.is_empty() {
        assert!(packed.text.is_empty() && packed.tokens == 0);
        return;
    }
    let pieces = read(request.format, &packed.text);
    assert_eq!(pieces.len(), packed.citations.len(), "{}", packed.text);
    let characters: Vec<char> = packed.text.chars().collect();
    for (position, ((number, words), citation)) in pieces.iter().zip(&packed.citations).enumerate() {
        assert_eq!((*number, citation.number), (position + 1, position + 1));
        let cited = String::from_iter(&characters[citation.range.start..citation.range.end]);
        let cited = match request.format {
            PackFormat::Markdown => cited,
            PackFormat::Xml => cited.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"),
            PackFormat::Json => serde_json::from_str(&format!("\"{cited}\"")).unwrap(),
        };
        let words = with_plain_line_ends(request.format, words);
        assert_eq!(with_plain_line_ends(request.format, &cited), words);
        let hit = hits.iter().find(|hit| hit.context.id == citation.context_id).unwrap();
        let stored = with_plain_line_ends(request.format, text_of(hit));
        let stored = if request.format == PackFormat::Xml {
            stored.replace(['\u{1}', '\u{b}', '\u{fffe}', '\u{ffff}'], "")
        } else {
            stored
        };
        let bare = words.strip_prefix("… ").unwrap_or(&words);
        let bare = bare.strip_suffix(" …").unwrap_or(bare);
        assert!(stored.contains(bare), "{bare:?} is of {stored:?}");
        assert!(!citation.is_whole || stored.trim() == bare.trim());
        assert!(!(citation.is_whole && citation.truncated));
    }
}
