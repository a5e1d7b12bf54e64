//! A container in memory that counts, delays, cuts and refuses reads as a test says.

use std::{collections::HashMap, fmt, ops::Range, time::SystemTime};

use crate::sync::tokio::sync::Semaphore;
use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;

use crate::{
    blob::*,
    sync::{Arc, AtomicU64, Mutex, Ordering},
};

/// Body chunks: a size that divides nothing, so that pieces never end with a chunk.
const CHUNK_BYTES: u64 = 50_021;

/// What happens to the next reads.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The request fails at once.
    Refuse(ErrorKind),
    /// The body ends after so many bytes with an error of the service.
    Break(u64),
    /// The body ends after so many bytes as if that were all.
    CutShort(u64),
}

#[derive(Debug)]
struct FakeBlob {
    etag: ETag,
    length: u64,
    seed: u64,
}

/// See the module's doc.
pub struct FakeStore {
    blobs: Mutex<HashMap<String, FakeBlob>>,
    faults: Mutex<Vec<Fault>>,
    /// Every read asked for.
    pub requests: Mutex<Vec<Range<u64>>>,
    /// Bytes delivered.
    pub delivered: Arc<AtomicU64>,
    /// A read answers when it gets a permit, and a body chunk when it gets one of the other.
    gate: Arc<Semaphore>,
    chunk_gate: Arc<Semaphore>,
    pattern: Bytes,
}

impl fmt::Debug for FakeStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FakeStore")
    }
}

impl FakeStore {
    pub fn new() -> Arc<Self> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let words = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()
        });
        Arc::new(Self {
            blobs: Mutex::default(),
            faults: Mutex::default(),
            requests: Mutex::default(),
            delivered: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            chunk_gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            pattern: words.take(32 << 10).flatten().collect(),
        })
    }

    /// Creates or replaces a blob whose bytes follow from `seed`.
    pub fn put(&self, name: &str, etag: &str, length: u64, seed: u64) {
        let blob = FakeBlob { etag: ETag(etag.into()), length, seed };
        self.blobs.lock().insert(name.to_owned(), blob);
    }

    pub fn remove(&self, name: &str) {
        self.blobs.lock().remove(name);
    }

    /// The next reads meet these, one each.
    pub fn fault(&self, fault: Fault) {
        self.faults.lock().insert(0, fault);
    }

    /// From now on reads are held back until `release`.
    pub fn hold(&self) {
        self.gate.forget_permits(self.gate.available_permits());
    }

    pub fn release(&self, reads: usize) {
        self.gate.add_permits(reads);
    }

    /// From now on chunks of bodies are held back until `release_chunks`.
    pub fn hold_chunks(&self) {
        self.chunk_gate.forget_permits(self.chunk_gate.available_permits());
    }

    pub fn release_chunks(&self, chunks: usize) {
        self.chunk_gate.add_permits(chunks);
    }

    pub fn request_count(&self) -> usize {
        self.requests.lock().len()
    }

    /// The bytes of `range` of any blob with this seed.
    pub fn bytes(&self, seed: u64, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let part = self.chunk(seed, at, range.end);
            at += part.len() as u64;
            bytes.extend_from_slice(&part);
        }
        bytes
    }

    /// Each 64 KiB of a blob are a window of the pattern that depends on seed and place.
    fn chunk(&self, seed: u64, at: u64, end: u64) -> Bytes {
        let piece = at >> 16;
        let start = ((piece.wrapping_mul(40_503).wrapping_add(seed * 977)) & 0xffff) as usize + (at & 0xffff) as usize;
        let length = (CHUNK_BYTES.min(end - at)).min(0x1_0000 - (at & 0xffff)) as usize;
        self.pattern.slice(start..start + length)
    }

    fn error(kind: ErrorKind) -> Error {
        let (resource, host) = ("box/blob".to_owned(), "fake".to_owned());
        Error { kind, operation: "Get Blob", resource, host, status: None, code: None, request_id: None, source: None }
    }

    fn body(self: &Arc<Self>, seed: u64, range: Range<u64>, fault: Option<Fault>) -> BodyStream {
        let (end, broken) = match fault {
            Some(Fault::Break(after)) => (range.end.min(range.start + after), true),
            Some(Fault::CutShort(after)) => (range.end.min(range.start + after), false),
            _ => (range.end, false),
        };
        let store = Arc::clone(self);
        let chunks = futures::stream::unfold(range.start, move |at| {
            let store = Arc::clone(&store);
            async move {
                if at >= end {
                    return None;
                }
                store.chunk_gate.acquire().await.unwrap().forget();
                let chunk = store.chunk(seed, at, end);
                store.delivered.fetch_add(chunk.len() as u64, Ordering::Relaxed);
                let next = at + chunk.len() as u64;
                Some((Ok(chunk), next))
            }
        });
        let last = futures::stream::iter(broken.then(|| Self::error(ErrorKind::Server)).map(Err));
        Box::pin(chunks.chain(last))
    }
}

/// The store as the cache sees it: methods need the `Arc` for bodies.
#[derive(Debug)]
pub struct Container(pub Arc<FakeStore>);

#[async_trait]
impl BlobStore for Container {
    fn identity(&self) -> &str {
        "fake/account/box"
    }

    async fn get(&self, name: &BlobName, range: Range<u64>, condition: &Condition) -> Result<Download> {
        let store = &self.0;
        store.requests.lock().push(range.clone());
        store.gate.acquire().await.unwrap().forget();
        let fault = store.faults.lock().pop();
        if let Some(Fault::Refuse(kind)) = fault {
            return Err(FakeStore::error(kind));
        }
        let blobs = store.blobs.lock();
        let blob = blobs.get(name.as_str()).ok_or_else(|| FakeStore::error(ErrorKind::NotFound))?;
        if *condition != Condition::Match(blob.etag.clone()) {
            return Err(FakeStore::error(ErrorKind::Precondition));
        }
        let range = range.start.min(blob.length)..range.end.min(blob.length);
        let body = store.body(blob.seed, range.clone(), fault);
        let version = Committed { etag: blob.etag.clone(), last_modified: SystemTime::UNIX_EPOCH };
        let properties = BlobProperties { length: blob.length, ..BlobProperties::written(&version, Metadata::new()) };
        Ok(Download { properties, range, body })
    }

    async fn head(&self, _: &BlobName, _: &Condition) -> Result<BlobProperties> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn list(&self, _: &ListRequest) -> Result<ListPage> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn put_blob(&self, _: &BlobName, _: Body, _: &WriteOptions) -> Result<Committed> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn put_block(&self, _: &BlobName, _: &BlockId, _: Body) -> Result<()> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn put_block_from_url(&self, _: &BlobName, _: &BlockId, _: &BlobName, _: Range<u64>, _: &ETag) -> Result<()> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn put_block_list(&self, _: &BlobName, _: &[ListedBlock], _: &WriteOptions) -> Result<Committed> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn append_block(&self, _: &BlobName, _: Body, _: u64) -> Result<crate::blob::Appended> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn get_block_list(&self, _: &BlobName) -> Result<BlockList> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn copy(&self, _: &BlobName, _: &ETag, _: &BlobName, _: &CopyOptions) -> Result<Committed> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn delete(&self, _: &BlobName, _: &Condition) -> Result<()> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn set_metadata(&self, _: &BlobName, _: &Metadata, _: &Condition) -> Result<Committed> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn set_headers(&self, _: &BlobName, _: &ContentHeaders, _: &Condition) -> Result<Committed> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn container_metadata(&self) -> Result<Metadata> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn create_container(&self, _: &Metadata) -> Result<()> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn delete_container(&self) -> Result<()> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }

    async fn account_info(&self) -> Result<AccountInfo> {
        Err(FakeStore::error(ErrorKind::Unsupported))
    }
}
