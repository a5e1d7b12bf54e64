//! Bearer tokens: of the list in the settings, or of the fake Entra ID, with the roles of their principal. Must not know
//! what the operations do. Rules: REST page "Authorize with Microsoft Entra ID".

use serde_json::Value;

use crate::{
    auth::{Grant, challenge, failed},
    call::Call,
    error::{Code, ServiceError},
    identity::{Cloud, Directory, IdentityService, Role, service_of},
    operation::Operation,
    settings::Settings,
    state::State,
};

/// First service version that knows bearer tokens.
const BEARER_VERSION: &str = "2017-11-09";

/// Verifies a token.
///
/// # Errors
/// 401 with a challenge for a token that is none of ours, 403 for one whose principal may not do this.
pub(crate) fn verify(state: &State, settings: &Settings, call: &Call, token: &str) -> Result<Grant, ServiceError> {
    if !call.secure {
        return Err(failed("Authentication scheme Bearer is not allowed with HTTP."));
    }
    if call.version() < BEARER_VERSION {
        return Err(failed("Authentication scheme Bearer is not supported in this version."));
    }
    if settings.bearer_tokens.iter().any(|known| known == token) {
        return Ok(Grant::Bearer { object_id: String::new(), tenant: String::new() });
    }
    let refused = |detail: &str| {
        challenge(state, call, Code::InvalidAuthenticationInfo).detail("AuthenticationErrorDetail", detail)
    };
    let directory =
        state.directory.as_ref().ok_or_else(|| refused("Issuer validation failed. Issuer did not match."))?;
    let claims = directory.verify(token, call.now).map_err(refused)?;
    check_source(directory, call, &claims).map_err(refused)?;
    let roles = directory.lock().roles(&claims, call.resource.container.as_deref());
    if !roles.iter().any(|role| allows(*role, call.operation)) {
        // The service hides this one: public issues 30761 and 21810 of its SDKs for .NET and Python show the answer.
        let hidden = call.operation == Operation::GetAccountInformation;
        return Err(if hidden { Code::ResourceNotFound } else { Code::AuthorizationPermissionMismatch }.into());
    }
    let text = |name: &str| claims[name].as_str().unwrap_or_default().to_owned();
    Ok(Grant::Bearer { object_id: text("oid"), tenant: text("tid") })
}

/// Audience and tenant: both must be those of the account.
fn check_source(directory: &Directory, call: &Call, claims: &Value) -> Result<(), &'static str> {
    let audience = claims["aud"].as_str().unwrap_or_default().trim_end_matches('/');
    let cloud = cloud_of(call);
    let own = cloud.unwrap_or_default().blob_host(&call.resource.account);
    if audience != "https://storage.azure.com" && audience.strip_prefix("https://") != Some(own.as_str()) {
        return Err("Audience validation failed. Audience did not match.");
    }
    let inner = directory.lock();
    let tenant = claims["tid"].as_str().unwrap_or_default();
    let of_cloud = cloud.is_none_or(|cloud| inner.tenants.get(tenant).is_some_and(|known| known.cloud == cloud));
    if !of_cloud || inner.storage_tenant.as_deref().is_some_and(|own| own != tenant) {
        return Err("Issuer validation failed. Issuer did not match.");
    }
    Ok(())
}

/// The cloud that the host name of a request stands for, if it is one of Azure's.
pub(super) fn cloud_of(call: &Call) -> Option<Cloud> {
    let host = call.host.split(':').next().unwrap_or_default();
    service_of(host).filter(|(service, _)| *service == IdentityService::Storage).map(|(_, cloud)| cloud)
}

/// Whether a role contains the action of an operation (page "Azure built-in roles for Storage").
pub(super) fn allows(role: Role, operation: Operation) -> bool {
    match (role, operation) {
        // No role of the data plane contains `blobServices/getInfo` or `blobServices/read`.
        (role, Operation::GetAccountInformation | Operation::GetServiceProperties) => role == Role::AccountContributor,
        (Role::BlobDataOwner, _) | (Role::BlobDelegator, Operation::GetUserDelegationKey) => true,
        (_, Operation::SetContainerACL | Operation::GetContainerACL) => false,
        (Role::BlobDataContributor, _) => true,
        (Role::BlobDataReader, operation) => !operation.writes(),
        (Role::BlobDelegator | Role::AccountKeyOperator | Role::AccountContributor | Role::KeyVaultSecretsUser, _) => {
            false
        }
    }
}
