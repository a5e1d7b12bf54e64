//! Tenants, identities and vaults as one JSON document, for the emulator's command. Must not know how they are used.
//!
//! ```json
//! { "tenants": [ {
//!     "id": "72f988bf-86f1-41af-91ab-2d7cd011db47", "cloud": "public",
//!     "applications": [ {
//!       "client_id": "11111111-2222-3333-4444-555555555555", "secrets": ["s3cret"], "certificates": ["cert.pem"],
//!       "federated": [ { "issuer": "https://cluster.example/", "subject": "system:serviceaccount:apps:reader" } ],
//!       "roles": ["blob_data_contributor"] } ],
//!     "system_assigned": ["blob_data_reader"],
//!     "user_assigned": [ { "client_id": "99999999-2222-3333-4444-555555555555", "roles": ["blob_data_reader"] } ] } ],
//!   "vaults": { "safe": { "account-key": "value" } }, "token_life": "1h" }
//! ```

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;

use crate::identity::{
    Cloud, IdentityError, IdentityServices, Role,
    directory::{EXCHANGE_AUDIENCE, TOKEN_LIFE},
};

/// What [`IdentityServices::describe`] reads.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityDescription {
    #[serde(default)]
    tenants: Vec<TenantEntry>,
    /// Secrets by vault and name.
    #[serde(default)]
    vaults: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default = "usual_life", with = "crate::settings::duration")]
    token_life: Duration,
}

fn usual_life() -> Duration {
    TOKEN_LIFE
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TenantEntry {
    id: String,
    #[serde(default)]
    cloud: Cloud,
    #[serde(default)]
    applications: Vec<ApplicationEntry>,
    /// Roles of the system's own identity; without them the machine has none.
    system_assigned: Option<Vec<Role>>,
    #[serde(default)]
    user_assigned: Vec<UserAssignedEntry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ApplicationEntry {
    client_id: String,
    #[serde(default)]
    secrets: Vec<String>,
    /// Files in PEM.
    #[serde(default)]
    certificates: Vec<String>,
    #[serde(default)]
    federated: Vec<FederatedEntry>,
    #[serde(default)]
    roles: Vec<Role>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FederatedEntry {
    issuer: String,
    subject: String,
    #[serde(default = "usual_audience")]
    audience: String,
}

fn usual_audience() -> String {
    EXCHANGE_AUDIENCE.to_owned()
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UserAssignedEntry {
    client_id: String,
    #[serde(default)]
    roles: Vec<Role>,
}

impl IdentityServices {
    /// Adds what a description holds.
    ///
    /// # Errors
    /// [`IdentityError::Start`] for a certificate that cannot be read, [`IdentityError::Pem`] for one that is none,
    /// [`IdentityError::Key`].
    pub fn describe(&self, description: &IdentityDescription) -> Result<(), IdentityError> {
        self.token_life(description.token_life);
        for (name, secrets) in &description.vaults {
            let vault = self.vault(name);
            for (name, value) in secrets {
                vault.secret(name, value);
            }
        }
        description.tenants.iter().try_for_each(|entry| self.describe_tenant(entry))
    }

    fn describe_tenant(&self, entry: &TenantEntry) -> Result<(), IdentityError> {
        let tenant = self.tenant_in(entry.cloud, &entry.id);
        let grant = |principal: &str, roles: &[Role]| roles.iter().for_each(|role| self.grant(principal, *role));
        for described in &entry.applications {
            let mut application = tenant.application(&described.client_id);
            for secret in &described.secrets {
                application = application.secret(secret);
            }
            for file in &described.certificates {
                application = application.certificate(&std::fs::read_to_string(file)?)?;
            }
            for record in &described.federated {
                // A cluster of this name may be real: then its keys are not known here, and only its tokens are refused.
                application = application.federated_for(&record.issuer, &record.subject, &record.audience);
            }
            grant(application.client_id(), &described.roles);
        }
        let machine = tenant.machine();
        if let Some(roles) = &entry.system_assigned {
            grant(&machine.system_assigned().object_id, roles);
        }
        for described in &entry.user_assigned {
            grant(&machine.user_assigned(&described.client_id).object_id, &described.roles);
        }
        Ok(())
    }
}
