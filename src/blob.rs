//! The Blob service as the file system needs it: ranges, ETags, block lists in and out.
//!
//! [`BlobStore`] is the whole contract; [`AzureStore`] is its implementation on the official SDK's pipeline. No inode, no
//! directory and no FUSE type may appear here. What a caller may rely on:
//!
//! - Every mutation is reported exactly once: an ambiguous try (the reply was lost) is settled inside this room by
//!   looking at what the service now holds (DESIGN 10.8), so `Precondition` always means *somebody else's* change.
//! - Every call ends within its deadline ([`RequestLimits`]), with an [`Error`] that keeps status, code and request id.
//! - A body that breaks off is resumed at its byte under If-Match; a reader never gets bytes of two versions.

mod azure;
mod body;
mod classify;
mod endpoint;
mod error;
mod hierarchy;
mod lease;
mod limit;
mod link;
mod name;
mod remedy;
mod retry;
mod store;
mod traffic;

pub use azure::{AzureStore, Cause, Connections, ContainerPage, CorsRule, Greeting, TOKEN_COPY_BYTES_MAX};
pub use body::Body;
pub use endpoint::{Location, LocationError, LocationHints};
pub use error::{Error, ErrorKind, Result};
pub use hierarchy::{AccessControl, DIRECTORY_MARK, HierarchicalStore, MODE_BITS};
pub use lease::{LEASE_DURATION, LeaseId, Leases};
pub use limit::{REQUESTS_IN_FLIGHT_DEFAULT, RequestGate};
pub use link::LinkEstimate;
pub use name::{BlobName, InvalidName};
pub use retry::RequestLimits;
pub use store::{
    AccountInfo, Appended, BlobKind, BlobProperties, BlobStore, BlockId, BlockList, BodyStream, Committed,
    CommittedBlock, Condition, ContentHeaders, CopyOptions, Download, ETag, ListEntry, ListPage, ListRequest,
    ListedBlock, METADATA_ENTRIES_MAX, Metadata, WriteOptions,
};
pub use traffic::{End, Outage, RequestCounts, Traffic, TrafficTotals};
