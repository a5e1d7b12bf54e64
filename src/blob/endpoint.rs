//! Where a container is: account, service root, container, prefix. Parses what users write and builds exact URLs.
//!
//! Forms: `https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX]` (any cloud), path style
//! `http://HOST:PORT/ACCOUNT/CONTAINER[/PREFIX]` (emulators), a custom domain `https://DOMAIN/CONTAINER[/PREFIX]`, and
//! bare `CONTAINER[/PREFIX]` with account or endpoint from elsewhere. A SAS in the URL is taken out and handed back
//! apart: a [`Location`] never holds a secret, so it can be printed and logged.

use std::{fmt, net::IpAddr};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use url::{Host, Url};

use super::BlobName;
use crate::{
    credential::{AccountSettings, Cloud, SasToken},
    finding::{Diagnosis, Finding},
};

/// Everything but RFC 3986's unreserved characters is escaped, `/` too: with a plain `/`, the URL standard would
/// resolve `a/../b` to `b`. The service treats `%2F` and `/` alike.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What is wrong with a location. The sentences are those of the table of findings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocationError {
    /// Not a URL, or one without a container.
    BadUrl(String, String),
    /// A container name that the service does not allow.
    BadContainer(String, &'static str),
    /// An account name that the service does not allow.
    BadAccount(String),
    /// Neither account nor endpoint.
    NoAccount(String),
    /// The URL's account and the one given apart differ.
    OtherAccount(String, String),
    /// A SAS in the URL that is none.
    BadSas(crate::credential::Error),
}

impl LocationError {
    /// Which finding it is, filled in.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        match self {
            Self::BadUrl(text, reason) => Finding::UrlMalformed.with(&[("text", text), ("reason", reason)]),
            Self::BadContainer(text, reason) => {
                Finding::ContainerNameIllegal.with(&[("text", text), ("reason", reason)])
            }
            Self::BadAccount(text) => Finding::AccountNameIllegal.with(&[("text", text)]),
            Self::NoAccount(container) => Finding::AccountUnnamed.with(&[("container", container)]),
            Self::OtherAccount(account, other) => {
                Finding::AccountNamedTwice.with(&[("account", account), ("other", other)])
            }
            Self::BadSas(error) => error.diagnosis(),
        }
    }
}

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.diagnosis(), f)
    }
}

impl std::error::Error for LocationError {}

impl From<crate::credential::Error> for LocationError {
    fn from(error: crate::credential::Error) -> Self {
        Self::BadSas(error)
    }
}

/// What is known about a location apart from the URL: options, volume attributes, environment.
#[derive(Clone, Debug, Default)]
pub struct LocationHints {
    /// Name of the storage account.
    pub account: Option<String>,
    /// Blob endpoint, with or without scheme; a path in it makes it path style (`http://HOST:PORT/ACCOUNT`).
    /// What blob.csi.azure.com calls `server` and blobfuse `AZURE_STORAGE_BLOB_ENDPOINT`.
    pub endpoint: Option<String>,
    /// DNS suffix of the storage services (`core.windows.net`), over `cloud`.
    pub endpoint_suffix: Option<String>,
    /// The cloud whose suffix is used otherwise.
    pub cloud: Cloud,
    /// `http` instead of `https` where no scheme is written.
    pub insecure: bool,
}

impl From<&AccountSettings> for LocationHints {
    fn from(settings: &AccountSettings) -> Self {
        Self {
            account: settings.account.clone(),
            endpoint: settings.endpoint.clone(),
            endpoint_suffix: settings.endpoint_suffix.clone(),
            cloud: Cloud::default(),
            insecure: settings.insecure,
        }
    }
}

/// A container of an account at an endpoint, and the prefix inside it that is meant.
#[derive(Clone, PartialEq, Eq)]
pub struct Location {
    /// Root of the Blob service, without a slash at the end: `https://acme.blob.core.windows.net` or, in path style,
    /// `http://127.0.0.1:10000/devstoreaccount1`.
    service: String,
    host: String,
    account: String,
    container: String,
    prefix: String,
}

impl Location {
    /// Reads what a user wrote. A SAS in the query is handed back apart.
    ///
    /// # Errors
    /// [`LocationError`], which shows the text without its query.
    pub fn parse(text: &str, hints: &LocationHints) -> Result<(Self, Option<SasToken>), LocationError> {
        let text = text.trim();
        if !text.contains("://") {
            let (path, query) = text.split_once('?').unwrap_or((text, ""));
            let location = Self::from_names(path, hints)?;
            return Ok((location, sas_of(query)?));
        }
        let shown = text.split(['?', '#']).next().unwrap_or_default();
        let bad = |reason: &str| LocationError::BadUrl(without_user(shown), reason.to_owned());
        let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("only http and https are understood"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("a user name or password in the URL is not understood"));
        }
        let sas = sas_of(url.query().unwrap_or_default())?;
        let service = Service::of_url(&url, hints).map_err(bad)?;
        let mut segments = url.path().trim_start_matches('/');
        if let Some(account) = &service.path_account {
            segments = segments.strip_prefix(account.as_str()).unwrap_or(segments).trim_start_matches('/');
        }
        let path = percent_decode_str(segments).decode_utf8().map_err(|_| bad("its path is not UTF-8"))?;
        let account = service.account(hints)?.ok_or_else(|| LocationError::NoAccount(path.clone().into_owned()))?;
        if path.is_empty() {
            return Err(bad("it names no container"));
        }
        Ok((Self::build(service.root, service.host, account, &path)?, sas))
    }

    /// `CONTAINER[/PREFIX]`, with the rest from `hints`.
    ///
    /// # Errors
    /// [`LocationError`].
    pub fn from_names(path: &str, hints: &LocationHints) -> Result<Self, LocationError> {
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return Err(LocationError::BadUrl(String::new(), "it names no container".to_owned()));
        }
        let service = match &hints.endpoint {
            Some(endpoint) => {
                let written = with_scheme(endpoint.trim(), hints.insecure);
                let bad = |reason: &str| LocationError::BadUrl(without_user(&written), reason.to_owned());
                let url = Url::parse(&written).map_err(|error| bad(&error.to_string()))?;
                Service::of_endpoint(&url).map_err(bad)?
            }
            None => {
                let account = hints.account.as_deref().ok_or_else(|| LocationError::NoAccount(path.to_owned()))?.trim();
                check_account(account)?;
                let suffix = hints.endpoint_suffix.as_deref().unwrap_or(hints.cloud.storage_suffix());
                let suffix = suffix.trim().trim_start_matches('.').trim_start_matches("blob.");
                let host = format!("{account}.blob.{suffix}");
                let root = with_scheme(&host, hints.insecure);
                Service { root, host, path_account: None, host_account: Some(account.to_owned()) }
            }
        };
        let account = service.account(hints)?.ok_or_else(|| LocationError::NoAccount(path.to_owned()))?;
        Self::build(service.root, service.host, account, path)
    }

    fn build(service: String, host: String, account: String, path: &str) -> Result<Self, LocationError> {
        let (container, prefix) = path.split_once('/').unwrap_or((path, ""));
        check_container(container)?;
        let prefix = match prefix.trim_matches('/') {
            "" => String::new(),
            directory => format!("{directory}/"),
        };
        Ok(Self { service, host, account, container: container.to_owned(), prefix })
    }

    /// Name of the storage account; for a custom domain without a known account, the domain's host.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Name of the container.
    #[must_use]
    pub fn container(&self) -> &str {
        &self.container
    }

    /// The directory inside the container that is meant: empty, or text that ends with `/`. The store ignores it;
    /// the file system puts it in front of every name.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Host (and port) of the endpoint, for messages.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The same account and endpoint with another container and no prefix.
    ///
    /// # Errors
    /// [`LocationError::BadContainer`].
    pub fn with_container(&self, container: &str) -> Result<Self, LocationError> {
        Self::build(self.service.clone(), self.host.clone(), self.account.clone(), container)
    }

    /// `host/account/container`: equal text, equal container.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}/{}/{}", self.host, self.account, self.container)
    }

    /// URL of the container.
    pub(super) fn container_url(&self) -> Option<Url> {
        Url::parse(&format!("{}/{}", self.service, self.container)).ok()
    }

    /// URL of the service's root.
    pub(super) fn service_url(&self) -> Option<Url> {
        Url::parse(&format!("{}/", self.service)).ok()
    }

    /// Whether requests go over TLS.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.service.starts_with("https://")
    }

    /// URL of a path, or of the root, at the Data Lake endpoint of the same account: `dfs` for `blob` in the host name. A
    /// host without that label (emulators, custom domains) is taken to serve both. `None` for a path with a part `.` or
    /// `..`, which no path has.
    pub(super) fn path_url(&self, path: Option<&BlobName>) -> Option<Url> {
        let path_style = !self.service.ends_with(&self.host);
        let service = if path_style { self.service.clone() } else { self.service.replacen(".blob.", ".dfs.", 1) };
        let Some(path) = path else { return Url::parse(&format!("{service}/{}", self.container)).ok() };
        if path.as_str().split('/').any(|part| matches!(part, "." | "..")) {
            return None;
        }
        Url::parse(&format!("{service}/{}/{}", self.container, escape_parts(path))).ok()
    }

    /// What x-ms-rename-source says of a path: `/container/path`, escaped.
    pub(super) fn rename_source(&self, path: &BlobName) -> String {
        format!("/{}/{}", self.container, escape_parts(path))
    }

    /// URL of a blob under its exact name. `None` for `.` and `..`, which no HTTP client can send as the last segment
    /// of a path, escaped or not (the URL standard resolves both).
    pub(super) fn blob_url(&self, name: &BlobName) -> Option<Url> {
        if matches!(name.as_str(), "." | "..") {
            return None;
        }
        let escaped = utf8_percent_encode(name.as_str(), ESCAPED);
        Url::parse(&format!("{}/{}/{escaped}", self.service, self.container)).ok()
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.service, self.container)?;
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

/// A path whose parts are percent-encoded one by one, so that the slashes between them stay.
fn escape_parts(path: &BlobName) -> String {
    path.as_str().split('/').map(escape).collect::<Vec<_>>().join("/")
}

/// Percent-encodes a query value (or anything that must survive the URL standard and form decoding alike).
pub(super) fn escape(text: &str) -> String {
    utf8_percent_encode(text, ESCAPED).to_string()
}

/// A Blob service, before container and prefix are known.
struct Service {
    root: String,
    host: String,
    /// The account as the first segment of the path (path style).
    path_account: Option<String>,
    /// The account as the first label of the host.
    host_account: Option<String>,
}

impl Service {
    /// The service that a *container* URL is about. Path style where the host cannot hold an account: an IP address,
    /// a name of one label, or any unknown host with a port (emulators inside a cluster).
    fn of_url(url: &Url, hints: &LocationHints) -> Result<Self, &'static str> {
        let host_account = account_of_host(url);
        let unknown = host_account.is_none();
        let single = match url.host() {
            Some(Host::Domain(domain)) => !domain.contains('.') || url.port().is_some(),
            Some(_) => true,
            None => return Err("it has no host"),
        };
        let mut segments = url.path().trim_start_matches('/').split('/');
        let first = segments.next().unwrap_or_default();
        let account_leads = hints.account.as_deref() == Some(first) && segments.next().is_some_and(|s| !s.is_empty());
        let path_account = (unknown && (single || account_leads)).then(|| first.to_owned());
        if path_account.as_deref() == Some("") {
            return Err("in path style it must name account and container");
        }
        Ok(Self::new(url, path_account, host_account))
    }

    /// The service that an *endpoint* is: a path in it can only be the account.
    fn of_endpoint(url: &Url) -> Result<Self, &'static str> {
        let path = url.path().trim_matches('/');
        if url.host().is_none() || path.contains('/') {
            return Err("an endpoint is a host, or a host and an account");
        }
        Ok(Self::new(url, Some(path.to_owned()).filter(|path| !path.is_empty()), account_of_host(url)))
    }

    fn new(url: &Url, path_account: Option<String>, host_account: Option<String>) -> Self {
        let mut host = url.host_str().unwrap_or_default().to_owned();
        // Data Lake's endpoint of the same account: the Blob service is next door. A private endpoint answers under the
        // account's ordinary name, which is what its certificate has; `privatelink` is only a zone of DNS.
        if host_account.is_some() {
            host = host.replacen(".dfs.", ".blob.", 1).replacen(".privatelink.", ".", 1);
        }
        if let Some(port) = url.port() {
            host = format!("{host}:{port}");
        }
        let root = match &path_account {
            Some(account) => format!("{}://{host}/{account}", url.scheme()),
            None => format!("{}://{host}", url.scheme()),
        };
        Self { root, host, path_account, host_account }
    }

    /// The account, checked against the one given apart. A custom domain may go without (SAS, anonymous).
    fn account(&self, hints: &LocationHints) -> Result<Option<String>, LocationError> {
        let given = hints.account.as_deref().map(str::trim).filter(|account| !account.is_empty());
        match (self.path_account.as_deref().or(self.host_account.as_deref()), given) {
            (Some(own), Some(given)) if own.trim_end_matches("-secondary") != given => {
                Err(LocationError::OtherAccount(own.to_owned(), given.to_owned()))
            }
            (Some(own), _) => Ok(Some(own.trim_end_matches("-secondary").to_owned())),
            (None, Some(given)) => Ok(Some(given.to_owned())),
            (None, None) => Ok(Some(self.host.clone())),
        }
    }
}

/// `acme` of `acme.blob.core.windows.net`, `acme.z22.blob.storage.azure.net` (DNS zones) or
/// `acme.privatelink.blob.core.windows.net`; `None` for any other host.
fn account_of_host(url: &Url) -> Option<String> {
    let Some(Host::Domain(domain)) = url.host() else { return None };
    let labels: Vec<&str> = domain.split('.').collect();
    let service = labels.iter().position(|label| matches!(*label, "blob" | "dfs"))?;
    ((1..=2).contains(&service) && labels.len() > service + 2).then(|| labels[0].to_owned())
}

fn with_scheme(endpoint: &str, insecure: bool) -> String {
    match endpoint.contains("://") {
        true => endpoint.to_owned(),
        // An IP address never has a certificate of its own: only emulators are written so.
        false if insecure || endpoint.split([':', '/']).next().is_some_and(|host| host.parse::<IpAddr>().is_ok()) => {
            format!("http://{endpoint}")
        }
        false => format!("https://{endpoint}"),
    }
}

fn sas_of(query: &str) -> Result<Option<SasToken>, LocationError> {
    match query.is_empty() {
        true => Ok(None),
        false => Ok(Some(SasToken::parse("the query of the container URL", query)?)),
    }
}

/// The text without `user:password@`, for messages.
fn without_user(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://{}", &text[..scheme], &text[at + 1..]),
        _ => text.to_owned(),
    }
}

/// REST: "Naming and referencing containers, blobs, and metadata".
fn check_container(name: &str) -> Result<(), LocationError> {
    let bad = |reason| Err(LocationError::BadContainer(name.to_owned(), reason));
    if matches!(name, "$root" | "$web" | "$logs" | "$blobchangefeed") {
        return Ok(());
    }
    if !name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-') {
        return bad(if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
            "capital letters are not allowed"
        } else {
            "it has a character that is not allowed"
        });
    }
    if !(3..=63).contains(&name.len()) {
        return bad("its length is not allowed");
    }
    if name.starts_with('-') || name.ends_with('-') || name.contains("--") {
        return bad("every - must stand between letters or digits");
    }
    Ok(())
}

/// Only checked where the account becomes part of a host name: emulators take any.
fn check_account(name: &str) -> Result<(), LocationError> {
    let allowed =
        (3..=24).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if allowed { Ok(()) } else { Err(LocationError::BadAccount(name.to_owned())) }
}

#[cfg(test)]
mod tests;
