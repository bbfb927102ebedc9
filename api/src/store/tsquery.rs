//! What the terms of a chunk are compared with, as PostgreSQL's `tsquery` writes it. Its operators and quotes are added
//! here and nowhere else, so that no word of a query is taken for one.

use std::fmt::{self, Display, Formatter, Write};

/// What the terms of a chunk have to hold. `Any`, `All` and `Sequence` have parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Term(String),
    /// Any term that begins so.
    Beginning(String),
    /// These terms, each so many places behind the one before it.
    Sequence(Vec<(String, u16)>),
    Any(Vec<Match>),
    All(Vec<Match>),
    /// The first, and not the second.
    Except(Box<Match>, Box<Match>),
}

impl Match {
    /// How many terms are looked up.
    pub fn size(&self) -> usize {
        match self {
            Self::Term(_) | Self::Beginning(_) => 1,
            Self::Sequence(terms) => terms.len(),
            Self::Any(parts) | Self::All(parts) => parts.iter().map(Self::size).sum(),
            Self::Except(first, second) => first.size() + second.size(),
        }
    }

    /// Whether it is about what terms begin with.
    pub fn has_beginning(&self) -> bool {
        match self {
            Self::Term(_) | Self::Sequence(_) => false,
            Self::Beginning(_) => true,
            Self::Any(parts) | Self::All(parts) => parts.iter().any(Self::has_beginning),
            Self::Except(first, second) => first.has_beginning() || second.has_beginning(),
        }
    }
}

impl Display for Match {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Term(lexeme) => quoted(f, lexeme),
            Self::Beginning(start) => {
                quoted(f, start)?;
                f.write_str(":*")
            }
            Self::Sequence(terms) => {
                f.write_char('(')?;
                for (index, (lexeme, distance)) in terms.iter().enumerate() {
                    if index > 0 {
                        write!(f, " <{distance}> ")?;
                    }
                    quoted(f, lexeme)?;
                }
                f.write_char(')')
            }
            Self::Any(parts) => joined(f, parts, " | "),
            Self::All(parts) => joined(f, parts, " & "),
            Self::Except(first, second) => write!(f, "({first} & !{second})"),
        }
    }
}

fn joined(f: &mut Formatter<'_>, parts: &[Match], operator: &str) -> fmt::Result {
    f.write_char('(')?;
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        part.fmt(f)?;
    }
    f.write_char(')')
}

fn quoted(f: &mut Formatter<'_>, lexeme: &str) -> fmt::Result {
    f.write_char('\'')?;
    for c in lexeme.chars() {
        if matches!(c, '\'' | '\\') {
            f.write_char(c)?;
        }
        f.write_char(c)?;
    }
    f.write_char('\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_and_operators_are_not() {
        let term = |text: &str| Match::Term(text.to_owned());
        let query = Match::Except(
            Box::new(Match::Any(vec![
                term("a"),
                term("it's | !b\\"),
                Match::All(vec![
                    Match::Beginning("c".into()),
                    Match::Sequence(vec![("d".into(), 0), ("e".into(), 2)]),
                ]),
            ])),
            Box::new(term("f")),
        );
        assert_eq!(query.to_string(), r"(('a' | 'it''s | !b\\' | ('c':* & ('d' <2> 'e'))) & !'f')");
        assert_eq!(query.size(), 6);
    }
}
