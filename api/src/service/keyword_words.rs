//! What a query by words comes down to: its words with their weights, rarest first, and what a text must have.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use crate::{
    domain::{FULL_WEIGHT, idf, limits::SEARCHED_WORDS_MAX, norm},
    store::{KeywordFacts, Match, Part, QueryTerm, Ranking, Scan, Weighted},
};

/// What a whole identifier adds, in parts of what its words can add at most: with all of it, nothing that has the parts
/// only comes before a text that has it whole.
const IDENTIFIER_WEIGHT: f64 = 1.0;

/// The words of a query as the tenant's texts have them.
#[derive(Debug)]
pub(super) struct Words {
    /// Rarest first, and so the weightiest.
    pub weighted: Vec<Weighted>,
    /// Of each word, how many chunks have it.
    pub chunks: Vec<i64>,
    /// Identifiers.
    pub sequences: Vec<Weighted>,
    /// The phrases, all of which a text must have.
    pub required: Option<Match>,
    pub norm: (f64, f64),
    /// The most that any text in a language could get.
    bounds: BTreeMap<String, f64>,
}

#[derive(Default)]
struct Word<'f> {
    chunks: i64,
    /// The same in each language.
    terms: Vec<Match>,
    languages: BTreeSet<&'f str>,
}

impl Words {
    pub fn new(facts: &KeywordFacts) -> Self {
        let all_chunks = facts.chunks.max(1) as f64;
        let mut words: BTreeMap<(Part, i64, i16), Word<'_>> = BTreeMap::new();
        let mut seen = HashSet::new();
        for term in facts.terms.iter().filter(|term| term.part != Part::Identifier) {
            let is_prefix = term.part == Part::Prefix;
            if seen.insert((term.lexeme.as_str(), is_prefix)) {
                let place = term.positions.first().copied().unwrap_or_default();
                let part = if term.part == Part::PrefixStem { Part::Prefix } else { term.part };
                let word = words.entry((part, term.part_no, place)).or_default();
                word.chunks += term.chunks;
                word.languages.insert(&term.language);
                let lexeme = term.lexeme.clone();
                word.terms.push(if is_prefix { Match::Beginning(lexeme) } else { Match::Term(lexeme) });
            }
        }
        let mut words: Vec<Word<'_>> = words.into_values().collect();
        // A word that is nowhere is found nowhere: it comes last.
        words.sort_by_key(|word| (word.chunks == 0, word.chunks));
        words.truncate(SEARCHED_WORDS_MAX);
        words.sort_by_key(|word| word.chunks);
        let weight = |chunks: i64| idf(chunks as f64, all_chunks) * FULL_WEIGHT;
        let sequences: Vec<(&str, Weighted)> = sequences(facts, Part::Identifier)
            .into_values()
            .flatten()
            .filter(|(_, terms)| terms.len() > 1)
            .map(|(language, terms)| {
                let words: f64 = terms.iter().map(|term| weight(term.chunks)).sum();
                (language, Weighted { weight: IDENTIFIER_WEIGHT * words, matches: sequence(&terms) })
            })
            .collect();
        let mut bounds: BTreeMap<String, f64> = BTreeMap::new();
        let of_words = words
            .iter()
            .flat_map(|word| word.languages.iter().map(|language| (*language, weight(word.chunks))));
        let of_sequences = sequences.iter().map(|(language, sequence)| (*language, sequence.weight));
        for (language, weight) in of_words.chain(of_sequences) {
            *bounds.entry(language.to_owned()).or_default() += weight;
        }
        Self {
            bounds,
            chunks: words.iter().map(|word| word.chunks).collect(),
            weighted: words
                .into_iter()
                .map(|word| Weighted { weight: weight(word.chunks), matches: Match::Any(word.terms) })
                .collect(),
            sequences: sequences.into_iter().map(|(_, sequence)| sequence).collect(),
            required: all(sequences_of_phrases(facts)),
            norm: norm(facts.length as f64 / all_chunks),
        }
    }

    /// How chunks are scored, and which.
    pub fn ranking<'w>(
        &'w self,
        candidates: &'w Match,
        scan: Scan,
        candidates_max: i64,
        chunks_max: i64,
    ) -> Ranking<'w> {
        let (words, sequences) = (&self.weighted, &self.sequences);
        Ranking { candidates, scan, candidates_max, words, sequences, norm: self.norm, chunks_max }
    }

    /// Whether the most that a chunk could get depends on its language.
    pub fn bound_depends_on_language(&self) -> bool {
        self.bounds.len() > 1
    }

    /// How much of the most that a chunk in this language could get a score is: from 0 to 1. Without a language, as if it were
    /// in the one of which a text could get the most.
    pub fn share(&self, score: f64, language: Option<&str>) -> f64 {
        let bound = match language {
            Some(language) => self.bounds.get(language).copied(),
            None => self.bounds.values().copied().reduce(f64::max),
        };
        bound.filter(|bound| *bound > 0.0).map_or(0.0, |bound| score / bound)
    }

    /// Chunks that have some of the words, at most.
    pub fn candidates(&self) -> i64 {
        self.chunks.iter().sum()
    }
}

/// Each part of this kind, in each language that has words of it: its terms in their order.
fn sequences(facts: &KeywordFacts, part: Part) -> BTreeMap<i64, Vec<(&str, Vec<&QueryTerm>)>> {
    let mut parts: BTreeMap<(i64, &str), Vec<&QueryTerm>> = BTreeMap::new();
    for term in facts.terms.iter().filter(|term| term.part == part) {
        parts.entry((term.part_no, &term.language)).or_default().push(term);
    }
    let mut by_part: BTreeMap<i64, Vec<(&str, Vec<&QueryTerm>)>> = BTreeMap::new();
    for ((no, language), terms) in parts {
        by_part.entry(no).or_default().push((language, terms));
    }
    by_part
}

/// The same in any of its languages. Of texts in a language in which a phrase is nothing but stop words it asks for nothing but
/// some other word of the query.
fn sequences_of_phrases(facts: &KeywordFacts) -> Vec<Match> {
    let words_in = |language: &str| {
        let terms = facts.terms.iter().filter(move |term| term.language == language);
        let words = terms.filter(|term| matches!(term.part, Part::Words | Part::Phrase | Part::PrefixStem));
        words.map(|term| Match::Term(term.lexeme.clone())).collect::<Vec<_>>()
    };
    let in_any = |read: Vec<(&str, Vec<&QueryTerm>)>| {
        let others =
            facts.languages.iter().filter(|language| read.iter().all(|(other, _)| other != language));
        let others = others.flat_map(|language| words_in(language));
        Match::Any(read.iter().map(|(_, terms)| sequence(terms)).chain(others).collect())
    };
    sequences(facts, Part::Phrase).into_values().map(in_any).collect()
}

fn all(mut parts: Vec<Match>) -> Option<Match> {
    if parts.len() > 1 { Some(Match::All(parts)) } else { parts.pop() }
}

/// These terms at the places where the query has them. A term that it has more than once stands at each.
fn sequence(terms: &[&QueryTerm]) -> Match {
    let mut places: Vec<(i16, &str)> = terms
        .iter()
        .flat_map(|term| term.positions.iter().map(|place| (*place, term.lexeme.as_str())))
        .collect();
    places.sort_unstable();
    let mut previous = None;
    let steps = places.into_iter().map(|(place, lexeme)| {
        let distance = previous.replace(place).map_or(0, |previous| place.abs_diff(previous));
        (lexeme.to_owned(), distance)
    });
    Match::Sequence(steps.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn term(part: Part, part_no: i64, lexeme: &str, positions: &[i16], chunks: i64) -> QueryTerm {
        QueryTerm {
            part,
            part_no,
            language: lexeme[..2].to_owned(),
            lexeme: lexeme.to_owned(),
            word: lexeme[2..].to_owned(),
            positions: positions.to_vec(),
            chunks,
        }
    }

    fn facts(terms: Vec<QueryTerm>) -> KeywordFacts {
        KeywordFacts { terms, chunks: 1_000, length: 40_000, ..KeywordFacts::default() }
    }

    fn texts(words: &[Weighted]) -> Vec<String> {
        words.iter().map(|word| word.matches.to_string()).collect()
    }

    #[test]
    fn rare_words_come_first_and_a_word_weighs_the_same_in_each_language() {
        let words = Words::new(&facts(vec![
            term(Part::Words, 1, "encommon", &[1, 3], 400),
            term(Part::Words, 1, "decommon", &[1], 100),
            term(Part::Words, 1, "enrare", &[2], 2),
            term(Part::Words, 1, "derare", &[2], 0),
            term(Part::Prefix, 2, "enra", &[1], 5),
        ]));
        assert_eq!(
            texts(&words.weighted),
            ["('enrare' | 'derare')", "('enra':*)", "('encommon' | 'decommon')"]
        );
        assert_eq!((words.chunks.as_slice(), words.candidates()), (&[2, 5, 500][..], 507));
        let weights: Vec<f64> = words.weighted.iter().map(|word| word.weight).collect();
        assert!(weights.is_sorted_by(|a, b| a > b), "{weights:?}");
        assert!((weights[2] - FULL_WEIGHT * 2.0_f64.ln()).abs() < 1e-9, "{weights:?}");
    }

    #[test]
    fn phrases_are_required_and_identifiers_are_not() {
        let words = Words::new(&facts(vec![
            term(Part::Words, 1, "enerr", &[1], 4),
            term(Part::Words, 1, "en1234", &[2], 3),
            term(Part::Identifier, 2, "enerr", &[1], 4),
            term(Part::Identifier, 2, "en1234", &[2], 3),
            term(Part::Identifier, 3, "enalone", &[1], 3),
            term(Part::Phrase, 4, "enquick", &[1, 5], 9),
            term(Part::Phrase, 4, "enfox", &[3], 9),
            term(Part::Phrase, 5, "ende", &[1], 9),
        ]));
        assert_eq!(texts(&words.sequences), ["('enerr' <1> 'en1234')"]);
        let required = words.required.unwrap().to_string();
        assert_eq!(required, "((('enquick' <2> 'enfox' <2> 'enquick')) & (('ende')))");
        assert_eq!(words.weighted.len(), 5, "the words of a phrase count, too");
    }

    #[test]
    fn a_score_is_held_against_what_a_text_in_its_language_could_get() {
        let words = Words::new(&facts(vec![
            term(Part::Words, 1, "enhouse", &[2], 10),
            term(Part::Words, 1, "dethe", &[1], 0),
            term(Part::Words, 1, "dehouse", &[2], 10),
        ]));
        assert!(words.bound_depends_on_language());
        let house = words.weighted.iter().map(|word| word.weight).fold(f64::MAX, f64::min);
        assert!((words.share(house, Some("en")) - 1.0).abs() < 1e-12);
        assert!(words.share(house, Some("de")) < 0.6);
        assert_eq!(words.share(house, Some("fr")).to_string(), "0");
        assert_eq!(words.share(house, None).to_string(), words.share(house, Some("de")).to_string());
    }

    #[test]
    fn a_phrase_of_stop_words_of_one_language_is_asked_of_the_others() {
        let terms = vec![term(Part::Words, 1, "enfrog", &[1], 9), term(Part::Phrase, 2, "dethe", &[1], 9)];
        let languages = vec!["en".to_owned(), "de".to_owned()];
        let words = Words::new(&KeywordFacts { languages, ..facts(terms) });
        assert_eq!(words.required.unwrap().to_string(), "(('dethe') | 'enfrog')");
    }

    #[test]
    fn of_many_words_the_rarest_that_are_anywhere_are_looked_for() {
        let terms =
            (0..100).map(|n| term(Part::Words, 1, &format!("en{n}"), &[n], i64::from(100 - n).max(50) - 50));
        let words = Words::new(&facts(terms.collect()));
        assert_eq!(words.chunks.len(), SEARCHED_WORDS_MAX);
        assert_eq!((words.chunks.first(), words.chunks.last()), (Some(&0), Some(&50)));
    }
}
