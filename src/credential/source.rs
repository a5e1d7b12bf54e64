//! Where a credential comes from, when it can be read again: after it was refused, and when it has changed.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use async_trait::async_trait;

use super::{Credential, CredentialSlot};

/// How often a source that can tell cheaply is asked whether it has changed. A few stat(2) calls; what it is for is that a
/// credential with more permissions comes in use without a refusal.
const WATCH_INTERVAL: Duration = Duration::from_secs(5);

/// Somewhere that holds a credential and can be read again.
#[async_trait]
pub trait CredentialSource: fmt::Debug + Send + Sync {
    /// The credential as it is there now. Cancel-safe.
    ///
    /// # Errors
    /// What is wrong with it, in words that hold no secret.
    async fn read(&self) -> Result<Credential, String>;

    /// What it is, for messages: "file /run/secrets/key".
    fn describe(&self) -> String;

    /// What changes when the credential may have changed; `None` where only reading tells.
    async fn mark(&self) -> Option<String> {
        None
    }
}

/// Puts in use what the slot's source says, each time that it changes, until the slot is gone. To be spawned.
pub async fn watch(slot: Weak<CredentialSlot>) {
    let Some(source) = slot.upgrade().and_then(|slot| slot.source().cloned()) else { return };
    let mut known = source.mark().await;
    if known.is_none() {
        return;
    }
    loop {
        tokio::time::sleep(WATCH_INTERVAL).await;
        let Some(slot) = slot.upgrade() else { return };
        let mark = source.mark().await;
        if mark == known {
            continue;
        }
        take(&slot, &source).await;
        known = mark;
    }
}

async fn take(slot: &CredentialSlot, source: &Arc<dyn CredentialSource>) {
    match source.read().await {
        Ok(credential) if credential.is_same(&slot.current()) => {}
        Ok(credential) => {
            tracing::info!(
                "{} has changed: the credential was replaced ({})",
                source.describe(),
                credential.describe()
            );
            slot.replace(credential);
        }
        // A file that is being written, or was taken away: what works goes on.
        Err(error) => tracing::warn!("{} has changed, and is not used: {error}", source.describe()),
    }
}
