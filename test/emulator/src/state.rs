//! Everything that the emulator holds: accounts, containers, blobs. Plain data and lookups; must not know HTTP.

use std::{collections::BTreeMap, sync::Arc};

use hyper::StatusCode;
use time::OffsetDateTime;

use crate::{
    access::Access,
    blob::{Blob, Staging},
    call::{Call, Metadata},
    date,
    error::{Code, ServiceError},
    identity::Directory,
    lease::Lease,
};

/// The account of every emulator of the Blob service.
pub const DEVELOPMENT_ACCOUNT: &str = "devstoreaccount1";
/// Its key: published by Microsoft for use with local emulators only, so no secret.
pub const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// Who may read without any credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum PublicAccess {
    /// Nobody.
    #[default]
    None,
    /// Anybody reads blobs whose name they know.
    Blob,
    /// Anybody lists and reads.
    Container,
}

impl PublicAccess {
    /// The value of x-ms-blob-public-access; private containers have none.
    pub(crate) fn name(self) -> Option<&'static str> {
        match self {
            Self::None => None,
            Self::Blob => Some("blob"),
            Self::Container => Some("container"),
        }
    }
}

/// A stored access policy, which a SAS may name.
#[derive(Clone, Debug, Default)]
pub(crate) struct AccessPolicy {
    pub(crate) id: String,
    pub(crate) start: String,
    pub(crate) expiry: String,
    pub(crate) permissions: String,
}

/// A container.
#[derive(Default)]
pub(crate) struct Container {
    pub(crate) blobs: BTreeMap<String, Blob>,
    /// Uncommitted blocks by name of the blob that they are for.
    pub(crate) staged: BTreeMap<String, Staging>,
    pub(crate) metadata: Metadata,
    pub(crate) etag: String,
    pub(crate) modified: Option<OffsetDateTime>,
    pub(crate) public: PublicAccess,
    pub(crate) policies: Vec<AccessPolicy>,
    pub(crate) lease: Lease,
    /// Who may do what with the root of a hierarchical container, once somebody has set it.
    pub(crate) root_access: Option<Access>,
    /// Whether some blob may have a copy that is under way.
    pub(crate) copies_pending: bool,
}

impl Container {
    /// A blob that is there.
    ///
    /// # Errors
    /// `BlobNotFound`.
    pub(crate) fn blob(&self, name: &str) -> Result<&Blob, ServiceError> {
        self.blobs.get(name).ok_or_else(|| Code::BlobNotFound.into())
    }

    /// As [`Self::blob`], to change it.
    pub(crate) fn blob_mut(&mut self, name: &str) -> Result<&mut Blob, ServiceError> {
        self.blobs.get_mut(name).ok_or_else(|| Code::BlobNotFound.into())
    }

    /// Completes the copies whose time has come.
    pub(crate) fn settle(&mut self, stamp: &mut Stamps, now: OffsetDateTime) {
        if !self.copies_pending {
            return;
        }
        self.copies_pending = false;
        for blob in self.blobs.values_mut() {
            self.copies_pending |= crate::copy::settle(blob, stamp, now);
        }
    }
}

/// An account.
pub(crate) struct Account {
    /// The two keys, in base64. Both are accepted.
    pub(crate) keys: [String; 2],
    pub(crate) containers: BTreeMap<String, Container>,
    /// Deleted containers whose names are not free yet, with the time when they will be.
    pub(crate) deleting: BTreeMap<String, OffsetDateTime>,
}

impl Account {
    /// An account with one key for both.
    pub(crate) fn new(key: &str) -> Self {
        Self { keys: [key.to_owned(), key.to_owned()], containers: BTreeMap::new(), deleting: BTreeMap::new() }
    }
}

/// Makes ETags: each is used once in the life of the process.
pub(crate) struct Stamps {
    next: u64,
}

impl Stamps {
    /// Begins at the clock, so that two runs never give the same ETag to different bytes.
    pub(crate) fn new(now: OffsetDateTime) -> Self {
        Self { next: (now.unix_timestamp_nanos() / 100) as u64 & 0x00FF_FFFF_FFFF_FFFF }
    }

    /// A new ETag, with its quotes.
    pub(crate) fn etag(&mut self) -> String {
        self.next += 1;
        format!("\"0x8D{:014X}\"", self.next)
    }

    /// A new ETag and the time that goes with it.
    pub(crate) fn change(&mut self, now: OffsetDateTime) -> (String, OffsetDateTime) {
        (self.etag(), date::whole_seconds(now))
    }
}

/// All accounts.
pub(crate) struct State {
    pub(crate) accounts: BTreeMap<String, Account>,
    pub(crate) stamps: Stamps,
    /// Whose tokens are accepted, once there are identity services.
    pub(crate) directory: Option<Arc<Directory>>,
}

impl State {
    /// The account and the container of a call, to change them, with the source of ETags.
    ///
    /// # Errors
    /// `ContainerNotFound`, `ContainerBeingDeleted`.
    pub(crate) fn container(&mut self, call: &Call) -> Result<(&mut Container, &mut Stamps), ServiceError> {
        let Self { accounts, stamps, .. } = self;
        let name = call.container_name();
        let account =
            accounts.get_mut(&call.resource.account).ok_or_else(|| ServiceError::from(Code::ResourceNotFound))?;
        let container = account.containers.get_mut(name).ok_or_else(|| ServiceError::from(Code::ContainerNotFound))?;
        container.settle(stamps, call.now);
        Ok((container, stamps))
    }

    /// The account of a call.
    ///
    /// # Errors
    /// 404: a host name that does not resolve is the nearest thing on the service.
    pub(crate) fn account(&mut self, call: &Call) -> Result<&mut Account, ServiceError> {
        let missing = || ServiceError::from(Code::ResourceNotFound).with_status(StatusCode::NOT_FOUND);
        self.accounts.get_mut(&call.resource.account).ok_or_else(missing)
    }
}
