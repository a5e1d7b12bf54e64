//! How a connection came to a service: through the proxy, over TLS under a name, or plainly. Notes each request of it.
//! Must not know what is behind the door.

use std::sync::Arc;

use hyper::{Request, body::Incoming};

use crate::{
    identity::{
        cloud::IdentityService,
        message::without_port,
        record::{IdentityRequest, Records},
    },
    query::Query,
};

/// One connection's way in.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) records: Arc<Records>,
    /// Whether it has TLS.
    pub(crate) secure: bool,
    /// The name of its TLS handshake.
    pub(crate) sni: Option<String>,
    pub(crate) proxied: bool,
}

impl Door {
    /// Whether requests cannot be read on their way.
    pub(crate) fn is_secure(&self) -> bool {
        self.secure
    }

    /// Notes a request to the storage account.
    pub(crate) fn note(&self, request: &Request<Incoming>) -> Note {
        let host = request.headers().get("host").and_then(|host| host.to_str().ok()).or_else(|| request.uri().host());
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let record = IdentityRequest {
            service: IdentityService::Storage,
            proxied: self.proxied,
            sni: self.sni.clone(),
            host: without_port(host.unwrap_or_default()).to_ascii_lowercase(),
            method: request.method().to_string(),
            path: request.uri().path().to_owned(),
            status: 0,
            fields: IdentityRequest::fields_of(request.headers(), &query),
        };
        Note { records: Arc::clone(&self.records), record }
    }
}

/// A request that is being answered.
pub(crate) struct Note {
    records: Arc<Records>,
    record: IdentityRequest,
}

impl Note {
    /// Adds it to the records, with the status of its answer (0: none).
    pub(crate) fn answered(mut self, status: u16) {
        self.record.status = status;
        self.records.add(self.record);
    }
}
