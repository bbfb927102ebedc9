//! What a keyword search asks first: what the tenant has of the query's words. The counts are kept up to date by
//! [`keyword_statistics`](super::keyword_statistics), a little behind; what they do not have yet is added.

use sqlx::{QueryBuilder, Row, postgres::PgRow};

use super::{
    Store,
    search::{plans_of, push_matched, push_scope},
};
use crate::{
    domain::{KeywordQuery, SearchScope, TenantId},
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
        select p.no, p.language, p.code, p.text, s.start collate \"C\" as start, beginning_with(s.start) as these
        from in_language p cross join lateral (select left(p.code || lower(searchable(p.text)), 400)) s (start)
        where p.kind = 3
    ), stem as materialized (
        select b.no, b.language, b.code, u.lexeme, term_itself(u.lexeme) as itself
        from start b cross join terms_of($1, b.language, b.text) w cross join unnest(w.terms) u
        where u.positions[1] = 1 and not starts_with(u.lexeme, b.start)
    ), known as (
        select t.kind, t.no, t.language, t.code, t.lexeme, t.positions,
               coalesce((select l.chunks from lexemes l where l.tenant_id = $1 and l.lexeme = t.lexeme), 0)
               + coalesce((select sum(p.sign) from pending p
                           where p.language = t.language and p.terms @@ t.itself), 0) as chunks
        from term t
        union all
        select 3::smallint, b.no, b.language, b.code, b.start, '{1}',
               coalesce((select sum(s.chunks)
                         from (select l.chunks from lexemes l
                               where l.tenant_id = $1 and l.lexeme >= b.start and l.lexeme < b.start || chr(1114111)
                               limit 1000) s), 0)
               + coalesce((select sum(p.sign)
                           from pending p cross join unnest(tsvector_to_array(p.terms)) as u (lexeme)
                           where p.language = b.language and p.terms @@ b.these and starts_with(u.lexeme, b.start)), 0)
        from start b
        union all
        select 4::smallint, s.no, s.language, s.code, s.lexeme, '{1}',
               coalesce((select l.chunks from lexemes l where l.tenant_id = $1 and l.lexeme = s.lexeme), 0)
               + coalesce((select sum(p.sign) from pending p
                           where p.language = s.language and p.terms @@ s.itself), 0)
        from stem s
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
            // There are no positions to take away. But what is made here is read from memory for each term that is looked for, where
            // the column would be decompressed each time.
            "with pending as materialized (
                 select p.language, p.sign, strip(p.terms) as terms, p.length from keyword_changes p where p.tenant_id = ",
        );
        sql.push_bind(tenant.0).push(" order by p.id limit ").push(PENDING_MAX);
        sql.push("), part as (select p.kind, p.text, p.no from unnest(")
            .push_bind(kinds)
            .push("::smallint[], ");
        sql.push_bind(texts).push("::text[]) with ordinality as p (kind, text, no))").push(KNOWN);
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
        let mut connection = self.tenant_with(tenant, plans_of(scope)).await?;
        let result = sql.build().persistent(scope.filter.is_none()).fetch_all(connection.pg()).await;
        facts_from_rows(&connection.settle(result)?).map_err(Error::internal)
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
