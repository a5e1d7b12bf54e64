//! What we may do, by the two questions that a mount asks first: a listing of one name, and the kind of the account.

use super::{diagnose, examine::Step};
use crate::{
    blob::{AccountInfo, AzureStore, BlobStore as _, ErrorKind, ListRequest},
    credential::Credential,
    finding::Finding,
};

/// The answers.
pub(super) struct Access {
    pub(super) list: Step<String>,
    pub(super) account: Step<AccountInfo>,
    /// There is no container, and the mount makes it.
    pub(super) made_by_mount: bool,
}

impl Access {
    pub(super) fn skipped(reason: &str) -> Self {
        Self { list: Step::Skipped(reason.to_owned()), account: Step::Skipped(reason.to_owned()), made_by_mount: false }
    }
}

/// Asks with what `credential` signs. `creates`: a missing container is made by the mount.
pub(super) async fn ask(store: &AzureStore, credential: &Credential, creates: bool) -> Access {
    let location = store.location();
    let request = ListRequest {
        prefix: location.prefix().to_owned(),
        delimited: true,
        max_results: Some(1),
        ..ListRequest::default()
    };
    let mut made_by_mount = false;
    let list = match store.list(&request).await {
        Ok(page) if page.entries.is_empty() => Step::Done("the container can be listed, and is empty here".to_owned()),
        Ok(_) => Step::Done("the container can be listed".to_owned()),
        Err(error) if error.kind == ErrorKind::ContainerNotFound && creates => {
            made_by_mount = true;
            Step::Done(format!("container {} is missing, and the mount makes it", location.container()))
        }
        Err(error) => Step::Failed(diagnose(&error, location, credential)),
    };
    let account = match &list {
        Step::Done(_) if !made_by_mount => match store.account_info().await {
            Ok(info) => Step::Done(info),
            // The listing was answered: what is missing is the way to dfs, or nothing at all.
            Err(error) => match diagnose(&error, location, credential) {
                known if known.finding == Finding::DfsUnreachable => Step::Failed(known),
                known => Step::Skipped(format!("its kind cannot be told: see {}", known.finding.name())),
            },
        },
        Step::Done(_) => Step::Skipped("no container yet".to_owned()),
        Step::Failed(known) => Step::Skipped(format!("see {}", known.finding.name())),
        Step::Skipped(reason) => Step::Skipped(reason.clone()),
    };
    Access { list, account, made_by_mount }
}
