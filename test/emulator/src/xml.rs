//! The XML of the Blob service: text that is escaped so that every reader gets back the exact characters, and the small
//! documents that requests carry. Knows elements, not what they mean.

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use quick_xml::{Reader, escape::resolve_predefined_entity, events::Event};

use crate::error::{Code, ServiceError};

/// What the percent form of a name escapes: all but the unreserved characters and `/`.
const NAME_ESCAPES: &AsciiSet = &CONTROLS
    .add(b' ')
    .add(b'"')
    .add(b'#')
    .add(b'%')
    .add(b'&')
    .add(b'\'')
    .add(b'+')
    .add(b'<')
    .add(b'>')
    .add(b'?')
    .add(b'`')
    .add(b'{')
    .add(b'}')
    .add(b'|')
    .add(b'\\')
    .add(b'^')
    .add(b'[')
    .add(b']');

/// The declaration in front of every document.
pub(crate) const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>";

/// Escapes text. Line breaks and tabs become references, since a parser would turn a bare CR into LF.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#x{:X};", c as u32)),
            _ => out.push(c),
        }
    }
    out
}

/// Whether XML 1.0 can carry a character at all (production `Char`).
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..)
}

/// `<Element>text</Element>`.
pub(crate) fn element(out: &mut String, name: &str, text: &str) {
    out.push_str(&format!("<{name}>{}</{name}>", escape(text)));
}

/// A blob name: percent-encoded and marked where XML cannot carry it (REST page "List Blobs", remarks).
pub(crate) fn name_element(out: &mut String, element_name: &str, name: &str) {
    if name.chars().all(is_xml) {
        element(out, element_name, name);
    } else {
        let encoded = utf8_percent_encode(name, NAME_ESCAPES);
        out.push_str(&format!("<{element_name} Encoded=\"true\">{encoded}</{element_name}>"));
    }
}

/// The body of a refusal.
pub(crate) fn error(code: &str, message: &str, details: &[(&'static str, String)]) -> String {
    let mut out = format!("{DECLARATION}<Error>");
    element(&mut out, "Code", code);
    element(&mut out, "Message", message);
    for (name, text) in details {
        element(&mut out, name, text);
    }
    out.push_str("</Error>");
    out
}

/// Reads the leaves of a small document: path of element names from the root, and text, in order.
///
/// # Errors
/// `InvalidXmlDocument`.
pub(crate) fn leaves(document: &[u8]) -> Result<Vec<(Vec<String>, String)>, ServiceError> {
    let bad = || ServiceError::from(Code::InvalidXmlDocument);
    let document = document.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(document);
    let mut reader = Reader::from_reader(document);
    reader.config_mut().expand_empty_elements = true;
    let (mut leaves, mut path, mut text, mut is_leaf) = (Vec::new(), Vec::<String>::new(), String::new(), false);
    let mut seen_root = false;
    loop {
        match reader.read_event().map_err(|_| bad())? {
            Event::Start(start) => {
                let name = start.local_name();
                path.push(std::str::from_utf8(name.as_ref()).map_err(|_| bad())?.to_owned());
                text.clear();
                is_leaf = true;
                seen_root = true;
            }
            Event::Text(part) => text.push_str(std::str::from_utf8(&part).map_err(|_| bad())?),
            Event::CData(part) => text.push_str(std::str::from_utf8(&part).map_err(|_| bad())?),
            Event::GeneralRef(reference) => {
                let name = std::str::from_utf8(&reference).map_err(|_| bad())?;
                match (reference.resolve_char_ref().map_err(|_| bad())?, resolve_predefined_entity(name)) {
                    (Some(c), _) => text.push(c),
                    (None, Some(known)) => text.push_str(known),
                    (None, None) => return Err(bad()),
                }
            }
            Event::End(_) => {
                if is_leaf {
                    leaves.push((path.clone(), std::mem::take(&mut text)));
                }
                is_leaf = false;
                path.pop();
            }
            Event::Eof if path.is_empty() && seen_root => return Ok(leaves),
            Event::Eof => return Err(bad()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_comes_back_as_it_was() {
        let text = "a&b<c>\"d' \t\r\n ünï &amp;";
        let mut document = String::from("<R>");
        element(&mut document, "T", text);
        document.push_str("</R>");
        let read = leaves(document.as_bytes()).unwrap();
        assert_eq!(read, vec![(vec!["R".to_owned(), "T".to_owned()], text.to_owned())]);
    }

    #[test]
    fn names_that_xml_cannot_carry_are_encoded_and_marked() {
        let mut out = String::new();
        name_element(&mut out, "Name", "a\u{1}b%\u{FFFE}/c d");
        assert_eq!(out, "<Name Encoded=\"true\">a%01b%25%EF%BF%BE/c%20d</Name>");
    }

    #[test]
    fn broken_documents_are_refused() {
        for bad in ["", "<BlockList>", "<BlockList></Wrong>", "plain", "<a>&nope;</a>"] {
            assert!(leaves(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
