//! What an answer means: one table from HTTP status and service error code to [`ErrorKind`] and to whether trying
//! again can help. Codes: REST "Blob Storage error codes" and "Common REST API error codes".

use super::ErrorKind;

/// Whether another try can help, and whether this one may have taken place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Again {
    /// The answer is final.
    Never,
    /// The service refused before it did anything.
    Untouched,
    /// The service may have done it before it failed (or before its answer was lost).
    Ambiguous,
}

/// Judges an answer. `about_container`: the request was about the container itself, so a bare 404 means that.
pub(super) fn classify(status: u16, code: Option<&str>, about_container: bool) -> (ErrorKind, Again) {
    // 304 and 412 share the code ConditionNotMet.
    let code = code.filter(|_| status != 304);
    code.and_then(by_code).unwrap_or_else(|| by_status(status, about_container))
}

/// Whether it is the credential that is refused, so that another one of the same identity may do better: not its permissions,
/// and not the network that it comes from. A 403 without a code is the answer to a HEAD on its way through a proxy.
pub(super) fn is_of_credential(status: Option<u16>, code: Option<&str>) -> bool {
    match status {
        Some(401) => true,
        Some(403) => matches!(
            code,
            None | Some("AuthenticationFailed" | "InvalidAuthenticationInfo" | "KeyBasedAuthenticationNotPermitted")
        ),
        _ => false,
    }
}

/// Codes that say more than their status.
fn by_code(code: &str) -> Option<(ErrorKind, Again)> {
    use ErrorKind as Kind;
    let kind = match code {
        "ContainerNotFound"
        | "ContainerBeingDeleted"
        | "ContainerDisabled"
        | "FilesystemNotFound"
        | "FilesystemBeingDeleted" => Kind::ContainerNotFound,
        "BlobNotFound" | "ResourceNotFound" => return None,
        "BlobAlreadyExists"
        | "ContainerAlreadyExists"
        | "ConditionNotMet"
        | "SourceConditionNotMet"
        | "TargetConditionNotMet"
        // Only who names a lease hears these two: it was lost, and somebody else may have written since.
        | "LeaseLost"
        | "LeaseIdMismatchWithBlobOperation"
        | "PathAlreadyExists"
        | "PathConflict"
        | "InvalidDestinationPath"
        | "InvalidSourceOrDestinationResourceType"
        | "ResourceTypeMismatch" => Kind::Precondition,
        "DirectoryNotEmpty" | "DirectoryIsNotEmpty" => Kind::NotEmpty,
        "InvalidRenameSourcePath" => Kind::Invalid,
        "BlobArchived" => Kind::Archived,
        "LeaseIdMissing"
        | "LeaseAlreadyPresent"
        | "LeaseIdMismatchWithContainerOperation"
        | "SnapshotsPresent"
        | "PendingCopyOperation"
        | "BlobBeingRehydrated"
        | "CopyAcrossAccountsNotSupported" => Kind::Blocked,
        "BlobImmutableDueToPolicy" | "BlobImmutableDueToLegalHold" | "ContainerImmutableDueToPolicy" => Kind::Protected,
        "BlockCountExceedsLimit"
        | "UncommittedBlockCountExceedsLimit"
        | "RequestBodyTooLarge"
        | "BlockListTooLong"
        | "ContentLengthLargerThanTierLimit" => Kind::TooLarge,
        "APINotImplemented"
        | "FeatureNotSupported"
        | "FeatureVersionMismatch"
        | "FeatureNotYetSupportedForHierarchicalNamespaceAccounts"
        | "BlobTypeNotSupported"
        | "UnsupportedHttpVerb" => Kind::Unsupported,
        "InvalidBlobOrBlock" => Kind::BlockIdLength,
        "InvalidAuthenticationInfo" | "NoAuthenticationInformation" => Kind::Denied,
        "Md5Mismatch" | "Crc64Mismatch" => return Some((Kind::Corrupt, Again::Untouched)),
        "ServerBusy" | "SnapshotOperationRateExceeded" | "SystemInUse" => {
            return Some((Kind::Throttled, Again::Untouched));
        }
        "InternalError" | "OperationTimedOut" => return Some((Kind::Server, Again::Ambiguous)),
        "AccountBeingCreated" => return Some((Kind::Server, Again::Untouched)),
        _ => return None,
    };
    Some((kind, Again::Never))
}

fn by_status(status: u16, about_container: bool) -> (ErrorKind, Again) {
    use ErrorKind as Kind;
    match status {
        304 => (Kind::NotModified, Again::Never),
        401 | 403 | 407 => (Kind::Denied, Again::Never),
        404 if about_container => (Kind::ContainerNotFound, Again::Never),
        404 => (Kind::NotFound, Again::Never),
        405 | 501 => (Kind::Unsupported, Again::Never),
        408 => (Kind::Server, Again::Ambiguous),
        409 => (Kind::Blocked, Again::Never),
        412 => (Kind::Precondition, Again::Never),
        413 => (Kind::TooLarge, Again::Never),
        429 => (Kind::Throttled, Again::Untouched),
        500..=599 => (Kind::Server, Again::Ambiguous),
        _ => (Kind::Invalid, Again::Never),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_say_more_than_their_status() {
        for (status, code, kind) in [
            (404, "ContainerNotFound", ErrorKind::ContainerNotFound),
            (404, "BlobNotFound", ErrorKind::NotFound),
            (409, "BlobAlreadyExists", ErrorKind::Precondition),
            (409, "ContainerBeingDeleted", ErrorKind::ContainerNotFound),
            (409, "BlobArchived", ErrorKind::Archived),
            (409, "SnapshotsPresent", ErrorKind::Blocked),
            (412, "LeaseIdMissing", ErrorKind::Blocked),
            (409, "DirectoryNotEmpty", ErrorKind::NotEmpty),
            (409, "PathAlreadyExists", ErrorKind::Precondition),
            (404, "RenameDestinationParentPathNotFound", ErrorKind::NotFound),
            (404, "FilesystemNotFound", ErrorKind::ContainerNotFound),
            (412, "ConditionNotMet", ErrorKind::Precondition),
            (412, "LeaseLost", ErrorKind::Precondition),
            (400, "InvalidBlobOrBlock", ErrorKind::BlockIdLength),
            (304, "ConditionNotMet", ErrorKind::NotModified),
            (400, "InvalidBlockList", ErrorKind::Invalid),
            (400, "BlockCountExceedsLimit", ErrorKind::TooLarge),
            (403, "AuthenticationFailed", ErrorKind::Denied),
            (400, "InvalidAuthenticationInfo", ErrorKind::Denied),
            // Azurite, for headers that it does not know.
            (500, "FeatureNotSupported", ErrorKind::Unsupported),
        ] {
            assert_eq!(classify(status, Some(code), false), (kind, Again::Never), "{status} {code}");
        }
    }

    #[test]
    fn only_refusals_before_the_work_are_surely_untouched() {
        assert_eq!(classify(503, Some("ServerBusy"), false), (ErrorKind::Throttled, Again::Untouched));
        assert_eq!(classify(429, None, false), (ErrorKind::Throttled, Again::Untouched));
        assert_eq!(classify(503, None, false).1, Again::Ambiguous);
        assert_eq!(classify(500, Some("OperationTimedOut"), false), (ErrorKind::Server, Again::Ambiguous));
    }

    #[test]
    fn a_bare_404_is_about_what_was_asked_for() {
        assert_eq!(classify(404, None, true).0, ErrorKind::ContainerNotFound);
        assert_eq!(classify(404, None, false).0, ErrorKind::NotFound);
    }

    #[test]
    fn another_credential_is_looked_for_where_it_is_the_credential_that_is_refused() {
        for (status, code, wanted) in [
            (401, None, true),
            (401, Some("InvalidAuthenticationInfo"), true),
            (403, Some("AuthenticationFailed"), true),
            (403, None, true),
            (403, Some("KeyBasedAuthenticationNotPermitted"), true),
            (403, Some("AuthorizationPermissionMismatch"), false),
            (403, Some("AuthorizationFailure"), false),
            (404, None, false),
        ] {
            assert_eq!(is_of_credential(Some(status), code), wanted, "{status} {code:?}");
        }
    }
}
