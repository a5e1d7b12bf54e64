//! Which operation of the service a request is. One table of operations and one function that tells them apart; must
//! not know what they do.

use std::{fmt, str::FromStr};

use hyper::{HeaderMap, Method};
use serde::{Deserialize, Serialize};

use crate::{
    dfs,
    error::{Code, ServiceError},
    query::Query,
};

/// Defines the operations once: variant, whether it changes something, permission letters of which a SAS needs one
/// (none: no SAS may do it), level that an account SAS must allow (`s`ervice, `c`ontainer, `o`bject).
macro_rules! operations {
    ($($(#[$doc:meta])* $name:ident $writes:literal $permissions:literal $level:literal;)*) => {
        /// An operation of the Blob service, under the name that Azure's own logs and metrics use.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub enum Operation { $($(#[$doc])* $name,)* }

        impl Operation {
            /// Every operation.
            pub const ALL: &'static [Operation] = &[$(Operation::$name,)*];

            /// The name, as in counters and fault rules.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// Whether it changes anything.
            #[must_use]
            pub fn writes(self) -> bool {
                match self { $(Self::$name => $writes,)* }
            }

            /// Permission letters: a SAS must hold one of them.
            pub(crate) fn permissions(self) -> &'static str {
                match self { $(Self::$name => $permissions,)* }
            }

            /// Resource type of an account SAS: `s`, `c` or `o`.
            pub(crate) fn level(self) -> char {
                match self { $(Self::$name => $level,)* }
            }
        }
    };
}

operations! {
    /// List Containers.
    ListContainers false "l" 's';
    /// Get Blob Service Properties.
    GetServiceProperties false "r" 's';
    /// Get Account Information.
    GetAccountInformation false "rwdlacup" 's';
    /// Get User Delegation Key: only with a bearer token.
    GetUserDelegationKey false "" 's';
    /// Create Container.
    CreateContainer true "cw" 'c';
    /// Get Container Properties.
    GetContainerProperties false "r" 'c';
    /// Delete Container.
    DeleteContainer true "d" 'c';
    /// Set Container Metadata.
    SetContainerMetadata true "w" 'c';
    /// Get Container ACL: only with the account's key.
    GetContainerACL false "" 'c';
    /// Set Container ACL: only with the account's key.
    SetContainerACL true "" 'c';
    /// Lease Container, all actions.
    LeaseContainer true "wd" 'c';
    /// List Blobs.
    ListBlobs false "l" 'c';
    /// Put Blob.
    PutBlob true "cw" 'o';
    /// Put Blob From URL.
    PutBlobFromURL true "cw" 'o';
    /// Get Blob.
    GetBlob false "r" 'o';
    /// Get Blob Properties.
    GetBlobProperties false "r" 'o';
    /// Get Blob Metadata.
    GetBlobMetadata false "r" 'o';
    /// Set Blob Metadata.
    SetBlobMetadata true "w" 'o';
    /// Set Blob Properties.
    SetBlobProperties true "w" 'o';
    /// Delete Blob.
    DeleteBlob true "d" 'o';
    /// Lease Blob, all actions.
    LeaseBlob true "wd" 'o';
    /// Copy Blob.
    CopyBlob true "cw" 'o';
    /// Copy Blob From URL (synchronous).
    CopyBlobFromURL true "cw" 'o';
    /// Abort Copy Blob.
    AbortCopyBlob true "w" 'o';
    /// Put Block.
    PutBlock true "cw" 'o';
    /// Put Block From URL.
    PutBlockFromURL true "cw" 'o';
    /// Put Block List.
    PutBlockList true "cw" 'o';
    /// Get Block List.
    GetBlockList false "r" 'o';
    /// Append Block.
    AppendBlock true "aw" 'o';
    /// Put Page (update and clear).
    PutPage true "w" 'o';
    /// Get Page Ranges.
    GetPageRanges false "r" 'o';
    /// Set Blob Tier.
    SetBlobTier true "w" 'o';
    /// Get Blob Tags.
    GetBlobTags false "t" 'o';
    /// Set Blob Tags.
    SetBlobTags true "t" 'o';
    /// Path - Create of the Data Lake endpoint, without a source.
    CreatePath true "cw" 'o';
    /// Path - Create, rename. Its source is authorised as a delete.
    RenamePath true "cw" 'o';
    /// Path - Delete.
    DeletePath true "dm" 'o';
    /// Path - Get Properties.
    GetPathProperties false "re" 'o';
    /// Path - Get Properties, access control.
    GetPathAccessControl false "e" 'o';
    /// Path - Update, access control.
    SetPathAccessControl true "po" 'o';
    /// Path - Update, properties.
    SetPathProperties true "w" 'o';
    /// Path - List.
    ListPaths false "l" 'c';
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Operation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.iter().copied().find(|operation| operation.name().eq_ignore_ascii_case(text)).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|operation| operation.name()).collect();
            format!("\"{text}\" is no operation; use one of {}", names.join(", "))
        })
    }
}

impl TryFrom<String> for Operation {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Operation> for String {
    fn from(operation: Operation) -> Self {
        operation.name().to_owned()
    }
}

impl Operation {
    /// Whether it is one of the Data Lake endpoint, which answers in JSON.
    pub(crate) fn is_data_lake(self) -> bool {
        matches!(
            self,
            Self::CreatePath
                | Self::RenamePath
                | Self::DeletePath
                | Self::GetPathProperties
                | Self::GetPathAccessControl
                | Self::SetPathAccessControl
                | Self::SetPathProperties
                | Self::ListPaths
        )
    }
}

/// What the path of a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The account.
    Service,
    /// A container.
    Container,
    /// A blob.
    Blob,
}

/// Tells which operation a request is.
///
/// # Errors
/// What the service answers to a combination that means nothing.
pub(crate) fn classify(
    method: &Method,
    scope: Scope,
    query: &Query,
    headers: &HeaderMap,
) -> Result<Operation, ServiceError> {
    let restype = query.get("restype").unwrap_or_default();
    let comp = query.get("comp").unwrap_or_default();
    if restype == "account" && comp == "properties" && matches!(*method, Method::GET | Method::HEAD) {
        return Ok(Operation::GetAccountInformation);
    }
    let found = match scope {
        Scope::Container | Scope::Blob if dfs::is_meant(method, query, headers) => {
            dfs::classify(method, scope, query, headers)
        }
        Scope::Service => service(method, restype, comp),
        Scope::Container => container(method, restype, comp),
        Scope::Blob => blob(method, comp, headers),
    };
    found.ok_or_else(|| refusal(method, scope, comp))
}

fn service(method: &Method, restype: &str, comp: &str) -> Option<Operation> {
    match (method.as_str(), restype, comp) {
        ("GET", "", "list") => Some(Operation::ListContainers),
        ("GET", "service", "properties") => Some(Operation::GetServiceProperties),
        ("POST", "service", "userdelegationkey") => Some(Operation::GetUserDelegationKey),
        _ => None,
    }
}

fn container(method: &Method, restype: &str, comp: &str) -> Option<Operation> {
    if restype != "container" {
        return None;
    }
    match (method.as_str(), comp) {
        ("PUT", "") => Some(Operation::CreateContainer),
        ("GET" | "HEAD", "" | "metadata") => Some(Operation::GetContainerProperties),
        ("DELETE", "") => Some(Operation::DeleteContainer),
        ("PUT", "metadata") => Some(Operation::SetContainerMetadata),
        ("GET" | "HEAD", "acl") => Some(Operation::GetContainerACL),
        ("PUT", "acl") => Some(Operation::SetContainerACL),
        ("PUT", "lease") => Some(Operation::LeaseContainer),
        ("GET", "list") => Some(Operation::ListBlobs),
        _ => None,
    }
}

fn blob(method: &Method, comp: &str, headers: &HeaderMap) -> Option<Operation> {
    let has = |name: &str| headers.contains_key(name);
    let from_url = has("x-ms-copy-source");
    let operation = match (method.as_str(), comp) {
        ("GET", "") => Operation::GetBlob,
        ("HEAD", "") => Operation::GetBlobProperties,
        ("GET" | "HEAD", "metadata") => Operation::GetBlobMetadata,
        ("DELETE", "") => Operation::DeleteBlob,
        ("PUT", "") if from_url && has("x-ms-blob-type") => Operation::PutBlobFromURL,
        ("PUT", "") if from_url && has("x-ms-requires-sync") => Operation::CopyBlobFromURL,
        ("PUT", "") if from_url => Operation::CopyBlob,
        ("PUT", "") => Operation::PutBlob,
        ("PUT", "copy") => Operation::AbortCopyBlob,
        ("PUT", "metadata") => Operation::SetBlobMetadata,
        ("PUT", "properties") => Operation::SetBlobProperties,
        ("PUT", "lease") => Operation::LeaseBlob,
        ("PUT", "block") if from_url => Operation::PutBlockFromURL,
        ("PUT", "block") => Operation::PutBlock,
        ("PUT", "blocklist") => Operation::PutBlockList,
        ("GET", "blocklist") => Operation::GetBlockList,
        ("PUT", "appendblock") if !from_url => Operation::AppendBlock,
        ("PUT", "page") if !from_url => Operation::PutPage,
        ("GET", "pagelist") => Operation::GetPageRanges,
        ("PUT", "tier") => Operation::SetBlobTier,
        ("GET", "tags") => Operation::GetBlobTags,
        ("PUT", "tags") => Operation::SetBlobTags,
        _ => return None,
    };
    Some(operation)
}

/// Operations that exist on the service but not here are told apart from requests that mean nothing anywhere.
fn refusal(method: &Method, scope: Scope, comp: &str) -> ServiceError {
    const ELSEWHERE: &[&str] = &[
        "appendblock",
        "batch",
        "blobs",
        "expiry",
        "immutabilityPolicies",
        "incrementalcopy",
        "legalhold",
        "page",
        "properties",
        "query",
        "seal",
        "snapshot",
        "stats",
        "undelete",
        "userdelegationkey",
    ];
    if ELSEWHERE.contains(&comp) {
        return ServiceError::from(Code::NotImplemented).detail("QueryParameterValue", comp);
    }
    if !comp.is_empty() && !matches!(comp, "list" | "acl" | "metadata" | "lease" | "tags" | "tier") {
        return ServiceError::bad_query("comp", comp);
    }
    match (scope, method.as_str()) {
        (Scope::Service | Scope::Container, "GET" | "HEAD" | "PUT" | "DELETE") => {
            ServiceError::bad_query("restype", "")
        }
        _ => Code::UnsupportedHttpVerb.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for &operation in Operation::ALL {
            assert_eq!(operation.name().parse(), Ok(operation));
        }
        assert!("PutBlub".parse::<Operation>().unwrap_err().contains("GetBlob"));
    }
}
