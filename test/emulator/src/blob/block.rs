//! Block blobs: Put Blob, Put Block, Put Block From URL, Put Block List, Get Block List.
//! Must not know append or page blobs, nor how the bytes of a source URL were found.
//!
//! 1. All block ids of one blob have one length; the id that breaks the rule is refused, not the list.
//! 2. Put Block and Get Block List take no ETag condition: two writers that stage the same id publish each other's bytes.
//! 3. A name with uncommitted blocks only is no blob yet. Put Blob and Put Block List drop what is uncommitted.
//! 4. Put Block List resets metadata and headers that it does not send.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::StatusCode;

use crate::{
    answer::Answer,
    blob::{Blob, Block, Kind, NewBlob, check_lease_and_copy, check_write, checksum_headers, replace, version_headers},
    call::{Call, Payload},
    conditions::Intent,
    data::Data,
    error::{Code, ServiceError},
    hierarchy,
    lease::Target,
    state::State,
    xml,
};

/// Committed blocks of one blob (REST page "Put Block List").
const COMMITTED_BLOCKS_MAX: usize = 50_000;
/// Uncommitted blocks of one blob (REST page "Put Block").
const UNCOMMITTED_BLOCKS_MAX: usize = 100_000;
/// Longest block id, decoded (REST page "Put Block").
const BLOCK_ID_BYTES_MAX: usize = 64;
/// Largest block (REST page "Put Block", version 2019-12-12 and later).
const BLOCK_BYTES_MAX: u64 = 4000 << 20;

/// Put Blob of any kind.
///
/// # Errors
/// The service's refusals.
pub(crate) fn put_blob(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let kind = call.required_header("x-ms-blob-type")?;
    match kind {
        "BlockBlob" => {}
        "AppendBlob" => return super::append::create(state, call, payload),
        "PageBlob" => return super::page::create(state, call, payload),
        other => return Err(ServiceError::bad_header("x-ms-blob-type", other)),
    }
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Create)?;
    let mut new = NewBlob::of(call, Kind::Block(Vec::new()), payload.data.clone(), true)?;
    if new.headers.md5.is_some() && new.headers.md5 != payload.md5 {
        return Err(Code::Md5Mismatch.into());
    }
    new.headers.md5 = payload.md5;
    Ok(checksum_headers(replace(container, stamps, call, new), payload))
}

/// Put Block, and the end of Put Block From URL: `payload` holds the bytes.
///
/// # Errors
/// `InvalidQueryParameterValue` for an id that is none, `InvalidBlobOrBlock` for one of another length,
/// `BlockCountExceedsLimit`, `InvalidBlobType`, lease refusals.
pub(crate) fn put_block(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let text = call.query.required("blockid")?;
    let id = STANDARD.decode(text).ok().filter(|id| (1..=BLOCK_ID_BYTES_MAX).contains(&id.len()));
    let id = id.ok_or_else(|| ServiceError::bad_query("blockid", text))?;
    if payload.data.len() > BLOCK_BYTES_MAX {
        return Err(Code::RequestBodyTooLarge.into());
    }
    if payload.data.len() == 0 {
        return Err(ServiceError::bad_header("Content-Length", "0"));
    }
    let (container, _) = state.container(call)?;
    let name = call.blob_name();
    hierarchy::check_put(container, call)?;
    let existing = container.blobs.get(name);
    check_lease_and_copy(existing, call)?;
    check_blocks(existing)?;
    let committed = match existing.map(|blob| &blob.kind) {
        None => None,
        Some(Kind::Block(blocks)) => blocks.first().map(|block| block.id.len()),
        Some(_) => return Err(Code::InvalidBlobType.into()),
    };
    let staged = container.staged.entry(name.to_owned()).or_default();
    let length = staged.keys().next().map(Vec::len).or(committed);
    let refusal = if length.is_some_and(|length| length != id.len()) {
        Some(Code::InvalidBlobOrBlock)
    } else if staged.len() >= UNCOMMITTED_BLOCKS_MAX && !staged.contains_key(&id) {
        Some(Code::BlockCountExceedsLimit)
    } else {
        None
    };
    if let Some(code) = refusal {
        if staged.is_empty() {
            container.staged.remove(name);
        }
        return Err(code.into());
    }
    staged.insert(id, payload.data.clone());
    let answer = Answer::new(StatusCode::CREATED).header("x-ms-request-server-encrypted", "true");
    Ok(checksum_headers(answer, payload))
}

/// What the Data Lake endpoint has made takes no blocks (page "Known issues with Azure Data Lake Storage", which names
/// no code).
fn check_blocks(existing: Option<&Blob>) -> Result<(), ServiceError> {
    let data_lake = existing.and_then(|blob| blob.node.as_ref()).is_some_and(|node| node.data_lake);
    if data_lake { Err(Code::InvalidBlobType.into()) } else { Ok(()) }
}

/// Where a listed block is looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Search {
    Committed,
    Uncommitted,
    Latest,
}

fn read_list(document: &[u8]) -> Result<Vec<(Search, Vec<u8>)>, ServiceError> {
    let mut list = Vec::new();
    for (path, text) in xml::leaves(document)? {
        let search = match path.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["BlockList"] => continue,
            ["BlockList", "Committed"] => Search::Committed,
            ["BlockList", "Uncommitted"] => Search::Uncommitted,
            ["BlockList", "Latest"] => Search::Latest,
            _ => return Err(Code::InvalidXmlDocument.into()),
        };
        let id = STANDARD.decode(text.trim()).map_err(|_| ServiceError::from(Code::InvalidBlockList))?;
        list.push((search, id));
    }
    if list.len() > COMMITTED_BLOCKS_MAX {
        return Err(Code::BlockListTooLong.into());
    }
    Ok(list)
}

/// Put Block List.
///
/// # Errors
/// `InvalidBlockList` for a block that is not there, and those of every write.
pub(crate) fn put_block_list(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let list = read_list(&payload.data.to_vec())?;
    let (container, stamps) = state.container(call)?;
    let name = call.blob_name();
    check_write(container, call, Intent::Create)?;
    check_blocks(container.blobs.get(name))?;
    let old = match container.blobs.get(name).map(|blob| &blob.kind) {
        None => &[][..],
        Some(Kind::Block(blocks)) => blocks,
        Some(_) => return Err(Code::InvalidBlobType.into()),
    };
    let committed: BTreeMap<&[u8], &Data> = old.iter().map(|block| (block.id.as_slice(), &block.data)).collect();
    let staged = container.staged.get(name);
    let mut blocks = Vec::with_capacity(list.len());
    for (search, id) in list {
        let new = staged.filter(|_| search != Search::Committed).and_then(|staged| staged.get(&id));
        let kept = || committed.get(id.as_slice()).copied().filter(|_| search != Search::Uncommitted);
        let data = new.or_else(kept).ok_or_else(|| ServiceError::from(Code::InvalidBlockList))?.clone();
        blocks.push(Block { id, data });
    }
    let data = Data::concat(blocks.iter().map(|block| &block.data));
    let new = NewBlob::of(call, Kind::Block(blocks), data, false)?;
    Ok(checksum_headers(replace(container, stamps, call, new), payload))
}

/// Get Block List.
///
/// # Errors
/// `BlobNotFound` for a name with neither a blob nor uncommitted blocks, `InvalidBlobType`.
pub(crate) fn get_block_list(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let which = call.query.get("blocklisttype").unwrap_or("committed").to_ascii_lowercase();
    let (with_committed, with_uncommitted) = match which.as_str() {
        "committed" => (true, false),
        "uncommitted" => (false, true),
        "all" => (true, true),
        other => return Err(ServiceError::bad_query("blocklisttype", other)),
    };
    let (container, _) = state.container(call)?;
    let blob = container.blobs.get(call.blob_name());
    let staged = container.staged.get(call.blob_name());
    if blob.is_none() && staged.is_none() {
        return Err(Code::BlobNotFound.into());
    }
    let committed: &[Block] = match blob.map(|blob| &blob.kind) {
        None => &[],
        Some(Kind::Block(blocks)) => blocks,
        Some(_) => return Err(Code::InvalidBlobType.into()),
    };
    let mut document = format!("{}<BlockList>", xml::DECLARATION);
    if with_committed {
        let blocks = committed.iter().map(|block| (block.id.as_slice(), &block.data));
        write_blocks(&mut document, "CommittedBlocks", blocks);
    }
    if with_uncommitted {
        let blocks = staged.into_iter().flatten().map(|(id, data)| (id.as_slice(), data));
        write_blocks(&mut document, "UncommittedBlocks", blocks);
    }
    document.push_str("</BlockList>");
    let mut answer = Answer::xml(document);
    if let Some(blob) = blob {
        blob.lease.check(call, false, Target::Blob)?;
        answer = version_headers(answer, blob).header("x-ms-blob-content-length", blob.data.len().to_string());
    } else {
        answer = answer.header("x-ms-blob-content-length", "0");
    }
    Ok(answer)
}

fn write_blocks<'a>(document: &mut String, element: &str, blocks: impl Iterator<Item = (&'a [u8], &'a Data)>) {
    document.push_str(&format!("<{element}>"));
    for (id, data) in blocks {
        let id = STANDARD.encode(id);
        document.push_str(&format!("<Block><Name>{id}</Name><Size>{}</Size></Block>", data.len()));
    }
    document.push_str(&format!("</{element}>"));
}
