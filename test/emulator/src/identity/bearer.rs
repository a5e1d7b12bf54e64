//! The bearer token of a request to Resource Manager or a vault, verified. Must not know what it is good for.

use serde_json::Value;
use time::OffsetDateTime;

use crate::identity::{cloud::Cloud, directory::Directory, message::Message};

/// Why a token is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// There is none.
    Missing,
    /// It has ended.
    Expired,
    /// It is for something else, or from elsewhere.
    Wrong(String),
}

/// The claims of the request's token, if it is for one of these audiences.
///
/// # Errors
/// [`Refused`].
pub(crate) fn claims(
    directory: &Directory,
    cloud: Cloud,
    message: &Message,
    is_audience: impl Fn(&str) -> bool,
) -> Result<Value, Refused> {
    let token = message.header("authorization").strip_prefix("Bearer ").ok_or(Refused::Missing)?;
    let claims = directory.verify(token, OffsetDateTime::now_utc()).map_err(|reason| {
        if reason.contains("expired") { Refused::Expired } else { Refused::Wrong(reason.to_owned()) }
    })?;
    let audience = claims["aud"].as_str().unwrap_or_default();
    let host = audience.strip_prefix("https://").unwrap_or_default();
    if !is_audience(host.strip_suffix('/').unwrap_or(host)) {
        return Err(Refused::Wrong(audience.to_owned()));
    }
    let tenant = claims["tid"].as_str().unwrap_or_default();
    let known = directory.lock().tenants.get(tenant).is_some_and(|tenant| tenant.cloud == cloud);
    if known { Ok(claims) } else { Err(Refused::Wrong(tenant.to_owned())) }
}
