//! Packs as others read them: a Markdown parser, an XML parser, a JSON parser.

use pulldown_cmark::{CodeBlockKind, Event, Parser, Tag, TagEnd};
use serde_json::Value;

use crate::domain::PackFormat;

/// What a reader of the format sees: of each piece its number and its words.
pub(super) fn read(format: PackFormat, text: &str) -> Vec<(usize, String)> {
    match format {
        PackFormat::Markdown => read_markdown(text),
        PackFormat::Xml => {
            let document = roxmltree::Document::parse(text).unwrap();
            assert!(document.root_element().has_tag_name("contexts"));
            let elements = document.root_element().children().filter(|node| node.is_element());
            elements
                .map(|node| {
                    assert!(node.has_tag_name("context") && node.children().all(|child| child.is_text()));
                    let text = node.text().unwrap().strip_prefix('\n').unwrap().strip_suffix('\n').unwrap();
                    (node.attribute("number").unwrap().parse().unwrap(), text.to_owned())
                })
                .collect()
        }
        PackFormat::Json => serde_json::from_str::<Vec<Value>>(text)
            .unwrap()
            .iter()
            .map(|piece| {
                (piece["number"].as_u64().unwrap() as usize, piece["text"].as_str().unwrap().to_owned())
            })
            .collect(),
    }
}

fn read_markdown(text: &str) -> Vec<(usize, String)> {
    let (mut pieces, mut number, mut words) = (Vec::new(), None, None::<String>);
    let mut depth = 0;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::Heading { .. }) => {
                assert_eq!(depth, 0);
                let line = text[range].strip_prefix("### [").unwrap();
                assert!(number.replace(line[..line.find(']').unwrap()].parse().unwrap()).is_none());
                depth += 1;
            }
            Event::Start(Tag::CodeBlock(kind)) => {
                assert!(depth == 0 && matches!(kind, CodeBlockKind::Fenced(info) if info.is_empty()));
                words = Some(String::new());
                depth += 1;
            }
            Event::End(TagEnd::CodeBlock) => {
                let words = words.take().unwrap();
                pieces.push((number.take().unwrap(), words.strip_suffix('\n').unwrap().to_owned()));
                depth -= 1;
            }
            Event::End(TagEnd::Heading(_)) => depth -= 1,
            Event::Text(part) if words.is_some() => words.as_mut().unwrap().push_str(&part),
            Event::Text(_) => assert!(depth > 0, "{event:?} outside of any piece"),
            // No name emphasises anything, links to it, or is HTML.
            _ => panic!("{event:?} in {text:?}"),
        }
    }
    pieces
}

/// XML knows line feeds alone, and the Markdown parser makes one of what ends a line.
pub(super) fn with_plain_line_ends(format: PackFormat, text: &str) -> String {
    match format {
        PackFormat::Markdown => text.replace('\r', ""),
        PackFormat::Xml => text.replace("\r\n", "\n").replace('\r', "\n"),
        PackFormat::Json => text.to_owned(),
    }
}
