//! Where values come from: the environment, or the file that `NAME_FILE` names.

use std::{borrow::Cow, collections::HashMap, fmt::Display, ops::RangeInclusive, path::Path, str::FromStr};

use thiserror::Error;

/// A variable and what is wrong with it.
#[derive(Debug, Error)]
#[error("{name} {reason}.")]
pub struct ConfigError {
    name: String,
    reason: Cow<'static, str>,
}

/// Variables, read once. None for a value that is not UTF-8.
pub struct Source(HashMap<String, Option<String>>);

/// Bytes of a file that holds a value.
const FILE_BYTES_MAX: u64 = 64 * 1024;

impl Source {
    /// The process's environment.
    pub fn from_environment() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok())))
                .collect(),
        )
    }

    /// Of these pairs alone; for tests.
    pub fn from_pairs(pairs: &[(&str, &str)]) -> Self {
        Self(pairs.iter().map(|(name, value)| ((*name).to_owned(), Some((*value).to_owned()))).collect())
    }

    /// The value of `name`, or the content of the file that `name_FILE` names; none when empty.
    ///
    /// # Errors
    /// When both are given, or the file cannot be read.
    pub fn text(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = self.given(name);
        let file_variable = format!("{name}_FILE");
        if let Some(name) = [name, &file_variable].into_iter().find(|name| self.0.get(*name) == Some(&None)) {
            return Err(ConfigError { name: name.to_owned(), reason: "is not UTF-8".into() });
        }
        let Some(path) = self.given(&file_variable) else { return Ok(value.map(str::to_owned)) };
        if value.is_some() {
            return Err(ConfigError {
                name: file_variable,
                reason: format!("is set besides {name}; set one of them").into(),
            });
        }
        let unusable = |reason: String| ConfigError { name: file_variable.clone(), reason: reason.into() };
        let size = std::fs::metadata(Path::new(path))
            .map_err(|e| unusable(format!("names a file that cannot be read: {e}")))?;
        if size.len() > FILE_BYTES_MAX {
            return Err(unusable(format!("names a file of more than {FILE_BYTES_MAX} bytes")));
        }
        let text = std::fs::read_to_string(path)
            .map_err(|e| unusable(format!("names a file that cannot be read: {e}")))?;
        let text = text.trim_end_matches(['\r', '\n']);
        Ok((!text.is_empty()).then(|| text.to_owned()))
    }

    /// The value of `name`, parsed; `expected` completes the sentence "must be …".
    ///
    /// # Errors
    /// When it cannot be parsed.
    pub fn parse<T: FromStr>(&self, name: &str, expected: &str) -> Result<Option<T>, ConfigError> {
        self.text(name)?
            .map(|text| text.trim().parse().map_err(|_| self.refuse(name, format!("must be {expected}"))))
            .transpose()
    }

    /// The value of `name` as a number in `range`.
    ///
    /// # Errors
    /// When it is none, or out of range.
    pub fn parse_in<T>(&self, name: &str, range: RangeInclusive<T>, default: T) -> Result<T, ConfigError>
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("a whole number from {} to {}", range.start(), range.end());
        match self.parse(name, &expected)? {
            Some(value) if range.contains(&value) => Ok(value),
            Some(_) => Err(self.refuse(name, format!("must be {expected}"))),
            None => Ok(default),
        }
    }

    /// Whether `name` has a value, in either way.
    pub fn is_set(&self, name: &str) -> bool {
        self.given(name).is_some() || self.given(&format!("{name}_FILE")).is_some()
    }

    /// The value of `name`, for which being empty is a mistake: where a lock is meant, it must not stay open.
    ///
    /// # Errors
    /// When it is given in either way and is empty, and as [`text`](Self::text).
    pub fn text_if_named(&self, name: &str) -> Result<Option<String>, ConfigError> {
        let value = self.text(name)?;
        let named =
            [name.to_owned(), format!("{name}_FILE")].into_iter().find(|name| self.0.contains_key(name));
        match named {
            Some(name) if value.is_none() => {
                Err(ConfigError { name, reason: "is empty; leave it out, or give it a value".into() })
            }
            _ => Ok(value),
        }
    }

    /// An error about `name`. Takes the place of repeating the value, which may be a secret.
    pub fn refuse(&self, name: &str, reason: impl Into<Cow<'static, str>>) -> ConfigError {
        let reason = reason.into();
        let reason = match reason.strip_suffix('.') {
            Some(stripped) => stripped.to_owned().into(),
            None => reason,
        };
        // Say the variable that the operator really set.
        let file_variable = format!("{name}_FILE");
        let name = if self.given(&file_variable).is_some() { file_variable } else { name.to_owned() };
        ConfigError { name, reason }
    }

    fn given(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_deref().filter(|value| !value.trim().is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_may_hold_the_value_but_not_besides_the_variable() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        writeln!(file, "secret").unwrap();
        let path = file.path().to_str().unwrap();
        let source = Source::from_pairs(&[("DB_PASSWORD_FILE", path)]);
        assert_eq!(source.text("DB_PASSWORD").unwrap().as_deref(), Some("secret"));
        assert!(source.is_set("DB_PASSWORD"));
        let both = Source::from_pairs(&[("DB_PASSWORD_FILE", path), ("DB_PASSWORD", "x")]);
        assert!(
            both.text("DB_PASSWORD").unwrap_err().to_string().starts_with("DB_PASSWORD_FILE is set besides")
        );
        let missing = Source::from_pairs(&[("DB_PASSWORD_FILE", "/nowhere/at/all")]);
        assert!(
            missing.text("DB_PASSWORD").unwrap_err().to_string().starts_with("DB_PASSWORD_FILE names a file")
        );
    }

    #[test]
    fn where_a_lock_is_meant_an_empty_value_is_a_mistake() {
        let read = |pairs: &[(&str, &str)]| Source::from_pairs(pairs).text_if_named("API_KEY");
        assert_eq!(read(&[]).unwrap(), None);
        assert_eq!(read(&[("API_KEY", "x")]).unwrap().as_deref(), Some("x"));
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        for (name, value) in [("API_KEY", ""), ("API_KEY", " "), ("API_KEY_FILE", ""), ("API_KEY_FILE", path)]
        {
            let error = read(&[(name, value)]).unwrap_err().to_string();
            assert_eq!(error, format!("{name} is empty; leave it out, or give it a value."));
        }
    }

    #[test]
    fn a_value_that_is_no_text_is_not_taken_for_none() {
        let source = Source(HashMap::from([("DATABASE_URL".to_owned(), None)]));
        assert_eq!(source.text("DATABASE_URL").unwrap_err().to_string(), "DATABASE_URL is not UTF-8.");
    }

    #[test]
    fn numbers_are_checked_at_both_ends_of_their_range() {
        let value = |text: &str| Source::from_pairs(&[("N", text)]).parse_in("N", 1..=3, 2);
        assert_eq!((value("1").unwrap(), value("3").unwrap(), value("").unwrap()), (1, 3, 2));
        for bad in ["0", "4", "-1", "x", "1.5"] {
            assert_eq!(value(bad).unwrap_err().to_string(), "N must be a whole number from 1 to 3.");
        }
    }
}
