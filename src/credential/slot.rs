//! The place that holds the credential in use. Refilled at run time, without a remount and without a pause.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;

use super::Credential;

/// Holds one credential and hands it out per try. A request in flight keeps what it was signed with; the next try
/// uses the new one. Shared by every store that was made with it.
pub struct CredentialSlot {
    /// Guards the pointer only: taken for the time of one clone, nothing awaits inside.
    current: RwLock<Arc<Credential>>,
    /// Counts replacements, so that a refused try can tell whether another credential has arrived since.
    generation: AtomicU64,
}

impl CredentialSlot {
    /// A slot that holds `credential`.
    #[must_use]
    pub fn new(credential: Credential) -> Arc<Self> {
        Arc::new(Self { current: RwLock::new(Arc::new(credential)), generation: AtomicU64::new(0) })
    }

    /// The credential to use now.
    #[must_use]
    pub fn current(&self) -> Arc<Credential> {
        Arc::clone(&self.current.read())
    }

    /// Puts another credential in. Takes effect with the next try of every request.
    pub fn replace(&self, credential: Credential) {
        *self.current.write() = Arc::new(credential);
        // Release pairs with the Acquire in `generation`: who sees the new number finds the new credential.
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// How often the credential was replaced.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl fmt::Debug for CredentialSlot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialSlot")
            .field("kind", &self.current().describe())
            .field("generation", &self.generation())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_keeps_what_it_took_and_the_next_one_gets_the_new_credential() {
        let slot = CredentialSlot::new(Credential::Anonymous);
        let before = slot.current();
        slot.replace(Credential::Sas(crate::credential::SasToken::parse("test", "sv=1&sig=x").unwrap()));
        assert!(matches!(*before, Credential::Anonymous));
        assert!(matches!(*slot.current(), Credential::Sas(_)));
        assert_eq!(slot.generation(), 1);
    }
}
