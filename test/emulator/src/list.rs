//! List Blobs and List Containers: pages, prefixes, markers, and the XML of an entry.
//! Entries are in the order of the UTF-8 bytes of their names; a prefix stands where its first name would.

use std::ops::Bound;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

use crate::{
    answer::Answer,
    blob::{Blob, Kind, properties::tags_xml},
    call::{Call, Metadata},
    date,
    error::{Code, ServiceError},
    hierarchy::shown_metadata,
    lease::Target,
    state::{Container, State},
    xml,
};

/// Entries of one page at most, and without maxresults (REST page "List Blobs").
const PAGE_ENTRIES_MAX: usize = 5000;

/// What a listing request asks for.
struct Asked<'a> {
    prefix: &'a str,
    delimiter: &'a str,
    marker: &'a str,
    include: Vec<&'a str>,
    max: usize,
}

impl<'a> Asked<'a> {
    fn of(call: &'a Call) -> Result<Self, ServiceError> {
        let get = |name: &str| call.query.get(name).unwrap_or_default();
        let max = match get("maxresults") {
            "" => PAGE_ENTRIES_MAX,
            text => match text.parse::<i64>() {
                Ok(count) if count > 0 => (count as usize).min(PAGE_ENTRIES_MAX),
                Ok(_) => {
                    let error = ServiceError::from(Code::OutOfRangeQueryParameterValue);
                    return Err(error.detail("QueryParameterName", "maxresults").detail("QueryParameterValue", text));
                }
                Err(_) => return Err(ServiceError::bad_query("maxresults", text)),
            },
        };
        let include = get("include").split(',').map(str::trim).filter(|what| !what.is_empty()).collect();
        Ok(Self { prefix: get("prefix"), delimiter: get("delimiter"), marker: get("marker"), include, max })
    }

    fn includes(&self, what: &str) -> bool {
        self.include.iter().any(|one| one.eq_ignore_ascii_case(what))
    }

    /// The name that the page begins at. A marker is opaque: here the encoded name.
    fn start(&self) -> Result<String, ServiceError> {
        if self.marker.is_empty() {
            return Ok(self.prefix.to_owned());
        }
        let name = URL_SAFE_NO_PAD.decode(self.marker).ok().and_then(|name| String::from_utf8(name).ok());
        let name = name.ok_or_else(|| ServiceError::bad_query("marker", self.marker))?;
        Ok(name.max(self.prefix.to_owned()))
    }

    fn head(&self, attributes: &str) -> String {
        let mut document = format!("{}<EnumerationResults {attributes}>", xml::DECLARATION);
        xml::name_element(&mut document, "Prefix", self.prefix);
        xml::element(&mut document, "Marker", self.marker);
        xml::element(&mut document, "MaxResults", &self.max.to_string());
        if !self.delimiter.is_empty() {
            xml::name_element(&mut document, "Delimiter", self.delimiter);
        }
        document
    }
}

/// The URL of the account, as the request addressed it.
fn service_endpoint(call: &Call) -> String {
    if call.host_style {
        format!("http://{}/", call.host)
    } else {
        format!("http://{}/{}/", call.host, call.resource.account)
    }
}

fn next_marker(document: &mut String, next: Option<&str>) {
    xml::element(document, "NextMarker", &next.map(|name| URL_SAFE_NO_PAD.encode(name)).unwrap_or_default());
    document.push_str("</EnumerationResults>");
}

/// One entry of a page.
enum Entry<'a> {
    Blob(&'a str, &'a Blob),
    /// A directory of a hierarchical account, where names are folded.
    Directory(&'a str, &'a Blob),
    Uncommitted(&'a str),
    Prefix(&'a str),
}

/// List Blobs.
///
/// # Errors
/// `ContainerNotFound`, `InvalidQueryParameterValue`, `OutOfRangeQueryParameterValue`.
pub(crate) fn list_blobs(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let asked = Asked::of(call)?;
    let (container, _) = state.container(call)?;
    container.lease.check(call, false, Target::Container)?;
    check_hierarchy(container, call, &asked)?;
    let start = asked.start()?;
    let (entries, next) = page(container, &asked, &start);
    let mut document = asked.head(&format!(
        "ServiceEndpoint=\"{}\" ContainerName=\"{}\"",
        xml::escape(&service_endpoint(call)),
        xml::escape(call.container_name())
    ));
    document.push_str("<Blobs>");
    for entry in entries {
        match entry {
            Entry::Prefix(name) => {
                document.push_str("<BlobPrefix>");
                xml::name_element(&mut document, "Name", name);
                document.push_str("</BlobPrefix>");
            }
            Entry::Blob(name, blob) => blob_element(&mut document, call, &asked, name, blob),
            Entry::Directory(name, blob) => {
                document.push_str("<BlobPrefix>");
                xml::name_element(&mut document, "Name", &format!("{name}/"));
                properties_element(&mut document, call, &asked, blob);
                document.push_str("</BlobPrefix>");
            }
            Entry::Uncommitted(name) => {
                document.push_str("<Blob>");
                xml::name_element(&mut document, "Name", name);
                document.push_str(
                    "<Properties><Content-Length>0</Content-Length><BlobType>BlockBlob</BlobType></Properties></Blob>",
                );
            }
        }
    }
    document.push_str("</Blobs>");
    next_marker(&mut document, next.as_deref());
    Ok(Answer::xml(document))
}

/// What is different on a hierarchical account (REST page "List Blobs", which names no codes): a prefix that leads through a
/// file is an error, and so are permissions on a flat account.
fn check_hierarchy(container: &Container, call: &Call, asked: &Asked<'_>) -> Result<(), ServiceError> {
    if call.hierarchical && container.leads_through_file(asked.prefix) {
        return Err(ServiceError::bad_query("prefix", asked.prefix));
    }
    if !call.hierarchical && asked.includes("permissions") {
        return Err(ServiceError::bad_query("include", "permissions"));
    }
    Ok(())
}

/// The entries of a page and the name that the next one begins at. Jumps over what is folded into a prefix, so that a
/// page costs its entries and not the blobs below them.
fn page<'a>(container: &'a Container, asked: &Asked<'_>, start: &str) -> (Vec<Entry<'a>>, Option<String>) {
    let mut entries = Vec::new();
    let mut from = Bound::Included(start.to_owned());
    let mut last_prefix: Option<&str> = None;
    loop {
        let Some((name, blob)) = next_name(container, &from, asked.includes("uncommittedblobs")) else {
            return (entries, None);
        };
        if !name.starts_with(asked.prefix) {
            return (entries, None);
        }
        if last_prefix.is_some_and(|prefix| name.starts_with(prefix)) {
            from = Bound::Excluded(name.to_owned());
            continue;
        }
        if entries.len() == asked.max {
            return (entries, Some(name.to_owned()));
        }
        let behind = &name[asked.prefix.len()..];
        let folded = if asked.delimiter.is_empty() { None } else { behind.find(asked.delimiter) };
        match folded {
            // The directory itself stands for what is below it, wherever the two are in the order of bytes.
            Some(at) => {
                let prefix = &name[..asked.prefix.len() + at + asked.delimiter.len()];
                let directory = container.blobs.get(&name[..asked.prefix.len() + at]);
                if !directory.is_some_and(Blob::is_directory) {
                    entries.push(Entry::Prefix(prefix));
                }
                last_prefix = Some(prefix);
                // Nearly every name below the prefix sorts before this one; the few others are skipped above.
                from = Bound::Excluded(format!("{prefix}{}", char::MAX));
            }
            None => {
                let folds = !asked.delimiter.is_empty();
                entries.push(match blob {
                    None => Entry::Uncommitted(name),
                    Some(blob) if folds && blob.is_directory() => Entry::Directory(name, blob),
                    Some(blob) => Entry::Blob(name, blob),
                });
                from = Bound::Excluded(name.to_owned());
            }
        }
    }
}

/// The first name at or behind a bound, of a blob or (if wanted) of uncommitted blocks alone.
fn next_name<'a>(
    container: &'a Container,
    from: &Bound<String>,
    uncommitted: bool,
) -> Option<(&'a str, Option<&'a Blob>)> {
    let bounds = (from.clone(), Bound::Unbounded);
    let blob = container.blobs.range(bounds.clone()).next();
    let staged = if uncommitted { container.staged.range(bounds).next() } else { None };
    match (blob, staged) {
        (Some((name, _)), Some((other, _))) if other < name => Some((other, None)),
        (Some((name, blob)), _) => Some((name, Some(blob))),
        (None, Some((name, _))) => Some((name, None)),
        (None, None) => None,
    }
}

fn blob_element(document: &mut String, call: &Call, asked: &Asked<'_>, name: &str, blob: &Blob) {
    document.push_str("<Blob>");
    xml::name_element(document, "Name", name);
    properties_element(document, call, asked, blob);
    if asked.includes("metadata") {
        metadata_element(document, &shown_metadata(blob));
    }
    if asked.includes("tags") && !blob.tags.is_empty() {
        document.push_str(&tags_xml(blob));
    }
    document.push_str("</Blob>");
}

fn properties_element(document: &mut String, call: &Call, asked: &Asked<'_>, blob: &Blob) {
    document.push_str("<Properties>");
    let mut put = |name: &str, text: Option<&str>| {
        if let Some(text) = text {
            xml::element(document, name, text);
        }
    };
    let headers = &blob.headers;
    put("Creation-Time", Some(&date::http(blob.created)));
    put("Last-Modified", Some(&date::http(blob.modified)));
    // Listings show the ETag without its quotes.
    put("Etag", Some(blob.etag.trim_matches('"')));
    put("Content-Length", Some(&blob.data.len().to_string()));
    put("Content-Type", Some(headers.content_type.as_deref().unwrap_or("application/octet-stream")));
    put("Content-Encoding", Some(headers.encoding.as_deref().unwrap_or_default()));
    put("Content-Language", Some(headers.language.as_deref().unwrap_or_default()));
    put("Content-CRC64", Some(""));
    put("Content-MD5", Some(&headers.md5.map(|md5| STANDARD.encode(md5)).unwrap_or_default()));
    put("Cache-Control", Some(headers.cache_control.as_deref().unwrap_or_default()));
    put("Content-Disposition", Some(headers.disposition.as_deref().unwrap_or_default()));
    if let Kind::Page(sequence, _) = blob.kind {
        put("x-ms-blob-sequence-number", Some(&sequence.to_string()));
    }
    put("BlobType", Some(blob.kind.name()));
    if let Kind::Block(_) = blob.kind {
        put("AccessTier", Some(blob.tier.as_deref().unwrap_or("Hot")));
        put("AccessTierInferred", blob.tier.is_none().then_some("true"));
        put("AccessTierChangeTime", blob.tier_changed.map(date::http).as_deref());
    }
    let (status, phase, duration) = blob.lease.facts(call.now);
    put("LeaseStatus", Some(status));
    put("LeaseState", Some(phase));
    put("LeaseDuration", duration);
    put("ServerEncrypted", Some("true"));
    if let Some(copy) = blob.copy.as_ref().filter(|_| asked.includes("copy")) {
        for (_, name, text) in copy.facts() {
            put(name, Some(&text));
        }
    }
    if !blob.tags.is_empty() {
        put("TagCount", Some(&blob.tags.len().to_string()));
    }
    if let Some(node) = &blob.node {
        put("ResourceType", Some(if node.directory { "directory" } else { "file" }));
        if asked.includes("permissions") {
            put("Owner", Some(&node.access.owner));
            put("Group", Some(&node.access.group));
            put("Permissions", Some(&node.access.permissions()));
            put("Acl", Some(&node.access.acl()));
        }
    }
    document.push_str("</Properties>");
}

fn metadata_element(document: &mut String, metadata: &Metadata) {
    if metadata.is_empty() {
        document.push_str("<Metadata />");
        return;
    }
    document.push_str("<Metadata>");
    for (name, text) in metadata {
        xml::element(document, name, text);
    }
    document.push_str("</Metadata>");
}

/// List Containers.
///
/// # Errors
/// `InvalidQueryParameterValue`, `OutOfRangeQueryParameterValue`.
pub(crate) fn list_containers(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let asked = Asked::of(call)?;
    let start = asked.start()?;
    let account = state.account(call)?;
    let endpoint = xml::escape(&service_endpoint(call));
    let mut document = asked.head(&format!("ServiceEndpoint=\"{endpoint}\""));
    document.push_str("<Containers>");
    let mut next = None;
    let names = account.containers.range(start..).take_while(|(name, _)| name.starts_with(asked.prefix));
    for (index, (name, container)) in names.enumerate() {
        if index == asked.max {
            next = Some(name.as_str());
            break;
        }
        document.push_str("<Container>");
        xml::element(&mut document, "Name", name);
        document.push_str("<Properties>");
        let (status, phase, duration) = container.lease.facts(call.now);
        let modified = container.modified.map(date::http).unwrap_or_default();
        xml::element(&mut document, "Last-Modified", &modified);
        xml::element(&mut document, "Etag", &container.etag);
        xml::element(&mut document, "LeaseStatus", status);
        xml::element(&mut document, "LeaseState", phase);
        if let Some(duration) = duration {
            xml::element(&mut document, "LeaseDuration", duration);
        }
        if let Some(public) = container.public.name() {
            xml::element(&mut document, "PublicAccess", public);
        }
        document.push_str(
            "<HasImmutabilityPolicy>false</HasImmutabilityPolicy><HasLegalHold>false</HasLegalHold></Properties>",
        );
        if asked.includes("metadata") {
            metadata_element(&mut document, &container.metadata);
        }
        document.push_str("</Container>");
    }
    document.push_str("</Containers>");
    next_marker(&mut document, next);
    Ok(Answer::xml(document))
}
