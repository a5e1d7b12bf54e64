//! One request as the handlers see it: who, what, which headers, when. Must not know what an operation does with it.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crc64fast_nvme::Digest;
use hyper::{HeaderMap, Method, http::request::Parts};
use md5::{Digest as _, Md5};
use percent_encoding::percent_decode_str;
use time::OffsetDateTime;

use crate::{
    auth::Grant,
    data::Data,
    error::{Code, ServiceError},
    hierarchy::normal_name,
    operation::{Operation, Scope, classify},
    query::Query,
};

/// Longest name of a blob, in characters (REST page "Naming and referencing containers, blobs, and metadata").
const BLOB_NAME_CHARS_MAX: usize = 1024;
/// Bytes of all metadata names and values together (REST page "Set Blob Metadata").
const METADATA_BYTES_MAX: usize = 8 * 1024;

/// User metadata: names in lower case, since header names carry no case through the HTTP library.
pub(crate) type Metadata = BTreeMap<String, String>;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resource {
    /// Account.
    pub(crate) account: String,
    /// Container, if the path names one.
    pub(crate) container: Option<String>,
    /// Blob, if the path names one.
    pub(crate) blob: Option<String>,
}

impl Resource {
    /// Reads a path. `host_account` is the account that the host name stands for; without it the path begins with it.
    ///
    /// # Errors
    /// `InvalidUri` for what is no UTF-8, `OutOfRangeInput` for names beyond the limits.
    pub(crate) fn parse(path: &str, host_account: Option<&str>) -> Result<Self, ServiceError> {
        let decode = |text: &str| {
            percent_decode_str(text)
                .decode_utf8()
                .map(|text| text.into_owned())
                .map_err(|_| ServiceError::from(Code::InvalidUri))
        };
        let rest = path.strip_prefix('/').unwrap_or(path);
        let (account, rest) = match host_account {
            Some(account) => (account.to_owned(), rest),
            None => {
                let (account, rest) = rest.split_once('/').unwrap_or((rest, ""));
                (decode(account)?, rest)
            }
        };
        let (container, blob) = match rest.split_once('/') {
            Some((container, blob)) => (decode(container)?, decode(blob)?),
            None => (decode(rest)?, String::new()),
        };
        if blob.chars().count() > BLOB_NAME_CHARS_MAX {
            return Err(Code::OutOfRangeInput.into());
        }
        let present = |text: String| Some(text).filter(|text| !text.is_empty());
        let container = present(container);
        if let Some(name) = &container {
            check_container_name(name)?;
        }
        Ok(Self { account, container, blob: present(blob) })
    }

    /// What it is.
    pub(crate) fn scope(&self) -> Scope {
        match (&self.container, &self.blob) {
            (None, _) => Scope::Service,
            (Some(_), None) => Scope::Container,
            (Some(_), Some(_)) => Scope::Blob,
        }
    }
}

fn check_container_name(name: &str) -> Result<(), ServiceError> {
    if matches!(name, "$root" | "$logs" | "$web") {
        return Ok(());
    }
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !name.chars().all(|c| plain(c) || c == '-') || name.contains("--") {
        return Err(Code::InvalidResourceName.into());
    }
    if name.starts_with('-') || name.ends_with('-') {
        return Err(Code::InvalidResourceName.into());
    }
    if !(3..=63).contains(&name.len()) {
        return Err(Code::OutOfRangeInput.into());
    }
    Ok(())
}

/// A body that has arrived in full.
#[derive(Clone, Default)]
pub(crate) struct Payload {
    /// The bytes.
    pub(crate) data: Data,
    /// MD5 of them, where the operation needs it.
    pub(crate) md5: Option<[u8; 16]>,
    /// CRC64 of them.
    pub(crate) crc64: u64,
}

impl Payload {
    /// Bytes that are here already, with their checksums.
    pub(crate) fn of(data: Data, with_md5: bool) -> Self {
        let mut crc64 = Digest::new();
        data.parts().for_each(|part| crc64.write(&part));
        let md5 = with_md5.then(|| {
            let mut md5 = Md5::new();
            data.parts().for_each(|part| md5.update(&part));
            md5.finalize().into()
        });
        Self { data, md5, crc64: crc64.sum64() }
    }
}

/// One request.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) operation: Operation,
    pub(crate) method: Method,
    pub(crate) resource: Resource,
    /// The path as sent, still percent-encoded: what SharedKey signs.
    pub(crate) raw_path: String,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    /// Host header.
    pub(crate) host: String,
    /// Whether the account is in the host name.
    pub(crate) host_style: bool,
    pub(crate) peer: IpAddr,
    pub(crate) now: OffsetDateTime,
    pub(crate) request_id: Arc<str>,
    /// Whether the account has a hierarchical namespace.
    pub(crate) hierarchical: bool,
    /// Whether it came over TLS; set where the connection is known.
    pub(crate) secure: bool,
    /// What authentication found; set before a handler runs.
    pub(crate) grant: Grant,
}

impl Call {
    /// Reads the head of a request. `host_account` as in [`Resource::parse`].
    ///
    /// # Errors
    /// What the service answers to a path, verb or version that it does not know.
    pub(crate) fn parse(
        parts: &Parts,
        host_account: Option<&str>,
        peer: IpAddr,
        now: OffsetDateTime,
        request_id: Arc<str>,
        hierarchical: bool,
    ) -> Result<Self, ServiceError> {
        let mut resource = Resource::parse(parts.uri.path(), host_account)?;
        if hierarchical {
            let name = resource.blob.as_deref().map(normal_name).transpose()?;
            resource.blob = name.filter(|name| !name.is_empty());
        }
        let query = Query::parse(parts.uri.query().unwrap_or_default());
        let operation = classify(&parts.method, resource.scope(), &query, &parts.headers)?;
        if let Some(version) = header(&parts.headers, "x-ms-version")? {
            let known = version.len() == 10 && crate::date::parse_sas(version).is_some() && version >= "2009-09-19";
            if !known {
                return Err(ServiceError::bad_header("x-ms-version", version));
            }
        }
        Ok(Self {
            operation,
            method: parts.method.clone(),
            resource,
            raw_path: parts.uri.path().to_owned(),
            query,
            headers: parts.headers.clone(),
            host: header(&parts.headers, "host")?.unwrap_or_default().to_owned(),
            host_style: host_account.is_some(),
            peer,
            now,
            request_id,
            hierarchical,
            secure: false,
            grant: Grant::Denied,
        })
    }

    /// A header's text.
    ///
    /// # Errors
    /// `InvalidHeaderValue` where it is not visible ASCII.
    pub(crate) fn header(&self, name: &'static str) -> Result<Option<&str>, ServiceError> {
        header(&self.headers, name)
    }

    /// A header that the operation needs.
    pub(crate) fn required_header(&self, name: &'static str) -> Result<&str, ServiceError> {
        self.header(name)?.ok_or_else(|| ServiceError::missing_header(name))
    }

    /// A header that is a number.
    pub(crate) fn number_header(&self, name: &'static str) -> Result<Option<u64>, ServiceError> {
        self.header(name)?.map(|text| text.trim().parse().map_err(|_| ServiceError::bad_header(name, text))).transpose()
    }

    /// x-ms-version, or the service's default.
    pub(crate) fn version(&self) -> &str {
        self.headers.get("x-ms-version").and_then(|value| value.to_str().ok()).unwrap_or("2009-09-19")
    }

    /// The container of a request whose path names one.
    pub(crate) fn container_name(&self) -> &str {
        self.resource.container.as_deref().unwrap_or_default()
    }

    /// The blob of a request whose path names one.
    pub(crate) fn blob_name(&self) -> &str {
        self.resource.blob.as_deref().unwrap_or_default()
    }

    /// x-ms-meta-*.
    ///
    /// # Errors
    /// `EmptyMetadataKey`, `InvalidMetadata`, `MetadataTooLarge`.
    pub(crate) fn metadata(&self) -> Result<Metadata, ServiceError> {
        let mut metadata = Metadata::new();
        let mut bytes = 0;
        for (name, value) in &self.headers {
            let Some(key) = name.as_str().strip_prefix("x-ms-meta-") else { continue };
            if key.trim().is_empty() {
                return Err(Code::EmptyMetadataKey.into());
            }
            // Names must be identifiers of C# (REST page "Naming and referencing containers, blobs, and metadata").
            let identifier = !key.starts_with(|c: char| c.is_ascii_digit())
                && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            let text = value.to_str().ok().filter(|_| identifier);
            let Some(text) = text else {
                return Err(ServiceError::from(Code::InvalidMetadata).detail("HeaderName", name.as_str()));
            };
            bytes += key.len() + text.len();
            metadata
                .entry(key.to_owned())
                .and_modify(|all: &mut String| {
                    all.push(',');
                    all.push_str(text);
                })
                .or_insert_with(|| text.to_owned());
        }
        if bytes > METADATA_BYTES_MAX {
            return Err(Code::MetadataTooLarge.into());
        }
        Ok(metadata)
    }
}

fn header<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<Option<&'a str>, ServiceError> {
    match headers.get(name) {
        None => Ok(None),
        Some(value) => match value.to_str() {
            Ok("") => Ok(None),
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(ServiceError::bad_header(name, "")),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_exactly_as_they_are_encoded() {
        let of = |path: &str| Resource::parse(path, None).unwrap().blob.unwrap();
        assert_eq!(of("/acct/con/a//b"), "a//b");
        assert_eq!(of("/acct/con/d/"), "d/");
        assert_eq!(of("/acct/con/a%2Fb%252Fc"), "a/b%2Fc");
        assert_eq!(of("/acct/con/../x"), "../x");
        assert_eq!(of("/acct/con//x"), "/x");
        assert_eq!(Resource::parse("/acct/con/", None).unwrap().scope(), Scope::Container);
        assert_eq!(Resource::parse("/con/x", Some("acct")).unwrap().account, "acct");
        assert!(Resource::parse("/acct/con/%ff", None).is_err());
        assert!(Resource::parse("/acct/Con/x", None).is_err());
    }
}
