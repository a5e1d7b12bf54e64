//! Get Blob Tags: the index tags of a blob, in the form in which a rewrite sends them again (x-ms-tags).

use std::sync::Arc;

use azure_core::http::Method;
use quick_xml::{Reader, events::Event};

use super::{
    AzureStore,
    call::{Reply, ReplyBody},
};
use crate::blob::{BlobName, endpoint};

pub(super) async fn get_tags(store: &AzureStore, name: &BlobName) -> crate::blob::Result<Option<Arc<str>>> {
    let call = store.blob_call("Get Blob Tags", Method::Get, name)?.query("comp", "tags").buffered();
    let Reply { body, .. } = store.engine().ask(&call, &store.limits).await?;
    let ReplyBody::Whole(body) = body else { return Err(store.engine().damaged(&call, "no body")) };
    let tags = from_xml(&body).map_err(|reason| store.engine().damaged(&call, reason))?;
    let pair = |(name, value): &(String, String)| format!("{}={}", endpoint::escape(name), endpoint::escape(value));
    let pairs: Vec<String> = tags.iter().map(pair).collect();
    Ok((!pairs.is_empty()).then(|| pairs.join("&").into()))
}

/// Reads `Key` and `Value` of each `Tag`.
fn from_xml(xml: &[u8]) -> Result<Vec<(String, String)>, String> {
    let mut reader = Reader::from_reader(xml);
    let mut tags = Vec::new();
    let (mut name, mut value, mut text) = (None, None, String::new());
    loop {
        match reader.read_event().map_err(|error| format!("the tags are not XML: {error}"))? {
            Event::Start(_) => text.clear(),
            Event::Text(piece) => text.push_str(&piece.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(entity) => text.push(super::list::resolve(&entity)?),
            Event::End(end) => match end.local_name().as_ref() {
                b"Key" => name = Some(std::mem::take(&mut text)),
                b"Value" => value = Some(std::mem::take(&mut text)),
                b"Tag" => match (name.take(), value.take()) {
                    (Some(name), Some(value)) => tags.push((name, value)),
                    _ => return Err("a tag without key or value".to_owned()),
                },
                _ => {}
            },
            Event::Eof => return Ok(tags),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_read_with_their_entities_and_empty_values() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\"?><Tags><TagSet><Tag><Key>a b</Key><Value>1 &lt; 2</Value></Tag>\
            <Tag><Key>c</Key><Value></Value></Tag></TagSet></Tags>";
        let tags = from_xml(xml).unwrap();
        assert_eq!(tags, [("a b".to_owned(), "1 < 2".to_owned()), ("c".to_owned(), String::new())]);
        assert!(from_xml(b"<Tags><TagSet><Tag><Key>c</Key></Tag></TagSet></Tags>").is_err());
    }
}
