//! CORS: whether pages of an origin may read the account, for those who show blobs in a browser.

use super::examine::Step;
use crate::{
    blob::{AzureStore, CorsRule, ErrorKind},
    finding::Finding,
};

pub(super) async fn ask(store: &AzureStore, origin: &str) -> Step<Vec<CorsRule>> {
    let account = store.location().account();
    match store.cors_rules().await {
        Ok(rules) if rules.iter().any(|rule| rule.lets_read(origin)) => Step::Done(rules),
        Ok(rules) => {
            let facts = [("account", account), ("origin", origin), ("rules", &shown(&rules))];
            Step::Failed(Finding::CorsMissing.with(&facts))
        }
        Err(error) if matches!(error.kind, ErrorKind::Denied | ErrorKind::NotFound | ErrorKind::ContainerNotFound) => {
            Step::Failed(Finding::CorsUnknown.with(&[("account", account)]))
        }
        Err(error) => Step::Skipped(error.to_string()),
    }
}

/// The rules in one line.
pub(super) fn shown(rules: &[CorsRule]) -> String {
    if rules.is_empty() {
        return "it has none".to_owned();
    }
    let rules = rules.iter().map(|rule| format!("{} for {}", rule.methods.join(" "), rule.origins.join(" ")));
    rules.collect::<Vec<_>>().join("; ")
}
