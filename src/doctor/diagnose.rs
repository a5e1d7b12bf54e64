//! From an error of the service to a finding. What the answer leaves open (a key or a SAS? whose role?), the credential
//! that was shown tells.

use std::time::SystemTime;

use crate::{
    blob::{self, ErrorKind, Location},
    credential::{AZURE_KEY_BYTES, Credential, TokenCredential},
    finding::{Diagnosis, Finding},
};

/// What `error` means for a volume at `location` that signs with `credential`. Every error has a finding.
#[must_use]
pub fn diagnose(error: &blob::Error, location: &Location, credential: &Credential) -> Diagnosis {
    // What a SAS says about itself is more than what the service says about it.
    if let Credential::Sas(sas) = credential
        && error.kind == ErrorKind::Denied
        && let Some(problem) = sas.problem(SystemTime::now())
    {
        return problem;
    }
    let known = error.diagnosis();
    match known.as_ref().map(|known| known.finding) {
        Some(Finding::SignatureRefused) => signature(location, credential),
        Some(Finding::PermissionMissing) => permission(error, location, credential),
        Some(Finding::Denied | Finding::NotPublic) if matches!(credential, Credential::Anonymous) => {
            Finding::NotPublic.with(&[("container", location.container())])
        }
        Some(
            finding @ (Finding::Firewall
            | Finding::SharedKeyDisabled
            | Finding::AccountDisabled
            | Finding::TokenOtherTenant
            | Finding::ContainerMissing),
        ) => finding.with(&names(location)),
        Some(_) => known.unwrap_or_else(|| by_kind(error, location)),
        None => by_kind(error, location),
    }
}

/// Account and container by the location, which also knows the account in path style and behind custom domains.
fn names(location: &Location) -> [(&'static str, &str); 2] {
    [("account", location.account()), ("container", location.container())]
}

/// 403 AuthenticationFailed.
fn signature(location: &Location, credential: &Credential) -> Diagnosis {
    let account = location.account();
    match credential {
        // A custom domain that nothing else is known of stands for its account.
        Credential::SharedKey(key) if key.account() != account && !account.contains('.') => {
            Finding::KeyOfOtherAccount.with(&[("account", account), ("other", key.account())])
        }
        Credential::SharedKey(key) if key.size_bytes() != AZURE_KEY_BYTES => {
            Finding::KeyLength.with(&[("account", account), ("bytes", &key.size_bytes().to_string())])
        }
        Credential::SharedKey(_) => Finding::KeyRefused.with(&[("account", account)]),
        Credential::Sas(sas) => {
            let shown = format!(" ({})", sas.describe());
            Finding::SasRefused.with(&[("account", account), ("shown", &shown)])
        }
        Credential::Token(_) => Finding::TokenOtherTenant.with(&[("account", account)]),
        Credential::Anonymous => Finding::NotPublic.with(&[("container", location.container())]),
    }
}

/// 403 AuthorizationPermissionMismatch.
fn permission(error: &blob::Error, location: &Location, credential: &Credential) -> Diagnosis {
    match credential {
        Credential::Token(token) => role_missing(token, location, error.operation),
        Credential::Sas(sas) => {
            let shown = sas.permissions().map(|letters| format!(" (sp={letters})")).unwrap_or_default();
            Finding::SasPermissions.with(&[("shown", &shown)])
        }
        Credential::SharedKey(_) | Credential::Anonymous => {
            let facts = [("operation", error.operation), ("container", location.container())];
            Finding::PermissionMissing.with(&facts)
        }
    }
}

/// An identity that may not do `operation`.
pub(super) fn role_missing(token: &TokenCredential, location: &Location, operation: &str) -> Diagnosis {
    let principal = token.describe();
    let mut facts = vec![("principal", principal.as_str()), ("operation", operation)];
    facts.extend(names(location));
    let assignee = assignee(&principal);
    facts.extend(assignee.map(|assignee| ("assignee", assignee)));
    Finding::RoleMissing.with(&facts)
}

/// The id in a description of an identity: the word behind "service principal", "workload identity", "client id", "object id".
fn assignee(description: &str) -> Option<&str> {
    ["service principal ", "workload identity ", "client id ", "object id "].iter().find_map(|before| {
        let (_, behind) = description.split_once(before)?;
        behind.split([' ', ')']).next().filter(|id| !id.is_empty())
    })
}

/// What no code tells.
fn by_kind(error: &blob::Error, location: &Location) -> Diagnosis {
    let finding = match error.kind {
        ErrorKind::Unreachable | ErrorKind::TimedOut => Finding::Unreachable,
        ErrorKind::Throttled | ErrorKind::Server => Finding::Throttled,
        ErrorKind::Precondition | ErrorKind::Blocked | ErrorKind::Protected => Finding::Blocked,
        ErrorKind::ContainerNotFound => Finding::ContainerMissing,
        ErrorKind::Denied => Finding::Denied,
        ErrorKind::Corrupt => Finding::NotABlobService,
        _ => Finding::RequestRefused,
    };
    let mut facts = names(location).to_vec();
    facts.extend([("host", location.host()), ("reason", "its answer is damaged")]);
    finding.with(&facts)
}

#[cfg(test)]
mod tests;
