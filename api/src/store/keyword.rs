//! The chunks that have a query's words, scored by BM25. PostgreSQL has no such function, but everything that it is made of; see [`times`].

use std::sync::atomic::Ordering;

use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};

use super::{
    ChunkHit, Match, SCOPE_CHUNKS_MAX, Store,
    hits::push_wanted,
    past_search::{Side, Then},
    search::{hit_from_row, plans_of, push_columns, push_matched, push_scope},
};
use crate::{
    domain::{SearchScope, TenantId},
    error::{Error, Result},
};

/// How to come by the chunks that are scored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scan {
    /// By the index of terms.
    Terms,
    /// By reading each chunk of the scope.
    Scope,
}

/// What counts, and how much.
#[derive(Clone, Debug)]
pub struct Weighted {
    pub matches: Match,
    /// What a word adds at most; what a sequence adds.
    pub weight: f64,
}

/// Which chunks to score, and how.
#[derive(Debug)]
pub struct Ranking<'a> {
    pub candidates: &'a Match,
    pub scan: Scan,
    /// No more are scored than so many.
    pub candidates_max: i64,
    pub words: &'a [Weighted],
    pub sequences: &'a [Weighted],
    /// See `domain::norm`.
    pub norm: (f64, f64),
    pub chunks_max: i64,
}

/// The best ones, best first.
#[derive(Debug, Default)]
pub struct Ranked {
    pub hits: Vec<ChunkHit>,
    /// How many were scored.
    pub candidates: i64,
}

impl Store {
    /// The best of the candidates, at most `chunks_max`.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn keyword_ranked(
        &self,
        tenant: TenantId,
        ranking: &Ranking<'_>,
        scope: &SearchScope,
    ) -> Result<Ranked> {
        let mut sql = QueryBuilder::new("with given as materialized (select ");
        push_given(&mut sql, ranking);
        sql.push("), ");
        let then = Then::of(tenant, scope);
        let by_index = ranking.scan == Scan::Terms && self.text_index.load(Ordering::Relaxed);
        let by_filter = then.is_none() && ranking.scan == Scan::Scope && scope.filter.is_some();
        if by_filter {
            push_matched(&mut sql, tenant, scope, SCOPE_CHUNKS_MAX);
            sql.push(", ");
        }
        sql.push("scored as materialized (select c.context_id, c.version, c.chunk_no, ");
        push_score(&mut sql, ranking);
        sql.push(" as score from given g cross join (");
        if let Some(then) = then {
            push_candidates(&mut sql, tenant, ranking, by_index, "chunks k");
            sql.push(" and ");
            then.push_was_in_force(&mut sql, Side::Present);
            sql.push(" union all ");
            push_candidates(&mut sql, tenant, ranking, by_index, "past_chunks k");
            sql.push(" and ");
            then.push_was_in_force(&mut sql, Side::Past);
        } else if by_filter {
            push_candidates(
                &mut sql,
                tenant,
                ranking,
                by_index,
                "matched join chunks k on k.context_id = matched.id",
            );
            push_columns(&mut sql, scope, "k");
        } else {
            push_candidates(&mut sql, tenant, ranking, by_index, "chunks k");
            if by_index {
                // As one condition that no index answers: there are fewer chunks that have the terms.
                sql.push(" and (true");
                push_scope(&mut sql, scope);
                sql.push(") is true");
            } else {
                push_scope(&mut sql, scope);
            }
        }
        // As numbers, of which there are a few: of a parameter PostgreSQL would believe that it is a tenth of all rows.
        sql.push(format!(" limit {}", ranking.candidates_max));
        sql.push(
            ") c) select s.context_id, s.version, s.chunk_no, s.score, (select count(*) from scored) as candidates
             from scored s order by s.score desc, s.context_id, s.chunk_no limit ",
        );
        sql.push(ranking.chunks_max);
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = sql.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        ranked_from_rows(&connection.settle(result)?)
    }

    /// The score of each chunk, in the order of `hits`: 0 for what is none of the candidates, or gone.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn keyword_scores(
        &self,
        tenant: TenantId,
        ranking: &Ranking<'_>,
        scope: &SearchScope,
        hits: &[&ChunkHit],
    ) -> Result<Vec<f64>> {
        let mut sql = QueryBuilder::new("with given as materialized (select ");
        push_given(&mut sql, ranking);
        sql.push(") select case when c.terms @@ g.candidates then ");
        push_score(&mut sql, ranking);
        sql.push(" else 0 end from given g cross join (select w.place, k.terms, ");
        push_norm(&mut sql, ranking);
        sql.push(" from ");
        push_wanted(&mut sql, hits);
        // The text of a version is in one of the two.
        sql.push(if scope.as_of.is_some() {
            " left join (select tenant_id, context_id, version, chunk_no, terms, length from chunks
                         union all
                         select tenant_id, context_id, version, chunk_no, terms, length from past_chunks) k"
        } else {
            " left join chunks k"
        });
        sql.push(
            " on k.context_id = w.context_id and k.version = w.version and k.chunk_no = w.chunk_no and k.tenant_id = ",
        );
        sql.push_bind(tenant.0).push(") c order by c.place");
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = sql.build_query_scalar().fetch_all(connection.pg()).await;
        connection.settle(result)
    }
}

/// That the chunk `k` is a candidate.
const HAS_TERMS: &str = " and (k.terms @@ (select g.candidates from given g))";

/// The chunks `k` that are scored, as far as their words decide it.
fn push_candidates(
    sql: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    ranking: &Ranking<'_>,
    by_index: bool,
    from: &'static str,
) {
    sql.push("select k.context_id, k.version, k.chunk_no, k.terms, ");
    push_norm(sql, ranking);
    sql.push(" from ").push(from).push(" where k.tenant_id = ").push_bind(tenant.0);
    sql.push(HAS_TERMS);
    if by_index {
        // Said twice, it seems so rare that no other index is worth being asked besides. Once, the planner believes that one in two hundred
        // has it, of all tenants alike, and reads all entries of the tenant in another index so as to keep to them. It costs 2 to 4 %.
        sql.push(HAS_TERMS);
    } else if ranking.scan == Scan::Scope {
        // As it stands after this, the planner knows no index for it.
        sql.push(" is true");
    }
}

/// How much the length of the chunk `k` counts against its words.
fn push_norm(sql: &mut QueryBuilder<Postgres>, ranking: &Ranking<'_>) {
    sql.push_bind(ranking.norm.0).push("::float8 + ").push_bind(ranking.norm.1);
    sql.push("::float8 * k.length as norm");
}

/// What the query brings along, as one row, so that nothing of it is read anew for each chunk.
fn push_given(sql: &mut QueryBuilder<Postgres>, ranking: &Ranking<'_>) {
    sql.push_bind(ranking.candidates.to_string()).push("::tsquery as candidates");
    for (index, word) in ranking.words.iter().enumerate() {
        sql.push(", ").push_bind(word.matches.to_string()).push(format!("::tsquery as word_{index}, "));
        sql.push_bind(word.weight).push(format!("::float8 as weight_{index}"));
    }
    for (index, sequence) in ranking.sequences.iter().enumerate() {
        sql.push(", ")
            .push_bind(sequence.matches.to_string())
            .push(format!("::tsquery as sequence_{index}, "));
        sql.push_bind(sequence.weight).push(format!("::float8 as bonus_{index}"));
    }
}

/// Σ weight · n / (n + norm), n being how often the chunk has the word: BM25. And what whole sequences add.
fn push_score(sql: &mut QueryBuilder<Postgres>, ranking: &Ranking<'_>) {
    sql.push("0::float8");
    for (index, word) in ranking.words.iter().enumerate() {
        // n / (n + norm), with n written once.
        sql.push(format!(" + g.weight_{index} * (1 - c.norm / (c.norm + {}))", times(index, word)));
    }
    for index in 0..ranking.sequences.len() {
        sql.push(format!(" + case when c.terms @@ g.sequence_{index} then g.bonus_{index} else 0 end"));
    }
}

/// How often a chunk has a word. No function of PostgreSQL's tells it, but `ts_rank` of a single word depends on nothing
/// else: for n times it is (1/1² + 1/2² + … + 1/n²) / (10 · π²/6). What this sum lacks of π²/6 is 1 / (n + ½), nearly, so
/// that rounding gives n exactly, up to the 255 times that PostgreSQL remembers. In a query of several words `ts_rank` is
/// their mean; of these, a chunk has but one, that of its language. A beginning stands for several terms, whose sums add
/// up: each counts as often as its sum says.
fn times(index: usize, word: &Weighted) -> String {
    let size = word.matches.size();
    let rank = format!("ts_rank(c.terms, g.word_{index})::float8");
    if word.matches.has_beginning() {
        format!("{}::float8 * {rank}", size as f64 * 16.449_340_668_482_27)
    } else {
        format!("round(0.6079271018540267::float8 / (1 - {}::float8 * {rank}) - 0.5::float8)", size * 10)
    }
}

fn ranked_from_rows(rows: &[PgRow]) -> Result<Ranked> {
    let candidates = rows.first().map_or(Ok(0), |row| row.try_get("candidates")).map_err(Error::internal)?;
    Ok(Ranked { hits: rows.iter().map(hit_from_row).collect::<Result<_>>()?, candidates })
}
