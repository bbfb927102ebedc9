//! How a piece is written. What is stored cannot break out of it: in Markdown it stands in a fence that is longer than any
//! row of the same sign in it, in XML and JSON it is escaped; names in a heading are bare only when they are plain.
//!
//! Every block ends with a line feed and begins with a sign that is neither a blank nor `/`. There no token of the
//! tokenizers reaches across (`tokens.rs` proves it), so that the tokens of the text are the sum of the blocks'.

use std::{borrow::Cow, fmt::Write as _, ops::Range};

use serde_json::json;

use crate::domain::PackFormat;

/// Signs of a fence at least.
const FENCE_MIN: usize = 3;

/// What stands above a piece.
#[derive(Clone, Copy, Debug)]
pub(super) struct Head<'a> {
    pub number: usize,
    pub context_type: &'a str,
    pub key: Option<&'a str>,
}

/// A piece as it stands in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub text: String,
    /// Where the context's own words are in it, in bytes.
    pub body: Range<usize>,
}

/// What stands before the first piece.
pub(super) fn opening(format: PackFormat) -> &'static str {
    match format {
        PackFormat::Xml => "<contexts>\n",
        PackFormat::Markdown | PackFormat::Json => "",
    }
}

/// What stands behind the last one.
pub(super) fn closing(format: PackFormat) -> &'static str {
    match format {
        PackFormat::Markdown => "",
        PackFormat::Xml => "</contexts>",
        PackFormat::Json => "]",
    }
}

pub(super) fn block(format: PackFormat, head: Head<'_>, body: &str) -> Block {
    match format {
        PackFormat::Markdown => markdown(head, body),
        PackFormat::Xml => xml(head, body),
        PackFormat::Json => json(head, body),
    }
}

fn framed(before: String, body: &str, after: &str) -> Block {
    let range = before.len()..before.len() + body.len();
    Block { text: before + body + after, body: range }
}

fn markdown(head: Head<'_>, body: &str) -> Block {
    let fence = fence(body);
    let mut before = format!("### [{}] {}", head.number, label(head.context_type));
    if let Some(key) = head.key {
        before.push_str(": ");
        before.push_str(&label(key));
    }
    let _ = write!(before, "\n{fence}\n");
    framed(before, body, &format!("\n{fence}\n"))
}

/// Of backticks, or of tildes where that is shorter.
fn fence(body: &str) -> String {
    let needed = |sign: char| (longest_row(body, sign) + 1).max(FENCE_MIN);
    let (backticks, tildes) = (needed('`'), needed('~'));
    if backticks <= tildes { "`".repeat(backticks) } else { "~".repeat(tildes) }
}

fn longest_row(text: &str, sign: char) -> usize {
    let (mut longest, mut row) = (0, 0);
    for character in text.chars() {
        row = if character == sign { row + 1 } else { 0 };
        longest = longest.max(row);
    }
    longest
}

/// A name in a heading: bare when it cannot be taken for anything else, in quotes otherwise, on one line in any case.
fn label(name: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_alphanumeric() || " -./:@+".contains(c);
    // Between letters it emphasises nothing.
    let is_underscore_within = |(at, _): (usize, &str)| {
        name[..at].ends_with(char::is_alphanumeric) && name[at + 1..].starts_with(char::is_alphanumeric)
    };
    if name.chars().all(|c| c == '_' || is_plain(c))
        && name.match_indices('_').all(is_underscore_within)
        && name.trim() == name
        // What follows would be taken for the key.
        && !name.contains(": ")
        && !name.ends_with(':')
    {
        return name.into();
    }
    let mut quoted = String::new();
    for character in serde_json::Value::from(name).to_string().chars() {
        // JSON escapes some of them; these would break a line, or turn its direction, or be Markdown.
        if character.is_control()
            || "<>[]()!`*_&~|#$".contains(character)
            || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            let _ = write!(quoted, "\\u{:04x}", u32::from(character));
        } else {
            quoted.push(character);
        }
    }
    quoted.into()
}

fn xml(head: Head<'_>, body: &str) -> Block {
    let mut before =
        format!("<context number=\"{}\" type=\"{}\"", head.number, xml_escaped(head.context_type, true));
    if let Some(key) = head.key {
        let _ = write!(before, " key=\"{}\"", xml_escaped(key, true));
    }
    before.push_str(">\n");
    framed(before, &xml_escaped(body, false), "\n</context>\n")
}

/// Without the characters that XML 1.0 cannot hold; line ends as its readers would make them.
fn xml_escaped(text: &str, is_attribute: bool) -> String {
    let mut escaped = String::with_capacity(text.len() + text.len() / 16);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' if is_attribute => escaped.push_str("&quot;"),
            '\t' | '\n' | '\r' if is_attribute => {
                let _ = write!(escaped, "&#{};", u32::from(character));
            }
            '\r' if characters.peek() == Some(&'\n') => {}
            '\r' => escaped.push('\n'),
            '\0'..='\u{8}' | '\u{b}' | '\u{c}' | '\u{e}'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => {}
            other => escaped.push(other),
        }
    }
    escaped
}

/// A line of an array. The comma stands before an object, so that nothing changes behind it when another one follows.
fn json(head: Head<'_>, body: &str) -> Block {
    let sign = if head.number == 1 { '[' } else { ',' };
    let mut before =
        format!("{sign}{{\"number\":{},\"context_type\":{}", head.number, json!(head.context_type));
    if let Some(key) = head.key {
        let _ = write!(before, ",\"key\":{}", json!(key));
    }
    before.push_str(",\"text\":\"");
    let quoted = json!(body).to_string();
    framed(before, quoted.get(1..quoted.len() - 1).unwrap_or_default(), "\"}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(number: usize) -> Head<'static> {
        Head { number, context_type: "note", key: Some("gnuchess") }
    }

    #[test]
    fn each_format_is_as_the_documentation_says() {
        for (format, expected) in [
            (PackFormat::Markdown, "### [2] note: gnuchess\n```\nPlays & wins\n```\n"),
            (
                PackFormat::Xml,
                "<context number=\"2\" type=\"note\" key=\"gnuchess\">\nPlays &amp; wins\n</context>\n",
            ),
            (
                PackFormat::Json,
                ",{\"number\":2,\"context_type\":\"note\",\"key\":\"gnuchess\",\"text\":\"Plays & wins\"}\n",
            ),
        ] {
            let block = block(format, head(2), "Plays & wins");
            assert_eq!(block.text, expected);
            assert!(["Plays & wins", "Plays &amp; wins"].contains(&&block.text[block.body]));
        }
    }

    #[test]
    fn a_fence_is_longer_than_what_it_holds_and_as_short_as_can_be() {
        for (body, expected) in
            [("x", "```"), ("a ``` b", "~~~"), ("```` ~~~", "~~~~"), ("``` ~~~~", "````"), ("~~~", "```")]
        {
            assert_eq!(fence(body), expected, "{body}");
        }
    }

    #[test]
    fn names_stay_on_their_line_and_in_their_quotes() {
        for (name, expected) in [
            ("a plain-name_1.2/é語:x@y+z", "a plain-name_1.2/é語:x@y+z"),
            ("a\nb", r#""a\nb""#),
            ("[2] note", r#""\u005b2\u005d note""#),
            ("x\" [2] \"", r#""x\" \u005b2\u005d \"""#),
            ("note: x", r#""note: x""#),
            ("note:", r#""note:""#),
            ("_a_ <b>", r#""\u005fa\u005f \u003cb\u003e""#),
            (" x", r#"" x""#),
            ("a\u{85}b\u{2028}c\u{202e}d\u{7f}", r#""a\u0085b\u2028c\u202ed\u007f""#),
        ] {
            assert_eq!(label(name), expected);
        }
    }

    #[test]
    fn xml_has_neither_illegal_characters_nor_ends_before_its_end() {
        assert_eq!(
            xml_escaped("a\u{1}\u{b}\u{fffe}\u{ffff}]]></context>\r\n\r&\"", false),
            "a]]&gt;&lt;/context&gt;\n\n&amp;\""
        );
        assert_eq!(xml_escaped("a\"\t\n\r<", true), "a&quot;&#9;&#10;&#13;&lt;");
    }
}
