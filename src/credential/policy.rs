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

use super::{Credential, CredentialSlot};

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
            Credential::Anonymous => {}
        }
        next[0].send(context, request, &next[1..]).await
    }
}
