//! How a service answers somebody who shows nothing: whether it is a Blob service, what time it has, whose tenant it trusts.
//! One try, unsigned; for the doctor alone.

use std::time::{Duration, SystemTime};

use azure_core::time::parse_rfc7231;

use super::{Connections, request::SERVICE_VERSION, transport::TransportError};
use crate::blob::{Error, ErrorKind, Result, endpoint::Location};

/// The head of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Greeting {
    /// HTTP status: mostly a refusal, which is as good as any.
    pub status: u16,
    /// `x-ms-error-code`.
    pub code: Option<String>,
    /// `x-ms-request-id`: every answer of a storage service has one.
    pub request_id: Option<String>,
    /// `x-ms-version`: the protocol that it speaks with us.
    pub version: Option<String>,
    /// `server`.
    pub server: Option<String>,
    /// `date`: what time the service has.
    pub date: Option<SystemTime>,
    /// The tenant whose tokens the account takes, where the service says it.
    pub tenant: Option<String>,
}

impl Greeting {
    /// Asks for the properties of the container at `location`, unsigned, once, within `deadline`.
    ///
    /// # Errors
    /// `Unreachable` or `TimedOut`; [`Error::cause`] says how far the request came.
    pub async fn hear(connections: &Connections, location: &Location, deadline: Duration) -> Result<Self> {
        let failed = |kind, source: Option<Box<dyn std::error::Error + Send + Sync>>| Error {
            kind,
            operation: "Get Container Properties",
            resource: location.container().to_owned(),
            host: location.host().to_owned(),
            status: None,
            code: None,
            request_id: None,
            source,
        };
        let Some(mut url) = location.container_url() else { return Err(failed(ErrorKind::Invalid, None)) };
        url.set_query(Some("restype=container"));
        let request = connections.client.get(url).header("x-ms-version", SERVICE_VERSION).timeout(deadline);
        match tokio::time::timeout(deadline, request.send()).await {
            Ok(Ok(response)) => Ok(Self::read(response.status().as_u16(), response.headers())),
            Ok(Err(error)) if error.is_timeout() && !error.is_connect() => Err(failed(ErrorKind::TimedOut, None)),
            Ok(Err(error)) => Err(failed(ErrorKind::Unreachable, Some(Box::new(TransportError::new(error))))),
            Err(_) => Err(failed(ErrorKind::TimedOut, None)),
        }
    }

    fn read(status: u16, headers: &reqwest::header::HeaderMap) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let challenge = text("www-authenticate");
        Self {
            status,
            code: text("x-ms-error-code"),
            request_id: text("x-ms-request-id"),
            version: text("x-ms-version"),
            server: text("server"),
            date: text("date").and_then(|date| parse_rfc7231(&date).ok()).map(SystemTime::from),
            tenant: challenge.as_deref().and_then(tenant).map(str::to_owned),
        }
    }
}

/// The tenant of `Bearer authorization_uri=https://AUTHORITY/TENANT/oauth2/authorize ...`.
fn tenant(challenge: &str) -> Option<&str> {
    let (_, uri) = challenge.split_once("authorization_uri=")?;
    let tenant = uri.trim_matches('"').strip_prefix("https://")?.split('/').nth(1)?;
    Some(tenant).filter(|tenant| !tenant.is_empty() && *tenant != "common")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_challenge_names_the_tenant_of_the_account() {
        let challenge = "Bearer authorization_uri=https://login.microsoftonline.com/t-1/oauth2/authorize resource_id=https://storage.azure.com";
        assert_eq!(tenant(challenge), Some("t-1"));
        assert_eq!(tenant("Bearer authorization_uri=https://login.microsoftonline.com/common/oauth2/authorize"), None);
        assert_eq!(tenant("Basic realm=x"), None);
    }
}
