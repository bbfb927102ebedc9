//! A filter as SQL. Every expression is true or false, never null, so that `not` is the exact contrary; none can raise
//! an error, whatever a row holds; and what an index can answer stands bare, as the index needs it. What the caller
//! sent is bound, never part of the text. Imports `domain`.

use sqlx::{Encode, Postgres, QueryBuilder, Type, postgres::PgHasArrayType};

use crate::domain::filter::{Column, ColumnTest, Document, Filter, JsonPath, JsonTest, Order};

/// Appends a condition on the row `c`. Superseded versions call their context's id differently, hence `id_column`.
pub(super) fn push(query: &mut QueryBuilder<Postgres>, filter: &Filter, id_column: &'static str) {
    query.push("(");
    Compiler { query, id_column }.filter(filter);
    query.push(")");
}

struct Compiler<'a> {
    query: &'a mut QueryBuilder<Postgres>,
    id_column: &'static str,
}

impl Compiler<'_> {
    fn filter(&mut self, filter: &Filter) {
        match filter {
            Filter::All(parts) if parts.is_empty() => {
                self.query.push("true");
            }
            Filter::All(parts) => self.joined(parts, " and "),
            Filter::Any(parts) => self.joined(parts, " or "),
            Filter::Not(inner) => {
                self.query.push("not (");
                self.filter(inner);
                self.query.push(")");
            }
            Filter::Uuid(column, test) => self.column(*column, test),
            Filter::Text(column, test) => self.column(*column, test),
            Filter::Time(column, test) => self.column(*column, test),
            Filter::Integer(column, test) => self.column(*column, test),
            Filter::Contains(column, text) => self.unless_null(*column, |this, name| {
                this.query.push("strpos(").push(name).push(", ").push_bind(text).push(") > 0");
            }),
            Filter::Json(path, test) => self.json(path, test),
        }
    }

    fn joined(&mut self, parts: &[Filter], word: &str) {
        self.query.push("(");
        for (index, part) in parts.iter().enumerate() {
            if index > 0 {
                self.query.push(word);
            }
            self.filter(part);
        }
        self.query.push(")");
    }

    fn column<T>(&mut self, column: Column, test: &ColumnTest<T>)
    where
        T: for<'q> Encode<'q, Postgres> + Type<Postgres> + PgHasArrayType,
    {
        match test {
            ColumnTest::Null => {
                let name = self.name(column);
                self.query.push(name).push(" is null");
            }
            ColumnTest::Equal(value) => self.unless_null(column, |this, name| {
                this.query.push(name).push(" = ").push_bind(value);
            }),
            ColumnTest::Ordered(order, value) => self.unless_null(column, |this, name| {
                this.query.push(name).push(collation(column)).push(sign(*order)).push_bind(value);
            }),
            ColumnTest::OneOf { values, or_null: true } if is_nullable(column) => {
                let name = self.name(column);
                self.query.push("(").push(&name).push(" is null or ").push(&name);
                self.query.push(" = any(").push_bind(values.as_slice()).push("))");
            }
            ColumnTest::OneOf { values, .. } => self.unless_null(column, |this, name| {
                this.query.push(name).push(" = any(").push_bind(values.as_slice()).push(")");
            }),
        }
    }

    /// A comparison that is false when the column is null. An index answers it all the same.
    fn unless_null(&mut self, column: Column, comparison: impl FnOnce(&mut Self, &str)) {
        let name = self.name(column);
        if !is_nullable(column) {
            return comparison(self, &name);
        }
        self.query.push("(").push(&name).push(" is not null and ");
        comparison(self, &name);
        self.query.push(")");
    }

    fn name(&self, column: Column) -> String {
        match column {
            Column::Id => self.id_column.to_owned(),
            // Answers say of superseded versions that they are ready.
            Column::EmbeddingStatus if self.id_column != "c.id" => "'ready'".to_owned(),
            column => format!("c.{}", column.as_str()),
        }
    }

    fn json(&mut self, path: &JsonPath, test: &JsonTest) {
        match test {
            JsonTest::Exists => {
                self.value(path);
                self.query.push(" is not null");
            }
            JsonTest::Equal(value) if is_in_index(path) && is_scalar(value.as_str()) => {
                self.contained(path, value.as_str());
            }
            JsonTest::Equal(value) => {
                self.value_or_null(path);
                self.query.push(" = ").push_bind(value.as_str()).push("::text::jsonb");
            }
            JsonTest::OneOf(values) => {
                let values: Vec<&str> = values.iter().map(|value| value.as_str()).collect();
                self.value_or_null(path);
                self.query.push(" = any(").push_bind(values).push("::text[]::jsonb[])");
            }
            // Within jsonb numbers are compared by all their digits, and no cast can fail.
            JsonTest::OrderedNumber(order, number) => {
                self.query.push("(");
                self.type_of(path);
                self.query.push(" = 'number' and ");
                self.value(path);
                self.query.push(sign(*order)).push_bind(number.as_str()).push("::text::jsonb) is true");
            }
            JsonTest::OrderedText(order, text) => {
                self.query.push("(");
                self.type_of(path);
                self.query.push(" = 'string' and ");
                self.text(path);
                self.query.push(" collate \"C\"").push(sign(*order)).push_bind(text).push(") is true");
            }
            JsonTest::Contains(value) if is_in_index(path) && is_scalar_or_null(value.as_str()) => {
                self.contained(path, &format!("[{}]", value.as_str()));
            }
            JsonTest::Contains(value) if is_in_index(path) || is_whole_metadata(path) => {
                self.contained(path, value.as_str());
            }
            JsonTest::Contains(value) => {
                self.query.push("case when ");
                self.type_of(path);
                self.query.push(" in ('array', 'object') then ");
                self.value(path);
                self.query.push(" @> ").push_bind(value.as_str()).push("::text::jsonb else false end");
            }
            JsonTest::ContainsText(text) => {
                self.query.push("case ");
                self.type_of(path);
                self.query.push(" when 'array' then ");
                self.value(path);
                self.query.push(" @> to_jsonb(").push_bind(text).push("::text) when 'string' then strpos(");
                self.text(path);
                self.query.push(", ").push_bind(text).push(") > 0 else false end");
            }
        }
    }

    /// That the metadata contain `value` at `path`, as the index on the metadata answers it. For a scalar that is
    /// equality: containment looks into arrays at the top alone, and the metadata are an object.
    fn contained(&mut self, path: &JsonPath, value: &str) {
        let nested = path.segments.iter().rev().fold(value.to_owned(), |inner, segment| {
            format!("{{{}:{inner}}}", serde_json::Value::from(segment.as_str()))
        });
        self.query.push("c.metadata @> ").push_bind(nested).push("::text::jsonb");
    }

    /// What is at the path; SQL's null when there is nothing.
    fn value(&mut self, path: &JsonPath) {
        let document = path.document.as_str();
        if path.segments.is_empty() {
            self.query.push("c.").push(document);
        } else {
            self.query.push("(c.").push(document).push(" #> ").push_bind(path.segments.as_slice()).push(")");
        }
    }

    /// The same, with JSON's null when there is nothing.
    fn value_or_null(&mut self, path: &JsonPath) {
        self.query.push("coalesce(");
        self.value(path);
        self.query.push(", 'null')");
    }

    fn type_of(&mut self, path: &JsonPath) {
        self.query.push("jsonb_typeof(");
        self.value(path);
        self.query.push(")");
    }

    /// A string without its quotes.
    fn text(&mut self, path: &JsonPath) {
        self.query.push("(");
        self.value(path);
        self.query.push(" #>> '{}')");
    }
}

fn sign(order: Order) -> &'static str {
    match order {
        Order::Greater => " > ",
        Order::GreaterOrEqual => " >= ",
        Order::Less => " < ",
        Order::LessOrEqual => " <= ",
    }
}

/// Text is ordered by code points, whatever the database's language.
fn collation(column: Column) -> &'static str {
    match column {
        Column::ContextType | Column::Key | Column::Text => " collate \"C\"",
        _ => "",
    }
}

fn is_nullable(column: Column) -> bool {
    matches!(column, Column::Key | Column::ExpiresAt | Column::ValidFrom | Column::ValidTo)
}

fn is_whole_metadata(path: &JsonPath) -> bool {
    path.document == Document::Metadata && path.segments.is_empty()
}

/// Whether containment in the metadata says the same as the path does: not where a segment may name an element.
fn is_in_index(path: &JsonPath) -> bool {
    path.document == Document::Metadata && !path.segments.is_empty() && !path.may_name_an_element()
}

fn is_scalar(json: &str) -> bool {
    is_scalar_or_null(json) && json != "null"
}

fn is_scalar_or_null(json: &str) -> bool {
    !json.starts_with(['{', '['])
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;

    fn sql(filter: &str) -> String {
        let filter = Filter::parse(&RawValue::from_string(filter.to_owned()).unwrap()).unwrap();
        let mut query = QueryBuilder::new("");
        push(&mut query, &filter, "c.context_id");
        query.sql().as_str().to_owned()
    }

    #[test]
    fn what_an_index_can_answer_stands_bare() {
        for (filter, expected) in [
            ("{}", "(true)"),
            (r#"{"user_id":"0190d5a0-0000-7000-8000-000000000001"}"#, "(c.user_id = $1)"),
            (r#"{"context_type":{"$in":["a","b"]}}"#, "(c.context_type = any($1))"),
            (r#"{"id":{"$gt":"0190d5a0-0000-7000-8000-000000000001"}}"#, "(c.context_id > $1)"),
            (r#"{"created_at":{"$gte":"2026-01-01T00:00:00Z"}}"#, "(c.created_at >= $1)"),
            (
                r#"{"metadata.a":1,"metadata.b":"x"}"#,
                "((c.metadata @> $1::text::jsonb and c.metadata @> $2::text::jsonb))",
            ),
            (r#"{"metadata":{"$contains":{"a":1}}}"#, "(c.metadata @> $1::text::jsonb)"),
            (r#"{"metadata.tags":{"$contains":5}}"#, "(c.metadata @> $1::text::jsonb)"),
            (r#"{"key":"k"}"#, "((c.key is not null and c.key = $1))"),
        ] {
            assert_eq!(sql(filter), expected, "{filter}");
        }
    }

    #[test]
    fn what_may_be_missing_is_never_unknown() {
        for (filter, expected) in [
            (r#"{"key":{"$ne":null}}"#, "(not (c.key is null))"),
            (r#"{"key":{"$in":["k",null]}}"#, "((c.key is null or c.key = any($1)))"),
            (r#"{"key":{"$gt":"k"}}"#, r#"((c.key is not null and c.key collate "C" > $1))"#),
            (r#"{"content.a":null}"#, "(coalesce((c.content #> $1), 'null') = $2::text::jsonb)"),
            (r#"{"metadata.0":1}"#, "(coalesce((c.metadata #> $1), 'null') = $2::text::jsonb)"),
            (
                r#"{"content":{"$lt":5}}"#,
                "((jsonb_typeof(c.content) = 'number' and c.content < $1::text::jsonb) is true)",
            ),
            (r#"{"content.a":{"$exists":true}}"#, "((c.content #> $1) is not null)"),
        ] {
            assert_eq!(sql(filter), expected, "{filter}");
        }
    }

    #[test]
    fn nothing_that_was_sent_is_part_of_the_text() {
        let quote = r"x' or 1=1 --";
        let filter =
            format!(r#"{{"metadata.{quote}":{{"$in":["{quote}"]}},"key":{{"$contains":"{quote}"}}}}"#);
        assert!(!sql(&filter).contains("1=1"), "{}", sql(&filter));
    }
}
