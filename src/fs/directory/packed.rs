//! One name of a listing in about 60 bytes, and back: a directory may have millions.
//!
//! What a `BlobProperties` holds in a dozen allocations (near 600 bytes for a plain file) is one short run of bytes here. What
//! nearly all blobs of a directory share (content type, tier) is kept once a listing, in [`Shared`]; an ETag as the service
//! forms it is the number that it is; the names of metadata that this file system writes are one byte. Nothing is rounded
//! but times, which the service gives to the second. Knows nothing of positions, memory or requests.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use super::super::attributes::{Kind, METADATA_NAMES};
use crate::blob::{BlobKind, BlobProperties, ContentHeaders, ETag, Metadata};

/// Different headers kept once a listing; what comes later keeps its own.
const SHARED_MAX: usize = 64;

const KINDS: [Kind; 5] = [Kind::File, Kind::Directory, Kind::Symlink, Kind::Fifo, Kind::Socket];
const BLOB_KINDS: [BlobKind; 3] = [BlobKind::Block, BlobKind::Append, BlobKind::Page];

/// Bits of a record's second byte: what follows.
const HAS_CREATED: u8 = 1;
const HAS_MD5: u8 = 2;
const HAS_MODE: u8 = 4;
const HAS_COPY: u8 = 8;
const IS_LEASED: u8 = 16;
const HAS_NUMBERED_ETAG: u8 = 32;
const HAS_OWN_HEADERS: u8 = 64;
const KNOWS_TIER: u8 = 128;

/// Headers that several blobs of a listing have.
#[derive(Debug, Default)]
pub(super) struct Shared {
    headers: Vec<(ContentHeaders, Option<String>)>,
}

impl Shared {
    /// Where these headers are kept; `None` when there are too many different ones.
    fn place(&mut self, headers: &ContentHeaders, tier: Option<&String>) -> Option<u64> {
        let at = self.headers.iter().position(|(kept, with)| kept == headers && with.as_ref() == tier);
        if at.is_none() && self.headers.len() < SHARED_MAX {
            self.headers.push((headers.clone(), tier.cloned()));
            return Some(self.headers.len() as u64 - 1);
        }
        at.map(|at| at as u64)
    }
}

/// A name and what is known of it. Its head: bits 0-2 the kind, bit 3 that it is gone, bit 4 that it has properties.
#[derive(Debug)]
pub(super) struct Packed(Box<[u8]>);

impl Packed {
    /// Packs a name.
    pub(super) fn new(
        name: &str,
        kind: Kind,
        gone: bool,
        properties: Option<&BlobProperties>,
        shared: &mut Shared,
    ) -> Self {
        let mut bytes = Vec::with_capacity(96);
        let kind = KINDS.iter().position(|known| *known == kind).unwrap_or_default() as u8;
        bytes.push(kind | u8::from(gone) << 3 | u8::from(properties.is_some()) << 4);
        put_text(&mut bytes, name);
        if let Some(properties) = properties {
            put_properties(&mut bytes, properties, shared);
        }
        Self(bytes.into_boxed_slice())
    }

    /// The name.
    pub(super) fn name(&self) -> &str {
        Reader(&self.0[1..]).text()
    }

    /// What it is.
    pub(super) fn kind(&self) -> Kind {
        KINDS[usize::from(self.0[0] & 7) % KINDS.len()]
    }

    /// Whether it was removed here.
    pub(super) fn is_gone(&self) -> bool {
        self.0[0] & 8 != 0
    }

    /// What the service said of the blob.
    pub(super) fn properties(&self, shared: &Shared) -> Option<BlobProperties> {
        if self.0[0] & 16 == 0 {
            return None;
        }
        let mut reader = Reader(&self.0[1..]);
        reader.text();
        Some(take_properties(&mut reader, shared))
    }

    /// Bytes of memory.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

fn put_properties(bytes: &mut Vec<u8>, properties: &BlobProperties, shared: &mut Shared) {
    let number = numbered(&properties.etag);
    let place = shared.place(&properties.headers, properties.access_tier.as_ref());
    let has = |there: bool, bit: u8| if there { bit } else { 0 };
    bytes.push(
        has(properties.created.is_some(), HAS_CREATED)
            | has(properties.content_md5.is_some(), HAS_MD5)
            | has(properties.mode.is_some(), HAS_MODE)
            | has(properties.copy.is_some(), HAS_COPY)
            | has(properties.leased, IS_LEASED)
            | has(number.is_some(), HAS_NUMBERED_ETAG)
            | has(place.is_none(), HAS_OWN_HEADERS)
            | has(properties.tier_known, KNOWS_TIER),
    );
    bytes.push(BLOB_KINDS.iter().position(|known| *known == properties.kind).unwrap_or_default() as u8);
    match number {
        Some(number) => bytes.extend_from_slice(&number.to_le_bytes()),
        None => put_text(bytes, &properties.etag.0),
    }
    put_number(bytes, properties.length);
    put_number(bytes, seconds(properties.last_modified));
    if let Some(created) = properties.created {
        put_number(bytes, seconds(created));
    }
    if let Some(md5) = properties.content_md5 {
        bytes.extend_from_slice(&md5);
    }
    if let Some(mode) = properties.mode {
        put_number(bytes, mode.into());
    }
    if let Some((id, status)) = &properties.copy {
        put_text(bytes, id);
        put_text(bytes, status);
    }
    match place {
        Some(place) => put_number(bytes, place),
        None => {
            let headers = &properties.headers;
            let texts = [
                &headers.content_type,
                &headers.content_encoding,
                &headers.content_language,
                &headers.content_disposition,
                &headers.cache_control,
                &properties.access_tier,
            ];
            texts.into_iter().for_each(|text| put_optional_text(bytes, text.as_deref()));
            put_optional_text(bytes, headers.tags.as_deref());
        }
    }
    put_number(bytes, properties.tag_count.into());
    put_number(bytes, properties.metadata.len() as u64);
    for (name, value) in &properties.metadata {
        match METADATA_NAMES.iter().position(|known| known == name) {
            Some(at) => bytes.push(at as u8 + 1),
            None => {
                bytes.push(0);
                put_text(bytes, name);
            }
        }
        put_text(bytes, value);
    }
}

fn take_properties(reader: &mut Reader<'_>, shared: &Shared) -> BlobProperties {
    let flags = reader.byte();
    let kind = BLOB_KINDS[usize::from(reader.byte()) % BLOB_KINDS.len()];
    let etag: Arc<str> = if flags & HAS_NUMBERED_ETAG != 0 {
        format!("\"0x{:X}\"", u64::from_le_bytes(reader.array())).into()
    } else {
        reader.text().into()
    };
    let length = reader.number();
    let last_modified = time(reader.number());
    let created = (flags & HAS_CREATED != 0).then(|| time(reader.number()));
    let content_md5 = (flags & HAS_MD5 != 0).then(|| reader.array());
    let mode = (flags & HAS_MODE != 0).then(|| reader.number() as u32);
    let copy = (flags & HAS_COPY != 0).then(|| (reader.text().to_owned(), reader.text().to_owned()));
    let (headers, access_tier) = if flags & HAS_OWN_HEADERS == 0 {
        shared.headers.get(reader.number() as usize).cloned().unwrap_or_default()
    } else {
        own_headers(reader)
    };
    let tag_count = reader.number() as u32;
    let mut metadata = Metadata::new();
    for _ in 0..reader.number() {
        let name = match reader.byte() {
            0 => reader.text(),
            at => METADATA_NAMES.get(usize::from(at) - 1).copied().unwrap_or_default(),
        };
        metadata.insert(name.to_owned(), reader.text().to_owned());
    }
    BlobProperties {
        etag: ETag(etag),
        length,
        last_modified,
        created,
        kind,
        metadata,
        headers,
        content_md5,
        access_tier,
        tier_known: flags & KNOWS_TIER != 0,
        tag_count,
        leased: flags & IS_LEASED != 0,
        copy,
        request_id: None,
        mode,
    }
}

fn own_headers(reader: &mut Reader<'_>) -> (ContentHeaders, Option<String>) {
    let headers = ContentHeaders {
        content_type: reader.optional_text(),
        content_encoding: reader.optional_text(),
        content_language: reader.optional_text(),
        content_disposition: reader.optional_text(),
        cache_control: reader.optional_text(),
        tags: None,
    };
    let tier = reader.optional_text();
    (ContentHeaders { tags: reader.optional_text().map(Arc::from), ..headers }, tier)
}

/// The number in an ETag of the service's form, `"0x8DC..."`, if writing it again gives the same text.
fn numbered(etag: &ETag) -> Option<u64> {
    let digits = etag.0.strip_prefix("\"0x")?.strip_suffix('"')?;
    let upper = digits.bytes().all(|digit| digit.is_ascii_digit() || (b'A'..=b'F').contains(&digit));
    let number = u64::from_str_radix(digits, 16).ok()?;
    (upper && !digits.starts_with('0')).then_some(number)
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Seven bits a byte, lowest first; the top bit says that more follow.
fn put_number(bytes: &mut Vec<u8>, mut number: u64) {
    while number > 0x7f {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    put_number(bytes, text.len() as u64);
    bytes.extend_from_slice(text.as_bytes());
}

/// A length of zero is no text, others are one more than they say.
fn put_optional_text(bytes: &mut Vec<u8>, text: Option<&str>) {
    put_number(bytes, text.map_or(0, |text| text.len() as u64 + 1));
    bytes.extend_from_slice(text.unwrap_or_default().as_bytes());
}

/// Reads what the functions above wrote. Only ever fed by them; behind the end everything is empty.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let Some((head, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *head
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.byte();
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 || shift > 63 {
                return number;
            }
        }
    }

    fn bytes(&mut self, length: u64) -> &'a [u8] {
        let (head, rest) = self.0.split_at_checked(length as usize).unwrap_or_default();
        self.0 = rest;
        head
    }

    fn text(&mut self) -> &'a str {
        let length = self.number();
        str::from_utf8(self.bytes(length)).unwrap_or_default()
    }

    fn optional_text(&mut self) -> Option<String> {
        let length = self.number().checked_sub(1)?;
        Some(str::from_utf8(self.bytes(length)).unwrap_or_default().to_owned())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        prop_oneof![Just(String::new()), "[a-z/]{1,12}", "\\PC{0,20}"]
    }

    fn etag() -> impl Strategy<Value = String> {
        prop_oneof![
            any::<u64>().prop_map(|number| format!("\"0x{number:X}\"")),
            any::<u64>().prop_map(|number| format!("\"0x{number:x}\"")),
            any::<u32>().prop_map(|number| format!("\"0x0{number:X}\"")),
            text(),
        ]
    }

    fn metadata() -> impl Strategy<Value = Metadata> {
        let name = prop_oneof![proptest::sample::select(METADATA_NAMES.to_vec()).prop_map(str::to_owned), text()];
        proptest::collection::btree_map(name, text(), 0..6)
    }

    prop_compose! {
        fn properties()(
            etag in etag(), length: u64, modified in 0..u64::from(u32::MAX), created: Option<u32>, kind in 0..3usize,
            metadata in metadata(), texts in proptest::collection::vec(proptest::option::of(text()), 9), md5: Option<[u8; 16]>,
            tag_count in 0..11u32, (leased, tier_known) in any::<(bool, bool)>(), mode: Option<u32>,
        ) -> BlobProperties {
            let mut texts = texts.into_iter();
            let mut next = || texts.next().flatten();
            BlobProperties {
                etag: ETag(etag.into()), length, last_modified: time(modified),
                created: created.map(|seconds| time(seconds.into())), kind: BLOB_KINDS[kind], metadata,
                headers: ContentHeaders {
                    content_type: next(), content_encoding: next(), content_language: next(),
                    content_disposition: next(), cache_control: next(), tags: next().map(Arc::from),
                },
                content_md5: md5, access_tier: next(), tier_known, tag_count, leased, copy: next().zip(next()), request_id: None, mode,
            }
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_comes_back(
            blobs in proptest::collection::vec((text(), 0..5usize, any::<bool>(), proptest::option::of(properties())), 1..100),
        ) {
            // More than `SHARED_MAX` different headers, so that some are kept apart.
            let mut shared = Shared::default();
            let packed: Vec<Packed> = blobs
                .iter()
                .map(|(name, kind, gone, properties)| {
                    Packed::new(name, KINDS[*kind], *gone, properties.as_ref(), &mut shared)
                })
                .collect();
            for ((name, kind, gone, properties), packed) in blobs.iter().zip(&packed) {
                prop_assert_eq!(packed.name(), name);
                prop_assert_eq!(packed.kind(), KINDS[*kind]);
                prop_assert_eq!(packed.is_gone(), *gone);
                prop_assert_eq!(format!("{:?}", packed.properties(&shared)), format!("{properties:?}"));
            }
        }
    }
}
