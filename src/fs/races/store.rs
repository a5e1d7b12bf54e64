//! A container in memory, as one service would serve it: each operation happens at one instant between its request and
//! its reply, and others may happen before and after.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Range,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use bytes::Bytes;
use shuttle::future::yield_now;

use crate::{
    blob::*,
    sync::{Arc, Mutex},
};

/// A blob.
#[derive(Clone, Default)]
struct Stored {
    version: u64,
    bytes: Vec<u8>,
    blocks: Vec<CommittedBlock>,
    staged: BTreeMap<BlockId, Vec<u8>>,
    metadata: Metadata,
}

impl Stored {
    fn etag(&self) -> ETag {
        ETag(Arc::from(format!("\"{}\"", self.version)))
    }

    fn exists(&self) -> bool {
        self.version > 0
    }

    fn properties(&self) -> BlobProperties {
        BlobProperties {
            length: self.bytes.len() as u64,
            ..BlobProperties::written(&self.committed(), self.metadata.clone())
        }
    }

    fn committed(&self) -> Committed {
        Committed { etag: self.etag(), last_modified: SystemTime::UNIX_EPOCH + Duration::from_secs(self.version) }
    }
}

#[derive(Default)]
struct State {
    blobs: BTreeMap<String, Stored>,
    versions: u64,
}

/// See the module's doc.
#[derive(Default)]
pub struct Container {
    state: Mutex<State>,
}

impl fmt::Debug for Container {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Container")
    }
}

impl Container {
    /// A stranger's Put Blob.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state.lock();
        state.versions += 1;
        let stored = Stored { version: state.versions, bytes: bytes.to_vec(), ..Stored::default() };
        state.blobs.insert(name.to_owned(), stored);
    }

    pub fn names(&self) -> Vec<String> {
        let state = self.state.lock();
        state.blobs.iter().filter(|(_, blob)| blob.exists()).map(|(name, _)| name.clone()).collect()
    }

    pub fn bytes(&self, name: &str) -> Vec<u8> {
        self.state.lock().blobs[name].bytes.clone()
    }

    /// One operation, with time before and after it for others.
    async fn at_once<R>(&self, operate: impl FnOnce(&mut State) -> Result<R> + Send) -> Result<R>
    where
        R: Send,
    {
        yield_now().await;
        let done = operate(&mut self.state.lock());
        yield_now().await;
        done
    }

    async fn written(
        &self,
        name: &BlobName,
        condition: &Condition,
        change: impl FnOnce(&mut Stored) -> Result<()> + Send,
    ) -> Result<Committed> {
        self.at_once(|state| {
            let version = state.versions + 1;
            let stored = state.blobs.entry(name.as_str().to_owned()).or_default();
            check(stored, condition)?;
            change(stored)?;
            stored.version = version;
            state.versions = version;
            Ok(stored.committed())
        })
        .await
    }
}

fn refused<R>(kind: ErrorKind) -> Result<R> {
    Err(Error {
        kind,
        operation: "Operation",
        resource: "blob".to_owned(),
        host: "memory".to_owned(),
        status: None,
        code: None,
        request_id: None,
        source: None,
    })
}

fn check(stored: &Stored, condition: &Condition) -> Result<()> {
    match condition {
        Condition::Match(etag) if !stored.exists() || stored.etag() != *etag => refused(ErrorKind::Precondition),
        Condition::Absent if stored.exists() => refused(ErrorKind::Precondition),
        Condition::NotMatch(etag) if stored.exists() && stored.etag() == *etag => refused(ErrorKind::NotModified),
        _ => Ok(()),
    }
}

fn found<'state>(state: &'state State, name: &BlobName) -> Result<&'state Stored> {
    match state.blobs.get(name.as_str()).filter(|stored| stored.exists()) {
        Some(stored) => Ok(stored),
        None => refused(ErrorKind::NotFound),
    }
}

fn bytes_of(body: &Body) -> Vec<u8> {
    body.pieces().concat()
}

#[async_trait]
impl BlobStore for Container {
    fn identity(&self) -> &str {
        "memory/account/container"
    }

    async fn get(&self, name: &BlobName, range: Range<u64>, condition: &Condition) -> Result<Download> {
        let found = |state: &mut State| {
            let stored = found(state, name)?;
            check(stored, condition)?;
            Ok(stored.clone())
        };
        let stored = self.at_once(found).await?;
        let length = stored.bytes.len() as u64;
        let range = range.start.min(length)..range.end.min(length);
        let bytes = Bytes::copy_from_slice(&stored.bytes[range.start as usize..range.end as usize]);
        let body = Box::pin(futures::stream::once(async move { Ok(bytes) }));
        Ok(Download { properties: stored.properties(), range, body })
    }

    async fn head(&self, name: &BlobName, condition: &Condition) -> Result<BlobProperties> {
        let found = |state: &mut State| {
            let stored = found(state, name)?;
            check(stored, condition)?;
            Ok(stored.properties())
        };
        self.at_once(found).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        let listed = |state: &mut State| {
            let entry = |(name, stored): (&String, &Stored)| {
                let name = BlobName::new(name.as_str()).ok()?;
                Some(ListEntry::Blob(name, Box::new(stored.properties())))
            };
            let all = state.blobs.iter().filter(|(name, blob)| blob.exists() && name.starts_with(&request.prefix));
            Ok(ListPage { entries: all.filter_map(entry).collect(), next_marker: None })
        };
        self.at_once(listed).await
    }

    async fn put_blob(&self, name: &BlobName, body: Body, options: &WriteOptions) -> Result<Committed> {
        let replace = |stored: &mut Stored| {
            *stored = Stored { bytes: bytes_of(&body), metadata: options.metadata.clone(), ..Stored::default() };
            Ok(())
        };
        self.written(name, &options.condition, replace).await
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Body) -> Result<()> {
        let stage = |state: &mut State| {
            let stored = state.blobs.entry(name.as_str().to_owned()).or_default();
            stored.staged.insert(id.clone(), bytes_of(&body));
            Ok(())
        };
        self.at_once(stage).await
    }

    async fn put_block_from_url(
        &self,
        name: &BlobName,
        id: &BlockId,
        source: &BlobName,
        range: Range<u64>,
        version: &ETag,
    ) -> Result<()> {
        let stage = |state: &mut State| {
            let from = found(state, source)?;
            check(from, &Condition::Match(version.clone()))?;
            let bytes = from.bytes[range.start as usize..range.end as usize].to_vec();
            let stored = state.blobs.entry(name.as_str().to_owned()).or_default();
            stored.staged.insert(id.clone(), bytes);
            Ok(())
        };
        self.at_once(stage).await
    }

    async fn put_block_list(
        &self,
        name: &BlobName,
        blocks: &[ListedBlock],
        options: &WriteOptions,
    ) -> Result<Committed> {
        let commit = |stored: &mut Stored| {
            let (mut bytes, mut list) = (Vec::new(), Vec::new());
            for block in blocks {
                let committed = || {
                    let mut start = 0;
                    for there in &stored.blocks {
                        let end = start + there.length as usize;
                        if there.id == *block.id() {
                            return Some(stored.bytes[start..end].to_vec());
                        }
                        start = end;
                    }
                    None
                };
                let part = stored.staged.get(block.id()).cloned().or_else(committed);
                let Some(part) = part else { return refused(ErrorKind::Invalid) };
                list.push(CommittedBlock { id: block.id().clone(), length: part.len() as u64 });
                bytes.extend(part);
            }
            let metadata = options.metadata.clone();
            *stored = Stored { bytes, blocks: list, metadata, ..Stored::default() };
            Ok(())
        };
        self.written(name, &options.condition, commit).await
    }

    async fn append_block(&self, _: &BlobName, _: Body, _: u64) -> Result<Appended> {
        refused(ErrorKind::Unsupported)
    }

    async fn get_block_list(&self, name: &BlobName) -> Result<BlockList> {
        let list = |state: &mut State| {
            let stored = found(state, name)?;
            let length = stored.bytes.len() as u64;
            Ok(BlockList { etag: stored.etag(), length, committed: stored.blocks.clone() })
        };
        self.at_once(list).await
    }

    async fn copy(
        &self,
        source: &BlobName,
        version: &ETag,
        name: &BlobName,
        options: &CopyOptions,
    ) -> Result<Committed> {
        let read = |state: &mut State| {
            let from = found(state, source)?;
            check(from, &Condition::Match(version.clone()))?;
            Ok(from.clone())
        };
        let from = self.at_once(read).await?;
        let replace = |stored: &mut Stored| {
            *stored = Stored { staged: BTreeMap::new(), ..from };
            Ok(())
        };
        self.written(name, &options.condition, replace).await
    }

    async fn delete(&self, name: &BlobName, condition: &Condition) -> Result<()> {
        let delete = |state: &mut State| {
            check(found(state, name)?, condition)?;
            state.blobs.remove(name.as_str());
            Ok(())
        };
        self.at_once(delete).await
    }

    async fn set_metadata(&self, name: &BlobName, metadata: &Metadata, condition: &Condition) -> Result<Committed> {
        let set = |stored: &mut Stored| {
            if !stored.exists() {
                return refused(ErrorKind::NotFound);
            }
            stored.metadata.clone_from(metadata);
            Ok(())
        };
        self.written(name, condition, set).await
    }

    async fn set_headers(&self, _: &BlobName, _: &ContentHeaders, _: &Condition) -> Result<Committed> {
        refused(ErrorKind::Unsupported)
    }

    async fn container_metadata(&self) -> Result<Metadata> {
        Ok(Metadata::new())
    }

    async fn create_container(&self, _: &Metadata) -> Result<()> {
        refused(ErrorKind::Unsupported)
    }

    async fn delete_container(&self) -> Result<()> {
        refused(ErrorKind::Unsupported)
    }

    async fn account_info(&self) -> Result<AccountInfo> {
        Ok(AccountInfo { hierarchical: false })
    }
}
