//! The rows of the takeover state, as they lie in the ledger: protocol buffers, so that a version reads what the one before
//! or after it wrote, skipping what it does not know. What changes the meaning of a row is a new [`super::FORMAT`].
//!
//! Nothing secret is in them: names, times, metadata and ETags of blobs.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use bytes::Bytes;

use super::super::{attributes::Attributes, directory::Given, inode::Carried, xattr::MetadataChanges};
use crate::blob::{BlobKind, BlobProperties, ContentHeaders, ETag};

/// A point in time, before or after 1970.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct Time {
    #[prost(sint64, tag = "1")]
    pub seconds: i64,
    #[prost(uint32, tag = "2")]
    pub nanoseconds: u32,
}

impl From<SystemTime> for Time {
    fn from(time: SystemTime) -> Self {
        match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(after) => Self { seconds: after.as_secs().cast_signed(), nanoseconds: after.subsec_nanos() },
            Err(before) => {
                // -0.25 s is -1 s and 0.75 s.
                let before = before.duration();
                let whole = before.as_secs().cast_signed();
                match before.subsec_nanos() {
                    0 => Self { seconds: -whole, nanoseconds: 0 },
                    part => Self { seconds: -whole - 1, nanoseconds: 1_000_000_000 - part },
                }
            }
        }
    }
}

impl Time {
    /// The point in time; 1970 for one that no clock has.
    pub fn time(self) -> SystemTime {
        let epoch = SystemTime::UNIX_EPOCH;
        let whole = Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 { epoch.checked_sub(whole) } else { epoch.checked_add(whole) };
        let part = Duration::from_nanos(u64::from(self.nanoseconds));
        base.and_then(|base| base.checked_add(part)).unwrap_or(epoch)
    }
}

/// [`Attributes`].
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct AttributesRow {
    #[prost(uint32, optional, tag = "1")]
    pub mode: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    pub uid: Option<u32>,
    #[prost(uint32, optional, tag = "3")]
    pub gid: Option<u32>,
    #[prost(message, optional, tag = "4")]
    pub mtime: Option<Time>,
    #[prost(message, optional, tag = "5")]
    pub atime: Option<Time>,
    #[prost(message, optional, tag = "6")]
    pub ctime: Option<Time>,
}

impl From<&Attributes> for AttributesRow {
    fn from(attributes: &Attributes) -> Self {
        Self {
            mode: attributes.mode,
            uid: attributes.uid,
            gid: attributes.gid,
            mtime: attributes.mtime.map(Time::from),
            atime: attributes.atime.map(Time::from),
            ctime: attributes.ctime.map(Time::from),
        }
    }
}

impl AttributesRow {
    pub fn attributes(&self) -> Attributes {
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            mtime: self.mtime.map(Time::time),
            atime: self.atime.map(Time::time),
            ctime: self.ctime.map(Time::time),
        }
    }
}

/// One of [`MetadataChanges`]; without a value the name goes.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct Change {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, optional, tag = "2")]
    pub value: Option<String>,
}

/// [`Carried`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct CarriedRow {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributesRow>,
    #[prost(message, repeated, tag = "2")]
    pub changes: Vec<Change>,
}

impl From<&Carried> for CarriedRow {
    fn from(carried: &Carried) -> Self {
        let changes = carried.metadata_changes.iter();
        Self {
            attributes: Some((&carried.attributes).into()),
            changes: changes.map(|(name, value)| Change { name: name.clone(), value: value.clone() }).collect(),
        }
    }
}

impl CarriedRow {
    pub fn carried(&self) -> Carried {
        let changes = self.changes.iter().map(|change| (change.name.clone(), change.value.clone()));
        Carried {
            attributes: self.attributes.as_ref().map(AttributesRow::attributes).unwrap_or_default(),
            metadata_changes: MetadataChanges::from_iter(changes),
        }
    }
}

/// [`ContentHeaders`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct HeadersRow {
    #[prost(string, optional, tag = "1")]
    pub content_type: Option<String>,
    #[prost(string, optional, tag = "2")]
    pub content_encoding: Option<String>,
    #[prost(string, optional, tag = "3")]
    pub content_language: Option<String>,
    #[prost(string, optional, tag = "4")]
    pub content_disposition: Option<String>,
    #[prost(string, optional, tag = "5")]
    pub cache_control: Option<String>,
    #[prost(string, optional, tag = "6")]
    pub tags: Option<String>,
}

impl From<&ContentHeaders> for HeadersRow {
    fn from(headers: &ContentHeaders) -> Self {
        Self {
            content_type: headers.content_type.clone(),
            content_encoding: headers.content_encoding.clone(),
            content_language: headers.content_language.clone(),
            content_disposition: headers.content_disposition.clone(),
            cache_control: headers.cache_control.clone(),
            tags: headers.tags.as_deref().map(str::to_owned),
        }
    }
}

impl HeadersRow {
    pub fn headers(&self) -> ContentHeaders {
        ContentHeaders {
            content_type: self.content_type.clone(),
            content_encoding: self.content_encoding.clone(),
            content_language: self.content_language.clone(),
            content_disposition: self.content_disposition.clone(),
            cache_control: self.cache_control.clone(),
            tags: self.tags.as_deref().map(Into::into),
        }
    }
}

/// [`BlobProperties`], and where the bytes are where that is not under the inode's own name and this ETag.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::fs) struct BaseRow {
    #[prost(string, tag = "1")]
    pub etag: String,
    #[prost(uint64, tag = "2")]
    pub length: u64,
    #[prost(message, optional, tag = "3")]
    pub last_modified: Option<Time>,
    #[prost(message, optional, tag = "4")]
    pub created: Option<Time>,
    /// 0 block, 1 append, 2 page.
    #[prost(uint32, tag = "5")]
    pub kind: u32,
    #[prost(btree_map = "string, string", tag = "6")]
    pub metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "7")]
    pub headers: Option<HeadersRow>,
    #[prost(bytes = "bytes", optional, tag = "8")]
    pub content_md5: Option<Bytes>,
    #[prost(string, optional, tag = "9")]
    pub access_tier: Option<String>,
    #[prost(bool, tag = "10")]
    pub tier_known: bool,
    #[prost(uint32, tag = "11")]
    pub tag_count: u32,
    #[prost(bool, tag = "12")]
    pub leased: bool,
    #[prost(string, repeated, tag = "13")]
    pub copy: Vec<String>,
    #[prost(uint32, optional, tag = "14")]
    pub mode: Option<u32>,
    #[prost(string, optional, tag = "15")]
    pub source_name: Option<String>,
    #[prost(string, optional, tag = "16")]
    pub source_etag: Option<String>,
    /// Bytes of the layer that goes first which this version of an append blob has already.
    #[prost(uint64, tag = "17")]
    pub appended: u64,
}

impl From<&BlobProperties> for BaseRow {
    fn from(properties: &BlobProperties) -> Self {
        let kind = match properties.kind {
            BlobKind::Block => 0,
            BlobKind::Append => 1,
            BlobKind::Page => 2,
        };
        let headers = (properties.headers != ContentHeaders::default()).then(|| (&properties.headers).into());
        Self {
            etag: properties.etag.0.as_ref().to_owned(),
            length: properties.length,
            last_modified: Some(properties.last_modified.into()),
            created: properties.created.map(Time::from),
            kind,
            metadata: properties.metadata.clone(),
            headers,
            content_md5: properties.content_md5.map(|md5| Bytes::copy_from_slice(&md5)),
            access_tier: properties.access_tier.clone(),
            tier_known: properties.tier_known,
            tag_count: properties.tag_count,
            leased: properties.leased,
            copy: properties.copy.iter().flat_map(|(id, status)| [id.clone(), status.clone()]).collect(),
            mode: properties.mode,
            source_name: None,
            source_etag: None,
            appended: 0,
        }
    }
}

impl BaseRow {
    pub fn properties(&self) -> BlobProperties {
        let copy = match self.copy.as_slice() {
            [id, status] => Some((id.clone(), status.clone())),
            _ => None,
        };
        BlobProperties {
            etag: ETag(self.etag.as_str().into()),
            length: self.length,
            last_modified: self.last_modified.map_or(SystemTime::UNIX_EPOCH, Time::time),
            created: self.created.map(Time::time),
            kind: match self.kind {
                1 => BlobKind::Append,
                2 => BlobKind::Page,
                _ => BlobKind::Block,
            },
            metadata: self.metadata.clone(),
            headers: self.headers.as_ref().map(HeadersRow::headers).unwrap_or_default(),
            content_md5: self.content_md5.as_ref().and_then(|md5| md5.as_ref().try_into().ok()),
            access_tier: self.access_tier.clone(),
            tier_known: self.tier_known,
            tag_count: self.tag_count,
            leased: self.leased,
            copy,
            request_id: None,
            mode: self.mode,
        }
    }
}

/// A commit of the layer that was on its way, which the service may have made.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::fs) struct AttemptRow {
    /// Of a list of blocks, what it is known by; empty: one Put Blob of the whole layer.
    #[prost(bytes = "bytes", tag = "1")]
    pub blocks: Bytes,
    #[prost(btree_map = "string, string", tag = "2")]
    pub metadata: BTreeMap<String, String>,
    #[prost(message, optional, tag = "3")]
    pub headers: Option<HeadersRow>,
    #[prost(string, optional, tag = "4")]
    pub access_tier: Option<String>,
    #[prost(message, optional, tag = "5")]
    pub carried: Option<CarriedRow>,
    /// Of one Put Blob, where it is known.
    #[prost(bytes = "bytes", tag = "6")]
    pub md5: Bytes,
}

/// What somebody must still hear of.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct FailureRow {
    #[prost(sint32, tag = "1")]
    pub errno: i32,
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(bool, tag = "3")]
    pub may_pass: bool,
    /// Of a refusal: the blob that it was for.
    #[prost(string, tag = "4")]
    pub blob: String,
}

/// An inode's state.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::fs) struct InodeRow {
    /// As [`super::kind_number`] says.
    #[prost(uint32, tag = "1")]
    pub kind: u32,
    #[prost(message, optional, tag = "2")]
    pub carried: Option<CarriedRow>,
    #[prost(bool, tag = "3")]
    pub attributes_dirty: bool,
    /// Whether it stands for a version, which has a row of its own: it changes seldom, and this one at every write.
    #[prost(bool, tag = "4")]
    pub base: bool,
    /// 0 linked, 1 replaced, 2 unlinked.
    #[prost(uint32, tag = "5")]
    pub fate: u32,
    #[prost(string, optional, tag = "6")]
    pub orphan: Option<String>,
    /// The layer that takes writes.
    #[prost(uint64, optional, tag = "7")]
    pub overlay: Option<u64>,
    /// The layer that goes first.
    #[prost(uint64, optional, tag = "8")]
    pub committing: Option<u64>,
    #[prost(uint32, optional, tag = "10")]
    pub id_length: Option<u32>,
    #[prost(uint64, tag = "11")]
    pub failure_sequence: u64,
    #[prost(bool, tag = "12")]
    pub failure_heard: bool,
    #[prost(message, optional, tag = "13")]
    pub failure: Option<FailureRow>,
    #[prost(message, optional, tag = "14")]
    pub refusal: Option<FailureRow>,
    #[prost(message, repeated, tag = "15")]
    pub attempts: Vec<AttemptRow>,
    /// The last append: the view that asked, and the number of its request.
    #[prost(uint64, repeated, tag = "16")]
    pub last_append: Vec<u64>,
    /// Bytes that an Append Block was to bring, from the end of `base` on.
    #[prost(uint64, tag = "17")]
    pub appending: u64,
    /// Whether somebody follows the file's end, in whose kernel pages may be missing bytes that came since.
    #[prost(bool, tag = "18")]
    pub followed: bool,
    /// Metadata that were being set.
    #[prost(message, repeated, tag = "19")]
    pub setting: Vec<MetadataRow>,
}

/// Metadata of a blob.
#[derive(Clone, PartialEq, prost::Message)]
pub(in crate::fs) struct MetadataRow {
    #[prost(btree_map = "string, string", tag = "1")]
    pub metadata: BTreeMap<String, String>,
}

/// Where an inode is.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct NameRow {
    #[prost(uint64, tag = "1")]
    pub parent: u64,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(bool, tag = "3")]
    pub linked: bool,
}

/// An open file or directory.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct HandleRow {
    #[prost(uint64, tag = "1")]
    pub inode: u64,
    #[prost(bool, tag = "2")]
    pub directory: bool,
    /// Bits: 1 read, 2 write, 4 append, 8 synchronous.
    #[prost(uint32, tag = "3")]
    pub access: u32,
    #[prost(uint64, tag = "4")]
    pub heard: u64,
    #[prost(uint64, tag = "5")]
    pub view: u64,
    /// The kernel has let it go, and what was to be saved then may not be.
    #[prost(bool, tag = "6")]
    pub closed: bool,
}

/// [`Given`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct GivenRow {
    /// From each offset to the next, from 0 to the first.
    #[prost(uint64, repeated, tag = "1")]
    pub steps: Vec<u64>,
    #[prost(fixed64, repeated, tag = "2")]
    pub digests: Vec<u64>,
}

impl From<&Given> for GivenRow {
    fn from(given: &Given) -> Self {
        let mut before = 0;
        let step = |(offset, _): &(u64, u64)| offset - std::mem::replace(&mut before, *offset);
        Self { steps: given.0.iter().map(step).collect(), digests: given.0.iter().map(|(_, digest)| *digest).collect() }
    }
}

impl GivenRow {
    /// `None` for what nobody has written.
    pub fn given(&self) -> Option<Given> {
        let mut at = 0_u64;
        let mut offsets = Vec::with_capacity(self.steps.len());
        for step in self.steps.iter().filter(|step| **step > 0) {
            at = at.checked_add(*step)?;
            offsets.push(at);
        }
        let is_whole = !offsets.is_empty() && offsets.len() == self.digests.len();
        is_whole.then(|| Given(offsets.into_iter().zip(self.digests.iter().copied()).collect()))
    }
}

/// One lock.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct LockRow {
    #[prost(uint64, tag = "1")]
    pub view: u64,
    #[prost(uint64, tag = "2")]
    pub owner: u64,
    /// 0 flock, 1 fcntl, 2 either.
    #[prost(uint32, tag = "3")]
    pub call: u32,
    #[prost(uint64, tag = "4")]
    pub handle: u64,
    #[prost(uint64, tag = "5")]
    pub start: u64,
    #[prost(uint64, tag = "6")]
    pub end: u64,
    #[prost(bool, tag = "7")]
    pub exclusive: bool,
    #[prost(uint32, tag = "8")]
    pub pid: u32,
}

/// All locks of an inode.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct LocksRow {
    #[prost(message, repeated, tag = "1")]
    pub held: Vec<LockRow>,
}

/// What a request that cannot be repeated had begun.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct BegunRow {
    #[prost(message, optional, tag = "1")]
    pub attributes: Option<AttributesRow>,
    /// Of an unlink or a rename: the inode.
    #[prost(uint64, tag = "2")]
    pub inode: u64,
    /// Of a rename: the blobs.
    #[prost(string, tag = "3")]
    pub from: String,
    /// Of an unlink: the hidden blob that an open file's was to become, if any.
    #[prost(string, tag = "4")]
    pub to: String,
    /// What it ended with: nothing yet, or an errno (0: well).
    #[prost(sint32, optional, tag = "5")]
    pub outcome: Option<i32>,
    /// The inode that was made, and the handle.
    #[prost(uint64, tag = "6")]
    pub made: u64,
    #[prost(uint64, tag = "7")]
    pub handle: u64,
    /// Of a rename: the new name.
    #[prost(uint64, tag = "8")]
    pub new_parent: u64,
    #[prost(string, tag = "9")]
    pub new_name: String,
}

/// What is said of the volume once.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct VolumeRow {
    /// What was mounted: host, account, container, prefix.
    #[prost(string, tag = "1")]
    pub identity: String,
    #[prost(string, tag = "2")]
    pub orphan_owner: String,
    /// Whether the account has a hierarchy.
    #[prost(bool, tag = "3")]
    pub hierarchical: bool,
}

/// A blob whose Delete was not answered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(in crate::fs) struct DeleteRow {
    #[prost(string, tag = "1")]
    pub blob: String,
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    #[test]
    fn times_before_and_after_1970_come_back() {
        let epoch = SystemTime::UNIX_EPOCH;
        for nanoseconds in [0_u64, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789] {
            let distance = Duration::from_nanos(nanoseconds);
            for time in [epoch + distance, epoch - distance] {
                assert_eq!(Time::from(time).time(), time);
            }
        }
        // What only a mistake can write.
        assert_eq!(Time { seconds: i64::MAX, nanoseconds: u32::MAX }.time(), epoch);
    }

    #[test]
    fn properties_come_back() {
        let properties = BlobProperties {
            etag: ETag("\"0x1\"".into()),
            length: 7,
            last_modified: SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000),
            created: Some(SystemTime::UNIX_EPOCH),
            kind: BlobKind::Append,
            metadata: BTreeMap::from([("a".to_owned(), "b".to_owned())]),
            headers: ContentHeaders { content_type: Some("text/plain".to_owned()), ..ContentHeaders::default() },
            content_md5: Some([3; 16]),
            access_tier: Some("Cool".to_owned()),
            tier_known: true,
            tag_count: 2,
            leased: true,
            copy: Some(("id".to_owned(), "success".to_owned())),
            request_id: None,
            mode: Some(0o640),
        };
        let row = BaseRow::decode(BaseRow::from(&properties).encode_to_vec().as_slice()).unwrap();
        assert_eq!(format!("{:?}", row.properties()), format!("{properties:?}"));
    }
}
