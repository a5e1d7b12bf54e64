//! What the service says when it refuses: status, code, sentence. One table; must not know why a request was refused.

use std::borrow::Cow;

use hyper::StatusCode;

/// Defines the codes once: variant, status, message.
macro_rules! codes {
    ($($code:ident $status:literal $message:literal;)*) => {
        /// Error codes of the Blob service that this emulator answers. The variant's name is the code on the wire.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Code { $($code,)* }

        /// Status and sentence of each code.
        const FACTS: &[(Code, &str, u16, &str)] = &[$((Code::$code, stringify!($code), $status, $message),)*];
    };
}

codes! {
    AppendPositionConditionNotMet 412 "The blob does not end where the append position condition says.";
    AuthenticationFailed 403 "The credential of the request could not be verified; the detail says why.";
    AuthorizationFailure 403 "The credential does not allow this operation.";
    AuthorizationPermissionMismatch 403 "The permissions of the SAS do not include this operation.";
    AuthorizationProtocolMismatch 403 "The SAS does not allow this protocol.";
    AuthorizationResourceTypeMismatch 403 "The resource types of the SAS do not include this resource.";
    AuthorizationServiceMismatch 403 "The services of the SAS do not include this service.";
    AuthorizationSourceIPMismatch 403 "The SAS does not allow this client address.";
    BlobAlreadyExists 409 "There is a blob of this name already.";
    BlobArchived 409 "The blob is in the archive tier and has to be rehydrated first.";
    BlobNotFound 404 "There is no blob of this name.";
    BlockCountExceedsLimit 409 "The blob has as many blocks as it can have.";
    BlockListTooLong 400 "The block list has more than 50,000 entries.";
    CannotVerifyCopySource 404 "The source of the copy could not be read.";
    ConditionNotMet 412 "A condition of the request headers does not hold.";
    ContainerAlreadyExists 409 "There is a container of this name already.";
    ContainerBeingDeleted 409 "A container of this name is still being deleted.";
    ContainerNotFound 404 "There is no container of this name.";
    Crc64Mismatch 400 "The body does not have the CRC64 that the request states.";
    DirectoryIsNotEmpty 409 "The operation is not possible on a directory that is not empty.";
    DirectoryNotEmpty 409 "The directory is not empty and the request is not recursive.";
    EmptyMetadataKey 400 "A metadata header has no name.";
    FeatureNotYetSupportedForHierarchicalNamespaceAccounts 409 "A hierarchical account cannot do this.";
    InternalError 500 "The server failed; the request may be repeated.";
    InvalidAuthenticationInfo 401 "The authentication information is not in a form that is understood.";
    InvalidBlobOrBlock 400 "The block does not fit the blob: its id has another length than those that are there.";
    InvalidBlobType 409 "The kind of the blob does not allow this operation.";
    InvalidBlockList 400 "The block list names a block that is not there.";
    InvalidDestinationPath 409 "A part of the path is of the wrong sort for the operation.";
    InvalidHeaderValue 400 "A header has a value that is not understood.";
    InvalidInput 400 "A part of the request is not valid.";
    InvalidMd5 400 "The stated MD5 is not 16 bytes in base64.";
    InvalidMetadata 400 "A metadata header has a name or value that is not permitted.";
    InvalidPageRange 416 "The range does not consist of whole pages of the blob.";
    InvalidQueryParameterValue 400 "A query parameter has a value that is not understood.";
    InvalidRange 416 "The range begins behind the end of the blob.";
    InvalidRenameSourcePath 409 "A directory cannot be moved into itself.";
    InvalidResourceName 400 "The name has characters that are not permitted.";
    InvalidSourceOrDestinationResourceType 409 "Source and destination are not of one sort.";
    InvalidUri 400 "The path of the request cannot be decoded.";
    InvalidXmlDocument 400 "The body is not the XML document that the operation needs.";
    KeyBasedAuthenticationNotPermitted 403 "The account does not allow its keys to be used.";
    LeaseAlreadyPresent 409 "The resource is leased already.";
    LeaseIdMismatchWithBlobOperation 412 "The lease of the blob has another id.";
    LeaseIdMismatchWithContainerOperation 412 "The lease of the container has another id.";
    LeaseIdMismatchWithLeaseOperation 409 "The resource has no lease of this id.";
    LeaseIdMissing 412 "The resource is leased and the request has no lease id.";
    LeaseIsBreakingAndCannotBeAcquired 409 "The lease is being broken and cannot be acquired yet.";
    LeaseIsBreakingAndCannotBeChanged 409 "The lease is being broken and cannot be changed.";
    LeaseIsBrokenAndCannotBeRenewed 409 "The lease is broken and cannot be renewed.";
    LeaseLost 412 "The lease of this id has expired.";
    LeaseNotPresentWithBlobOperation 412 "The blob is not leased.";
    LeaseNotPresentWithContainerOperation 412 "The container is not leased.";
    LeaseNotPresentWithLeaseOperation 409 "There is no lease to act on.";
    MaxBlobSizeConditionNotMet 412 "The blob would become longer than the size condition allows.";
    Md5Mismatch 400 "The body does not have the MD5 that the request states.";
    MetadataTooLarge 400 "The metadata is longer than 8 KiB.";
    MissingContentLengthHeader 411 "The request states no Content-Length.";
    MissingRequiredHeader 400 "A header that the operation needs is missing.";
    MissingRequiredQueryParameter 400 "A query parameter that the operation needs is missing.";
    NoAuthenticationInformation 401 "The request carries no credential and the resource is not public.";
    NoPendingCopyOperation 409 "No copy with this id is under way.";
    NotImplemented 501 "This operation is not implemented by the emulator.";
    OperationTimedOut 500 "The body did not arrive in full.";
    OutOfRangeInput 400 "A part of the request is outside of its limits.";
    OutOfRangeQueryParameterValue 400 "A query parameter is outside of its limits.";
    PathAlreadyExists 409 "There is such a path already.";
    PathNotFound 404 "There is no such path.";
    PendingCopyOperation 409 "A copy onto this blob is under way.";
    PublicAccessNotPermitted 409 "The account does not allow public access.";
    RenameDestinationParentPathNotFound 404 "The directory of the new path does not exist.";
    RequestBodyTooLarge 413 "The body is longer than the operation allows.";
    ResourceNotFound 404 "The resource does not exist or is not public.";
    ResourceTypeMismatch 409 "What is there is of another sort than the operation makes.";
    SequenceNumberConditionNotMet 412 "The condition on the sequence number does not hold.";
    ServerBusy 503 "The server has too much to do; try again later.";
    SourceConditionNotMet 412 "A condition on the source of the copy does not hold.";
    SourcePathNotFound 404 "The path to rename does not exist.";
    UnsatisfiableCondition 400 "The condition can never hold for this operation.";
    UnsupportedHttpVerb 405 "The resource does not know this verb.";
    TooManyTags 400 "A blob has 10 tags at most.";
}

/// A refusal, ready to be turned into a response.
#[derive(Clone, Debug)]
pub(crate) struct ServiceError {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// x-ms-error-code.
    pub(crate) code: Cow<'static, str>,
    /// One sentence.
    pub(crate) message: Cow<'static, str>,
    /// Further elements of the XML body: what exactly did not match.
    pub(crate) details: Vec<(&'static str, String)>,
    /// Further headers.
    pub(crate) headers: Vec<(&'static str, String)>,
}

impl ServiceError {
    /// The same refusal under another status: some codes come with several.
    pub(crate) fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds an element to the XML body.
    pub(crate) fn detail(mut self, element: &'static str, text: impl Into<String>) -> Self {
        self.details.push((element, text.into()));
        self
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// A wrong header, named.
    pub(crate) fn bad_header(name: &str, value: &str) -> Self {
        Self::from(Code::InvalidHeaderValue).detail("HeaderName", name).detail("HeaderValue", value)
    }

    /// A header that the operation needs, named.
    pub(crate) fn missing_header(name: &str) -> Self {
        Self::from(Code::MissingRequiredHeader).detail("HeaderName", name)
    }

    /// A wrong query parameter, named.
    pub(crate) fn bad_query(name: &str, value: &str) -> Self {
        Self::from(Code::InvalidQueryParameterValue)
            .detail("QueryParameterName", name)
            .detail("QueryParameterValue", value)
    }
}

impl From<Code> for ServiceError {
    fn from(code: Code) -> Self {
        let (name, status, message) = FACTS
            .iter()
            .find(|(candidate, ..)| *candidate == code)
            .map_or(("InternalError", 500, ""), |&(_, name, status, message)| (name, status, message));
        Self {
            status: StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
            code: Cow::Borrowed(name),
            message: Cow::Borrowed(message),
            details: Vec::new(),
            headers: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_on_the_wire_is_the_variant() {
        for &(code, name, status, message) in FACTS {
            assert_eq!(format!("{code:?}"), name);
            assert!(StatusCode::from_u16(status).is_ok_and(|status| !status.is_success()));
            assert!(message.ends_with('.'), "{name}");
            assert_eq!(ServiceError::from(code).code, name);
        }
    }
}
