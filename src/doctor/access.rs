//! What we may do, by the two questions that a mount asks first: a listing of one name, and the kind of the account.

use super::{diagnose, dns::seen_from_here, examine::Step};
use crate::{
    blob::{self, AccountInfo, AzureStore, BlobStore as _, ErrorKind, Greeting, ListRequest, Location},
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

    /// The same, knowing how the service answered the unsigned question: whose tokens the account takes, and whether it refuses
    /// everybody from here, so that no other credential would help.
    pub(super) fn knowing(mut self, greeting: Option<&Greeting>, location: &Location) -> Self {
        let (Some(greeting), Some(finding)) = (greeting, self.list.failed().map(|known| known.finding)) else {
            return self;
        };
        match (finding, &greeting.tenant, greeting.code.as_deref()) {
            (Finding::TokenOtherTenant, Some(tenant), _) => {
                let trusted = format!(" (the account trusts tenant {tenant})");
                self.list =
                    Step::Failed(finding.with(&[("account", location.account()), ("tenant", trusted.as_str())]));
            }
            (Finding::Firewall, _, Some("AuthorizationFailure")) => {
                if let Step::Failed(known) = &mut self.list {
                    known.cause.push_str(" (unsigned requests are refused alike: it is not the credential)");
                }
            }
            _ => {}
        }
        self
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
        Err(error) => Step::Failed(seen_from_here(diagnose(&error, location, credential), location).await),
    };
    let account = match &list {
        Step::Done(_) if !made_by_mount => kind(store, credential).await,
        Step::Done(_) => Step::Skipped("no container yet".to_owned()),
        Step::Failed(known) => Step::Skipped(format!("see {}", known.finding.name())),
        Step::Skipped(reason) => Step::Skipped(reason.clone()),
    };
    Access { list, account, made_by_mount }
}

/// The kind of the account, and, where it is hierarchical, whether its second endpoint can be reached: a mount asks it no
/// sooner than for its first directory.
async fn kind(store: &AzureStore, credential: &Credential) -> Step<AccountInfo> {
    let unreached = |error: &blob::Error| matches!(error.kind, ErrorKind::Unreachable | ErrorKind::TimedOut);
    let info = match store.account_info().await {
        Ok(info) => info,
        Err(error) if unreached(&error) => return Step::Failed(diagnose(&error, store.location(), credential)),
        // The listing was answered: what is missing is a permission that nothing else needs.
        Err(error) => return Step::Skipped(format!("its kind cannot be told ({error})")),
    };
    if info.hierarchical
        && let Err(error) = store.reaches_hierarchy().await
        && unreached(&error)
    {
        return Step::Failed(diagnose(&error, store.location(), credential));
    }
    Step::Done(info)
}
