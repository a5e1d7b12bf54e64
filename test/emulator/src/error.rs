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
    AppendPositionConditionNotMet 412 "The append position condition specified was not met.";
    AuthenticationFailed 403 "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.";
    AuthorizationFailure 403 "This request is not authorized to perform this operation.";
    AuthorizationPermissionMismatch 403 "This request is not authorized to perform this operation using this permission.";
    AuthorizationProtocolMismatch 403 "This request is not authorized to perform this operation using this protocol.";
    AuthorizationResourceTypeMismatch 403 "This request is not authorized to perform this operation using this resource type.";
    AuthorizationServiceMismatch 403 "This request is not authorized to perform this operation using this service.";
    AuthorizationSourceIPMismatch 403 "This request is not authorized to perform this operation using this source IP.";
    BlobAlreadyExists 409 "The specified blob already exists.";
    BlobArchived 409 "This operation is not permitted on an archived blob.";
    BlobNotFound 404 "The specified blob does not exist.";
    BlobBeingRehydrated 409 "This operation is not permitted because the blob is being rehydrated.";
    BlockCountExceedsLimit 409 "The uncommitted block count cannot exceed the maximum limit of 100,000 blocks.";
    BlockListTooLong 400 "The block list may not contain more than 50,000 blocks.";
    CannotVerifyCopySource 404 "The specified source of the copy cannot be verified.";
    ConditionNotMet 412 "The condition specified using HTTP conditional header(s) is not met.";
    ContainerAlreadyExists 409 "The specified container already exists.";
    ContainerBeingDeleted 409 "The specified container is being deleted. Try operation later.";
    ContainerNotFound 404 "The specified container does not exist.";
    Crc64Mismatch 400 "The CRC64 value specified in the request did not match with the CRC64 value calculated by the server.";
    EmptyMetadataKey 400 "The key for one of the metadata key-value pairs is empty.";
    InternalError 500 "The server encountered an internal error. Please retry the request.";
    InvalidAuthenticationInfo 401 "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    InvalidBlobOrBlock 400 "The specified blob or block content is invalid.";
    InvalidBlobType 409 "The blob type is invalid for this operation.";
    InvalidBlockList 400 "The specified block list is invalid.";
    InvalidHeaderValue 400 "The value for one of the HTTP headers is not in the correct format.";
    InvalidInput 400 "One of the request inputs is not valid.";
    InvalidMd5 400 "The MD5 value specified in the request is invalid. MD5 value must be 128 bits and base64 encoded.";
    InvalidMetadata 400 "The metadata specified is invalid. It has characters that are not permitted.";
    InvalidPageRange 416 "The page range specified is invalid.";
    InvalidQueryParameterValue 400 "Value for one of the query parameters specified in the request URI is invalid.";
    InvalidRange 416 "The range specified is invalid for the current size of the resource.";
    InvalidResourceName 400 "The specified resource name contains invalid characters.";
    InvalidUri 400 "The requested URI does not represent any resource on the server.";
    InvalidXmlDocument 400 "XML specified is not syntactically valid.";
    LeaseAlreadyBroken 409 "The lease has already been broken and cannot be broken again.";
    LeaseAlreadyPresent 409 "There is already a lease present.";
    LeaseIdMismatchWithBlobOperation 412 "The lease ID specified did not match the lease ID for the blob.";
    LeaseIdMismatchWithContainerOperation 412 "The lease ID specified did not match the lease ID for the container.";
    LeaseIdMismatchWithLeaseOperation 409 "The lease ID specified did not match the lease ID for the resource.";
    LeaseIdMissing 412 "There is currently a lease on the resource and no lease ID was specified in the request.";
    LeaseIsBreakingAndCannotBeAcquired 409 "The lease ID matched, but the lease is currently in breaking state and cannot be acquired until it is broken.";
    LeaseIsBreakingAndCannotBeChanged 409 "The lease ID matched, but the lease is currently in breaking state and cannot be changed.";
    LeaseIsBrokenAndCannotBeRenewed 409 "The lease ID matched, but the lease has been broken explicitly and cannot be renewed.";
    LeaseLost 412 "A lease ID was specified, but the lease for the resource has expired.";
    LeaseNotPresentWithBlobOperation 412 "There is currently no lease on the blob.";
    LeaseNotPresentWithContainerOperation 412 "There is currently no lease on the container.";
    LeaseNotPresentWithLeaseOperation 409 "There is currently no lease on the resource.";
    MaxBlobSizeConditionNotMet 412 "The max blob size condition specified was not met.";
    Md5Mismatch 400 "The MD5 value specified in the request did not match with the MD5 value calculated by the server.";
    MetadataTooLarge 400 "The specified metadata exceeds the maximum size permitted.";
    MissingContentLengthHeader 411 "Content-Length HTTP header is not specified.";
    MissingRequiredHeader 400 "An HTTP header that's mandatory for this request is not specified.";
    MissingRequiredQueryParameter 400 "A query parameter that's mandatory for this request is not specified.";
    NoAuthenticationInformation 401 "Server failed to authenticate the request. Please refer to the information in the www-authenticate header.";
    NoPendingCopyOperation 409 "There is currently no pending copy operation.";
    NotImplemented 501 "This operation is not implemented by the emulator.";
    OperationTimedOut 500 "Operation could not be completed within the specified time.";
    OutOfRangeInput 400 "One of the request inputs is out of range.";
    OutOfRangeQueryParameterValue 400 "One of the query parameters specified in the request URI is outside the permissible range.";
    PendingCopyOperation 409 "There is currently a pending copy operation.";
    PublicAccessNotPermitted 409 "Public access is not permitted on this storage account.";
    RequestBodyTooLarge 413 "The request body is too large and exceeds the maximum permissible limit.";
    ResourceNotFound 404 "The specified resource does not exist.";
    SequenceNumberConditionNotMet 412 "The sequence number condition specified was not met.";
    ServerBusy 503 "The server is busy.";
    SourceConditionNotMet 412 "The source condition specified using HTTP conditional header(s) is not met.";
    UnsatisfiableCondition 400 "The request includes an unsatisfiable condition for this operation.";
    UnsupportedHttpVerb 405 "The resource doesn't support the specified HTTP verb.";
    UnsupportedQueryParameter 400 "One of the query parameters specified in the request URI is not supported.";
    TooManyTags 400 "The tags specified exceed the maximum number of 10.";
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
