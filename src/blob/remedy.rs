//! Which finding an error is: one table from the service's codes, and from how far a request came without an answer. The
//! sentences are those of the table of findings. Knows no credential but what the answer tells of it.

use super::{
    Error, ErrorKind,
    azure::{Cause, ServiceMessage, TransportError},
};
use crate::{
    credential::TokenError,
    finding::{self, Diagnosis, Finding},
};

impl Error {
    /// One sentence that says what is most likely wrong and how to mend it; `None` where the error says it all.
    /// Holds no secret.
    #[must_use]
    pub fn remedy(&self) -> Option<String> {
        self.diagnosis().map(|known| format!("{known}."))
    }

    /// The same as a finding.
    #[must_use]
    pub fn diagnosis(&self) -> Option<Diagnosis> {
        if let Some(token) = self.below::<TokenError>() {
            return Some(token.diagnosis());
        }
        if self.status.is_none() {
            return self.without_answer();
        }
        let finding = self.code.as_deref().and_then(|code| self.by_code(code)).or_else(|| self.by_kind())?;
        let account = self.account();
        let container = self.resource.split('/').next().unwrap_or_default();
        Some(finding.with(&[
            ("account", account),
            ("container", container),
            ("operation", self.operation),
            ("skew", "more than 15 minutes"),
        ]))
    }

    /// The account, where the host names it: in path style the host is not the account's.
    fn account(&self) -> &str {
        let labels: Vec<&str> = self.host.split('.').collect();
        let host_style = labels.len() > 3 && (labels.contains(&"blob") || labels.contains(&"dfs"));
        if host_style { labels[0] } else { self.host.as_str() }
    }

    /// Nobody answered: told apart by how far the request came.
    fn without_answer(&self) -> Option<Diagnosis> {
        let host = &self.host;
        if host.is_empty() {
            return Some(Finding::NoCaCertificates.with(&[]));
        }
        let data_lake = host.split('.').nth(1) == Some("dfs");
        let finding = match (self.cause(), self.kind) {
            (Some(Cause::Dns | Cause::Connect | Cause::Broken), _) | (_, ErrorKind::TimedOut) if data_lake => {
                Finding::DfsUnreachable
            }
            (Some(Cause::Proxy), _) => {
                let reason = self.below::<TransportError>().map(ToString::to_string).unwrap_or_default();
                return Some(Finding::ProxyUnreachable.with(&[("proxy", "of the environment"), ("reason", &reason)]));
            }
            (Some(Cause::Dns), _) => Finding::NameUnknown,
            (Some(Cause::Refused), _) => Finding::NobodyListens,
            (Some(Cause::Tls), _) => {
                finding::of_tls(&self.below::<TransportError>().map(ToString::to_string).unwrap_or_default())
            }
            (Some(Cause::Connect | Cause::Broken), _) | (_, ErrorKind::TimedOut) => Finding::Unreachable,
            (Some(Cause::Malformed), _) => Finding::HeaderMalformed,
            (None, ErrorKind::Corrupt) => {
                let reason = self.source.as_ref().map(ToString::to_string).unwrap_or_default();
                return Some(Finding::NotABlobService.with(&[("host", host), ("reason", &reason)]));
            }
            _ => return None,
        };
        Some(finding.with(&[("host", host)]))
    }

    fn by_code(&self, code: &str) -> Option<Finding> {
        Some(match code {
            "InvalidAuthenticationInfo" if self.status == Some(401) => Finding::TokenOtherTenant,
            "AuthenticationFailed" | "InvalidAuthenticationInfo" => self.authentication_failed(),
            "NoAuthenticationInformation" | "PublicAccessNotPermitted" => Finding::NotPublic,
            "KeyBasedAuthenticationNotPermitted" => Finding::SharedKeyDisabled,
            "AuthorizationPermissionMismatch" if self.operation == "Path - Update" => Finding::RoleOwnerMissing,
            "AuthorizationPermissionMismatch" => Finding::PermissionMissing,
            "AuthorizationFailure" => Finding::Firewall,
            "AuthorizationSourceIPMismatch" => Finding::SasAddress,
            "AuthorizationProtocolMismatch" => Finding::SasProtocol,
            "AuthorizationResourceTypeMismatch" => Finding::SasResourceTypes,
            "AuthorizationServiceMismatch" => Finding::SasOtherService,
            "InsufficientAccountPermissions" | "AccountIsDisabled" => Finding::AccountDisabled,
            "ContainerNotFound" | "FilesystemNotFound" => Finding::ContainerMissing,
            "ContainerBeingDeleted" | "FilesystemBeingDeleted" => Finding::ContainerBeingDeleted,
            "InvalidHeaderValue" | "UnsupportedHeader" => Finding::ServiceTooOld,
            "AccountRequiresHttps" => Finding::HttpsRequired,
            _ => return None,
        })
    }

    /// 403 AuthenticationFailed covers a wrong key, a wrong or expired SAS, and a clock that is off: the detail tells.
    fn authentication_failed(&self) -> Finding {
        let said = self.said().map(ToString::to_string).unwrap_or_default().to_ascii_lowercase();
        if ["not valid in the specified time frame", "signed expiry", "expired"]
            .iter()
            .any(|words| said.contains(words))
        {
            Finding::SasExpired
        } else if said.contains("date header") || said.contains("too old") {
            Finding::ClockSkew
        } else {
            Finding::SignatureRefused
        }
    }

    fn by_kind(&self) -> Option<Finding> {
        Some(match self.kind {
            ErrorKind::ContainerNotFound => Finding::ContainerMissing,
            ErrorKind::Denied => Finding::Denied,
            ErrorKind::Archived => Finding::Archived,
            ErrorKind::Throttled => Finding::Throttled,
            _ => return None,
        })
    }

    /// How far a request came that nobody answered.
    #[must_use]
    pub fn cause(&self) -> Option<Cause> {
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
    fn what_the_answer_leaves_open_is_left_open() {
        let found = |error: Error| error.diagnosis().unwrap().finding;
        let denied = |code, operation| Error { operation, ..error(ErrorKind::Denied, Some(403), Some(code), "") };
        assert_eq!(found(denied("AuthenticationFailed", "List Blobs")), Finding::SignatureRefused);
        assert_eq!(found(denied("AuthorizationPermissionMismatch", "List Blobs")), Finding::PermissionMissing);
        assert_eq!(found(denied("AuthorizationPermissionMismatch", "Path - Update")), Finding::RoleOwnerMissing);
        let silent = |host: &str, kind, cause: Option<Cause>| Error {
            host: host.to_owned(),
            source: cause.map(|cause| Box::new(TransportError::of(cause)) as _),
            ..error(kind, None, None, "")
        };
        for (host, kind, cause, finding) in [
            ("acme.dfs.core.windows.net", ErrorKind::Unreachable, Some(Cause::Dns), Finding::DfsUnreachable),
            ("acme.dfs.core.windows.net", ErrorKind::TimedOut, None, Finding::DfsUnreachable),
            ("acme.blob.core.windows.net", ErrorKind::TimedOut, None, Finding::Unreachable),
            ("acme.blob.core.windows.net", ErrorKind::Unreachable, Some(Cause::Broken), Finding::Unreachable),
            ("acme.blob.core.windows.net", ErrorKind::Unreachable, Some(Cause::Dns), Finding::NameUnknown),
            ("acme.blob.core.windows.net", ErrorKind::Unreachable, Some(Cause::Refused), Finding::NobodyListens),
            ("acme.blob.core.windows.net", ErrorKind::Unreachable, Some(Cause::Proxy), Finding::ProxyUnreachable),
            ("acme.blob.core.windows.net", ErrorKind::Unreachable, Some(Cause::Tls), Finding::TlsFailed),
            ("acme.blob.core.windows.net", ErrorKind::Invalid, Some(Cause::Malformed), Finding::HeaderMalformed),
        ] {
            assert_eq!(found(silent(host, kind, cause)), finding, "{host} {kind:?} {cause:?}");
        }
    }

    #[test]
    fn a_conflict_needs_no_remedy() {
        assert_eq!(error(ErrorKind::Precondition, Some(412), Some("ConditionNotMet"), "").remedy(), None);
    }
}
