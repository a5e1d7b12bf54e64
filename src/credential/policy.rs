//! The pipeline policy that puts the credential on each try. Runs last before the transport, so it sees the final
//! request; it must not keep anything between tries.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::{
    http::{
        Context, Request,
        policies::{Policy, PolicyResult},
    },
    time::{OffsetDateTime, to_rfc7231},
};

use secrecy::ExposeSecret;

use super::{Credential, CredentialSlot, TokenCredential, TokenError, TokenErrorKind};
use crate::finding::Finding;

/// Signs every try with what the slot holds at that moment.
#[derive(Debug)]
pub struct CredentialPolicy {
    slot: Arc<CredentialSlot>,
}

impl CredentialPolicy {
    /// A policy that asks `slot`.
    #[must_use]
    pub fn new(slot: Arc<CredentialSlot>) -> Self {
        Self { slot }
    }
}

#[async_trait]
impl Policy for CredentialPolicy {
    async fn send(&self, context: &Context, request: &mut Request, next: &[Arc<dyn Policy>]) -> PolicyResult {
        request.insert_header("x-ms-date", to_rfc7231(&OffsetDateTime::now_utc()));
        match &*self.slot.current() {
            Credential::SharedKey(key) => {
                let authorization = key.authorization(request);
                request.insert_header("authorization", authorization);
            }
            Credential::Sas(token) => token.apply(request.url_mut()),
            Credential::Token(token) => {
                let authorization = bearer(token, request).await.map_err(unusable)?;
                if reads_by_itself(request) {
                    request.insert_header("x-ms-copy-source-authorization", authorization.clone());
                }
                request.insert_header("authorization", authorization);
            }
            Credential::Anonymous => {}
        }
        next[0].send(context, request, &next[1..]).await
    }
}

/// "Put Block From URL" and a synchronous "Copy Blob": the service reads the source as whoever this header says.
/// (An asynchronous Copy Blob takes the request's own token within an account.)
fn reads_by_itself(request: &Request) -> bool {
    let has = |wanted: &str| request.headers().iter().any(|(name, _)| name.as_str() == wanted);
    let stages = request.url().query_pairs().any(|(name, value)| name == "comp" && value == "block");
    has("x-ms-copy-source") && (stages || has("x-ms-requires-sync"))
}

/// Whoever reads a bearer token on its way can use it: it is not shown without TLS.
async fn bearer(token: &TokenCredential, request: &Request) -> Result<String, TokenError> {
    if request.url().scheme() != "https" {
        let host = request.url().host_str().unwrap_or_default();
        let known = Finding::TokenOverHttp.with(&[("host", host)]);
        return Err(TokenError::found(TokenErrorKind::Refused, token.describe(), known));
    }
    token.authorization().await.map(|text| text.expose_secret().to_owned())
}

fn unusable(error: TokenError) -> azure_core::Error {
    azure_core::Error::new(azure_core::error::ErrorKind::Credential, error)
}
