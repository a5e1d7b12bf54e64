//! Who may do what: finds the credential of a request, has it verified, and says what it grants.
//! Must not know what the operations do.
//!
//! Order: Authorization header, then a SAS in the query, then anonymous access. Codes and statuses: REST pages
//! "Authorize requests to Azure Storage" and "Common REST API error codes".

use hyper::StatusCode;
use time::OffsetDateTime;

use crate::{
    call::Call,
    error::{Code, ServiceError},
    operation::Operation,
    settings::Settings,
    state::{PublicAccess, State},
};

mod bearer;
pub(crate) mod delegation;
pub(crate) mod sas;
pub(crate) mod shared_key;

/// First service version that answers a bearer challenge to anonymous requests instead of 404.
const CHALLENGE_VERSION: &str = "2019-12-12";

/// What a credential grants.
#[derive(Clone, Debug)]
pub(crate) enum Grant {
    /// Nothing was checked yet.
    Denied,
    /// The account's key signed the request (or the emulator does not check): everything.
    Owner,
    /// A bearer token, whose roles have been checked: everything they contain, but never the free pass for copies inside the account.
    Bearer {
        /// Object id of the principal; empty for a token of the settings.
        object_id: String,
        /// Its tenant.
        tenant: String,
    },
    /// A SAS, whose permission for the operation has been checked.
    Sas {
        /// Its permission letters.
        permissions: String,
        /// Response headers that it overrides.
        overrides: Vec<(&'static str, String)>,
    },
    /// Nobody in particular, reading what is public.
    Anonymous,
}

impl Grant {
    /// Whether an existing blob may be replaced: the letter `c` of a SAS only creates.
    pub(crate) fn may_overwrite(&self) -> bool {
        match self {
            Self::Owner | Self::Bearer { .. } => true,
            Self::Sas { permissions, .. } => permissions.contains('w'),
            Self::Denied | Self::Anonymous => false,
        }
    }
}

/// Finds and verifies the credential of a request.
///
/// # Errors
/// 401, 403, 404 or 409 with the code that says what is wrong.
pub(crate) fn authorize(state: &State, settings: &Settings, call: &Call) -> Result<Grant, ServiceError> {
    if !settings.auth {
        return Ok(Grant::Owner);
    }
    if settings.firewall {
        return Err(Code::AuthorizationFailure.into());
    }
    let account =
        state.accounts.get(&call.resource.account).ok_or_else(|| ServiceError::from(Code::ResourceNotFound))?;
    if let Some(text) = call.header("authorization")? {
        let (scheme, credential) = text.split_once(' ').unwrap_or((text, ""));
        return match scheme {
            "SharedKey" | "SharedKeyLite" if !settings.shared_key_access => {
                Err(Code::KeyBasedAuthenticationNotPermitted.into())
            }
            "SharedKey" | "SharedKeyLite" => {
                shared_key::verify(call, credential, &account.keys, scheme == "SharedKeyLite").map(|()| Grant::Owner)
            }
            "Bearer" => bearer::verify(state, settings, call, credential),
            _ => Err(ServiceError::from(Code::InvalidAuthenticationInfo).with_status(StatusCode::BAD_REQUEST)),
        };
    }
    if call.query.get("sig").is_some() {
        return sas::verify(state, settings, call, account);
    }
    anonymous(state, settings, call)
}

fn anonymous(state: &State, settings: &Settings, call: &Call) -> Result<Grant, ServiceError> {
    if !settings.public_access {
        return Err(Code::PublicAccessNotPermitted.into());
    }
    let containers = state.accounts.get(&call.resource.account).map(|account| &account.containers);
    let public = containers
        .zip(call.resource.container.as_ref())
        .and_then(|(containers, name)| containers.get(name))
        .map_or(PublicAccess::None, |container| container.public);
    let blob_read = call.operation.level() == 'o' && call.operation.permissions() == "r";
    let container_read = matches!(call.operation, Operation::ListBlobs | Operation::GetContainerProperties);
    let allowed = match public {
        PublicAccess::None => false,
        PublicAccess::Blob => blob_read,
        PublicAccess::Container => blob_read || container_read,
    };
    if allowed {
        Ok(Grant::Anonymous)
    } else if call.version() >= CHALLENGE_VERSION {
        Err(challenge(state, call, Code::NoAuthenticationInformation))
    } else {
        Err(Code::ResourceNotFound.into())
    }
}

/// 401 with the authority and the tenant that a token has to come from.
fn challenge(state: &State, call: &Call, code: Code) -> ServiceError {
    let tenant = state.directory.as_ref().and_then(|directory| directory.lock().storage_tenant.clone());
    let authority = bearer::cloud_of(call).unwrap_or_default().authority_host();
    ServiceError::from(code).header(
        "www-authenticate",
        format!(
            "Bearer authorization_uri=https://{authority}/{}/oauth2/authorize resource_id=https://storage.azure.com",
            tenant.as_deref().unwrap_or("common")
        ),
    )
}

/// 403 `AuthenticationFailed` with the fact that a developer needs.
pub(crate) fn failed(detail: impl Into<String>) -> ServiceError {
    ServiceError::from(Code::AuthenticationFailed).detail("AuthenticationErrorDetail", detail)
}

/// Whether the emulator's clock is past a time.
pub(crate) fn is_past(at: OffsetDateTime, now: OffsetDateTime) -> bool {
    now > at
}
