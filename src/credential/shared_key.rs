//! SharedKey: the account key signs verb, headers, path and query of a request.
//!
//! The rules are those of "Authorize with Shared Key" in the Blob REST reference, for versions from 2015-02-21: an
//! empty body counts as an *empty* Content-Length, `x-ms-*` headers are sorted and trimmed, query values are decoded
//! and sorted, and the path is signed as it goes over the wire (in path style it begins with the account once more).

use std::fmt;

use azure_core::http::Request;
use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::Sha256;

use super::{Error, trimmed};

/// Headers that have a line of their own in the string to sign, in order. Content-Length is handled apart.
const SIGNED_HEADERS: [&str; 11] = [
    "content-encoding",
    "content-language",
    "content-length",
    "content-md5",
    "content-type",
    "date",
    "if-modified-since",
    "if-match",
    "if-none-match",
    "if-unmodified-since",
    "range",
];

/// Length of the keys that Azure makes: 64 bytes, 88 characters in base64 ("Manage storage account access keys").
pub const AZURE_KEY_BYTES: usize = 64;

/// The key of a storage account, with the account's name.
#[derive(Clone)]
pub struct AccountKey {
    account: String,
    key: SecretSlice<u8>,
    /// The account's other key, where it is known: tried when this one is refused.
    spare: Option<SecretSlice<u8>>,
}

impl AccountKey {
    /// Takes the base64 text of a key. `source_name` says in messages where it came from.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::KeyNotBase64`].
    pub fn parse(source_name: &str, account: &str, key: &str) -> Result<Self, Error> {
        let key = trimmed(source_name, key)?;
        let bytes = STANDARD
            .decode(key.expose_secret())
            .map_err(|_| Error::KeyNotBase64 { source_name: source_name.to_owned() })?;
        Ok(Self { account: account.to_owned(), key: SecretSlice::from(bytes), spare: None })
    }

    /// The same with the account's other key, for the time when this one is refused.
    #[must_use]
    pub fn with_spare(self, other: &Self) -> Self {
        let differs = self.key.expose_secret() != other.key.expose_secret();
        Self { spare: differs.then(|| other.key.clone()), ..self }
    }

    /// The account's other key, with this one to spare.
    #[must_use]
    pub fn spare(&self) -> Option<Self> {
        let key = self.spare.clone()?;
        Some(Self { account: self.account.clone(), key, spare: Some(self.key.clone()) })
    }

    /// The account that the key belongs to.
    #[must_use]
    pub fn account(&self) -> &str {
        &self.account
    }

    /// The key as it is written, to be kept in a Secret.
    #[must_use]
    pub fn text(&self) -> SecretString {
        STANDARD.encode(self.key.expose_secret()).into()
    }

    /// Its length in bytes: keys of Azure have [`AZURE_KEY_BYTES`].
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.key.expose_secret().len()
    }

    /// HMAC-SHA256 of `text`, in base64.
    #[must_use]
    pub fn sign(&self, text: &str) -> String {
        #[expect(clippy::expect_used, reason = "HMAC takes a key of any length, so this cannot fail")]
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.expose_secret()).expect("HMAC takes keys of any length");
        mac.update(text.as_bytes());
        STANDARD.encode(mac.finalize().into_bytes())
    }

    /// The value of the Authorization header for `request`, whose `x-ms-date` must be set already.
    #[must_use]
    pub fn authorization(&self, request: &Request) -> String {
        format!("SharedKey {}:{}", self.account, self.sign(&string_to_sign(&self.account, request)))
    }
}

impl fmt::Debug for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountKey").field("account", &self.account).finish_non_exhaustive()
    }
}

/// Exactly what the service computes on its side.
fn string_to_sign(account: &str, request: &Request) -> String {
    let mut text = String::with_capacity(512);
    text.push_str(request.method().as_ref());
    text.push('\n');
    for name in SIGNED_HEADERS {
        // By a walk: `get_optional_str` makes an error, with a text, of each header that is missing, which most are.
        let header = request.headers().iter().find(|(found, _)| found.as_str() == name);
        let value = header.map_or("", |(_, value)| value.as_str());
        if !(name == "content-length" && value == "0") {
            text.push_str(value);
        }
        text.push('\n');
    }
    push_canonical_headers(&mut text, request);
    text.push('/');
    text.push_str(account);
    text.push_str(request.url().path());
    push_canonical_query(&mut text, request);
    text
}

fn push_canonical_headers(text: &mut String, request: &Request) {
    let mut headers: Vec<(String, &str)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.as_str().to_ascii_lowercase(), value.as_str()))
        .filter(|(name, _)| name.starts_with("x-ms-"))
        .collect();
    headers.sort();
    for (name, value) in headers {
        text.push_str(&name);
        text.push(':');
        text.push_str(value.trim());
        text.push('\n');
    }
}

fn push_canonical_query(text: &mut String, request: &Request) {
    let mut pairs: Vec<(String, String)> =
        request.url().query_pairs().map(|(name, value)| (name.to_ascii_lowercase(), value.into_owned())).collect();
    pairs.sort();
    let mut last: Option<&str> = None;
    for (name, value) in &pairs {
        if last == Some(name.as_str()) {
            text.push(',');
        } else {
            text.push('\n');
            text.push_str(name);
            text.push(':');
        }
        text.push_str(value);
        last = Some(name);
    }
}

#[cfg(test)]
mod tests {
    use azure_core::http::Method;

    use super::*;

    fn request(method: Method, url: &str, headers: &[(&'static str, &'static str)]) -> Request {
        let mut request = Request::new(url.parse().unwrap(), method);
        for (name, value) in headers {
            request.insert_header(*name, *value);
        }
        request
    }

    #[test]
    fn the_string_to_sign_of_the_rest_reference_is_reproduced() {
        let request = request(
            Method::Get,
            "https://myaccount.blob.core.windows.net/mycontainer?timeout=20&restype=container&comp=metadata",
            &[("x-ms-version", "2015-02-21"), ("x-ms-date", "Fri, 26 Jun 2015 23:39:12 GMT")],
        );
        assert_eq!(
            string_to_sign("myaccount", &request),
            "GET\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:Fri, 26 Jun 2015 23:39:12 GMT\nx-ms-version:2015-02-21\n\
             /myaccount/mycontainer\ncomp:metadata\nrestype:container\ntimeout:20"
        );
    }

    #[test]
    fn a_body_of_no_bytes_is_signed_as_an_empty_length() {
        let with = |length| {
            let request = request(Method::Put, "https://a.blob.core.windows.net/c/b", &[("content-length", length)]);
            string_to_sign("a", &request).split('\n').nth(3).unwrap().to_owned()
        };
        assert_eq!(with("0"), "");
        assert_eq!(with("10"), "10");
    }

    #[test]
    fn query_values_are_signed_decoded_sorted_and_joined() {
        let request = request(
            Method::Get,
            "https://a.blob.core.windows.net/c?prefix=a%2Fb%20c&include=metadata&Include=copy&comp=list",
            &[],
        );
        assert!(string_to_sign("a", &request).ends_with("/a/c\ncomp:list\ninclude:copy,metadata\nprefix:a/b c"));
    }

    #[test]
    fn the_path_is_signed_as_it_goes_over_the_wire() {
        let request = request(Method::Get, "http://127.0.0.1:10000/acct/c/a%2F%2Fb%09", &[]);
        assert!(string_to_sign("acct", &request).ends_with("/acct/acct/c/a%2F%2Fb%09"));
    }

    #[test]
    fn the_signature_is_hmac_sha256_of_the_decoded_key() {
        // RFC 4231, test case 2.
        let key = AccountKey::parse("test", "a", &STANDARD.encode("Jefe")).unwrap();
        let expected = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let signature = STANDARD.decode(key.sign("what do ya want for nothing?")).unwrap();
        assert_eq!(signature.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), expected);
    }

    #[test]
    fn a_key_that_is_no_base64_names_its_source_and_not_its_value() {
        let error = AccountKey::parse("secret key accountkey", "a", "not*base64").unwrap_err().to_string();
        assert!(error.contains("secret key accountkey") && !error.contains("not*base64"), "{error}");
    }

    #[test]
    fn debug_output_never_contains_the_account_key() {
        let key = AccountKey::parse("test", "acct", "c2VjcmV0").unwrap();
        let text = format!("{key:?}");
        assert!(text.contains("acct") && !text.contains("c2VjcmV0") && !text.contains("115"), "{text}");
    }
}
