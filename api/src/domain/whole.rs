//! Integers as JSON Schema understands them: `5.0` is one. Some languages have no other numbers.

use std::fmt;

use serde::{
    Deserializer,
    de::{Error, Unexpected, Visitor},
};

/// An integer, of a field that may be null or left out.
///
/// # Errors
/// When it is no integer, or none of `T`.
pub fn optional_whole<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    let number = deserializer.deserialize_any(Whole)?;
    number.map(T::try_from).transpose().map_err(|_| D::Error::custom("is out of range"))
}

/// An integer.
///
/// # Errors
/// As [`optional_whole`], and when it is null.
pub fn whole<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: TryFrom<i64>,
{
    optional_whole(deserializer)?.ok_or_else(|| D::Error::invalid_type(Unexpected::Unit, &Whole))
}

/// The integer that a number without a fraction is.
pub fn whole_number(number: f64) -> Option<i64> {
    // Two to the power of 63, the first that is too large.
    (number.fract() == 0.0 && number.abs() < 9_223_372_036_854_775_808.0).then_some(number as i64)
}

struct Whole;

impl Visitor<'_> for Whole {
    type Value = Option<i64>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer")
    }

    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
        Ok(Some(number))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        i64::try_from(number).map(Some).map_err(|_| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Self::Value, E> {
        whole_number(number).map(Some).ok_or_else(|| E::invalid_type(Unexpected::Float(number), &self))
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Sample {
        #[serde(default, deserialize_with = "optional_whole")]
        optional: Option<i64>,
        #[serde(default, deserialize_with = "whole")]
        small: u32,
    }

    fn sample(json: &str) -> Option<(Option<i64>, u32)> {
        serde_json::from_str::<Sample>(json).ok().map(|sample| (sample.optional, sample.small))
    }

    #[test]
    fn a_number_without_a_fraction_is_an_integer() {
        assert_eq!(sample("{}"), Some((None, 0)));
        assert_eq!(sample(r#"{"optional":null,"small":7}"#), Some((None, 7)));
        assert_eq!(sample(r#"{"optional":-5.0,"small":39.0}"#), Some((Some(-5), 39)));
        assert_eq!(sample(r#"{"optional":9223372036854775807}"#), Some((Some(i64::MAX), 0)));
        for wrong in ["0.5", "9223372036854775808", "1e300", "\"5\"", "[]", "true"] {
            assert_eq!(sample(&format!(r#"{{"optional":{wrong}}}"#)), None, "{wrong}");
        }
        for wrong in ["-1", "4294967296", "1.5", "null"] {
            assert_eq!(sample(&format!(r#"{{"small":{wrong}}}"#)), None, "{wrong}");
        }
    }
}
