//! The shape of a filter: fields, `$and`, `$or` and `$not`. Descends only as deep as [`FILTER_DEPTH_MAX`], because each
//! level is read when it is reached. Imports `error`.

use serde_json::value::RawValue;

use super::{
    FILTER_BYTES_MAX, FILTER_DEPTH_MAX, FILTER_TESTS_MAX, Filter,
    field::Field,
    operand::{Members, child, elements},
};
use crate::error::{Error, Result};

pub(super) fn filter(raw: &RawValue) -> Result<Filter> {
    let bytes = raw.get().len();
    if bytes > FILTER_BYTES_MAX {
        return Err(Error::invalid("", format!("is {bytes} bytes, {FILTER_BYTES_MAX} at most")));
    }
    Parser { tests: 0 }.filter(raw, "", 0)
}

/// Counts what is limited for the filter as a whole.
pub(super) struct Parser {
    tests: usize,
}

impl Parser {
    fn filter(&mut self, raw: &RawValue, at: &str, depth: usize) -> Result<Filter> {
        let members = Members::read(raw, at)?
            .ok_or_else(|| Error::invalid(at, "must be an object of fields and conditions"))?;
        let parts = members.unique(at)?.into_iter().map(|(name, value)| {
            let at = child(at, &name);
            match name.as_str() {
                "$and" => Ok(Filter::All(self.filters(value, &at, depth)?)),
                "$or" => Ok(Filter::Any(self.filters(value, &at, depth)?)),
                "$not" => Ok(self.filter(value, &at, deeper(depth, &at)?)?.negated()),
                operator if operator.starts_with('$') => Err(Error::invalid(
                    at,
                    "is no operator between fields; use one of $and, $or, $not, or an operator inside of a field",
                )),
                field => self.condition(&Field::parse(field, &at)?, value, &at, depth),
            }
        });
        Ok(Filter::all(parts.collect::<Result<_>>()?))
    }

    fn filters(&mut self, raw: &RawValue, at: &str, depth: usize) -> Result<Vec<Filter>> {
        let depth = deeper(depth, at)?;
        let filters = elements(raw, at, "must be a list of filters")?;
        if filters.is_empty() {
            return Err(Error::invalid(at, "must have at least one filter"));
        }
        filters
            .into_iter()
            .enumerate()
            .map(|(index, filter)| self.filter(filter, &child(at, &index.to_string()), depth))
            .collect()
    }

    /// Called for every test.
    pub(super) fn count_test(&mut self, at: &str) -> Result<()> {
        self.tests += 1;
        if self.tests > FILTER_TESTS_MAX {
            return Err(Error::invalid(
                at,
                format!("is a test too many; a filter has {FILTER_TESTS_MAX} at most"),
            ));
        }
        Ok(())
    }
}

/// One level further down.
pub(super) fn deeper(depth: usize, at: &str) -> Result<usize> {
    if depth == FILTER_DEPTH_MAX {
        return Err(Error::invalid(
            at,
            format!(
                "is nested too deeply; $and, $or and $not may stand in each other {FILTER_DEPTH_MAX} times"
            ),
        ));
    }
    Ok(depth + 1)
}
