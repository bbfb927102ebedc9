//! Contexts and queries that look like real ones: a few words are everywhere and most are rare, texts are about something, and
//! vectors of texts about the same thing are near each other. The same seed makes the same data, so a query can be made for
//! contexts that another run has stored.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use rand_distr::{Distribution, LogNormal, StandardNormal, Zipf};
use serde_json::{Value, json};

/// Words that exist.
const WORDS: usize = 20_000;
/// What texts are about.
const TOPICS: usize = 400;
/// Words of which a topic has more than others.
const WORDS_OF_TOPIC: usize = 60;
/// The share of a text's words that are its topic's.
const SHARE_OF_TOPIC: f64 = 0.5;
/// Directions in which vectors really differ. Embeddings of text have a few dozen, whatever their dimension.
const LATENT: usize = 32;
/// How far a text is from the middle of its topic, where topics are 1 apart.
const SPREAD: f32 = 0.7;
/// What each of a vector's numbers has of its own, against what comes from the directions.
const NOISE: f32 = 0.15;
/// Of a hundred contexts so many name something exactly, such as an error code.
const NAMED_PERCENT: u32 = 10;

const ONSETS: [&str; 14] = ["b", "d", "f", "g", "k", "l", "m", "n", "p", "r", "s", "t", "v", "z"];
const NUCLEI: [&str; 6] = ["a", "e", "i", "o", "u", "ei"];
const CODAS: [&str; 8] = ["", "l", "m", "n", "r", "s", "t", "ck"];

/// A world of texts and their vectors.
pub struct Corpus {
    seed: u64,
    users: u64,
    words: Vec<String>,
    topics: Vec<Topic>,
    /// From the directions to the numbers of a vector, row by row.
    projection: Vec<f32>,
}

struct Topic {
    words: Vec<usize>,
    middle: [f32; LATENT],
}

/// What somebody looks for.
pub struct Query {
    pub text: String,
    pub vector: Vec<f64>,
    pub user_id: String,
}

impl Corpus {
    pub fn new(seed: u64, dims: usize, users: u64) -> Self {
        let mut chance = StdRng::seed_from_u64(seed);
        let words = (0..WORDS).map(word).collect();
        let topics = (0..TOPICS)
            .map(|_| Topic {
                words: (0..WORDS_OF_TOPIC).map(|_| chance.random_range(0..WORDS)).collect(),
                middle: latent(&mut chance, 1.0),
            })
            .collect();
        let projection = (0..dims * LATENT).map(|_| normal(&mut chance)).collect();
        Self { seed, users: users.max(1), words, topics, projection }
    }

    /// The context of this number, as `POST /v1/contexts` takes it, with its vector.
    pub fn context(&self, number: u64) -> Value {
        let mut chance = self.chance(number, 0);
        let topic = self.topic(&mut chance);
        let length = length_of_text(&mut chance);
        let mut text: Vec<&str> = (0..length).map(|_| self.word(&mut chance, topic)).collect();
        let name = name_of(number);
        if chance.random_range(0..100) < NAMED_PERCENT {
            text.push(&name);
        }
        let kind = *["note", "message", "document"].choose(&mut chance).unwrap_or(&"note");
        json!({
            "user_id": user(number % self.users),
            "context_type": kind,
            "key": format!("loadtest-{number}"),
            "content": {"text": text.join(" ")},
            "metadata": {"number": number, "tenth": number % 10, "hundredth": number % 100},
            "embedding": self.vector(&mut chance, topic),
        })
    }

    /// The query of this number. A tenth of them look for an exact name, the others have a few words of a topic.
    pub fn query(&self, number: u64, contexts: u64) -> Query {
        let mut chance = self.chance(number, 1);
        let topic = self.topic(&mut chance);
        let sought = chance.random_range(0..contexts.max(1));
        let text = if chance.random_range(0..100) < NAMED_PERCENT {
            name_of(sought)
        } else {
            let length = chance.random_range(1..=6);
            let words: Vec<&str> = (0..length).map(|_| self.word(&mut chance, topic)).collect();
            words.join(" ")
        };
        Query { text, vector: self.vector(&mut chance, topic), user_id: user(sought % self.users) }
    }

    /// `kind` tells the randomness of contexts from that of queries.
    fn chance(&self, number: u64, kind: u64) -> StdRng {
        StdRng::seed_from_u64(
            self.seed ^ (number.wrapping_mul(2).wrapping_add(kind + 1)).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        )
    }

    fn topic(&self, chance: &mut StdRng) -> &Topic {
        &self.topics[ranked(chance, TOPICS, 0.8)]
    }

    fn word(&self, chance: &mut StdRng, topic: &Topic) -> &str {
        let word = if chance.random_bool(SHARE_OF_TOPIC) {
            topic.words[ranked(chance, WORDS_OF_TOPIC, 0.6)]
        } else {
            ranked(chance, WORDS, 1.05)
        };
        &self.words[word]
    }

    /// Of length one.
    fn vector(&self, chance: &mut StdRng, topic: &Topic) -> Vec<f64> {
        let own = latent(chance, SPREAD);
        let noise = NOISE * (LATENT as f32).sqrt();
        let vector: Vec<f32> = self
            .projection
            .chunks_exact(LATENT)
            .map(|row| {
                let along = row.iter().zip(topic.middle.iter().zip(&own)).map(|(p, (m, o))| p * (m + o));
                along.sum::<f32>() + noise * normal(chance)
            })
            .collect();
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        // Six digits are more than any model knows.
        vector.iter().map(|x| (f64::from(x / length) * 1e6).round() / 1e6).collect()
    }
}

fn word(number: usize) -> String {
    let mut rest = number;
    let mut word = String::new();
    // At least two syllables, so that none is a stop word.
    while rest > 0 || word.len() < 4 {
        for sounds in [&ONSETS[..], &NUCLEI, &CODAS] {
            word.push_str(sounds[rest % sounds.len()]);
            rest /= sounds.len();
        }
    }
    word
}

fn user(number: u64) -> String {
    format!("0190d5a0-0000-7000-8000-{number:012x}")
}

fn name_of(number: u64) -> String {
    format!("ERR_{number}")
}

fn length_of_text(chance: &mut StdRng) -> usize {
    // Half of the texts have up to 45 words, few have more than 150.
    let words = LogNormal::new(3.8_f64, 0.6).map_or(45.0, |lengths| lengths.sample(chance));
    (words as usize).clamp(5, 400)
}

/// One of so many, the first the most often.
fn ranked(chance: &mut StdRng, count: usize, exponent: f64) -> usize {
    let rank = Zipf::new(count as f64, exponent).map_or(1.0, |ranks| ranks.sample(chance));
    (rank as usize - 1).min(count - 1)
}

fn normal(chance: &mut impl Rng) -> f32 {
    StandardNormal.sample(chance)
}

fn latent(chance: &mut StdRng, scale: f32) -> [f32; LATENT] {
    std::array::from_fn(|_| scale * normal(chance))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn cosine(a: &Value, b: &Value) -> f64 {
        let numbers = |v: &Value| -> Vec<f64> {
            v["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
        };
        numbers(a).iter().zip(numbers(b)).map(|(x, y)| x * y).sum()
    }

    #[test]
    fn the_same_seed_makes_the_same_data_and_another_one_other_data() {
        let (one, same, other) = (Corpus::new(1, 8, 3), Corpus::new(1, 8, 3), Corpus::new(2, 8, 3));
        assert_eq!(one.context(5), same.context(5));
        assert_ne!(one.context(5), one.context(6));
        assert_ne!(one.context(5), other.context(5));
        assert_eq!(one.query(5, 100).text, same.query(5, 100).text);
    }

    #[test]
    fn words_differ() {
        let words: HashSet<String> = (0..WORDS).map(word).collect();
        assert_eq!(words.len(), WORDS);
    }

    #[test]
    fn vectors_have_length_one_and_texts_of_a_topic_are_near_each_other() {
        let corpus = Corpus::new(1, 384, 1);
        let contexts: Vec<Value> = (0..300).map(|number| corpus.context(number)).collect();
        for context in &contexts {
            assert!((cosine(context, context) - 1.0).abs() < 1e-3);
        }
        let (mut nearest, mut all) = (0.0, 0.0);
        for one in &contexts[..50] {
            let others = contexts.iter().filter(|other| *other != one).map(|other| cosine(one, other));
            let others: Vec<f64> = others.collect();
            nearest += others.iter().copied().fold(f64::MIN, f64::max) / 50.0;
            all += others.iter().sum::<f64>() / (50.0 * 299.0);
        }
        assert!(nearest > 0.5, "{nearest}");
        assert!(all.abs() < 0.1, "{all}");
    }

    #[test]
    fn some_words_are_everywhere_and_most_are_rare() {
        let corpus = Corpus::new(1, 2, 1);
        let texts: Vec<String> =
            (0..500).map(|n| corpus.context(n)["content"]["text"].as_str().unwrap().to_owned()).collect();
        let words: Vec<&str> = texts.iter().flat_map(|text| text.split(' ')).collect();
        let distinct: HashSet<&str> = words.iter().copied().collect();
        let most =
            distinct.iter().map(|word| words.iter().filter(|other| *other == word).count()).max().unwrap();
        assert!(
            words.len() > 15_000 && distinct.len() > 3_000 && most > 500,
            "{} {} {most}",
            words.len(),
            distinct.len()
        );
    }
}
