//! Keyset paging: a page starts after the last row of the one before, so rows that come and go never shift it.

use std::{fmt, str::FromStr};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use uuid::Uuid;

use super::limits::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX};
use crate::error::{Code, Error, Result};

/// Rows of a page: 1 to [`PAGE_LIMIT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit(u32);

impl Limit {
    /// # Errors
    /// [`Code::InvalidParameter`] out of range.
    pub fn new(limit: Option<u32>) -> Result<Self> {
        match limit.unwrap_or(PAGE_LIMIT_DEFAULT) {
            limit @ 1..=PAGE_LIMIT_MAX => Ok(Self(limit)),
            limit => Err(Error::parameter("limit", format!("must be 1 to {PAGE_LIMIT_MAX}, not {limit}"))),
        }
    }

    pub fn get(self) -> u32 {
        self.0
    }
}

/// Where a page ended. Opaque to clients, so that what it holds may change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor(Uuid);

impl Cursor {
    /// After the row of this id.
    pub fn at(id: impl Into<Uuid>) -> Self {
        Self(id.into())
    }

    /// After the row of this number.
    pub fn at_number(number: i64) -> Self {
        Self(Uuid::from_u128(u128::from(number.unsigned_abs())))
    }

    pub fn id(self) -> Uuid {
        self.0
    }

    /// What [`Cursor::at_number`] was given.
    pub fn number(self) -> i64 {
        i64::try_from(self.0.as_u128()).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&URL_SAFE_NO_PAD.encode(self.0.as_bytes()))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        URL_SAFE_NO_PAD
            .decode(text)
            .ok()
            .and_then(|bytes| Uuid::from_slice(&bytes).ok())
            .map(Self)
            .ok_or_else(|| {
                Error::new(Code::InvalidParameter, "The cursor is not one that this service gave out.")
                    .with_violation("cursor", "pass `next_cursor` of the page before, unchanged")
            })
    }
}

/// One page of a list.
#[derive(Debug, Serialize)]
pub struct Page<T> {
    pub data: Vec<T>,
    /// Pass it as `cursor` to get the next page; null on the last one.
    pub next_cursor: Option<String>,
    pub has_more: bool,
}

impl<T> Page<T> {
    /// Makes a page of rows that were read with one more than `limit`, to learn whether there are more; `cut` says that
    /// there are even so.
    pub fn from_overfetch(
        mut rows: Vec<T>,
        limit: Limit,
        cut: bool,
        cursor_of: impl Fn(&T) -> Cursor,
    ) -> Self {
        let size = limit.get() as usize;
        let has_more = cut || rows.len() > size;
        rows.truncate(size);
        let next_cursor = if has_more { rows.last().map(|row| cursor_of(row).to_string()) } else { None };
        Self { data: rows, next_cursor, has_more }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_the_round_trip_and_garbage_does_not() {
        let cursor = Cursor::at(Uuid::now_v7());
        assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        assert_eq!(Cursor::at_number(7).to_string().parse::<Cursor>().unwrap().number(), 7);
        assert_eq!(cursor.number(), i64::MAX, "an id is no number of a row");
        for garbage in ["", "x", "!!!", "AAAA", "' or 1=1"] {
            assert_eq!(garbage.parse::<Cursor>().unwrap_err().code, Code::InvalidParameter);
        }
    }

    #[test]
    fn only_an_overfull_page_has_a_next_one() {
        let limit = Limit::new(Some(2)).unwrap();
        let cursor_of = |id: &Uuid| Cursor::at(*id);
        let ids: Vec<_> = (0..3).map(|_| Uuid::now_v7()).collect();
        let page = Page::from_overfetch(ids.clone(), limit, false, cursor_of);
        assert_eq!((page.data.len(), page.has_more), (2, true));
        assert_eq!(page.next_cursor, Some(Cursor::at(ids[1]).to_string()));
        let page = Page::from_overfetch(ids[..2].to_vec(), limit, false, cursor_of);
        assert_eq!((page.has_more, page.next_cursor), (false, None));
        let page = Page::from_overfetch(ids[..1].to_vec(), limit, true, cursor_of);
        assert_eq!(page.next_cursor, Some(Cursor::at(ids[0]).to_string()), "cut short by its bytes");
    }

    #[test]
    fn limits_are_checked_at_both_ends() {
        assert!(Limit::new(Some(0)).is_err() && Limit::new(Some(PAGE_LIMIT_MAX + 1)).is_err());
        assert!(Limit::new(Some(1)).is_ok() && Limit::new(Some(PAGE_LIMIT_MAX)).is_ok());
    }
}
