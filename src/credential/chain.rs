//! The `default` chain: several sources, asked in order; the first that gives a token is the identity from then on. When
//! none does, the error has a line of reason for each.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;

use super::{AccessToken, TokenError, TokenErrorKind, TokenSource};
use crate::finding::Finding;

/// One link: its name, and the source, or why it cannot be asked.
pub(super) type Link = (&'static str, Result<Arc<dyn TokenSource>, String>);

/// Sources in order.
#[derive(Debug)]
pub(super) struct Chain {
    links: Vec<Link>,
    /// The one that gave a token first: a later failure of it must not change who we are.
    chosen: OnceLock<Arc<dyn TokenSource>>,
}

impl Chain {
    pub(super) fn new(links: Vec<Link>) -> Self {
        Self { links, chosen: OnceLock::new() }
    }
}

#[async_trait]
impl TokenSource for Chain {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        if let Some(source) = self.chosen.get() {
            return source.fetch(audience).await;
        }
        let mut reasons = Vec::new();
        let mut kind = TokenErrorKind::Refused;
        for (name, link) in &self.links {
            let reason = match link {
                Err(reason) => reason.clone(),
                Ok(source) => match source.fetch(audience).await {
                    Ok(token) => {
                        tracing::info!("signing in with {}", source.describe());
                        let _ = self.chosen.set(Arc::clone(source));
                        return Ok(token);
                    }
                    Err(error) => {
                        // A source that does not exist here does not answer either: only "busy" is worth waiting for.
                        if error.kind == TokenErrorKind::Busy {
                            kind = TokenErrorKind::Busy;
                        }
                        error.reason
                    }
                },
            };
            reasons.push(format!("{name}: {reason}"));
        }
        let known = Finding::NoIdentity.with(&[("reasons", &reasons.join("; "))]);
        Err(TokenError::found(kind, self.describe(), known))
    }

    fn describe(&self) -> String {
        match self.chosen.get() {
            Some(source) => source.describe(),
            None => "the default chain".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicU32, Ordering},
        time::Duration,
    };

    use super::*;

    #[derive(Debug, Default)]
    struct Fake {
        name: &'static str,
        asked: AtomicU32,
        /// Fails this often before it gives tokens.
        fails: u32,
    }

    #[async_trait]
    impl TokenSource for Fake {
        async fn fetch(&self, _: &str) -> Result<AccessToken, TokenError> {
            if self.asked.fetch_add(1, Ordering::Relaxed) < self.fails {
                let reason = format!("{} says no", self.name);
                return Err(TokenError::new(TokenErrorKind::Unreachable, self.name, reason));
            }
            Ok(AccessToken { text: "t".into(), life: Duration::from_secs(1) })
        }

        fn describe(&self) -> String {
            self.name.to_owned()
        }
    }

    fn fake(name: &'static str, fails: u32) -> Arc<Fake> {
        Arc::new(Fake { name, fails, ..Fake::default() })
    }

    #[tokio::test]
    async fn the_first_that_gives_a_token_stays_the_identity() {
        let (one, two) = (fake("one", 1), fake("two", 0));
        let chain = Chain::new(vec![
            ("environment", Err("AZURE_CLIENT_ID is not set".into())),
            ("first", Ok(Arc::clone(&one) as _)),
            ("second", Ok(Arc::clone(&two) as _)),
        ]);
        chain.fetch("a").await.unwrap();
        assert_eq!(chain.describe(), "two");
        // `one` would answer now, but it is not who we are.
        chain.fetch("a").await.unwrap();
        assert_eq!((one.asked.load(Ordering::Relaxed), two.asked.load(Ordering::Relaxed)), (1, 2));
    }

    #[tokio::test]
    async fn when_all_fail_each_attempt_is_listed_with_its_own_reason() {
        let chain = Chain::new(vec![
            ("environment", Err("AZURE_CLIENT_ID is not set".into())),
            ("managed identity", Ok(fake("IMDS", 9) as _)),
        ]);
        let error = chain.fetch("a").await.unwrap_err();
        let reasons = "(environment: AZURE_CLIENT_ID is not set; managed identity: IMDS says no)";
        assert!(error.to_string().contains(reasons), "{error}");
        assert_eq!(error.kind, TokenErrorKind::Refused);
    }
}
