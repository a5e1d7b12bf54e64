//! A small XML answer as its texts, each with the names of the elements around it. For answers of a page at most that no hot
//! path reads.

use quick_xml::{Reader, events::Event};

use super::resolve;

/// The elements around a text, outermost first, and the text.
pub(in crate::blob::azure) type Text = (Vec<String>, String);

/// All elements that hold text alone, in order. The error says what is wrong with the answer.
pub(in crate::blob::azure) fn texts(xml: &[u8]) -> Result<Vec<Text>, String> {
    let mut reader = Reader::from_reader(xml);
    let (mut open, mut text, mut found) = (Vec::<String>::new(), String::new(), Vec::new());
    let mut is_leaf = false;
    let mut complete = false;
    loop {
        match reader.read_event().map_err(|error| format!("the answer is not XML: {error}"))? {
            Event::Start(start) => {
                open.push(String::from_utf8_lossy(start.local_name().as_ref()).into_owned());
                text.clear();
                is_leaf = true;
            }
            Event::Empty(start) => {
                let name = String::from_utf8_lossy(start.local_name().as_ref()).into_owned();
                found.push((open.iter().cloned().chain([name]).collect(), String::new()));
                is_leaf = false;
            }
            Event::End(_) => {
                if is_leaf {
                    found.push((open.clone(), std::mem::take(&mut text)));
                }
                is_leaf = false;
                open.pop();
                complete = open.is_empty();
            }
            Event::Text(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::CData(part) => text.push_str(&part.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(entity) => text.push(resolve(&entity)?),
            Event::Eof if complete => return Ok(found),
            Event::Eof => return Err("the answer ends in the middle".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}
