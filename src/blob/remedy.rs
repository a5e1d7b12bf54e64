//! What to do about an error: one table, one sentence each. Written for the person who mounts, not for us.

use super::{
    Error, ErrorKind,
    azure::{Cause, ServiceMessage, TransportError},
};

impl Error {
    /// One sentence that says what is most likely wrong and how to mend it; `None` where the error says it all.
    /// Holds no secret.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        if self.status.is_none() {
            return self.without_answer();
        }
        // In path style the host is not the account's.
        let labels: Vec<&str> = self.host.split('.').collect();
        let host_style = labels.len() > 3 && (labels.contains(&"blob") || labels.contains(&"dfs"));
        let account = if host_style { labels[0] } else { self.host.as_str() };
        let container = self.resource.split('/').next().unwrap_or_default();
        let by_code = self.code.as_deref().and_then(|code| self.by_code(code, account, container));
        by_code.or_else(|| self.by_kind(container))
    }

    /// Nobody answered: told apart by how far the request came.
    fn without_answer(&self) -> Option<String> {
        let host = &self.host;
        if host.is_empty() {
            let fix = "TLS cannot be set up: install this machine's CA certificates (package ca-certificates), or mount a \
                       bundle at /etc/ssl/certs.";
            return Some(fix.to_owned());
        }
        let data_lake = host.split('.').nth(1) == Some("dfs");
        match (self.cause(), self.kind) {
            (Some(Cause::Dns | Cause::Connect | Cause::Broken), _) | (_, ErrorKind::TimedOut) if data_lake => {
                Some(format!(
                    "{host} cannot be reached: a hierarchical account needs its dfs endpoint beside the blob one, in firewalls, private endpoints and private DNS zones alike."
                ))
            }
            (Some(Cause::Dns), _) => Some(format!(
                "The name {host} does not resolve: check the account name and the cloud (suffix) for typing errors, and that DNS on this machine knows the endpoint (private endpoints need their private DNS zone)."
            )),
            (Some(Cause::Refused), _) => Some(format!(
                "Nobody listens at {host}: check host and port, and that the service (or the emulator) runs."
            )),
            (Some(Cause::Tls), _) => Some(format!(
                "TLS with {host} failed: check that the endpoint speaks https, that this machine has current CA certificates, and that no proxy replaces the certificate."
            )),
            (Some(Cause::Connect | Cause::Broken), _) | (_, ErrorKind::TimedOut) => Some(format!(
                "No connection to {host}: check that a firewall, network policy or proxy lets this machine reach it on its port."
            )),
            (Some(Cause::Malformed), _) => Some(
                "A metadata value or header has characters that HTTP does not allow: use printable ASCII.".to_owned(),
            ),
            _ => None,
        }
    }

    fn by_code(&self, code: &str, account: &str, container: &str) -> Option<String> {
        let text = match code {
            "InvalidAuthenticationInfo" if self.status == Some(401) => format!(
                "The service refuses the token: check that account {account} belongs to the identity's tenant and cloud, and that this machine's clock is right."
            ),
            "AuthenticationFailed" | "InvalidAuthenticationInfo" => self.authentication_failed(account),
            "NoAuthenticationInformation" | "PublicAccessNotPermitted" => format!(
                "Container {container} is not public and no credential was given: set an account key, SAS or connection string."
            ),
            "KeyBasedAuthenticationNotPermitted" => format!(
                "Account {account} forbids account keys (allowSharedKeyAccess is false): use a user delegation SAS, or allow key access in the account's configuration."
            ),
            "AuthorizationPermissionMismatch" if self.operation == "Path - Update" => format!(
                "The credential may not set modes and access lists: a SAS needs p in sp, an identity the role Storage Blob Data Owner on container {container}."
            ),
            "AuthorizationPermissionMismatch" => format!(
                "The credential is valid but lacks the permission for {}: a SAS needs sp=rl to read and rwdl with c or a to write, an identity needs the role Storage Blob Data Contributor (or Reader) on container {container}.",
                self.operation
            ),
            "AuthorizationFailure" => format!(
                "The account's network rules refuse this machine: allow its subnet, address or private endpoint under \"Networking\" of account {account}."
            ),
            "AuthorizationSourceIPMismatch" => "The SAS is limited to other addresses (sip): make one for this machine's outbound address.".to_owned(),
            "AuthorizationProtocolMismatch" => "The SAS allows https only (spr), and the endpoint is http: use the https endpoint.".to_owned(),
            "AuthorizationResourceTypeMismatch" => "The SAS does not cover this kind of resource: an account SAS needs srt=co (container and object).".to_owned(),
            "AuthorizationServiceMismatch" => "The SAS is for another service: an account SAS needs ss=b (Blob).".to_owned(),
            "InsufficientAccountPermissions" | "AccountIsDisabled" => format!(
                "Account {account} is disabled or read-only here: check its state and the subscription's in the portal."
            ),
            "ContainerNotFound" => format!(
                "Container {container} does not exist: check its name, create it, or mount with createContainer (--create-container)."
            ),
            "ContainerBeingDeleted" => format!(
                "Container {container} is being deleted, which takes the service half a minute or longer: try again later, or use another name."
            ),
            "InvalidHeaderValue" | "UnsupportedHeader" => "The service does not know a header of ours: it may be older than version 2023-11-03 of the Blob protocol (Azurite: start it with --skipApiVersionCheck).".to_owned(),
            "AccountRequiresHttps" => "The account accepts https only: use the https endpoint.".to_owned(),
            _ => return None,
        };
        Some(text)
    }

    /// 403 AuthenticationFailed covers a wrong key, a wrong or expired SAS, and a clock that is off: the detail tells.
    fn authentication_failed(&self, account: &str) -> String {
        let said = self.said().map(ToString::to_string).unwrap_or_default().to_ascii_lowercase();
        if said.contains("not valid in the specified time frame")
            || said.contains("signed expiry")
            || said.contains("expired")
        {
            return "The SAS has expired or is not valid yet: make a new one (check se and st), and check this machine's clock.".to_owned();
        }
        if said.contains("date header") || said.contains("too old") {
            return "This machine's clock differs from the service's by more than 15 minutes: synchronise it (NTP)."
                .to_owned();
        }
        format!(
            "The account key or SAS is not valid for account {account}: copy the current one (keys may have been rotated), check that it belongs to this account, and that this machine's clock is right."
        )
    }

    fn by_kind(&self, container: &str) -> Option<String> {
        match self.kind {
            ErrorKind::ContainerNotFound => Some(format!(
                "Container {container} does not exist: check its name, create it, or mount with createContainer (--create-container)."
            )),
            ErrorKind::Denied => Some(format!(
                "The credential does not open container {container}: check key, SAS permissions and network rules of the account."
            )),
            ErrorKind::Archived => Some("The blob is in the archive tier: rehydrate it (set its tier to Hot or Cool) and wait until that is done.".to_owned()),
            ErrorKind::Throttled => Some("The account is at its limit: spread the load, or ask for higher limits of the account.".to_owned()),
            _ => None,
        }
    }

    fn cause(&self) -> Option<Cause> {
        self.below::<TransportError>().map(|error| error.cause)
    }

    fn said(&self) -> Option<&ServiceMessage> {
        self.below::<ServiceMessage>()
    }

    /// The first error of type `T` in the chain.
    fn below<T: std::error::Error + 'static>(&self) -> Option<&T> {
        let mut below: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(self);
        while let Some(error) = below {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            below = error.source();
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: ErrorKind, status: Option<u16>, code: Option<&str>, detail: &str) -> Error {
        Error {
            kind,
            operation: "List Blobs",
            resource: "logs".to_owned(),
            host: "acme.blob.core.windows.net".to_owned(),
            status,
            code: code.map(str::to_owned),
            request_id: None,
            source: Some(Box::new(ServiceMessage { message: String::new(), detail: detail.to_owned() })),
        }
    }

    #[test]
    fn a_machine_without_ca_certificates_is_told_so_before_any_endpoint_is_named() {
        let failed =
            Error { host: String::new(), resource: String::new(), ..error(ErrorKind::Unreachable, None, None, "") };
        assert_eq!(failed.to_string(), "List Blobs: no connection");
        assert!(failed.remedy().unwrap().contains("ca-certificates"));
    }

    #[test]
    fn every_refusal_that_a_user_meets_names_its_fix() {
        for (status, code, detail, fix) in [
            (403, "AuthenticationFailed", "", "key"),
            (401, "InvalidAuthenticationInfo", "", "tenant and cloud"),
            (403, "AuthenticationFailed", "Signature not valid in the specified time frame", "expired"),
            (403, "AuthenticationFailed", "Request date header too old", "clock"),
            (403, "KeyBasedAuthenticationNotPermitted", "", "allowSharedKeyAccess"),
            (403, "AuthorizationPermissionMismatch", "", "Storage Blob Data Contributor"),
            (403, "AuthorizationFailure", "", "network rules"),
            (404, "ContainerNotFound", "", "--create-container"),
        ] {
            let remedy = error(ErrorKind::Denied, Some(status), Some(code), detail).remedy().unwrap();
            assert!(remedy.contains(fix), "{code}: {remedy}");
        }
    }

    #[test]
    fn a_conflict_needs_no_remedy() {
        assert_eq!(error(ErrorKind::Precondition, Some(412), Some("ConditionNotMet"), "").remedy(), None);
    }
}
