//! Conditional headers and the exact statuses that they lead to. Knows ETags and times, not what they belong to.
//! Rules: REST page "Specifying conditional headers for Blob service operations".

use hyper::StatusCode;
use time::OffsetDateTime;

use crate::{
    call::Call,
    date,
    error::{Code, ServiceError},
};

/// What a request demands of the resource as it is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Conditions {
    if_match: Option<String>,
    if_none_match: Option<String>,
    if_modified_since: Option<OffsetDateTime>,
    if_unmodified_since: Option<OffsetDateTime>,
}

/// What kind of request it is that bears the conditions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    /// GET or HEAD: "unchanged" is 304.
    Read,
    /// A change of something that must exist.
    Change,
    /// A write that creates: "exists" is 409 under `If-None-Match: *`.
    Create,
    /// The source of a copy.
    Source,
}

impl Conditions {
    /// Reads the four headers of the resource itself.
    ///
    /// # Errors
    /// `InvalidHeaderValue` for a date that is none.
    pub(crate) fn of(call: &Call) -> Result<Self, ServiceError> {
        Self::read(call, ["if-match", "if-none-match", "if-modified-since", "if-unmodified-since"])
    }

    /// Reads those of a copy's source.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub(crate) fn of_source(call: &Call) -> Result<Self, ServiceError> {
        Self::read(
            call,
            [
                "x-ms-source-if-match",
                "x-ms-source-if-none-match",
                "x-ms-source-if-modified-since",
                "x-ms-source-if-unmodified-since",
            ],
        )
    }

    fn read(call: &Call, names: [&'static str; 4]) -> Result<Self, ServiceError> {
        let text = |name| call.header(name).map(|text| text.map(|text| text.trim().to_owned()));
        let time = |name| match call.header(name)? {
            None => Ok(None),
            Some(text) => date::parse_http(text).map(Some).ok_or_else(|| ServiceError::bad_header(name, text)),
        };
        Ok(Self {
            if_match: text(names[0])?,
            if_none_match: text(names[1])?,
            if_modified_since: time(names[2])?,
            if_unmodified_since: time(names[3])?,
        })
    }

    /// Judges the conditions against what there is: ETag and time of last change, or nothing.
    ///
    /// # Errors
    /// 304 or 412 `ConditionNotMet`, 409 `BlobAlreadyExists`, 412 `SourceConditionNotMet`, by intent.
    pub(crate) fn check(&self, existing: Option<(&str, OffsetDateTime)>, intent: Intent) -> Result<(), ServiceError> {
        let failed = || -> ServiceError {
            if intent == Intent::Source { Code::SourceConditionNotMet.into() } else { Code::ConditionNotMet.into() }
        };
        let unchanged = || match intent {
            Intent::Read => failed().with_status(StatusCode::NOT_MODIFIED),
            _ => failed(),
        };
        if self.if_none_match.as_deref() == Some("*") && intent == Intent::Read {
            return Err(Code::UnsatisfiableCondition.into());
        }
        let Some((etag, modified)) = existing else {
            return if self.if_match.is_some() { Err(failed()) } else { Ok(()) };
        };
        if self.if_match.as_deref().is_some_and(|wanted| !names(wanted, etag)) {
            return Err(failed());
        }
        if self.if_unmodified_since.is_some_and(|since| modified > since) {
            return Err(failed());
        }
        match self.if_none_match.as_deref() {
            Some("*") if intent == Intent::Create => return Err(Code::BlobAlreadyExists.into()),
            Some(unwanted) if names(unwanted, etag) => return Err(unchanged()),
            // RFC 9110 13.1.3: If-None-Match makes If-Modified-Since void.
            Some(_) => return Ok(()),
            None => {}
        }
        if self.if_modified_since.is_some_and(|since| modified <= since) {
            return Err(unchanged());
        }
        Ok(())
    }
}

/// Whether a list of ETags (or `*`) names this one.
fn names(list: &str, etag: &str) -> bool {
    let bare = |text: &str| text.trim().trim_start_matches("W/").trim_matches('"').to_owned();
    list == "*" || list.split(',').any(|one| bare(one) == bare(etag))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(conditions: &Conditions, existing: Option<(&str, OffsetDateTime)>, intent: Intent) -> u16 {
        conditions.check(existing, intent).map_or_else(|error| error.status.as_u16(), |()| 200)
    }

    #[test]
    fn each_intent_has_its_own_status() {
        let now = OffsetDateTime::UNIX_EPOCH;
        let there = Some(("\"1\"", now));
        let none_match = |text: &str| Conditions { if_none_match: Some(text.into()), ..Conditions::default() };
        assert_eq!(status(&none_match("\"1\""), there, Intent::Read), 304);
        assert_eq!(status(&none_match("\"1\""), there, Intent::Change), 412);
        assert_eq!(status(&none_match("\"2\""), there, Intent::Read), 200);
        assert_eq!(status(&none_match("*"), there, Intent::Create), 409);
        assert_eq!(status(&none_match("*"), None, Intent::Create), 200);
        assert_eq!(status(&none_match("*"), there, Intent::Read), 400);
        let only = |text: &str| Conditions { if_match: Some(text.into()), ..Conditions::default() };
        assert_eq!(status(&only("\"1\""), there, Intent::Read), 200);
        assert_eq!(status(&only("\"0\", \"1\""), there, Intent::Read), 200);
        assert_eq!(status(&only("\"2\""), there, Intent::Create), 412);
        assert_eq!(status(&only("*"), None, Intent::Create), 412);
        let since = |at| Conditions { if_modified_since: Some(at), ..Conditions::default() };
        assert_eq!(status(&since(now), there, Intent::Read), 304);
        assert_eq!(status(&since(now - time::Duration::SECOND), there, Intent::Read), 200);
    }
}
