//! A container in memory: enough of the service to drive a mount without a network. Its rules are those that the file
//! system relies on (conditions, blocks, listing order); everything else is the emulator's business.

use std::{collections::BTreeMap, ops::Range, time::SystemTime};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::StreamExt;

use crate::{blob::*, sync::Mutex};

/// Body chunks, so that readers see a body arrive in parts.
const CHUNK_BYTES: usize = 100_003;

#[derive(Clone, Debug)]
struct Stored {
    bytes: Bytes,
    blocks: Vec<(BlockId, Bytes)>,
    properties: BlobProperties,
}

/// See the module's doc.
#[derive(Debug, Default)]
pub struct MemoryStore {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    blobs: BTreeMap<String, Stored>,
    staged: BTreeMap<String, BTreeMap<BlockId, Bytes>>,
    versions: u64,
    /// Requests by name of the operation.
    requests: BTreeMap<&'static str, u64>,
}

impl State {
    fn count(&mut self, operation: &'static str) {
        *self.requests.entry(operation).or_default() += 1;
    }

    fn find(&self, name: &str, condition: &Condition) -> Result<&Stored, ErrorKind> {
        self.check(name, condition)?;
        self.blobs.get(name).ok_or(ErrorKind::NotFound)
    }

    fn check(&self, name: &str, condition: &Condition) -> Result<(), ErrorKind> {
        let etag = self.blobs.get(name).map(|blob| &blob.properties.etag);
        match (condition, etag) {
            (Condition::Match(wanted), Some(etag)) if wanted != etag => Err(ErrorKind::Precondition),
            (Condition::Match(_), None) => Err(ErrorKind::NotFound),
            (Condition::Absent, Some(_)) => Err(ErrorKind::Precondition),
            (Condition::NotMatch(other), Some(etag)) if other == etag => Err(ErrorKind::NotModified),
            _ => Ok(()),
        }
    }

    fn stamp(&mut self) -> Committed {
        self.versions += 1;
        Committed { etag: ETag(format!("\"{}\"", self.versions).into()), last_modified: SystemTime::now() }
    }

    fn write(&mut self, name: &str, blocks: Vec<(BlockId, Bytes)>, bytes: Bytes, options: &WriteOptions) -> Committed {
        let committed = self.stamp();
        let properties = BlobProperties {
            length: bytes.len() as u64,
            headers: options.headers.clone(),
            access_tier: options.access_tier.clone(),
            ..BlobProperties::written(&committed, options.metadata.clone())
        };
        self.blobs.insert(name.to_owned(), Stored { bytes, blocks, properties });
        self.staged.remove(name);
        committed
    }
}

fn error(kind: ErrorKind) -> Error {
    let (resource, host) = ("box".to_owned(), "memory".to_owned());
    Error { kind, operation: "Memory", resource, host, status: None, code: None, request_id: None, source: None }
}

fn flatten(body: &Body) -> Bytes {
    let mut bytes = BytesMut::new();
    body.pieces().iter().for_each(|piece| bytes.extend_from_slice(piece));
    bytes.freeze()
}

impl MemoryStore {
    /// What another client sees.
    pub fn bytes(&self, name: &str) -> Option<Bytes> {
        self.state.lock().blobs.get(name).map(|blob| blob.bytes.clone())
    }

    /// What another client writes.
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        let (condition, metadata, headers) = (Condition::None, Metadata::new(), ContentHeaders::default());
        let options = WriteOptions { condition, metadata, headers, access_tier: None };
        self.state.lock().write(name, Vec::new(), bytes.into(), &options);
    }

    /// What another client deletes.
    pub fn remove(&self, name: &str) {
        self.state.lock().blobs.remove(name);
    }

    pub fn requests(&self, operation: &'static str) -> u64 {
        self.state.lock().requests.get(operation).copied().unwrap_or(0)
    }
}

#[async_trait]
impl BlobStore for MemoryStore {
    fn identity(&self) -> &str {
        "memory/account/box"
    }

    async fn get(&self, name: &BlobName, range: Range<u64>, condition: &Condition) -> Result<Download> {
        tokio::task::yield_now().await;
        let mut state = self.state.lock();
        state.count("get");
        let blob = state.find(name.as_str(), condition).map_err(error)?;
        let length = blob.bytes.len() as u64;
        let range = range.start.min(length)..range.end.min(length);
        let bytes = blob.bytes.slice(range.start as usize..range.end as usize);
        let chunks: Vec<Bytes> = (0..bytes.len())
            .step_by(CHUNK_BYTES)
            .map(|at| bytes.slice(at..bytes.len().min(at + CHUNK_BYTES)))
            .collect();
        let body: BodyStream = Box::pin(futures::stream::iter(chunks).map(Ok));
        Ok(Download { properties: blob.properties.clone(), range, body })
    }

    async fn head(&self, name: &BlobName, condition: &Condition) -> Result<BlobProperties> {
        let mut state = self.state.lock();
        state.count("head");
        state.find(name.as_str(), condition).map(|blob| blob.properties.clone()).map_err(error)
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let mut state = self.state.lock();
        state.count("list");
        let limit = request.max_results.unwrap_or(5000).min(5000) as usize;
        let from = request.marker.clone().unwrap_or_else(|| request.prefix.clone());
        let mut page = ListPage { entries: Vec::new(), next_marker: None };
        let mut folded = String::new();
        for (name, blob) in state.blobs.range(from..) {
            let Some(rest) = name.strip_prefix(&request.prefix) else { break };
            if !folded.is_empty() && name.starts_with(&folded) {
                continue;
            }
            if page.entries.len() == limit {
                page.next_marker = Some(name.clone());
                break;
            }
            match rest.find('/').filter(|_| request.delimited) {
                Some(at) => {
                    folded = name[..=request.prefix.len() + at].to_owned();
                    page.entries.push(ListEntry::Prefix(folded.clone()));
                }
                None => {
                    let name = BlobName::new(name.as_str()).map_err(|_| error(ErrorKind::Invalid))?;
                    page.entries.push(ListEntry::Blob(name, Box::new(blob.properties.clone())));
                }
            }
        }
        Ok(page)
    }

    async fn put_blob(&self, name: &BlobName, body: Body, options: &WriteOptions) -> Result<Committed> {
        let mut state = self.state.lock();
        state.count("put_blob");
        state.check(name.as_str(), &options.condition).map_err(error)?;
        Ok(state.write(name.as_str(), Vec::new(), flatten(&body), options))
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Body) -> Result<()> {
        let mut state = self.state.lock();
        state.count("put_block");
        state.staged.entry(name.as_str().to_owned()).or_default().insert(id.clone(), flatten(&body));
        Ok(())
    }

    async fn put_block_from_url(&self, _: &BlobName, _: &BlockId, _: &BlobName, _: Range<u64>, _: &ETag) -> Result<()> {
        Err(error(ErrorKind::Unsupported))
    }

    async fn put_block_list(
        &self,
        name: &BlobName,
        blocks: &[ListedBlock],
        options: &WriteOptions,
    ) -> Result<Committed> {
        let mut state = self.state.lock();
        state.count("put_block_list");
        state.check(name.as_str(), &options.condition).map_err(error)?;
        let staged = state.staged.get(name.as_str());
        let old = state.blobs.get(name.as_str());
        let find = |id: &BlockId| {
            let committed = || old?.blocks.iter().find(|(other, _)| other == id).map(|(_, bytes)| bytes.clone());
            staged.and_then(|staged| staged.get(id).cloned()).or_else(committed)
        };
        let found: Option<Vec<_>> = blocks.iter().map(|block| Some((block.id().clone(), find(block.id())?))).collect();
        let found = found.ok_or_else(|| error(ErrorKind::Invalid))?;
        let mut bytes = BytesMut::new();
        found.iter().for_each(|(_, block)| bytes.extend_from_slice(block));
        Ok(state.write(name.as_str(), found, bytes.freeze(), options))
    }

    async fn append_block(&self, _: &BlobName, _: Body, _: u64) -> Result<crate::blob::Appended> {
        Err(error(ErrorKind::Unsupported))
    }

    async fn get_block_list(&self, name: &BlobName) -> Result<BlockList> {
        let state = self.state.lock();
        let blob = state.find(name.as_str(), &Condition::None).map_err(error)?;
        let block = |(id, bytes): &(BlockId, Bytes)| CommittedBlock { id: id.clone(), length: bytes.len() as u64 };
        let (etag, length) = (blob.properties.etag.clone(), blob.properties.length);
        Ok(BlockList { etag, length, committed: blob.blocks.iter().map(block).collect() })
    }

    async fn copy(
        &self,
        source: &BlobName,
        source_version: &ETag,
        name: &BlobName,
        options: &CopyOptions,
    ) -> Result<Committed> {
        let mut state = self.state.lock();
        state.count("copy");
        state.check(name.as_str(), &options.condition).map_err(error)?;
        let mut copy = state.find(source.as_str(), &Condition::Match(source_version.clone())).map_err(error)?.clone();
        let committed = state.stamp();
        copy.properties.etag = committed.etag.clone();
        copy.properties.last_modified = committed.last_modified;
        state.blobs.insert(name.as_str().to_owned(), copy);
        Ok(committed)
    }

    async fn delete(&self, name: &BlobName, condition: &Condition) -> Result<()> {
        let mut state = self.state.lock();
        state.count("delete");
        state.find(name.as_str(), condition).map_err(error)?;
        state.blobs.remove(name.as_str());
        Ok(())
    }

    async fn set_metadata(&self, name: &BlobName, metadata: &Metadata, condition: &Condition) -> Result<Committed> {
        let mut state = self.state.lock();
        state.count("set_metadata");
        state.find(name.as_str(), condition).map_err(error)?;
        let committed = state.stamp();
        if let Some(blob) = state.blobs.get_mut(name.as_str()) {
            blob.properties.metadata = metadata.clone();
            blob.properties.etag = committed.etag.clone();
            blob.properties.last_modified = committed.last_modified;
        }
        Ok(committed)
    }

    async fn set_headers(&self, _: &BlobName, _: &ContentHeaders, _: &Condition) -> Result<Committed> {
        Err(error(ErrorKind::Unsupported))
    }

    async fn container_metadata(&self) -> Result<Metadata> {
        Ok(Metadata::new())
    }

    async fn create_container(&self, _: &Metadata) -> Result<()> {
        Ok(())
    }

    async fn delete_container(&self) -> Result<()> {
        Ok(())
    }

    async fn account_info(&self) -> Result<AccountInfo> {
        Ok(AccountInfo { hierarchical: false })
    }
}
