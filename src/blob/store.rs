//! The contract: every operation of the service that the file system needs, and the plain data that goes in and out.

use std::{collections::BTreeMap, fmt, ops::Range, pin::Pin, sync::Arc, time::SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::Stream;

use super::{BlobName, Body, HierarchicalStore, Leases, LinkEstimate, RequestLimits, Result, Traffic};

/// A version of a blob, as the service names it (with its quotes). Two equal ETags mean equal bytes and metadata.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ETag(pub Arc<str>);

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Entries of metadata that we give a blob at most. The service bounds their bytes alone (8 KiB); each is a header, and with so
/// many the head of a request stays below the 16 KiB that servers commonly take.
pub const METADATA_ENTRIES_MAX: usize = 256;

/// User metadata. Names compare case-insensitively (they are HTTP header names) and are kept in lower case.
pub type Metadata = BTreeMap<String, String>;

/// The identity of a block inside a blob: 1 to 64 bytes, before base64. All ids of one blob have one length.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlockId(pub Bytes);

/// Which of the three kinds a blob is. Only block blobs are written by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// Blocks committed by a list, or one Put Blob.
    Block,
    /// Grows by Append Block only.
    Append,
    /// 512-byte pages.
    Page,
}

/// The content headers that a rewrite must carry over, since Put Blob and Put Block List reset them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContentHeaders {
    /// Content-Type.
    pub content_type: Option<String>,
    /// Content-Encoding.
    pub content_encoding: Option<String>,
    /// Content-Language.
    pub content_language: Option<String>,
    /// Content-Disposition.
    pub content_disposition: Option<String>,
    /// Cache-Control.
    pub cache_control: Option<String>,
    /// Index tags, as x-ms-tags says them. Only sent: what reads properties does not tell them ([`BlobStore::get_tags`]).
    pub tags: Option<Arc<str>>,
}

/// What the service says about a blob (HEAD, GET and LIST answer the same facts).
#[derive(Clone, Debug)]
pub struct BlobProperties {
    /// The version.
    pub etag: ETag,
    /// Bytes in it.
    pub length: u64,
    /// Time of the last write of data or metadata, to the second.
    pub last_modified: SystemTime,
    /// When the blob was made, to the second; a rewrite keeps it, a blob deleted and made again has a new one.
    pub created: Option<SystemTime>,
    /// Block, append or page.
    pub kind: BlobKind,
    /// User metadata (x-ms-meta-*).
    pub metadata: Metadata,
    /// Content headers to carry over.
    pub headers: ContentHeaders,
    /// Content-MD5 of the whole blob, where the service knows it.
    pub content_md5: Option<[u8; 16]>,
    /// Access tier ("Hot", "Archive", ...) where it has one of its own.
    pub access_tier: Option<String>,
    /// Whether `access_tier` was told: HEAD and LIST do, the documents promise it of no GET.
    pub tier_known: bool,
    /// Number of tags (x-ms-tag-count); a rewrite drops them unless it sends them again.
    pub tag_count: u32,
    /// Whether a lease is active.
    pub leased: bool,
    /// x-ms-copy-id of the last copy onto this blob, and its status ("success", "pending", ...).
    pub copy: Option<(String, String)>,
    /// x-ms-request-id of the answer that said all this; `None` out of a listing, and for what we have just written.
    pub request_id: Option<String>,
    /// The permission bits that the service enforces ([`super::MODE_BITS`]); hierarchical accounts only.
    pub mode: Option<u32>,
}

impl BlobProperties {
    /// Those of an empty block blob that was just written; who knows more says so.
    #[must_use]
    pub fn written(committed: &Committed, metadata: Metadata) -> Self {
        Self {
            etag: committed.etag.clone(),
            length: 0,
            last_modified: committed.last_modified,
            created: None,
            kind: BlobKind::Block,
            metadata,
            headers: ContentHeaders::default(),
            content_md5: None,
            access_tier: None,
            tier_known: true,
            tag_count: 0,
            leased: false,
            copy: None,
            request_id: None,
            mode: None,
        }
    }
}

/// A body as it arrives. Breaks are resumed by the store; an `Err` is final.
pub type BodyStream = Pin<Box<dyn Stream<Item = Result<Bytes>> + Send>>;

/// The answer of a ranged GET.
pub struct Download {
    /// The blob's properties; `length` is that of the whole blob.
    pub properties: BlobProperties,
    /// The bytes that the body delivers: the range asked for, cut at the end of the blob (empty behind it).
    pub range: Range<u64>,
    /// The bytes, in order.
    pub body: BodyStream,
}

/// What must hold for an operation to take place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No condition.
    None,
    /// If-Match: only this version.
    Match(ETag),
    /// If-None-Match: `*`: only if there is no such blob.
    Absent,
    /// If-None-Match: anything but this version (reads: [`super::ErrorKind::NotModified`] when it still is).
    NotMatch(ETag),
}

/// What Put Blob and Put Block List write beside the bytes.
#[derive(Clone, Debug)]
pub struct WriteOptions {
    /// Condition on the blob that is replaced.
    pub condition: Condition,
    /// User metadata of the new version (replaces all of the old).
    pub metadata: Metadata,
    /// Content headers of the new version.
    pub headers: ContentHeaders,
    /// Tier to keep, where the replaced blob had one of its own.
    pub access_tier: Option<String>,
}

/// What a copy inside the service writes beside what it takes along (bytes, metadata, headers).
#[derive(Clone, Debug)]
pub struct CopyOptions {
    /// Condition on the blob that is replaced.
    pub condition: Condition,
    /// Tier of the copy; without it the account's default, whatever the source has.
    pub access_tier: Option<String>,
    /// Index tags of the copy, as [`ContentHeaders::tags`]; the source's are not taken along.
    pub tags: Option<Arc<str>>,
}

impl CopyOptions {
    /// A copy of the default tier without tags.
    #[must_use]
    pub fn under(condition: Condition) -> Self {
        Self { condition, access_tier: None, tags: None }
    }
}

/// The answer of a successful write.
#[derive(Clone, Debug)]
pub struct Committed {
    /// The new version.
    pub etag: ETag,
    /// The service's time of it.
    pub last_modified: SystemTime,
}

/// The answer of a successful append.
#[derive(Clone, Debug)]
pub struct Appended {
    /// The new version.
    pub committed: Committed,
    /// Bytes in it.
    pub length: u64,
}

/// One committed block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedBlock {
    /// Its id.
    pub id: BlockId,
    /// Bytes in it.
    pub length: u64,
}

/// One block of a list to commit, and where the service finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedBlock {
    /// A block of the version that is replaced. Said apart, because an uncommitted block of the same id (a foreign
    /// writer's, where ids are reused) would otherwise take its place.
    Committed(BlockId),
    /// A block that was staged by us, under an id with our nonce. If an earlier commit whose reply was lost has
    /// committed it already, that block is meant: a repeated commit stays possible.
    Staged(BlockId),
}

impl ListedBlock {
    /// The id.
    #[must_use]
    pub fn id(&self) -> &BlockId {
        match self {
            Self::Committed(id) | Self::Staged(id) => id,
        }
    }
}

/// The committed blocks of a blob. Empty for a blob of one Put Blob, whatever its length.
#[derive(Clone, Debug)]
pub struct BlockList {
    /// The version it belongs to.
    pub etag: ETag,
    /// Length of the blob.
    pub length: u64,
    /// The blocks, in order.
    pub committed: Vec<CommittedBlock>,
}

/// One page of a listing to ask for.
#[derive(Clone, Debug, Default)]
pub struct ListRequest {
    /// Only names that begin so.
    pub prefix: String,
    /// Whether names with a `/` behind the prefix are folded into [`ListEntry::Prefix`].
    pub delimited: bool,
    /// Where the page before ended.
    pub marker: Option<String>,
    /// Entries wanted at most (the service's maximum and default is 5000).
    pub max_results: Option<u32>,
}

/// One entry of a listing. Entries come in the order of their names' UTF-8 bytes.
#[derive(Clone, Debug)]
pub enum ListEntry {
    /// A blob, with its metadata.
    Blob(BlobName, Box<BlobProperties>),
    /// A common prefix, up to and with the `/`.
    Prefix(String),
}

/// One page of a listing. A page may be empty and still have a next one.
#[derive(Clone, Debug)]
pub struct ListPage {
    /// The entries.
    pub entries: Vec<ListEntry>,
    /// Where the next page starts; `None` at the end.
    pub next_marker: Option<String>,
}

/// What kind of account it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountInfo {
    /// Whether it has a hierarchical namespace (Data Lake Gen2).
    pub hierarchical: bool,
}

/// A container of the Blob service. See the room's doc for what every method promises.
#[async_trait]
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// What only a hierarchical account can do ([`Self::account_info`] says whether this one is); `None`: not this store.
    fn hierarchy(&self) -> Option<&dyn HierarchicalStore> {
        None
    }

    /// Leases of its blobs; `None`: this store has none.
    fn leases(&self) -> Option<&dyn Leases> {
        None
    }

    /// What was asked of the service so far, where something counts that.
    fn traffic(&self) -> Option<&Arc<Traffic>> {
        None
    }

    /// Identity for cache keys and messages: `host/account/container`. Equal text, equal container.
    fn identity(&self) -> &str;

    /// URL of a blob, without a credential, for people and other tools.
    fn url(&self, name: &BlobName) -> String {
        format!("{}/{name}", self.identity())
    }

    /// How long its calls may take, for those who wait for calls of others.
    fn limits(&self) -> RequestLimits {
        RequestLimits::STANDARD
    }

    /// What is known of the link to it, where something measures that: how much to ask for at once follows from it.
    fn link(&self) -> Option<LinkEstimate> {
        None
    }

    /// The same container for requests that nobody waits for yet, which let others go first. `None`: all go alike.
    fn ahead(&self) -> Option<Arc<dyn BlobStore>> {
        None
    }

    /// Reads `range` of a blob. A range behind the end delivers nothing and is no error.
    ///
    /// # Errors
    /// `Precondition` when `condition` fails, `NotModified` for a `NotMatch` that is unchanged, `NotFound`.
    async fn get(&self, name: &BlobName, range: Range<u64>, condition: &Condition) -> Result<Download>;

    /// The properties of a blob.
    ///
    /// # Errors
    /// `NotFound`, and as [`Self::get`] for conditions.
    async fn head(&self, name: &BlobName, condition: &Condition) -> Result<BlobProperties>;

    /// One page of a listing, with metadata.
    ///
    /// # Errors
    /// `ContainerNotFound`, `Denied`.
    async fn list(&self, request: &ListRequest) -> Result<ListPage>;

    /// Replaces or creates a whole blob in one request (up to 5000 MiB).
    ///
    /// # Errors
    /// `Precondition` when somebody else's change is in the way.
    async fn put_blob(&self, name: &BlobName, body: Body, options: &WriteOptions) -> Result<Committed>;

    /// Stages a block. Takes no ETag condition: the id must carry a nonce of its writer (DESIGN 10.7).
    ///
    /// # Errors
    /// `BlockIdLength` when the id's length differs from that of the blob's other blocks.
    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Body) -> Result<()>;

    /// Stages a block from a range of a blob of the same container, inside the service.
    ///
    /// # Errors
    /// `Precondition` when the source is not `source_version`; `Unsupported` where the service cannot (Azurite), or
    /// where no authorisation for the source can be made: the caller then reads and stages the bytes itself.
    async fn put_block_from_url(
        &self,
        name: &BlobName,
        id: &BlockId,
        source: &BlobName,
        source_range: Range<u64>,
        source_version: &ETag,
    ) -> Result<()>;

    /// Commits blocks, in this order.
    ///
    /// # Errors
    /// `Precondition` when somebody else's change is in the way, `Invalid` when a block is unknown.
    async fn put_block_list(
        &self,
        name: &BlobName,
        blocks: &[ListedBlock],
        options: &WriteOptions,
    ) -> Result<Committed>;

    /// The committed blocks.
    ///
    /// # Errors
    /// `NotFound`.
    async fn get_block_list(&self, name: &BlobName) -> Result<BlockList>;

    /// Length in bytes of the ids of blocks that are staged under a name and not committed; `None` where there are none
    /// (a store in memory may have no such rule).
    ///
    /// # Errors
    /// What the service says; a name without a blob and blocks is no error.
    async fn uncommitted_id_length(&self, _name: &BlobName) -> Result<Option<usize>> {
        Ok(None)
    }

    /// The index tags of a blob, as [`ContentHeaders::tags`] takes them; `None` where there are none (or the store has none).
    ///
    /// # Errors
    /// `NotFound`; `Denied` where the credential may read the blob, but not its tags.
    async fn get_tags(&self, _name: &BlobName) -> Result<Option<Arc<str>>> {
        Ok(None)
    }

    /// Adds bytes at the end of an append blob, if the end is at `position`. Up to 100 MiB (4 MiB before 2022-11-02).
    ///
    /// # Errors
    /// `Precondition` when the end is elsewhere, `TooLarge` when the blob has its 50,000 blocks, `NotFound`.
    async fn append_block(&self, name: &BlobName, body: Body, position: u64) -> Result<Appended>;

    /// Copies a blob inside the container, with its metadata and headers, and returns when *this* copy has succeeded.
    ///
    /// # Errors
    /// `Precondition` when the source is not `source_version` or the condition does not hold.
    async fn copy(
        &self,
        source: &BlobName,
        source_version: &ETag,
        name: &BlobName,
        options: &CopyOptions,
    ) -> Result<Committed>;

    /// Deletes a blob.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`, `Blocked` (lease, snapshots, legal hold).
    async fn delete(&self, name: &BlobName, condition: &Condition) -> Result<()>;

    /// Replaces all user metadata. Changes the ETag, not the bytes.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`.
    async fn set_metadata(&self, name: &BlobName, metadata: &Metadata, condition: &Condition) -> Result<Committed>;

    /// Replaces the content headers. Changes the ETag, not the bytes.
    ///
    /// # Errors
    /// `NotFound`, `Precondition`.
    async fn set_headers(&self, name: &BlobName, headers: &ContentHeaders, condition: &Condition) -> Result<Committed>;

    /// Properties and metadata of the container; `NotFound` never, `ContainerNotFound` when it is missing.
    ///
    /// # Errors
    /// `ContainerNotFound`, `Denied`, `Unreachable`.
    async fn container_metadata(&self) -> Result<Metadata>;

    /// Creates the container.
    ///
    /// # Errors
    /// `Precondition` when it exists already.
    async fn create_container(&self, metadata: &Metadata) -> Result<()>;

    /// Deletes the container and everything in it.
    ///
    /// # Errors
    /// `ContainerNotFound`.
    async fn delete_container(&self) -> Result<()>;

    /// What kind of account it is (Get Account Information).
    ///
    /// # Errors
    /// `Denied` where the credential may not ask.
    async fn account_info(&self) -> Result<AccountInfo>;
}
