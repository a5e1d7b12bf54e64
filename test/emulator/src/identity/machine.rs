//! The machine that the driver runs on, as Azure sees it: which managed identities are assigned to it. Must not know how they
//! are asked for.

use std::sync::Arc;

use crate::identity::{
    directory::{Directory, Inner, object_id_of},
    tenant::Tenant,
};

/// A managed identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManagedIdentity {
    /// Client id.
    pub client_id: String,
    /// Object id of its service principal, which roles are assigned to.
    pub object_id: String,
    /// Resource id. Of the system-assigned identity that of the machine.
    pub resource_id: String,
    /// Tenant.
    pub(crate) tenant: String,
    pub(crate) system: bool,
}

/// How a test assigns identities to the machine.
#[derive(Clone)]
pub struct Machine {
    tenant: Tenant,
    directory: Arc<Directory>,
}

/// Where the resources of the test are.
const GROUP: &str = "/subscriptions/00000000-0000-0000-0000-00000000000a/resourceGroups/nodes/providers";

impl Machine {
    /// The machine, in a tenant.
    pub(crate) fn of(tenant: Tenant, directory: Arc<Directory>) -> Self {
        Self { tenant, directory }
    }

    /// Assigns the system's own identity. A machine has one at most.
    #[must_use]
    pub fn system_assigned(&self) -> ManagedIdentity {
        let resource_id = format!("{GROUP}/Microsoft.Compute/virtualMachines/node");
        self.assign("00000000-0000-0000-0000-0000000005ee", resource_id, true)
    }

    /// Assigns a user-assigned identity.
    #[must_use]
    pub fn user_assigned(&self, client_id: &str) -> ManagedIdentity {
        let name = client_id.split('-').next().unwrap_or_default();
        let resource_id = format!("{GROUP}/Microsoft.ManagedIdentity/userAssignedIdentities/id-{name}");
        self.assign(client_id, resource_id, false)
    }

    fn assign(&self, client_id: &str, resource_id: String, system: bool) -> ManagedIdentity {
        let identity = ManagedIdentity {
            client_id: client_id.to_owned(),
            object_id: object_id_of(client_id),
            resource_id,
            tenant: self.tenant.id().to_owned(),
            system,
        };
        // The tenant has a service principal of it, which may have federated credentials as well.
        let _ = self.tenant.application(client_id);
        let mut inner = self.directory.lock();
        inner.machine.retain(|known| known.client_id != client_id);
        inner.machine.push(identity.clone());
        identity
    }

    /// Takes an identity from the machine.
    pub fn unassign(&self, identity: &ManagedIdentity) {
        self.directory.lock().machine.retain(|known| known != identity);
    }
}

/// Which identity a request means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selector<'a> {
    /// None in particular.
    Any,
    Client(&'a str),
    Object(&'a str),
    Resource(&'a str),
}

/// Why no identity was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Missing {
    /// The one that was named is not assigned, or none is.
    NotFound,
    /// Several are, and none was named.
    Several,
}

/// Finds the identity that a request means: the system's own, unless it is named or there is only one.
///
/// # Errors
/// [`Missing`].
pub(crate) fn find(inner: &Inner, selector: Selector<'_>) -> Result<ManagedIdentity, Missing> {
    let named = |identity: &&ManagedIdentity| match selector {
        Selector::Any => identity.system,
        Selector::Client(id) => identity.client_id.eq_ignore_ascii_case(id),
        Selector::Object(id) => identity.object_id.eq_ignore_ascii_case(id),
        Selector::Resource(id) => identity.resource_id.eq_ignore_ascii_case(id),
    };
    let found = inner.machine.iter().find(named);
    match (found, selector, inner.machine.as_slice()) {
        (Some(identity), ..) => Ok(identity.clone()),
        (None, Selector::Any, [only]) => Ok(only.clone()),
        (None, Selector::Any, [_, ..]) => Err(Missing::Several),
        _ => Err(Missing::NotFound),
    }
}
