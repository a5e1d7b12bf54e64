//! What the service answers, read into our types: headers of a blob, the XML of an error.

use std::time::{Duration, SystemTime};

use azure_core::{http::headers::Headers, time::parse_rfc7231};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::blob::{
    BlobKind, BlobProperties, Committed, ContentHeaders, DIRECTORY_MARK, ETag, Metadata, hierarchy::parse_permissions,
};

/// Longest part of an error's text that is kept, in characters.
const MESSAGE_CHARACTERS_MAX: usize = 300;

/// A header that is missing or unreadable where the protocol promises it.
#[derive(Debug, thiserror::Error)]
#[error("the answer's header {0} is missing or unreadable: is this a Blob service?")]
pub(super) struct BadHeader(&'static str);

/// What the service said in the body of an error: its message without the request id, and the detail where there is
/// one. Neither holds a credential: details that quote a signature are dropped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::blob) struct ServiceMessage {
    pub(in crate::blob) message: String,
    pub(in crate::blob) detail: String,
}

impl std::fmt::Display for ServiceMessage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.message.as_str(), self.detail.as_str()) {
            (message, "") => f.write_str(message),
            ("", detail) => f.write_str(detail),
            (message, detail) => write!(f, "{message} {detail}"),
        }
    }
}

impl std::error::Error for ServiceMessage {}

/// A header by its name in lower case. By a walk: `get_optional_str` makes an error with a text, and with a backtrace where
/// RUST_BACKTRACE asks for them, of each one that is missing, which most are.
pub(super) fn text<'a>(headers: &'a Headers, name: &'static str) -> Option<&'a str> {
    let (_, value) = headers.iter().find(|(found, _)| found.as_str() == name)?;
    Some(value.as_str()).filter(|value| !value.is_empty())
}

fn owned(headers: &Headers, name: &'static str) -> Option<String> {
    text(headers, name).map(str::to_owned)
}

pub(super) fn number(headers: &Headers, name: &'static str) -> Option<u64> {
    text(headers, name).and_then(|value| value.parse().ok())
}

/// A time in the HTTP format.
pub(super) fn time(headers: &Headers, name: &'static str) -> Option<SystemTime> {
    text(headers, name).and_then(|value| parse_rfc7231(value).ok()).map(SystemTime::from)
}

pub(super) fn etag(headers: &Headers) -> Result<ETag, BadHeader> {
    text(headers, "etag").map(|etag| ETag(etag.into())).ok_or(BadHeader("ETag"))
}

/// The new version that a write answers with.
pub(super) fn committed(headers: &Headers) -> Result<Committed, BadHeader> {
    let last_modified = time(headers, "last-modified").ok_or(BadHeader("Last-Modified"))?;
    Ok(Committed { etag: etag(headers)?, last_modified })
}

/// The wait that the service asks for. Seconds only: the service never sends a date here.
pub(super) fn retry_after(headers: &Headers) -> Option<Duration> {
    number(headers, "x-ms-retry-after-ms")
        .or_else(|| number(headers, "retry-after-ms"))
        .map(Duration::from_millis)
        .or_else(|| number(headers, "retry-after").map(Duration::from_secs))
}

/// The headers of Get Blob and Get Blob Properties. `length` and MD5 of a ranged answer are those of the range, so the
/// caller says where the blob's own are.
pub(super) fn properties(
    headers: &Headers,
    length: u64,
    md5_header: &'static str,
) -> Result<BlobProperties, BadHeader> {
    let tier_is_inferred = text(headers, "x-ms-access-tier-inferred") == Some("true");
    Ok(BlobProperties {
        etag: etag(headers)?,
        length,
        last_modified: time(headers, "last-modified").ok_or(BadHeader("Last-Modified"))?,
        created: time(headers, "x-ms-creation-time"),
        kind: kind(text(headers, "x-ms-blob-type")),
        metadata: metadata_of_any(headers),
        headers: ContentHeaders {
            content_type: owned(headers, "content-type"),
            content_encoding: owned(headers, "content-encoding"),
            content_language: owned(headers, "content-language"),
            content_disposition: owned(headers, "content-disposition"),
            cache_control: owned(headers, "cache-control"),
            tags: None,
        },
        content_md5: text(headers, md5_header).and_then(md5),
        access_tier: owned(headers, "x-ms-access-tier").filter(|_| !tier_is_inferred),
        tier_known: true,
        tag_count: number(headers, "x-ms-tag-count").and_then(|count| count.try_into().ok()).unwrap_or(0),
        leased: text(headers, "x-ms-lease-status") == Some("locked"),
        copy: owned(headers, "x-ms-copy-id").zip(owned(headers, "x-ms-copy-status")),
        request_id: owned(headers, "x-ms-request-id"),
        mode: text(headers, "x-ms-permissions").and_then(parse_permissions),
    })
}

/// User metadata, with the mark of a directory where the service says so in a header of its own.
fn metadata_of_any(headers: &Headers) -> Metadata {
    let mut metadata = metadata(headers);
    if text(headers, "x-ms-resource-type") == Some("directory") {
        metadata.insert(DIRECTORY_MARK.to_owned(), "true".to_owned());
    }
    metadata
}

/// The kind by its name; a service that leaves it out has only block blobs.
pub(super) fn kind(name: Option<&str>) -> BlobKind {
    match name {
        Some("AppendBlob") => BlobKind::Append,
        Some("PageBlob") => BlobKind::Page,
        _ => BlobKind::Block,
    }
}

/// An MD5 in base64.
pub(super) fn md5(text: &str) -> Option<[u8; 16]> {
    STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok())
}

/// User metadata. Names are in lower case, whatever case the service kept.
pub(super) fn metadata(headers: &Headers) -> Metadata {
    headers
        .iter()
        .filter_map(|(name, value)| {
            let name = name.as_str().to_ascii_lowercase();
            name.strip_prefix("x-ms-meta-").map(|name| (name.to_owned(), value.as_str().to_owned()))
        })
        .collect()
}

/// Code and message in the XML body of an error, or in the JSON one of the Data Lake endpoint. HEAD answers have none, and
/// proxies send anything at all.
pub(super) fn error_body(body: &[u8]) -> (Option<String>, ServiceMessage) {
    let body = String::from_utf8_lossy(body);
    if body.trim_start_matches('\u{feff}').starts_with('{') {
        let message = json_text(&body, "message").unwrap_or_default();
        let message = clip(message.lines().next().unwrap_or_default());
        return (json_text(&body, "code"), ServiceMessage { message, detail: String::new() });
    }
    let element = |name: &str| {
        let start = body.find(&format!("<{name}>"))? + name.len() + 2;
        let end = body[start..].find(&format!("</{name}>"))? + start;
        let text = body[start..end].trim();
        Some(quick_xml::escape::unescape(text).map_or_else(|_| text.to_owned(), std::borrow::Cow::into_owned))
    };
    let message = element("Message").unwrap_or_default();
    let detail = element("AuthenticationErrorDetail").unwrap_or_default();
    // "... String to sign used was ..." quotes the request and its signature; the sentence before says enough.
    let lower = detail.to_ascii_lowercase();
    let quotes_signature = lower.contains("string to sign") || lower.contains("mac signature");
    (
        element("Code").filter(|code| !code.is_empty()),
        ServiceMessage {
            message: clip(message.lines().next().unwrap_or_default()),
            detail: if quotes_signature { String::new() } else { clip(&detail) },
        },
    )
}

/// The text of a member, wherever it stands: an error has each name once.
fn json_text(body: &str, member: &str) -> Option<String> {
    let behind = body.split_once(&format!("\"{member}\""))?.1.trim_start().strip_prefix(':')?.trim_start();
    let mut text = String::new();
    let mut characters = behind.strip_prefix('"')?.chars();
    loop {
        match characters.next()? {
            '"' => return Some(text),
            '\\' => text.push(match characters.next()? {
                'n' => '\n',
                't' => '\t',
                other => other,
            }),
            other => text.push(other),
        }
    }
}

fn clip(text: &str) -> String {
    text.trim().chars().take(MESSAGE_CHARACTERS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> Headers {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        headers
    }

    #[test]
    fn an_inferred_tier_is_not_the_blobs_own() {
        let base = [("etag", "\"1\""), ("last-modified", "Fri, 26 Jun 2015 23:39:12 GMT"), ("x-ms-access-tier", "Hot")];
        let own = properties(&headers(&base), 3, "content-md5").unwrap();
        assert_eq!(own.access_tier.as_deref(), Some("Hot"));
        let mut inferred = headers(&base);
        inferred.insert("x-ms-access-tier-inferred", "true");
        assert_eq!(properties(&inferred, 3, "content-md5").unwrap().access_tier, None);
    }

    #[test]
    fn an_answer_without_etag_is_damaged() {
        let error = properties(&headers(&[]), 0, "content-md5").unwrap_err();
        assert!(error.to_string().contains("ETag"));
    }

    #[test]
    fn the_message_is_kept_without_request_id_and_without_any_signature() {
        let body =
            b"\xef\xbb\xbf<?xml version=\"1.0\"?><Error><Code>AuthenticationFailed</Code><Message>Server failed \
            to authenticate the request.\nRequestId:1\nTime:2</Message><AuthenticationErrorDetail>The MAC signature \
            found 'abc' is not the same</AuthenticationErrorDetail></Error>";
        let (code, said) = error_body(body);
        assert_eq!(code.as_deref(), Some("AuthenticationFailed"));
        assert_eq!(said.to_string(), "Server failed to authenticate the request.");
        assert_eq!(error_body(b"<html>502</html>"), (None, ServiceMessage::default()));
        let json = br#"{"error":{"code":"PathNotFound","message":"No \"d\".\nRequestId:1"}}"#;
        let (code, said) = error_body(json);
        assert_eq!((code.as_deref(), said.to_string().as_str()), (Some("PathNotFound"), "No \"d\"."));
        let escaped = b"<Error><Code>X</Code><Message>Not &lt;here&gt;.&#xA;RequestId:1&#xA;Time:2</Message></Error>";
        assert_eq!(error_body(escaped).1.to_string(), "Not <here>.", "the first line, without its XML escapes");
    }
}
