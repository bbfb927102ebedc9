//! What is asked of one field: a bare value, or operators. Imports `error`.

use serde_json::value::RawValue;
use strum::{EnumIter, EnumString, IntoEnumIterator, IntoStaticStr};

use super::{
    Column, ColumnTest, FILTER_VALUES_MAX, Filter, JsonTest, Order,
    field::{Field, Kind},
    operand::{self, Members, child, elements, is_null, starts_with},
    parse::{Parser, deeper},
};
use crate::error::{Error, Result};

#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
enum Operator {
    #[strum(serialize = "$eq")]
    Eq,
    #[strum(serialize = "$ne")]
    Ne,
    #[strum(serialize = "$gt")]
    Gt,
    #[strum(serialize = "$gte")]
    Gte,
    #[strum(serialize = "$lt")]
    Lt,
    #[strum(serialize = "$lte")]
    Lte,
    #[strum(serialize = "$in")]
    In,
    #[strum(serialize = "$nin")]
    Nin,
    #[strum(serialize = "$contains")]
    Contains,
    #[strum(serialize = "$exists")]
    Exists,
    #[strum(serialize = "$not")]
    Not,
}

/// What an operator asks, its negation aside.
enum Question {
    Equal,
    OneOf,
    Ordered(Order),
    Contains,
    Exists,
}

impl Operator {
    fn parse(name: &str, kind: Kind, at: &str) -> Result<Self> {
        name.parse().ok().filter(|operator: &Self| operator.applies_to(kind)).ok_or_else(|| {
            let allowed: Vec<&str> =
                Self::iter().filter(|operator| operator.applies_to(kind)).map(Into::into).collect();
            Error::invalid(at, format!("is no operator for this field; use one of {}", allowed.join(", ")))
        })
    }

    fn applies_to(self, kind: Kind) -> bool {
        match kind {
            Kind::Text | Kind::Json => true,
            Kind::Uuid | Kind::Time | Kind::Integer => self != Self::Contains,
            Kind::Status | Kind::Language => {
                matches!(self, Self::Eq | Self::Ne | Self::In | Self::Nin | Self::Not)
            }
        }
    }
}

impl Parser {
    pub(super) fn condition(
        &mut self,
        field: &Field,
        raw: &RawValue,
        at: &str,
        depth: usize,
    ) -> Result<Filter> {
        match operators(raw, at)? {
            Some(members) => self.operators(field, members, at, depth),
            None => self.test(field, &Question::Equal, raw, at),
        }
    }

    fn operators(&mut self, field: &Field, members: Members<'_>, at: &str, depth: usize) -> Result<Filter> {
        let parts = members.unique(at)?.into_iter().map(|(name, raw)| {
            let at = &child(at, &name);
            let (question, negated) = match Operator::parse(&name, field.kind(), at)? {
                Operator::Eq => (Question::Equal, false),
                Operator::Ne => (Question::Equal, true),
                Operator::In => (Question::OneOf, false),
                Operator::Nin => (Question::OneOf, true),
                Operator::Gt => (Question::Ordered(Order::Greater), false),
                Operator::Gte => (Question::Ordered(Order::GreaterOrEqual), false),
                Operator::Lt => (Question::Ordered(Order::Less), false),
                Operator::Lte => (Question::Ordered(Order::LessOrEqual), false),
                Operator::Contains => (Question::Contains, false),
                Operator::Exists => (Question::Exists, !operand::boolean(raw, at)?),
                Operator::Not => {
                    let depth = deeper(depth, at)?;
                    let members = operators(raw, at)?.ok_or_else(|| {
                        Error::invalid(at, "must be an object of operators; for one value use $ne")
                    })?;
                    return Ok(self.operators(field, members, at, depth)?.negated());
                }
            };
            let test = self.test(field, &question, raw, at)?;
            Ok(if negated { test.negated() } else { test })
        });
        Ok(Filter::all(parts.collect::<Result<_>>()?))
    }

    fn test(&mut self, field: &Field, question: &Question, raw: &RawValue, at: &str) -> Result<Filter> {
        self.count_test(at)?;
        match field {
            Field::Json(path) => Ok(Filter::Json(path.clone(), json_test(question, raw, at)?)),
            Field::Column(column) => column_test(*column, question, raw, at),
        }
    }
}

/// The operators of a condition; `None` when it is a bare value.
fn operators<'a>(raw: &'a RawValue, at: &str) -> Result<Option<Members<'a>>> {
    let Some(members) = Members::read(raw, at)? else {
        return Ok(None);
    };
    match members.0.iter().filter(|(name, _)| name.starts_with('$')).count() {
        0 => Ok(None),
        count if count == members.0.len() => Ok(Some(members)),
        _ => Err(Error::invalid(
            at,
            "mixes operators with other names; to compare with an object as it is, write {\"$eq\": {…}}",
        )),
    }
}

fn column_test(column: Column, question: &Question, raw: &RawValue, at: &str) -> Result<Filter> {
    let test = match column.kind() {
        Kind::Text if matches!(question, Question::Contains) => {
            Filter::Contains(column, operand::text(raw, at)?)
        }
        Kind::Text | Kind::Json => Filter::Text(column, typed_test(question, raw, at, operand::text)?),
        Kind::Status => Filter::Text(column, typed_test(question, raw, at, operand::status)?),
        Kind::Language => Filter::Text(column, typed_test(question, raw, at, operand::language)?),
        Kind::Uuid => Filter::Uuid(column, typed_test(question, raw, at, operand::uuid)?),
        Kind::Time => Filter::Time(column, typed_test(question, raw, at, operand::time)?),
        Kind::Integer => Filter::Integer(column, typed_test(question, raw, at, operand::integer)?),
    };
    Ok(if matches!(question, Question::Exists) { test.negated() } else { test })
}

/// Of existing it is the contrary, being null.
fn typed_test<T>(
    question: &Question,
    raw: &RawValue,
    at: &str,
    read: impl Fn(&RawValue, &str) -> Result<T>,
) -> Result<ColumnTest<T>> {
    match question {
        Question::Exists => Ok(ColumnTest::Null),
        Question::Equal if is_null(raw) => Ok(ColumnTest::Null),
        // No column of these kinds has anything to contain: the operator was refused.
        Question::Equal | Question::Contains => Ok(ColumnTest::Equal(read(raw, at)?)),
        Question::Ordered(order) => Ok(ColumnTest::Ordered(*order, read(raw, at)?)),
        Question::OneOf => {
            let listed = listed(raw, at)?;
            let or_null = listed.iter().any(|(raw, _)| is_null(raw));
            let values = listed.iter().filter(|(raw, _)| !is_null(raw)).map(|(raw, at)| read(raw, at));
            Ok(ColumnTest::OneOf { values: values.collect::<Result<_>>()?, or_null })
        }
    }
}

fn json_test(question: &Question, raw: &RawValue, at: &str) -> Result<JsonTest> {
    match question {
        Question::Exists => Ok(JsonTest::Exists),
        Question::Equal => Ok(JsonTest::Equal(operand::json(raw, at)?)),
        Question::OneOf => {
            let values = listed(raw, at)?;
            let values = values.iter().map(|(raw, at)| operand::json(raw, at)).collect::<Result<_>>()?;
            Ok(JsonTest::OneOf(values))
        }
        Question::Contains if starts_with(raw, '"') => Ok(JsonTest::ContainsText(operand::text(raw, at)?)),
        Question::Contains => Ok(JsonTest::Contains(operand::json(raw, at)?)),
        Question::Ordered(order) if starts_with(raw, '"') => {
            Ok(JsonTest::OrderedText(*order, operand::text(raw, at)?))
        }
        Question::Ordered(order) if raw.get().starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            Ok(JsonTest::OrderedNumber(*order, operand::json(raw, at)?))
        }
        Question::Ordered(_) => {
            Err(Error::invalid(at, "must be a number or a string: nothing else has an order"))
        }
    }
}

/// The values of `$in`, each with its pointer.
fn listed<'a>(raw: &'a RawValue, at: &str) -> Result<Vec<(&'a RawValue, String)>> {
    let values = elements(raw, at, "must be a list of values")?;
    if values.len() > FILTER_VALUES_MAX {
        return Err(Error::invalid(at, format!("has {} values, {FILTER_VALUES_MAX} at most", values.len())));
    }
    Ok(values.into_iter().enumerate().map(|(index, raw)| (raw, child(at, &index.to_string()))).collect())
}
