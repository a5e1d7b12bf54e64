//! Put Block List and Get Block List: the commit of a blob made of blocks.

use std::time::SystemTime;

use azure_core::http::Method;
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use quick_xml::{Reader, events::Event};

use super::{
    AzureStore,
    call::{Failed, Reply, ReplyBody, written_since},
    get,
    request::encode_block_id,
    response,
};
use crate::blob::{
    BlobName, BlockId, BlockList, Body, Committed, CommittedBlock, Condition, ErrorKind, ListedBlock, Result,
    WriteOptions,
};

/// A block list, with the facts that settle a lost reply.
pub(super) struct FoundList {
    pub(super) list: BlockList,
    last_modified: Option<SystemTime>,
    /// The service's clock.
    now: Option<SystemTime>,
}

pub(super) async fn put_block_list(
    store: &AzureStore,
    name: &BlobName,
    blocks: &[ListedBlock],
    options: &WriteOptions,
) -> Result<Committed> {
    let xml = Bytes::from(to_xml(blocks));
    let call = store
        .blob_call("Put Block List", Method::Put, name)?
        .query("comp", "blocklist")
        .header("content-type", "application/xml")
        .header("content-md5", super::put_blob::encode_md5(md5(&xml)))
        .content_headers(&options.headers)
        .tags(&options.headers)
        .metadata(&options.metadata)
        .access_tier(options.access_tier.as_deref())
        .condition(&options.condition)
        .body(Body::from(xml))
        .commits();
    match store.engine().run(&call, &store.limits).await {
        Ok(reply) => store.engine().promised(&call, response::committed(&reply.headers)),
        Err(failed) => settle(store, name, blocks, options, failed).await,
    }
}

/// After a reply was lost: the committed ids are ours (each carries its writer's nonce), with our metadata, and were
/// committed since. `Invalid` counts too: where somebody has committed other blocks after ours, ours are unknown now.
async fn settle(
    store: &AzureStore,
    name: &BlobName,
    blocks: &[ListedBlock],
    options: &WriteOptions,
    failed: Failed,
) -> Result<Committed> {
    if !(failed.may_be_own_echo() && matches!(failed.error.kind, ErrorKind::Precondition | ErrorKind::Invalid)) {
        return Err(failed.error);
    }
    let found = match get_block_list(store, name).await {
        Ok(found) => found,
        Err(error) if error.kind == ErrorKind::NotFound => return Err(failed.error),
        Err(error) => return Err(error), // Not known: no word about anybody's change.
    };
    let ours = found.list.committed.iter().map(|block| &block.id).eq(blocks.iter().map(ListedBlock::id));
    let fresh = found.last_modified.is_some_and(|at| written_since(failed.began, at, found.now));
    if !(ours && fresh) {
        return Err(failed.error);
    }
    match get::head(store, name, &Condition::Match(found.list.etag)).await {
        Ok(head) if head.metadata == options.metadata => {
            Ok(Committed { etag: head.etag, last_modified: head.last_modified })
        }
        Err(error) if !matches!(error.kind, ErrorKind::NotFound | ErrorKind::Precondition) => Err(error),
        _ => Err(failed.error),
    }
}

pub(super) async fn get_block_list(store: &AzureStore, name: &BlobName) -> Result<FoundList> {
    let call = store
        .blob_call("Get Block List", Method::Get, name)?
        .query("comp", "blocklist")
        .query("blocklisttype", "committed")
        .buffered();
    let Reply { headers, body, .. } = store.engine().ask(&call, &store.limits).await?;
    let ReplyBody::Whole(body) = body else { return Err(store.engine().damaged(&call, "no body")) };
    let committed = from_xml(&body).map_err(|reason| store.engine().damaged(&call, reason))?;
    let etag = store.engine().promised(&call, response::etag(&headers))?;
    let length = response::number(&headers, "x-ms-blob-content-length")
        .unwrap_or_else(|| committed.iter().map(|block| block.length).sum());
    Ok(FoundList {
        list: BlockList { etag, length, committed },
        last_modified: response::time(&headers, "last-modified"),
        now: response::time(&headers, "date"),
    })
}

pub(super) async fn uncommitted_id_length(store: &AzureStore, name: &BlobName) -> Result<Option<usize>> {
    let call = store
        .blob_call("Get Block List", Method::Get, name)?
        .query("comp", "blocklist")
        .query("blocklisttype", "uncommitted")
        .buffered();
    let body = match store.engine().ask(&call, &store.limits).await {
        Ok(Reply { body: ReplyBody::Whole(body), .. }) => body,
        Ok(_) => return Err(store.engine().damaged(&call, "no body")),
        Err(error) if error.kind == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let staged = from_xml(&body).map_err(|reason| store.engine().damaged(&call, reason))?;
    Ok(staged.first().map(|block| block.id.0.len()))
}

/// `Latest` is the uncommitted block of that id, else the committed one: right for ids that only we can have used.
fn to_xml(blocks: &[ListedBlock]) -> String {
    let mut xml = String::with_capacity(64 + blocks.len() * 64);
    xml.push_str("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
    for block in blocks {
        let element = match block {
            ListedBlock::Committed(_) => "Committed",
            ListedBlock::Staged(_) => "Latest",
        };
        // Base64 needs no escape in XML.
        xml.extend(["<", element, ">", &encode_block_id(block.id()), "</", element, ">"]);
    }
    xml.push_str("</BlockList>");
    xml
}

fn md5(bytes: &[u8]) -> [u8; 16] {
    use md5::{Digest, Md5};
    Md5::digest(bytes).into()
}

/// Reads the blocks: `Name` and `Size` of each `Block`. Neither can hold an entity.
fn from_xml(xml: &[u8]) -> Result<Vec<CommittedBlock>, String> {
    let mut reader = Reader::from_reader(xml);
    let mut blocks = Vec::new();
    let (mut id, mut length) = (None, None);
    let mut text = String::new();
    loop {
        match reader.read_event().map_err(|error| format!("the block list is not XML: {error}"))? {
            Event::Start(_) => text.clear(),
            Event::Text(piece) => text.push_str(&piece.decode().map_err(|error| error.to_string())?),
            Event::End(end) => match end.local_name().as_ref() {
                b"Name" => id = STANDARD.decode(text.trim()).ok(),
                b"Size" => length = text.trim().parse().ok(),
                b"Block" => match (id.take(), length.take()) {
                    (Some(id), Some(length)) => blocks.push(CommittedBlock { id: BlockId(Bytes::from(id)), length }),
                    _ => return Err("the block list has a block without id or size".to_owned()),
                },
                _ => {}
            },
            Event::Eof => return Ok(blocks),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &'static str) -> BlockId {
        BlockId(Bytes::from_static(text.as_bytes()))
    }

    #[test]
    fn blocks_are_listed_in_order_with_the_place_where_they_are() {
        let xml = to_xml(&[ListedBlock::Staged(id("b")), ListedBlock::Committed(id("a"))]);
        assert!(xml.ends_with("<BlockList><Latest>Yg==</Latest><Committed>YQ==</Committed></BlockList>"), "{xml}");
    }

    #[test]
    fn a_block_list_is_read_in_order_with_sizes() {
        let xml = b"\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList><CommittedBlocks>\
            <Block><Name>YQ==</Name><Size>5</Size></Block>\n<Block><Name>Yg==</Name><Size>0</Size></Block>\
            </CommittedBlocks></BlockList>";
        let blocks = from_xml(xml).unwrap();
        assert_eq!(blocks, [CommittedBlock { id: id("a"), length: 5 }, CommittedBlock { id: id("b"), length: 0 }]);
        assert!(from_xml(b"<BlockList><CommittedBlocks /></BlockList>").unwrap().is_empty());
        assert!(from_xml(b"<BlockList><Block><Name>YQ==</Name></Block></BlockList>").is_err());
    }
}
