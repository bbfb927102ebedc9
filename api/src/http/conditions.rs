//! Conditional requests (RFC 9110, section 13): a context's version is its entity tag.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, EntityTag, Header, IfMatch, IfNoneMatch},
};

use super::problem::Problem;
use crate::{
    domain::Precondition,
    error::{Error, Result},
};

/// What a write demands of the present version.
pub(super) struct Condition(pub Precondition);

impl FromRequest for Condition {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(precondition(request).map(Self).map_err(Problem::from))
    }
}

fn precondition(request: &HttpRequest) -> Result<Precondition> {
    let has = |name| request.headers().contains_key(name);
    match (has(header::IF_MATCH), has(header::IF_NONE_MATCH)) {
        (false, false) => Ok(Precondition::None),
        (true, false) => match IfMatch::parse(request) {
            Ok(IfMatch::Any) => Ok(Precondition::Exists),
            // A weak tag never matches here; one that is no version matches none.
            Ok(IfMatch::Items(tags)) if !tags.is_empty() => {
                Ok(Precondition::Version(tags.iter().filter(|tag| !tag.weak).filter_map(version).collect()))
            }
            _ => Err(Error::parameter("If-Match", "must be `*` or entity tags, such as \"3\"")),
        },
        (false, true) => match IfNoneMatch::parse(request) {
            Ok(IfNoneMatch::Any) => Ok(Precondition::Absent),
            _ => Err(Error::parameter("If-None-Match", "of a write must be `*`")),
        },
        (true, true) => Err(Error::parameter("If-Match", "cannot be given together with If-None-Match")),
    }
}

/// The versions that a reader has already.
pub(super) struct KnownVersions(Option<IfNoneMatch>);

impl KnownVersions {
    pub(super) fn contain(&self, present: i64) -> bool {
        match &self.0 {
            None => false,
            Some(IfNoneMatch::Any) => true,
            Some(IfNoneMatch::Items(tags)) => tags.iter().any(|tag| version(tag) == Some(present)),
        }
    }
}

impl FromRequest for KnownVersions {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let known = if request.headers().contains_key(header::IF_NONE_MATCH) {
            IfNoneMatch::parse(request).map(Some).map_err(|_| {
                Error::parameter("If-None-Match", "must be `*` or entity tags, such as \"3\"").into()
            })
        } else {
            Ok(None)
        };
        std::future::ready(known.map(Self))
    }
}

/// The entity tag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

fn version(tag: &EntityTag) -> Option<i64> {
    // Written as we write it: `"01"` is another tag than `"1"`.
    tag.tag().parse().ok().filter(|version: &i64| version.to_string() == tag.tag())
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn condition(headers: &[(&'static str, &'static str)]) -> Result<Precondition> {
        let request = headers.iter().fold(TestRequest::default(), |r, header| r.insert_header(*header));
        precondition(&request.to_http_request())
    }

    #[test]
    fn conditions_are_read_as_the_standard_says() {
        assert_eq!(condition(&[]).unwrap(), Precondition::None);
        assert_eq!(condition(&[("if-match", "*")]).unwrap(), Precondition::Exists);
        assert_eq!(condition(&[("if-match", "\"3\"")]).unwrap(), Precondition::Version(vec![3]));
        assert_eq!(condition(&[("if-match", "\"3\", \"5\"")]).unwrap(), Precondition::Version(vec![3, 5]));
        assert_eq!(condition(&[("if-match", "W/\"3\"")]).unwrap(), Precondition::Version(vec![]));
        for no_version in ["\"abc\"", "\"03\"", "\"+3\""] {
            assert_eq!(condition(&[("if-match", no_version)]).unwrap(), Precondition::Version(vec![]));
        }
        assert_eq!(condition(&[("if-none-match", "*")]).unwrap(), Precondition::Absent);
        for wrong in [
            &[("if-match", "3")][..],
            &[("if-match", "")],
            &[("if-none-match", "\"3\"")],
            &[("if-match", "*"), ("if-none-match", "*")],
        ] {
            assert!(condition(wrong).is_err(), "{wrong:?}");
        }
    }
}
