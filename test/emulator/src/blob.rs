//! A blob as it is held, and the rules that every write shares. The operations are in the files beside: `block`,
//! `append`, `page` (the three kinds), `read`, `properties`. Must not know connections or credentials' secrets.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::StatusCode;
use time::OffsetDateTime;

use crate::{
    answer::Answer,
    call::{Call, Metadata, Payload},
    conditions::{Conditions, Intent},
    copy::CopyState,
    data::Data,
    date,
    error::{Code, ServiceError},
    hierarchy::{self, Node},
    lease::{Lease, Target},
    state::{Container, Stamps},
};

pub(crate) mod append;
pub(crate) mod block;
pub(crate) mod page;
pub(crate) mod properties;
pub(crate) mod read;

/// Access tiers that a blob may be given.
const TIERS: [&str; 4] = ["Hot", "Cool", "Cold", "Archive"];

/// A committed block: its id (decoded) and bytes.
#[derive(Clone)]
pub(crate) struct Block {
    pub(crate) id: Vec<u8>,
    pub(crate) data: Data,
}

/// Uncommitted blocks of one name, by id (decoded).
pub(crate) type Staging = BTreeMap<Vec<u8>, Data>;

/// What differs between the kinds.
#[derive(Clone)]
pub(crate) enum Kind {
    /// The committed list; empty after Put Blob.
    Block(Vec<Block>),
    /// Number of appended blocks.
    Append(u64),
    /// Sequence number and the written ranges, in order, apart from each other.
    Page(u64, Vec<std::ops::Range<u64>>),
}

impl Kind {
    /// x-ms-blob-type.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Block(_) => "BlockBlob",
            Self::Append(_) => "AppendBlob",
            Self::Page(..) => "PageBlob",
        }
    }
}

/// Content headers that a blob keeps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ContentHeaders {
    pub(crate) content_type: Option<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) language: Option<String>,
    pub(crate) disposition: Option<String>,
    pub(crate) cache_control: Option<String>,
    pub(crate) md5: Option<[u8; 16]>,
}

impl ContentHeaders {
    /// Reads x-ms-blob-content-*; with `plain`, the standard headers stand in for what is missing, as in Put Blob.
    ///
    /// # Errors
    /// `InvalidMd5`, `InvalidHeaderValue`.
    pub(crate) fn of(call: &Call, plain: bool) -> Result<Self, ServiceError> {
        let either = |own: &'static str, standard: &'static str| -> Result<Option<String>, ServiceError> {
            let text = match call.header(own)? {
                None if plain => call.header(standard)?,
                own => own,
            };
            Ok(text.map(str::to_owned))
        };
        Ok(Self {
            content_type: either("x-ms-blob-content-type", "content-type")?,
            encoding: either("x-ms-blob-content-encoding", "content-encoding")?,
            language: either("x-ms-blob-content-language", "content-language")?,
            disposition: either("x-ms-blob-content-disposition", "x-ms-blob-content-disposition")?,
            cache_control: either("x-ms-blob-cache-control", "cache-control")?,
            md5: call.header("x-ms-blob-content-md5")?.map(parse_md5).transpose()?,
        })
    }
}

/// A blob.
#[derive(Clone)]
pub(crate) struct Blob {
    pub(crate) kind: Kind,
    pub(crate) data: Data,
    pub(crate) headers: ContentHeaders,
    pub(crate) metadata: Metadata,
    pub(crate) etag: String,
    pub(crate) modified: OffsetDateTime,
    pub(crate) created: OffsetDateTime,
    /// `None`: the account's default, reported as inferred.
    pub(crate) tier: Option<String>,
    pub(crate) tier_changed: Option<OffsetDateTime>,
    pub(crate) tags: Vec<(String, String)>,
    pub(crate) lease: Lease,
    pub(crate) copy: Option<CopyState>,
    /// What it is in the hierarchy; `None` on flat accounts.
    pub(crate) node: Option<Node>,
}

impl Blob {
    /// ETag and time, for conditions.
    pub(crate) fn version(&self) -> (&str, OffsetDateTime) {
        (&self.etag, self.modified)
    }

    /// Gives it a new ETag and time.
    pub(crate) fn touch(&mut self, stamps: &mut Stamps, now: OffsetDateTime) {
        (self.etag, self.modified) = stamps.change(now);
        self.lease.note_change(now);
    }

    /// Whether it is in the archive and cannot be read.
    pub(crate) fn is_archived(&self) -> bool {
        self.tier.as_deref() == Some("Archive")
    }
}

/// Whether a new version of a blob may be made: conditions, lease, pending copy, and the SAS letter `c`.
///
/// # Errors
/// The service's refusal.
pub(crate) fn check_write(container: &Container, call: &Call, intent: Intent) -> Result<(), ServiceError> {
    let existing = container.blobs.get(call.blob_name());
    if existing.is_some() && intent == Intent::Create && !call.grant.may_overwrite() {
        return Err(Code::AuthorizationPermissionMismatch.into());
    }
    if existing.is_none() && intent == Intent::Change {
        return Err(Code::BlobNotFound.into());
    }
    Conditions::of(call)?.check(existing.map(Blob::version), intent)?;
    if intent == Intent::Create {
        hierarchy::check_put(container, call)?;
    }
    check_lease_and_copy(existing, call)
}

/// Lease and pending copy alone: for Put Block, which takes no conditions.
///
/// # Errors
/// The service's refusal.
pub(crate) fn check_lease_and_copy(existing: Option<&Blob>, call: &Call) -> Result<(), ServiceError> {
    match existing {
        Some(blob) => {
            blob.lease.check(call, true, Target::Blob)?;
            if blob.copy.as_ref().is_some_and(CopyState::is_pending) {
                return Err(Code::PendingCopyOperation.into());
            }
            Ok(())
        }
        None => Lease::default().check(call, false, Target::Blob),
    }
}

/// Puts a whole new version in place. The lease and the creation time of a replaced blob stay; all else is reset.
pub(crate) fn replace(container: &mut Container, stamps: &mut Stamps, call: &Call, new: NewBlob) -> Answer {
    let (etag, modified) = stamps.change(call.now);
    let old = container.blobs.get(call.blob_name());
    let mut lease = old.map(|old| old.lease.clone()).unwrap_or_default();
    lease.note_change(call.now);
    let blob = Blob {
        kind: new.kind,
        data: new.data,
        headers: new.headers,
        metadata: new.metadata,
        etag,
        modified,
        created: old.map_or(modified, |old| old.created),
        tier_changed: new.tier.is_some().then_some(modified),
        tier: new.tier,
        tags: new.tags,
        lease,
        copy: None,
        node: None,
    };
    let node = old.and_then(|old| old.node.clone());
    let answer = version_headers(Answer::new(StatusCode::CREATED), &blob);
    container.staged.remove(call.blob_name());
    container.blobs.insert(call.blob_name().to_owned(), blob);
    if call.hierarchical {
        container.adopt(stamps, call.now, call.blob_name(), node);
    }
    answer.header("x-ms-request-server-encrypted", "true")
}

/// What a new version is made of.
pub(crate) struct NewBlob {
    pub(crate) kind: Kind,
    pub(crate) data: Data,
    pub(crate) headers: ContentHeaders,
    pub(crate) metadata: Metadata,
    pub(crate) tier: Option<String>,
    pub(crate) tags: Vec<(String, String)>,
}

impl NewBlob {
    /// A new version as the headers of the request describe it.
    ///
    /// # Errors
    /// For headers that cannot be read.
    pub(crate) fn of(call: &Call, kind: Kind, data: Data, plain_headers: bool) -> Result<Self, ServiceError> {
        Ok(Self {
            kind,
            data,
            headers: ContentHeaders::of(call, plain_headers)?,
            metadata: call.metadata()?,
            tier: tier_of(call)?,
            tags: properties::tags_of(call)?,
        })
    }
}

/// x-ms-access-tier.
///
/// # Errors
/// `InvalidHeaderValue` for an unknown tier.
pub(crate) fn tier_of(call: &Call) -> Result<Option<String>, ServiceError> {
    match call.header("x-ms-access-tier")? {
        None => Ok(None),
        Some(tier) if TIERS.contains(&tier) => Ok(Some(tier.to_owned())),
        Some(tier) => Err(ServiceError::bad_header("x-ms-access-tier", tier)),
    }
}

/// ETag and Last-Modified.
pub(crate) fn version_headers(answer: Answer, blob: &Blob) -> Answer {
    answer.header("etag", blob.etag.clone()).header("last-modified", date::http(blob.modified))
}

/// The checksums of an uploaded body: CRC64 always, MD5 where it was computed.
pub(crate) fn checksum_headers(answer: Answer, payload: &Payload) -> Answer {
    answer
        .header("x-ms-content-crc64", STANDARD.encode(payload.crc64.to_le_bytes()))
        .optional("content-md5", payload.md5.map(|md5| STANDARD.encode(md5)))
}

/// Reads an MD5 header.
///
/// # Errors
/// `InvalidMd5`.
pub(crate) fn parse_md5(text: &str) -> Result<[u8; 16], ServiceError> {
    let bytes = STANDARD.decode(text).ok();
    bytes.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| Code::InvalidMd5.into())
}
