//! The keyword leg. Every chunk that has some word of the query could be a hit, and of a common word there are too many to
//! score each. So the rarest words come first: once enough is found, what has only the other words can often not reach it
//! any more, and need not be read.

use std::collections::HashSet;

use super::{
    Service,
    keyword_words::Words,
    search::{Leg, best_per_context},
};
use crate::{
    domain::{KeywordQuery, SearchScope, TenantId},
    error::Result,
    store::{ChunkHit, Match, SCOPE_CHUNKS_MAX, Scan, Weighted},
    telemetry::spans,
};

/// The first round reads chunks with the rarest words, as many words as have so many chunks together; each further one
/// four times as many.
const ROUND_CHUNKS: i64 = 2_000;
const ROUNDS_MAX: u32 = 4;
/// A statement scores so many chunks times words.
const WORK_MAX: i64 = 150_000;
/// Terms in a query for combinations of words: each is looked up, and what they make is evaluated for each chunk.
const COMBINATION_TERMS_MAX: usize = 100;

/// What was found, and what it was found by.
pub(super) struct KeywordLeg {
    pub leg: Leg,
    pub words: Words,
}

/// One search, as far as it has come.
struct Search<'a> {
    service: &'a Service,
    tenant: TenantId,
    scope: &'a SearchScope,
    depth: usize,
    words: Words,
    hits: Vec<ChunkHit>,
    complete: bool,
}

impl Service {
    /// The best chunk of each context that has words of the query, by BM25; `depth` contexts at most.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub(super) async fn keyword_leg(
        &self,
        tenant: TenantId,
        query: &KeywordQuery,
        scope: &SearchScope,
        depth: usize,
    ) -> Result<KeywordLeg> {
        let facts =
            spans::database("read word statistics", self.store.keyword_facts(tenant, query, scope)).await?;
        let words = Words::new(&facts);
        let mut search =
            Search { service: self, tenant, scope, depth, words, hits: Vec::new(), complete: true };
        let matching = search.words.candidates();
        let is_scope_small = facts.in_scope.is_some_and(|chunks| chunks <= SCOPE_CHUNKS_MAX.min(matching));
        if let Some(required) = search.words.required.clone() {
            search.read(&required, if is_scope_small { Scan::Scope } else { Scan::Terms }).await?;
        } else if is_scope_small {
            let any = any_of(&search.words.weighted);
            search.read(&any, Scan::Scope).await?;
        } else {
            search.read_in_rounds().await?;
        }
        let leg = Leg { hits: search.hits, complete: search.complete };
        Ok(KeywordLeg { leg, words: search.words })
    }

    /// What these chunks get for the words, in their order.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub(super) async fn keyword_scores(
        &self,
        tenant: TenantId,
        words: &Words,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<f64>> {
        if words.weighted.is_empty() || hits.is_empty() {
            return Ok(vec![0.0; hits.len()]);
        }
        let candidates = words.required.clone().unwrap_or_else(|| any_of(&words.weighted));
        let ranking = words.ranking(&candidates, Scan::Scope, 0, 0);
        let score = self.store.keyword_scores(tenant, &ranking, scope, hits);
        spans::database("score by words", score).await
    }
}

impl Service {
    /// Of the most that each of these chunks could get for the words, how much it has got.
    ///
    /// # Errors
    /// [`crate::error::Code::DatabaseUnavailable`].
    pub(super) async fn keyword_shares(
        &self,
        tenant: TenantId,
        words: &Words,
        scope: &SearchScope,
        hits: &[&ChunkHit],
        scores: impl Iterator<Item = f64>,
    ) -> Result<Vec<f64>> {
        let languages = if words.bound_depends_on_language() && !hits.is_empty() {
            self.store.languages_of_hits(tenant, scope, hits).await?
        } else {
            vec![None; hits.len()]
        };
        Ok(scores.zip(languages).map(|(score, language)| words.share(score, language.as_deref())).collect())
    }
}

impl Search<'_> {
    async fn read_in_rounds(&mut self) -> Result<()> {
        let mut read = 0;
        for round in 0..ROUNDS_MAX {
            let next = self.words_up_to(read, ROUND_CHUNKS << (2 * round));
            if next == read {
                return Ok(());
            }
            let mut candidates = any_of(&self.words.weighted[read..next]);
            if let (0, Match::Any(parts)) = (round, &mut candidates) {
                // What has a whole identifier may have common words only.
                parts.extend(self.words.sequences.iter().map(|sequence| sequence.matches.clone()));
            }
            let candidates = self.besides(read, candidates);
            self.read(&candidates, Scan::Terms).await?;
            read = next;
            let rest = &self.words.weighted[read..];
            let Some(needed) = self.needed() else { continue };
            if rest.iter().map(|word| word.weight).sum::<f64>() < needed {
                return Ok(());
            }
            // What has one of the remaining words cannot come in any more; what has several can.
            if rest.first().is_some_and(|word| word.weight < needed) {
                if let Some(combinations) = combinations(rest, needed) {
                    let candidates = self.besides(read, combinations);
                    self.read(&candidates, Scan::Terms).await?;
                }
                return Ok(());
            }
        }
        self.complete &= read == self.words.weighted.len();
        Ok(())
    }

    /// From the word number `from`: up to which word they have `chunks_max` chunks together; one at least.
    fn words_up_to(&self, from: usize, chunks_max: i64) -> usize {
        let mut sum = 0;
        let fits = self.words.chunks[from..].iter().take_while(|chunks| {
            sum += **chunks;
            sum <= chunks_max
        });
        (from + fits.count().max(1)).min(self.words.chunks.len())
    }

    /// Without what was read already, for having one of the first words.
    fn besides(&self, read: usize, candidates: Match) -> Match {
        if read == 0 {
            return candidates;
        }
        Match::Except(Box::new(candidates), Box::new(any_of(&self.words.weighted[..read])))
    }

    /// The score that another hit must reach to come in; none while anything comes in.
    fn needed(&self) -> Option<f64> {
        (self.hits.len() >= self.depth).then(|| self.hits.last().map(|hit| hit.score)).flatten()
    }

    /// Scores the candidates, and keeps the best of all.
    async fn read(&mut self, candidates: &Match, scan: Scan) -> Result<()> {
        if self.words.weighted.is_empty() {
            return Ok(());
        }
        let parts = self.words.weighted.len() + self.words.sequences.len();
        let candidates_max = WORK_MAX / (parts as i64 + 2);
        let found = best_per_context(self.depth, async |chunks_max| {
            let ranking = self.words.ranking(candidates, scan, candidates_max, chunks_max);
            let rank = self.service.store.keyword_ranked(self.tenant, &ranking, self.scope);
            let ranked = spans::database("search by words", rank).await?;
            Ok((ranked.hits, ranked.candidates < candidates_max))
        })
        .await?;
        self.complete &= found.complete;
        self.hits.extend(found.hits);
        self.hits.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.context.cmp(&b.context)));
        let mut seen = HashSet::new();
        self.hits.retain(|hit| seen.insert(hit.context));
        self.hits.truncate(self.depth);
        Ok(())
    }
}

fn any_of(words: &[Weighted]) -> Match {
    Match::Any(words.iter().map(|word| word.matches.clone()).collect())
}

/// What has words that can reach `needed` together; none when all of them cannot. Where that takes too many terms, it
/// asks for less than it could. The words come by weight.
fn combinations(words: &[Weighted], needed: f64) -> Option<Match> {
    (0..4).rev().find_map(|others| {
        let all = combinations_of(words, needed, others)?;
        (all.size() <= COMBINATION_TERMS_MAX || others == 0).then_some(all)
    })
}

/// Names up to `others` words besides the first of each combination.
fn combinations_of(words: &[Weighted], needed: f64, others: usize) -> Option<Match> {
    let mut parts = Vec::new();
    let mut sum: f64 = words.iter().map(|word| word.weight).sum();
    for (index, word) in words.iter().enumerate() {
        if sum < needed {
            break;
        }
        sum -= word.weight;
        if word.weight >= needed || others == 0 {
            parts.push(word.matches.clone());
        } else if let Some(rest) = combinations_of(&words[index + 1..], needed - word.weight, others - 1) {
            parts.push(Match::All(vec![word.matches.clone(), rest]));
        }
    }
    (!parts.is_empty()).then_some(Match::Any(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(weights: &[f64]) -> Vec<Weighted> {
        let name = |index| char::from(b'a' + index as u8).to_string();
        weights
            .iter()
            .enumerate()
            .map(|(index, &weight)| Weighted { matches: Match::Term(name(index)), weight })
            .collect()
    }

    #[test]
    fn combinations_are_those_that_reach_what_is_needed() {
        let words = words(&[4.0, 3.0, 2.0, 1.0]);
        let of = |needed| combinations(&words, needed).map(|all| all.to_string());
        assert_eq!(of(11.0), None);
        assert_eq!(of(10.0).unwrap(), "(('a' & (('b' & (('c' & ('d')))))))");
        assert_eq!(of(6.0).unwrap(), "(('a' & ('b' | 'c')) | ('b' & (('c' & ('d')))))");
        assert_eq!(of(3.5).unwrap(), "('a' | ('b' & ('c' | 'd')))");
    }

    #[test]
    fn many_words_are_asked_for_by_fewer_combinations() {
        let many = words(&[1.0; 26]);
        let all = combinations(&many, 13.0).unwrap();
        assert!(all.size() <= COMBINATION_TERMS_MAX, "{}", all.size());
        assert_eq!(all.to_string().matches('&').count(), 0);
    }
}
