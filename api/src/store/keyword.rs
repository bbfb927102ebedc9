//! The statements of the keyword leg: what the tenant has of a query's words, and the chunks that have them, scored by
//! BM25. PostgreSQL has no such function, but everything that it is made of; see [`times`].

use sqlx::{Postgres, QueryBuilder, Row, postgres::PgRow};

use super::{
    ChunkHit, Match, Store,
    hits::push_wanted,
    past_search::{Side, Then},
    search::{push_columns, push_matched, push_scope},
};
use crate::{
    domain::{ContextId, KeywordQuery, SearchScope, TenantId},
    error::{Error, Result},
};

/// Up to so many chunks of a scope are read one by one, and so far they are counted.
pub const SCOPE_CHUNKS_MAX: i64 = 5_000;
/// Of the changes that are not counted yet, a search looks at the oldest ones: with them it knows how things were at one
/// moment, while the newest without those before them would say nothing.
const PENDING_MAX: i64 = 128;

/// Which part of a query a term comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Words,
    Identifier,
    Phrase,
    Prefix,
    /// The stem of what a term shall begin with, where it is shorter.
    PrefixStem,
}

/// A term of the query, in one of the tenant's languages.
#[derive(Debug)]
pub struct QueryTerm {
    pub part: Part,
    /// Which part.
    pub part_no: i64,
    pub language: String,
    /// As it is indexed.
    pub lexeme: String,
    /// As people know it.
    pub word: String,
    /// Where it stands in the part; ascending.
    pub positions: Vec<i16>,
    /// Chunks of the tenant that have it.
    pub chunks: i64,
}

/// What there is, before anything is searched for.
#[derive(Debug, Default)]
pub struct KeywordFacts {
    /// By part, and in their order there.
    pub terms: Vec<QueryTerm>,
    /// Of the tenant, in all languages.
    pub chunks: i64,
    /// Of these chunks together, in words.
    pub length: i64,
    /// Those that the tenant has chunks in.
    pub languages: Vec<String>,
    /// Chunks within the scope, counted up to [`SCOPE_CHUNKS_MAX`] + 1; none when that is the whole tenant.
    pub in_scope: Option<i64>,
}

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

/// Continues a statement that has what is not counted yet (`pending`) and the query's parts (`part`). $1 is the tenant. A
/// query is read in every language that has chunks or had some; of what begins as asked for, a thousand terms are counted.
const KNOWN: &str = "
    , total as materialized (
        select t.language, t.chunks + coalesce(p.chunks, 0) as chunks, t.length + coalesce(p.length, 0) as length
        from keyword_totals t
        left join (select p.language, sum(p.sign) as chunks, sum(p.sign * p.length) as length
                   from pending p group by p.language) p on p.language = t.language
        where t.tenant_id = $1
    ), in_language as materialized (
        select p.kind, p.no, p.text, l.language, term_code($1, l.language) as code
        from part p
        cross join total l
    ), term as materialized (
        select p.kind, p.no, p.language, p.code, u.lexeme collate \"C\" as lexeme, u.positions,
               term_itself(u.lexeme) as itself
        from in_language p cross join terms_of($1, p.language, p.text) w cross join unnest(w.terms) u
        where p.kind <> 3 and u.positions[1] <= 256
    ), start as materialized (
        select p.no, p.language, p.code, p.text, left(p.code || lower(searchable(p.text)), 400) collate \"C\" as start
        from in_language p where p.kind = 3
    ), known as (
        select t.kind, t.no, t.language, t.code, t.lexeme, t.positions,
               coalesce((select l.chunks from lexemes l where l.tenant_id = $1 and l.lexeme = t.lexeme), 0)
               + coalesce((select sum(p.sign) from pending p where p.terms @@ t.itself), 0) as chunks
        from term t
        union all
        select 3::smallint, b.no, b.language, b.code, b.start, '{1}',
               coalesce((select sum(s.chunks)
                         from (select l.chunks from lexemes l
                               where l.tenant_id = $1 and l.lexeme >= b.start and l.lexeme < b.start || chr(1114111)
                               limit 1000) s), 0)
               + coalesce((select sum(p.sign)
                           from pending p cross join unnest(tsvector_to_array(p.terms)) as u (lexeme)
                           where u.lexeme collate \"C\" >= b.start
                                 and u.lexeme collate \"C\" < b.start || chr(1114111)), 0)
        from start b
        union all
        select 4::smallint, b.no, b.language, b.code, u.lexeme, '{1}',
               coalesce((select l.chunks from lexemes l where l.tenant_id = $1 and l.lexeme = u.lexeme), 0)
               + coalesce((select sum(p.sign) from pending p where p.terms @@ term_itself(u.lexeme)), 0)
        from start b cross join terms_of($1, b.language, b.text) w cross join unnest(w.terms) u
        where u.positions[1] = 1 and not starts_with(u.lexeme, b.start)
    )
    select k.kind, k.no, k.language, k.lexeme, substr(k.lexeme, length(k.code) + 1) as word, k.positions,
           greatest(k.chunks, 0)::bigint as chunks,
           (select coalesce(array_agg(t.language), '{}') from total t where t.chunks > 0) as languages,
           (select greatest(sum(t.chunks), 0)::bigint from total t) as all_chunks,
           (select greatest(sum(t.length), 0)::bigint from total t) as all_length";

impl Store {
    /// What the tenant has of the query's words, counting what was written a moment ago.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn keyword_facts(
        &self,
        tenant: TenantId,
        query: &KeywordQuery,
        scope: &SearchScope,
    ) -> Result<KeywordFacts> {
        let parts = (!query.words.is_empty()).then_some((Part::Words, &query.words)).into_iter();
        let parts = parts
            .chain(query.identifiers.iter().map(|text| (Part::Identifier, text)))
            .chain(query.phrases.iter().map(|text| (Part::Phrase, text)))
            .chain(query.prefixes.iter().map(|text| (Part::Prefix, text)));
        let (kinds, texts): (Vec<i16>, Vec<&str>) =
            parts.map(|(part, text)| (part as i16, text.as_str())).unzip();
        if texts.is_empty() {
            return Ok(KeywordFacts::default());
        }
        let mut sql = QueryBuilder::new(
            // Without positions, which also means: decompressed once, and not for each term that is looked for.
            "with pending as materialized (
                 select p.language, p.sign, strip(p.terms) as terms, p.length from keyword_changes p where p.tenant_id = ",
        );
        // PostgreSQL would plan this anew for each search if it took the plan for all to be dearer than that for one. So the limits are
        // numbers, and what is always true of kinds has it expect one part, where it would expect ten of an array that it does not know.
        sql.push_bind(tenant.0).push(" order by p.id limit ").push(PENDING_MAX);
        sql.push("), part as (select p.kind, p.text, p.no from unnest(")
            .push_bind(kinds)
            .push("::smallint[], ");
        sql.push_bind(texts)
            .push("::text[]) with ordinality as p (kind, text, no) where p.kind between 0 and 3)")
            .push(KNOWN);
        if scope.is_whole_tenant() || scope.as_of.is_some() {
            sql.push(", null::bigint");
        } else if scope.filter.is_some() {
            // Contexts, which stand for their chunks: most have one.
            sql.push(", (with ");
            push_matched(&mut sql, tenant, scope, SCOPE_CHUNKS_MAX + 1);
            sql.push(" select count(*) from matched)");
        } else {
            sql.push(", (select count(*) from (select from chunks k where k.tenant_id = $1");
            push_scope(&mut sql, scope);
            sql.push(" limit ").push(SCOPE_CHUNKS_MAX + 1).push(") counted)");
        }
        sql.push(" as in_scope from known k order by k.kind, k.no, k.positions[1], k.language");
        let mut connection = self.tenant(tenant).await?;
        let result = sql.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        facts_from_rows(&connection.settle(result)?).map_err(Error::internal)
    }

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
        let by_filter = then.is_none() && ranking.scan == Scan::Scope && scope.filter.is_some();
        if by_filter {
            push_matched(&mut sql, tenant, scope, SCOPE_CHUNKS_MAX);
            sql.push(", ");
        }
        sql.push("scored as materialized (select c.context_id, c.version, c.chunk_no, ");
        push_score(&mut sql, ranking);
        sql.push(" as score from given g cross join (");
        if let Some(then) = then {
            push_candidates(&mut sql, tenant, ranking, "chunks k");
            sql.push(" and ");
            then.push_was_in_force(&mut sql, Side::Present);
            sql.push(" union all ");
            push_candidates(&mut sql, tenant, ranking, "past_chunks k");
            sql.push(" and ");
            then.push_was_in_force(&mut sql, Side::Past);
        } else if by_filter {
            push_candidates(&mut sql, tenant, ranking, "matched join chunks k on k.context_id = matched.id");
            push_columns(&mut sql, scope, "k");
        } else {
            push_candidates(&mut sql, tenant, ranking, "chunks k");
            push_scope(&mut sql, scope);
        }
        sql.push(" limit ").push_bind(ranking.candidates_max);
        sql.push(
            ") c) select s.context_id, s.version, s.chunk_no, s.score, (select count(*) from scored) as candidates
             from scored s order by s.score desc, s.context_id, s.chunk_no limit ",
        );
        sql.push_bind(ranking.chunks_max);
        let mut connection = self.tenant(tenant).await?;
        let result = sql.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        ranked_from_rows(&connection.settle(result)?).map_err(Error::internal)
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
        let mut connection = self.tenant(tenant).await?;
        let result = sql.build_query_scalar().fetch_all(connection.pg()).await;
        connection.settle(result)
    }
}

/// The chunks `k` that are scored, as far as their words decide it.
fn push_candidates(
    sql: &mut QueryBuilder<Postgres>,
    tenant: TenantId,
    ranking: &Ranking<'_>,
    from: &'static str,
) {
    sql.push("select k.context_id, k.version, k.chunk_no, k.terms, ");
    push_norm(sql, ranking);
    sql.push(" from ").push(from).push(" where k.tenant_id = ").push_bind(tenant.0);
    // As it stands after `is true`, the planner knows no index for it.
    sql.push(" and (k.terms @@ (select g.candidates from given g))");
    sql.push(if ranking.scan == Scan::Scope { " is true" } else { "" });
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

fn facts_from_rows(rows: &[PgRow]) -> sqlx::Result<KeywordFacts> {
    let mut facts = KeywordFacts::default();
    for row in rows {
        facts.chunks = row.try_get("all_chunks")?;
        facts.length = row.try_get("all_length")?;
        facts.in_scope = row.try_get("in_scope")?;
        if facts.languages.is_empty() {
            facts.languages = row.try_get("languages")?;
        }
        facts.terms.push(QueryTerm {
            part: match row.try_get::<i16, _>("kind")? {
                0 => Part::Words,
                1 => Part::Identifier,
                2 => Part::Phrase,
                3 => Part::Prefix,
                _ => Part::PrefixStem,
            },
            part_no: row.try_get("no")?,
            language: row.try_get("language")?,
            lexeme: row.try_get("lexeme")?,
            word: row.try_get("word")?,
            positions: row.try_get("positions")?,
            chunks: row.try_get("chunks")?,
        });
    }
    Ok(facts)
}

fn ranked_from_rows(rows: &[PgRow]) -> sqlx::Result<Ranked> {
    let mut ranked = Ranked::default();
    for row in rows {
        ranked.candidates = row.try_get("candidates")?;
        ranked.hits.push(ChunkHit {
            context: ContextId(row.try_get("context_id")?),
            version: row.try_get("version")?,
            chunk_no: row.try_get("chunk_no")?,
            score: row.try_get("score")?,
        });
    }
    Ok(ranked)
}
