//! The XML of List Blobs, read in one pass over the bytes: a page may have 5000 entries, and a directory of a million
//! files is 200 pages. Names come out exactly as they are, spaces at their ends included.

use std::time::SystemTime;

use azure_core::time::parse_rfc7231;
use percent_encoding::percent_decode_str;
use quick_xml::{
    Reader,
    events::{BytesRef, BytesStart, Event},
};

use crate::blob::{
    BlobName, BlobProperties, ContentHeaders, DIRECTORY_MARK, ETag, ListEntry, ListPage, Metadata,
    azure::response::{kind, md5},
    hierarchy::parse_permissions,
};

/// Reads one page. The error says what is wrong with the answer.
pub(super) fn page(xml: &[u8]) -> Result<ListPage, String> {
    let mut reader = Reader::from_reader(xml);
    let mut reading = Reading::default();
    loop {
        match reader.read_event().map_err(|error| format!("the listing is not XML: {error}"))? {
            Event::Start(start) => reading.start(&start),
            Event::Empty(start) => {
                reading.start(&start);
                reading.end()?;
            }
            Event::End(_) => reading.end()?,
            Event::Text(text) => reading.text.push_str(&text.decode().map_err(|error| error.to_string())?),
            Event::CData(text) => reading.text.push_str(&text.decode().map_err(|error| error.to_string())?),
            Event::GeneralRef(entity) => reading.text.push(resolve(&entity)?),
            Event::Eof if reading.complete => return Ok(in_order(reading.page)),
            Event::Eof => return Err("the listing ends in the middle".to_owned()),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
        }
    }
}

/// Azurite puts the prefixes of a page before its blobs; the service has one order for both.
fn in_order(mut page: ListPage) -> ListPage {
    fn name(entry: &ListEntry) -> &str {
        match entry {
            ListEntry::Blob(name, _) => name.as_str(),
            ListEntry::Prefix(prefix) => prefix,
        }
    }
    if !page.entries.is_sorted_by(|one, next| name(one) <= name(next)) {
        page.entries.sort_by(|one, other| name(one).cmp(name(other)));
    }
    page
}

/// The five named entities of XML, and characters by number.
pub(in crate::blob::azure) fn resolve(entity: &BytesRef<'_>) -> Result<char, String> {
    if let Some(character) = entity.resolve_char_ref().map_err(|error| error.to_string())? {
        return Ok(character);
    }
    match &**entity {
        b"amp" => Ok('&'),
        b"lt" => Ok('<'),
        b"gt" => Ok('>'),
        b"quot" => Ok('"'),
        b"apos" => Ok('\''),
        other => Err(format!("unknown entity {}", String::from_utf8_lossy(other))),
    }
}

/// Where the reader is, and what it has.
struct Reading {
    page: ListPage,
    /// Names of the open elements, outermost first, without anything between them; and where each begins. One text for all, since
    /// a page has a hundred thousand elements.
    open: String,
    begins: Vec<usize>,
    /// Text since the last tag.
    text: String,
    /// Whether the name being read is percent-encoded (it has characters that XML cannot hold).
    encoded: bool,
    entry: Entry,
    /// The root element was closed.
    complete: bool,
}

impl Default for Reading {
    fn default() -> Self {
        Self {
            page: ListPage { entries: Vec::new(), next_marker: None },
            open: String::new(),
            begins: Vec::new(),
            text: String::new(),
            encoded: false,
            entry: Entry::default(),
            complete: false,
        }
    }
}

/// A `Blob` or `BlobPrefix` under construction.
#[derive(Default)]
struct Entry {
    name: Option<String>,
    etag: Option<String>,
    length: u64,
    last_modified: Option<SystemTime>,
    created: Option<SystemTime>,
    kind: Option<String>,
    metadata: Metadata,
    headers: ContentHeaders,
    content_md5: Option<[u8; 16]>,
    access_tier: Option<String>,
    tier_is_inferred: bool,
    tag_count: u32,
    leased: bool,
    mode: Option<u32>,
}

impl Reading {
    fn start(&mut self, start: &BytesStart<'_>) {
        let name = start.local_name();
        if name.as_ref() == b"Name" {
            self.encoded = start
                .try_get_attribute("Encoded")
                .ok()
                .flatten()
                .is_some_and(|attribute| attribute.value.eq_ignore_ascii_case(b"true"));
        }
        self.begins.push(self.open.len());
        self.open.push_str(&String::from_utf8_lossy(name.as_ref()));
        self.text.clear();
    }

    fn end(&mut self) -> Result<(), String> {
        let begins = self.begins.pop().unwrap_or_default();
        let (outer, name) = self.open.split_at(begins);
        let parent = outer.get(self.begins.last().copied().unwrap_or_default()..).unwrap_or_default();
        let text = self.text.as_str();
        match (parent, name) {
            ("Blob" | "BlobPrefix", "Name") => self.entry.name = Some(decoded(text, self.encoded)?),
            ("Properties", property) => self.entry.property(property, text),
            ("Metadata", key) => {
                self.entry.metadata.insert(key.to_ascii_lowercase(), text.to_owned());
            }
            ("Blobs", "Blob") => {
                let entry = std::mem::take(&mut self.entry).into_blob()?;
                self.page.entries.push(entry);
            }
            ("Blobs", "BlobPrefix") => {
                let entry = std::mem::take(&mut self.entry);
                self.page.entries.push(ListEntry::Prefix(entry.name.ok_or("a prefix without a name")?));
            }
            ("EnumerationResults", "NextMarker") => self.page.next_marker = own(text),
            ("", "EnumerationResults") => self.complete = true,
            _ => {}
        }
        self.open.truncate(begins);
        self.text.clear();
        Ok(())
    }
}

fn decoded(text: &str, encoded: bool) -> Result<String, String> {
    if !encoded {
        return Ok(text.to_owned());
    }
    let decoded = percent_decode_str(text).decode_utf8().map_err(|_| format!("the name {text} is not UTF-8"))?;
    Ok(decoded.into_owned())
}

/// What is kept of a text that may be empty, which means that there is none.
fn own(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Entry {
    fn property(&mut self, name: &str, text: &str) {
        match name {
            "Etag" => self.etag = own(text),
            "Content-Length" => self.length = text.parse().unwrap_or(0),
            "Last-Modified" => self.last_modified = parse_rfc7231(text).ok().map(SystemTime::from),
            "Creation-Time" => self.created = parse_rfc7231(text).ok().map(SystemTime::from),
            "BlobType" => self.kind = own(text),
            "Content-Type" => self.headers.content_type = own(text),
            "Content-Encoding" => self.headers.content_encoding = own(text),
            "Content-Language" => self.headers.content_language = own(text),
            "Content-Disposition" => self.headers.content_disposition = own(text),
            "Cache-Control" => self.headers.cache_control = own(text),
            "Content-MD5" => self.content_md5 = md5(text),
            "AccessTier" => self.access_tier = own(text),
            "AccessTierInferred" => self.tier_is_inferred = text == "true",
            "TagCount" => self.tag_count = text.parse().unwrap_or(0),
            "LeaseStatus" => self.leased = text == "locked",
            "Permissions" => self.mode = parse_permissions(text),
            "ResourceType" if text == "directory" => {
                self.metadata.insert(DIRECTORY_MARK.to_owned(), "true".to_owned());
            }
            _ => {}
        }
    }

    fn into_blob(self) -> Result<ListEntry, String> {
        let name = self.name.ok_or("a blob without a name")?;
        let missing = |what: &str| format!("the blob {name} has no {what}");
        let etag = self.etag.as_deref().ok_or_else(|| missing("Etag"))?;
        let properties = BlobProperties {
            etag: ETag(quoted(etag).into()),
            length: self.length,
            last_modified: self.last_modified.ok_or_else(|| missing("Last-Modified"))?,
            created: self.created,
            kind: kind(self.kind.as_deref()),
            metadata: self.metadata,
            headers: self.headers,
            content_md5: self.content_md5,
            access_tier: self.access_tier.filter(|_| !self.tier_is_inferred),
            tier_known: true,
            tag_count: self.tag_count,
            leased: self.leased,
            copy: None,
            request_id: None,
            mode: self.mode,
        };
        let name = BlobName::new(name).map_err(|error| error.to_string())?;
        Ok(ListEntry::Blob(name, Box::new(properties)))
    }
}

/// Listings give ETags without the quotes that every other answer has, and that conditions need.
fn quoted(etag: &str) -> String {
    if etag.starts_with('"') { etag.to_owned() } else { format!("\"{etag}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = r#"<?xml version="1.0" encoding="utf-8"?>
<EnumerationResults ServiceEndpoint="https://a.blob.core.windows.net/" ContainerName="c"><Prefix>x</Prefix>
<Blobs><Blob><Name> a&amp;b &#x9;&lt;c </Name><Deleted>false</Deleted><Properties><Creation-Time>Fri, 26 Jun 2015 23:39:12 GMT</Creation-Time>
<Last-Modified>Fri, 26 Jun 2015 23:39:12 GMT</Last-Modified><Etag>0x8D1</Etag><Content-Length>12</Content-Length>
<Content-Type>text/plain</Content-Type><Content-Encoding /><Content-MD5>1B2M2Y8AsgTpgAmY7PhCfg==</Content-MD5><BlobType>AppendBlob</BlobType>
<AccessTier>Cool</AccessTier><LeaseStatus>locked</LeaseStatus><TagCount>2</TagCount></Properties>
<Metadata><Permissions>33188</Permissions><empty /></Metadata><OrMetadata /></Blob>
<Blob><Name Encoded="true">ctl%01%25</Name><Properties><Last-Modified>Fri, 26 Jun 2015 23:39:12 GMT</Last-Modified>
<Etag>"0x8D2"</Etag><Content-Length>0</Content-Length><BlobType>BlockBlob</BlobType><AccessTier>Hot</AccessTier><AccessTierInferred>true</AccessTierInferred></Properties></Blob>
<BlobPrefix><Name>dir/</Name></BlobPrefix></Blobs><NextMarker>m&amp;1</NextMarker></EnumerationResults>"#;

    fn blob(entry: &ListEntry) -> (&str, &BlobProperties) {
        match entry {
            ListEntry::Blob(name, properties) => (name.as_str(), properties),
            ListEntry::Prefix(prefix) => panic!("{prefix} is no blob"),
        }
    }

    #[test]
    fn names_come_out_exactly_and_properties_are_read() {
        let page = page(PAGE.as_bytes()).unwrap();
        let (name, properties) = blob(&page.entries[0]);
        assert_eq!(name, " a&b \t<c ");
        assert_eq!(
            (&*properties.etag.0, properties.length, properties.kind),
            ("\"0x8D1\"", 12, crate::blob::BlobKind::Append)
        );
        assert_eq!(
            properties.metadata,
            Metadata::from([("permissions".into(), "33188".into()), ("empty".into(), String::new())])
        );
        assert_eq!(properties.headers.content_type.as_deref(), Some("text/plain"));
        assert_eq!(properties.headers.content_encoding, None);
        assert!(properties.content_md5.is_some() && properties.leased);
        assert_eq!((properties.access_tier.as_deref(), properties.tag_count), (Some("Cool"), 2));
    }

    #[test]
    fn encoded_names_are_decoded_and_an_inferred_tier_is_none() {
        let page = page(PAGE.as_bytes()).unwrap();
        let (name, properties) = blob(&page.entries[1]);
        assert_eq!((name, &*properties.etag.0, &properties.access_tier), ("ctl\u{1}%", "\"0x8D2\"", &None));
    }

    #[test]
    fn a_directory_of_a_hierarchical_account_has_the_mark_and_a_mode() {
        let xml = "<EnumerationResults><Blobs><Blob><Name>d</Name><Properties><Last-Modified>Fri, 26 Jun 2015 23:39:12 GMT\
            </Last-Modified><Etag>1</Etag><Content-Length>0</Content-Length><ResourceType>directory</ResourceType>\
            <Permissions>rwxr-x---+</Permissions></Properties><Metadata /></Blob></Blobs><NextMarker /></EnumerationResults>";
        let page = page(xml.as_bytes()).unwrap();
        let (_, properties) = blob(&page.entries[0]);
        assert_eq!(properties.metadata.get(DIRECTORY_MARK).map(String::as_str), Some("true"));
        assert_eq!(properties.mode, Some(0o750));
    }

    #[test]
    fn prefixes_and_the_marker_are_read() {
        let page = page(PAGE.as_bytes()).unwrap();
        assert!(page.entries.iter().any(|entry| matches!(entry, ListEntry::Prefix(prefix) if prefix == "dir/")));
        assert_eq!(page.next_marker.as_deref(), Some("m&1"));
    }

    #[test]
    fn a_page_whose_prefixes_come_first_is_put_in_order() {
        let xml = "<EnumerationResults><Blobs><BlobPrefix><Name>b/c/</Name></BlobPrefix><BlobPrefix><Name>a/</Name>\
            </BlobPrefix></Blobs><NextMarker /></EnumerationResults>";
        let names: Vec<_> = page(xml.as_bytes()).unwrap().entries.into_iter().collect();
        assert!(matches!(&names[..], [ListEntry::Prefix(a), ListEntry::Prefix(b)] if a == "a/" && b == "b/c/"));
    }

    #[test]
    fn a_page_that_is_cut_is_an_error_and_not_a_shorter_page() {
        assert!(page(&PAGE.as_bytes()[..PAGE.len() - 30]).is_err());
        assert!(page(b"<html>").is_err());
    }
}
