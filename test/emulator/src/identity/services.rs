//! What the services share, and which of them answers a request. Must not know TLS.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Incoming};
use parking_lot::Mutex;
use serde_json::json;
use tempfile::NamedTempFile;

use crate::{
    answer::Cut,
    identity::{
        arm,
        certificates::TestAuthority,
        cloud::{Cloud, IdentityService, account_of, service_of},
        directory::Directory,
        door::Door,
        entra,
        faults::{IdentityFaultKind, IdentityFaults},
        key_vault,
        managed::{self, Local},
        message::{Message, Reply},
        record::{IdentityRequest, Records},
    },
    server::Service,
};

/// What is behind a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Destination {
    pub(crate) service: IdentityService,
    pub(crate) cloud: Cloud,
}

/// The services.
pub(crate) struct Services {
    pub(crate) directory: Arc<Directory>,
    pub(crate) authority: TestAuthority,
    pub(crate) records: Arc<Records>,
    pub(crate) faults: IdentityFaults,
    /// The secret of App Service's endpoint for managed identities, and Arc's key with the file that it is in.
    pub(crate) header: String,
    pub(crate) arc_key: String,
    pub(crate) arc_key_file: Mutex<NamedTempFile>,
    /// The emulator.
    pub(crate) storage: Arc<Service>,
    /// Names beyond those of the clouds: custom domains, Azure Stack.
    pub(crate) names: Mutex<BTreeMap<String, Destination>>,
}

impl Services {
    /// What is behind a host name. Nothing for accounts and vaults that do not exist: their names do not resolve.
    pub(crate) fn destination(&self, host: &str) -> Option<Destination> {
        if matches!(host, "localhost" | "127.0.0.1") {
            return Some(Destination { service: IdentityService::Storage, cloud: Cloud::Public });
        }
        if let Some(known) = self.names.lock().get(host) {
            return Some(*known);
        }
        let (service, cloud) = service_of(host)?;
        let exists = match service {
            IdentityService::Storage => self.storage.state.lock().accounts.contains_key(account_of(host)),
            IdentityService::KeyVault => self.directory.lock().vaults.contains_key(account_of(host)),
            _ => true,
        };
        exists.then_some(Destination { service, cloud })
    }

    /// Answers a request to an identity service.
    ///
    /// # Errors
    /// [`Cut`]: the connection is to end.
    pub(crate) async fn answer(
        &self,
        destination: Destination,
        door: Option<Door>,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Cut> {
        let (sni, proxied) = door.map_or((None, false), |door| (door.sni, door.proxied));
        let message = match Message::read(request, sni, proxied).await {
            Ok(message) => message,
            Err(text) => return Ok(Reply::text(StatusCode::BAD_REQUEST, text).into_response()),
        };
        let fault = self.faults.strike(destination.service);
        if fault == Some(IdentityFaultKind::Drop) {
            self.records.add(IdentityRequest::of(destination.service, &message, 0));
            return Err(Cut);
        }
        if let Some(IdentityFaultKind::Slow(wait)) = fault {
            tokio::time::sleep(wait).await;
        }
        let reply = match fault {
            Some(IdentityFaultKind::Status { status, retry_after }) => {
                trouble(destination.service, status, retry_after)
            }
            Some(IdentityFaultKind::Refuse(code)) => self.reply(destination, &message, Some(code)),
            _ => self.reply(destination, &message, None),
        };
        self.records.add(IdentityRequest::of(destination.service, &message, reply.status.as_u16()));
        Ok(reply.into_response())
    }

    fn reply(&self, destination: Destination, message: &Message, forced: Option<u32>) -> Reply {
        match destination.service {
            IdentityService::Authority => entra::answer(&self.directory, destination.cloud, message, forced),
            IdentityService::ManagedIdentity => {
                let key_file = self.arc_key_file.lock().path().to_owned();
                let local = Local { header: &self.header, key_file: &key_file, key: &self.arc_key };
                managed::answer(&self.directory, &local, message)
            }
            IdentityService::Arm => arm::answer(&self.directory, &self.storage, destination.cloud, message),
            IdentityService::KeyVault => key_vault::answer(&self.directory, destination.cloud, message),
            IdentityService::Storage => Reply::text(StatusCode::NOT_FOUND, "The resource cannot be found."),
        }
    }
}

/// The answer of a service in trouble, with the body that goes along with such a status.
fn trouble(service: IdentityService, status: u16, retry_after: Option<Duration>) -> Reply {
    let body = match (service, status) {
        (IdentityService::Authority, 429) => {
            json!({ "error": "temporarily_unavailable", "error_description": "AADSTS90055: Too many requests.", "error_codes": [90_055] })
        }
        (IdentityService::Authority, _) => {
            json!({ "error": "temporarily_unavailable", "error_description": "AADSTS90033: A transient error has occurred. Please try again.", "error_codes": [90_033] })
        }
        (IdentityService::ManagedIdentity, 429) => {
            json!({ "error": "too_many_requests", "error_description": "Too many requests" })
        }
        (IdentityService::ManagedIdentity, _) => {
            json!({ "error": "unknown", "error_description": "Failed to retrieve token from the Active directory. For details see logs in C:\\Packages\\Plugins\\Microsoft.Identity.MSI.Instance\\1.0\\WindowsAzureGuestAgent\\Logs" })
        }
        (_, 429) => json!({ "error": { "code": "TooManyRequests", "message": "The request is being throttled." } }),
        (_, 503) => {
            json!({ "error": { "code": "ServerBusy", "message": "The server is busy, please try again later." } })
        }
        _ => json!({ "error": { "code": "InternalServerError", "message": "Encountered internal server error." } }),
    };
    let reply = Reply::json(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body);
    match retry_after {
        Some(after) => reply.header("retry-after", after.as_secs().to_string()),
        None => reply,
    }
}
