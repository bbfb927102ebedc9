//! Conditional requests (RFC 9110, section 13): a context's version is its entity tag.

use actix_web::{
    FromRequest, HttpRequest,
    dev::Payload,
    http::header::{self, HeaderName},
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
    match (tags(request, header::IF_MATCH)?, tags(request, header::IF_NONE_MATCH)?) {
        (None, None) => Ok(Precondition::None),
        (Some(Tags::Any), None) => Ok(Precondition::Exists),
        // A weak tag never matches here; one that is no version matches none.
        (Some(Tags::These(tags)), None) => Ok(Precondition::Version(
            tags.iter().filter(|tag| !tag.weak).filter_map(|tag| tag.version).collect(),
        )),
        (None, Some(Tags::Any)) => Ok(Precondition::Absent),
        (_, Some(Tags::These(_))) => Err(Error::parameter("If-None-Match", "of a write must be `*`")),
        // It cannot exist and not exist.
        (Some(_), Some(Tags::Any)) => Ok(Precondition::Version(Vec::new())),
    }
}

/// The versions that a reader has already.
pub(super) struct KnownVersions(Option<Tags>);

impl KnownVersions {
    pub(super) fn contain(&self, present: i64) -> bool {
        match &self.0 {
            None => false,
            Some(Tags::Any) => true,
            Some(Tags::These(tags)) => tags.iter().any(|tag| tag.version == Some(present)),
        }
    }
}

impl FromRequest for KnownVersions {
    type Error = Problem;
    type Future = std::future::Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        std::future::ready(tags(request, header::IF_NONE_MATCH).map(Self).map_err(Problem::from))
    }
}

/// What a condition names.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    These(Vec<Tag>),
}

/// An entity tag. Most clients send back what they got, but any may come.
#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    version: Option<i64>,
}

fn tags(request: &HttpRequest, name: HeaderName) -> Result<Option<Tags>> {
    let lines: Vec<_> = request.headers().get_all(&name).collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let lines: Option<Vec<_>> = lines.into_iter().map(|line| line.to_str().ok()).collect();
    lines.and_then(|lines| parse_tags(&lines.join(","))).map(Some).ok_or_else(|| {
        let name = if name == header::IF_MATCH { "If-Match" } else { "If-None-Match" };
        Error::parameter(name, "must be `*` or entity tags, such as \"3\"")
    })
}

/// Not actix' own parser: that one skips what is no tag, and splits tags at the commas in them.
fn parse_tags(text: &str) -> Option<Tags> {
    let blank = [' ', '\t'];
    let mut rest = text.trim_matches(blank);
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    loop {
        let quoted = rest.strip_prefix("W/");
        let (tag, after) = quoted.unwrap_or(rest).strip_prefix('"')?.split_once('"')?;
        if !tag.bytes().all(|byte| byte.is_ascii_graphic()) {
            return None;
        }
        tags.push(Tag { weak: quoted.is_some(), version: version(tag) });
        let after = after.trim_start_matches(blank);
        if after.is_empty() {
            return Some(Tags::These(tags));
        }
        rest = after.strip_prefix(',')?.trim_start_matches(blank);
    }
}

/// The entity tag of a version.
pub(super) fn etag(version: i64) -> String {
    format!("\"{version}\"")
}

/// The version of a tag that [`etag`] has made.
fn version(tag: &str) -> Option<i64> {
    tag.parse().ok().filter(|version: &i64| version.to_string() == tag)
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
        assert_eq!(
            condition(&[("if-match", "\"3,4\" ,W/\"5\",\"6\"")]).unwrap(),
            Precondition::Version(vec![6])
        );
        assert_eq!(condition(&[("if-none-match", "*")]).unwrap(), Precondition::Absent);
        let both = condition(&[("if-match", "*"), ("if-none-match", "*")]).unwrap();
        assert!(both.require(1).is_err() && both.require_absent_is_fine().is_err());
        for wrong in [
            &[("if-match", "3")][..],
            &[("if-match", "")],
            &[("if-match", "\"3")],
            &[("if-match", "\"3\" \"4\"")],
            &[("if-match", "\"3\",")],
            &[("if-match", "\"a b\"")],
            &[("if-match", "*, \"3\"")],
            &[("if-none-match", "\"3\"")],
        ] {
            assert!(condition(wrong).is_err(), "{wrong:?}");
        }
    }
}
