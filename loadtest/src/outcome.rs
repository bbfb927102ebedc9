//! How a request ended.

use crate::client::{Answer, Error};

/// What a good answer looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Any that is no error.
    Success,
    /// Something that was not there before.
    Created,
    /// The same of each operation of a batch.
    AllCreated,
    /// What was looked for.
    Found,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answered {
        status: u16,
        /// Nothing was found.
        empty: bool,
        /// The service had to do without something, and said so.
        degraded: bool,
    },
    /// No answer, or none to what was asked: why.
    Failed(&'static str),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Good,
    /// The service has too much to do, or the caller sends too much.
    Refused,
    Error,
}

/// How an answer begins that found nothing.
const NOTHING_FOUND: &[u8] = b"{\"data\":[]";
/// What an answer has that lacks nothing: behind the hits, so only the end is looked at.
const NOT_DEGRADED: &[u8] = b"\"degraded\":[]";
const END_BYTES: usize = 1_000;
const ERROR_IN_BATCH: &[u8] = b"\"error\":{";

impl Outcome {
    pub fn of(expected: Expected, answer: &Result<Answer, Error>) -> Self {
        let answer = match answer {
            Ok(answer) => answer,
            Err(error) => return Self::Failed(error.kind()),
        };
        let status = answer.status.as_u16();
        let (mut empty, mut degraded) = (false, false);
        if answer.status.is_success() {
            match expected {
                Expected::Created if status != 201 => return Self::Failed("not created"),
                Expected::AllCreated if holds(&answer.body, ERROR_IN_BATCH) => {
                    return Self::Failed("not all created");
                }
                Expected::Success | Expected::Created | Expected::AllCreated => {}
                Expected::Found => {
                    empty = answer.body.starts_with(NOTHING_FOUND);
                    let end = &answer.body[answer.body.len().saturating_sub(END_BYTES)..];
                    degraded = !holds(end, NOT_DEGRADED);
                }
            }
        }
        Self::Answered { status, empty, degraded }
    }

    pub fn verdict(&self) -> Verdict {
        match *self {
            Self::Answered { status: 429 | 503, .. } => Verdict::Refused,
            Self::Answered { status: 200..=399, .. } => Verdict::Good,
            Self::Answered { .. } | Self::Failed(_) => Verdict::Error,
        }
    }

    /// To be counted by.
    pub fn name(&self) -> String {
        match self {
            Self::Answered { status, .. } => status.to_string(),
            Self::Failed(why) => (*why).to_owned(),
        }
    }
}

fn holds(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hyper::StatusCode;

    use super::*;

    fn outcome(expected: Expected, status: u16, body: &'static str) -> Outcome {
        let status = StatusCode::from_u16(status).unwrap();
        Outcome::of(expected, &Ok(Answer { status, body: Bytes::from(body) }))
    }

    fn answered(status: u16, empty: bool, degraded: bool) -> Outcome {
        Outcome::Answered { status, empty, degraded }
    }

    #[test]
    fn an_answer_is_held_against_what_was_asked_for() {
        let found = r#"{"data":[{}],"degraded":[],"took_ms":1}"#;
        assert_eq!(outcome(Expected::Found, 200, found), answered(200, false, false));
        let nothing = r#"{"data":[],"degraded":["embedder_unavailable"]}"#;
        assert_eq!(outcome(Expected::Found, 200, nothing), answered(200, true, true));
        assert_eq!(outcome(Expected::Created, 201, "{}"), answered(201, false, false));
        // It was there already: nothing was written.
        assert_eq!(outcome(Expected::Created, 200, "{}").verdict(), Verdict::Error);
        let batch = r#"{"results":[{"index":0,"status":409,"error":{"code":"key_conflict"}}]}"#;
        assert_eq!(outcome(Expected::AllCreated, 200, batch).verdict(), Verdict::Error);
        for (status, verdict) in [
            (200, Verdict::Good),
            (429, Verdict::Refused),
            (503, Verdict::Refused),
            (404, Verdict::Error),
            (500, Verdict::Error),
        ] {
            assert_eq!(outcome(Expected::Success, status, "{}").verdict(), verdict);
        }
        assert_eq!(Outcome::of(Expected::Found, &Err(Error::Unreadable(String::new()))).name(), "unreadable");
    }
}
