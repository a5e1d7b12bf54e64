//! Shared access signatures: a ready-made query string. Its readable fields serve messages, the rest is secret.

use std::{fmt, time::SystemTime};

use secrecy::{ExposeSecret, SecretString};
use time::{OffsetDateTime, format_description::well_known::Rfc3339, macros::format_description};
use url::{Url, form_urlencoded};

use super::{Error, trimmed};
use crate::finding::{Diagnosis, Finding};

/// A SAS token. [`fmt::Debug`] shows what it allows and until when, never the signature.
#[derive(Clone)]
pub struct SasToken {
    /// The query string without `?`, as it was given: the signature covers decoded values, so it is sent untouched.
    query: SecretString,
    fields: SasFields,
}

/// The readable fields of a SAS, as given. They are hints for messages; the service judges.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct SasFields {
    version: Option<String>,
    permissions: Option<String>,
    resource: Option<String>,
    services: Option<String>,
    types: Option<String>,
    start: Option<String>,
    expiry: Option<String>,
}

impl SasToken {
    /// Takes a SAS with or without its leading `?`. `source_name` says in messages where it came from.
    ///
    /// # Errors
    /// [`Error::Empty`], [`Error::SasWithoutSignature`].
    pub fn parse(source_name: &str, text: &str) -> Result<Self, Error> {
        let text = trimmed(source_name, text)?;
        let query = text.expose_secret().trim_start_matches(['?', '&']).trim_end_matches('&');
        let mut fields = SasFields::default();
        let mut signed = false;
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            match name.as_ref() {
                "sv" => fields.version = Some(value),
                "sp" => fields.permissions = Some(value),
                "sr" => fields.resource = Some(value),
                "ss" => fields.services = Some(value),
                "srt" => fields.types = Some(value),
                "st" => fields.start = Some(value),
                "se" => fields.expiry = Some(value),
                "sig" => signed = !value.is_empty(),
                _ => {}
            }
        }
        if !signed {
            return Err(Error::SasWithoutSignature { source_name: source_name.to_owned() });
        }
        Ok(Self { query: SecretString::from(query.to_owned()), fields })
    }

    /// Adds the token to the query of `url`. Parameters of the token that are there already are replaced.
    pub fn apply(&self, url: &mut Url) {
        let own: Vec<&str> = self.query.expose_secret().split('&').filter_map(|pair| pair.split('=').next()).collect();
        let kept: Vec<&str> = url
            .query()
            .unwrap_or_default()
            .split('&')
            .filter(|pair| !pair.is_empty() && !own.contains(&pair.split('=').next().unwrap_or_default()))
            .collect();
        let mut query = kept.join("&");
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(self.query.expose_secret());
        url.set_query(Some(&query));
    }

    /// Whether two are one token.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.query.expose_secret() == other.query.expose_secret()
    }

    /// What it allows and until when, for messages: `permissions racwdl, on resource c, until 2027-01-01T00:00:00Z`.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut parts = Vec::new();
        let mut add = |label: &str, value: &Option<String>| {
            if let Some(value) = value {
                parts.push(format!("{label} {value}"));
            }
        };
        add("permissions", &self.fields.permissions);
        add("on resource", &self.fields.resource);
        add("for services", &self.fields.services);
        add("from", &self.fields.start);
        add("until", &self.fields.expiry);
        add("version", &self.fields.version);
        parts.join(", ")
    }

    /// What makes it useless for a volume at `now`, as far as it says so itself. The service judges: our clock may be wrong,
    /// and a stored access policy may say what is missing here.
    #[must_use]
    pub fn problem(&self, now: SystemTime) -> Option<Diagnosis> {
        let lacks = |field: &Option<String>, needed: &[char]| {
            field.as_deref().is_some_and(|letters| !needed.iter().all(|letter| letters.contains(*letter)))
        };
        let shown = |finding: Finding, name: &str, field: &Option<String>| {
            let shown = format!(" ({name}={})", field.as_deref().unwrap_or_default());
            Some(finding.with(&[("shown", &shown)]))
        };
        let (start, end) = (self.fields.start.as_deref(), self.fields.expiry.as_deref());
        if let Some(end) = end.filter(|_| self.expires().is_some_and(|end| end <= now)) {
            return Some(Finding::SasExpired.with(&[("when", &format!(", on {end} (se)"))]));
        }
        if let Some(start) = start.filter(|_| self.starts().is_some_and(|start| start > now)) {
            return Some(Finding::SasNotYetValid.with(&[("start", start)]));
        }
        if lacks(&self.fields.services, &['b']) {
            return shown(Finding::SasOtherService, "ss", &self.fields.services);
        }
        if lacks(&self.fields.types, &['c', 'o']) {
            return shown(Finding::SasResourceTypes, "srt", &self.fields.types);
        }
        if self.fields.resource.as_deref() == Some("b") {
            return Some(Finding::SasSingleBlob.with(&[]));
        }
        if lacks(&self.fields.permissions, &['r', 'l']) {
            return shown(Finding::SasPermissions, "sp", &self.fields.permissions);
        }
        None
    }

    /// The letters of `sp` (`r` read, `l` list, `w` write, ...), where it says so itself.
    #[must_use]
    pub fn permissions(&self) -> Option<&str> {
        self.fields.permissions.as_deref()
    }

    /// When it ends (`se`), where it says so itself (a stored access policy may say it instead).
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.fields.expiry.as_deref().and_then(parse_time)
    }

    /// When it begins (`st`), where it says so itself.
    #[must_use]
    pub fn starts(&self) -> Option<SystemTime> {
        self.fields.start.as_deref().and_then(parse_time)
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SasToken({})", self.describe())
    }
}

/// The service takes a date, minutes, or seconds, all in UTC ("Create a service SAS", "Specify the expiry").
fn parse_time(text: &str) -> Option<SystemTime> {
    let minutes = format_description!("[year]-[month]-[day]T[hour]:[minute]Z");
    let full = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        _ => text.to_owned(),
    };
    OffsetDateTime::parse(&full, &Rfc3339)
        .or_else(|_| time::PrimitiveDateTime::parse(&full, minutes).map(time::PrimitiveDateTime::assume_utc))
        .ok()
        .map(SystemTime::from)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TOKEN: &str = "sv=2022-11-02&ss=b&sp=rl&se=2027-01-02T03:04:05Z&sig=a%2Bb%3D";

    #[test]
    fn the_question_mark_is_optional() {
        for text in [TOKEN.to_owned(), format!("?{TOKEN}"), format!(" ?{TOKEN}\n")] {
            let mut url: Url = "https://a.blob.core.windows.net/c/b?comp=block".parse().unwrap();
            SasToken::parse("test", &text).unwrap().apply(&mut url);
            assert_eq!(url.query(), Some(format!("comp=block&{TOKEN}").as_str()));
        }
    }

    #[test]
    fn a_newer_token_replaces_the_older_one_in_a_url() {
        let mut url: Url = "https://a.blob.core.windows.net/c?restype=container".parse().unwrap();
        SasToken::parse("test", "sv=1&sp=rl&sig=old").unwrap().apply(&mut url);
        SasToken::parse("test", "sv=2&sp=rw&sig=new").unwrap().apply(&mut url);
        assert_eq!(url.query(), Some("restype=container&sv=2&sp=rw&sig=new"));
    }

    #[test]
    fn a_token_without_signature_is_refused() {
        for text in ["sv=2022-11-02&sp=rl", "sig=", "justtext"] {
            let error = SasToken::parse("AZURE_STORAGE_SAS_TOKEN", text).unwrap_err().to_string();
            assert!(error.contains("AZURE_STORAGE_SAS_TOKEN") && error.contains("sig="), "{error}");
        }
    }

    #[test]
    fn debug_output_shows_the_permissions_and_never_the_signature() {
        let text = format!("{:?}", SasToken::parse("test", TOKEN).unwrap());
        assert!(text.contains("permissions rl") && text.contains("2027-01-02") && !text.contains("a%2Bb"), "{text}");
        assert!(!text.contains("a+b"), "{text}");
    }

    #[test]
    fn a_token_says_itself_why_it_is_useless() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600); // 2027-01-01
        let problem = |text: &str| SasToken::parse("test", &format!("{text}&sig=s3cret")).unwrap().problem(now);
        for (text, reason) in [
            ("sv=1&sp=rl&se=2026-12-31", "has expired, on 2026-12-31"),
            ("sv=1&sp=rl&se=2027-01-01T00:00:00Z", "has expired"),
            ("sv=1&sp=rl&st=2027-01-02T00:00Z&se=2028-01-01", "not valid yet"),
            ("sv=1&sp=rl&ss=fq&srt=co", "ss=b"),
            ("sv=1&sp=rl&ss=b&srt=s", "srt=co"),
            ("sv=1&sp=rl&sr=b", "sr=c"),
            ("sv=1&sp=w&sr=c", "needs sp=rl"),
            ("sv=1&sp=r&sr=c", "needs sp=rl"),
        ] {
            let said = problem(text).unwrap().to_string();
            assert!(said.contains(reason) && !said.contains("s3cret"), "{text}: {said}");
        }
        for good in ["sv=1&sp=racwdl&sr=c&se=2027-01-02", "sv=1&sp=rl&ss=bfqt&srt=sco", "sv=1&si=policy&sr=c"] {
            assert_eq!(problem(good), None, "{good}");
        }
    }

    #[test]
    fn all_three_forms_of_a_time_are_understood() {
        let midnight = SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_761_600);
        for text in ["2027-01-01", "2027-01-01T00:00Z", "2027-01-01T00:00:00Z"] {
            assert_eq!(parse_time(text), Some(midnight), "{text}");
        }
        assert_eq!(parse_time("tomorrow"), None);
    }
}
