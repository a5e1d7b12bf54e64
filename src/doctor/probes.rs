//! Permissions one by one: reading always, writing and deleting only where that was asked for. The probe has a name that
//! nobody else has, and is removed.

use bytes::Bytes;
use uuid::Uuid;

use super::{
    diagnose::{self, role_missing},
    examine::Step,
};
use crate::{
    blob::{
        self, AzureStore, BlobName, BlobStore as _, Body, Condition, ContentHeaders, ErrorKind, Metadata, WriteOptions,
    },
    credential::Credential,
    finding::{Diagnosis, Finding},
};

/// What a probe holds, for whoever finds one that could not be removed.
const CONTENT: &[u8] = b"A probe of azblob-csi doctor --write. It can be removed.\n";

/// The answers.
pub(super) struct Probes {
    pub(super) read: Step<String>,
    pub(super) write: Step<String>,
    pub(super) delete: Step<String>,
}

impl Probes {
    pub(super) fn skipped(reason: &str) -> Self {
        let skipped = || Step::Skipped(reason.to_owned());
        Self { read: skipped(), write: skipped(), delete: skipped() }
    }
}

pub(super) async fn ask(store: &AzureStore, credential: &Credential, write: bool) -> Probes {
    let name = format!("{}.azblob-doctor-{}", store.location().prefix(), Uuid::new_v4());
    let name = match BlobName::new(name) {
        Ok(name) => name,
        Err(error) => return Probes::skipped(&format!("the prefix leaves no room for a probe ({error})")),
    };
    // Whoever may read is told that the name is not there; whoever may not, is refused.
    let read = match store.head(&name, &Condition::None).await {
        Ok(_) => Step::Done("blobs can be read".to_owned()),
        Err(error) if error.kind == ErrorKind::NotFound => Step::Done("blobs can be read".to_owned()),
        Err(error) => Step::Failed(denied(Finding::ReadDenied, &error, store, credential)),
    };
    if !write {
        let skipped = || Step::Skipped("only with --write".to_owned());
        return Probes { read, write: skipped(), delete: skipped() };
    }
    let options = WriteOptions {
        condition: Condition::Absent,
        metadata: Metadata::new(),
        headers: ContentHeaders::default(),
        access_tier: None,
    };
    if let Err(error) = store.put_blob(&name, Body::from(Bytes::from_static(CONTENT)), &options).await {
        let known = denied(Finding::WriteDenied, &error, store, credential);
        let delete = Step::Skipped(format!("see {}", known.finding.name()));
        return Probes { read, write: Step::Failed(known), delete };
    }
    let delete = match store.delete(&name, &Condition::None).await {
        Ok(()) => Step::Done("blobs can be deleted".to_owned()),
        Err(error) if error.kind == ErrorKind::Denied => {
            let left = format!(" (the probe {name} stays)");
            let facts = [("container", store.location().container()), ("left", left.as_str())];
            Step::Failed(Finding::DeleteDenied.with(&facts))
        }
        Err(error) => Step::Failed(diagnose::diagnose(&error, store.location(), credential)),
    };
    Probes { read, write: Step::Done("blobs can be written".to_owned()), delete }
}

/// A refusal of one permission, where the same credential was taken for another; other errors say what they are.
fn denied(finding: Finding, error: &blob::Error, store: &AzureStore, credential: &Credential) -> Diagnosis {
    let location = store.location();
    let bare = error.status == Some(403) && error.code.is_none();
    let permission = bare || error.code.as_deref() == Some("AuthorizationPermissionMismatch");
    match credential {
        // HEAD answers have a code in a header alone; where there is none, the listing before it was allowed.
        _ if error.kind != ErrorKind::Denied || !permission => diagnose::diagnose(error, location, credential),
        Credential::Token(token) => {
            let role = role_missing(token, location, error.operation);
            let own = finding.with(&[("container", location.container())]);
            Diagnosis { fix: role.fix, ..own }
        }
        _ => finding.with(&[("container", location.container())]),
    }
}
