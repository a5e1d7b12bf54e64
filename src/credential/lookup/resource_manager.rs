//! Azure Resource Manager: the keys of an account. REST page "Storage Accounts - List Keys".

use reqwest::Method;
use serde_json::Value;
use url::Url;

use super::{
    LookupError,
    rest::{self, Failed, Refusal},
};
use crate::{
    credential::{AccountKey, Cloud, Credential, IdentityHttp, TokenCredential, TokenErrorKind},
    finding::{Diagnosis, Finding},
};

/// The version of the protocol.
const API_VERSION: &str = "2023-05-01";

/// The keys of an account. Who may list them may do everything with what is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountKeys {
    /// Where the account is.
    pub cloud: Cloud,
    /// Its subscription.
    pub subscription: String,
    /// Its resource group.
    pub group: String,
    /// Its name.
    pub account: String,
    /// The key that was made last goes first, not the first one.
    pub latest: bool,
}

/// URL of an account, or of all of a resource group, or of what lies `below` one.
pub(super) fn account_url(
    cloud: Cloud,
    subscription: &str,
    group: &str,
    account: Option<&str>,
    below: &[&str],
) -> Option<Url> {
    let mut url = Url::parse(&cloud.resource_manager()).ok()?;
    let fixed =
        ["subscriptions", subscription, "resourceGroups", group, "providers", "Microsoft.Storage", "storageAccounts"];
    url.path_segments_mut().ok()?.clear().extend(fixed).extend(account).extend(below);
    url.query_pairs_mut().append_pair("api-version", API_VERSION);
    Some(url)
}

impl AccountKeys {
    fn url(&self) -> Option<Url> {
        account_url(self.cloud, &self.subscription, &self.group, Some(&self.account), &["listKeys"])
    }

    /// The resource that tokens for it are made for.
    pub(super) fn audience(&self) -> String {
        self.cloud.resource_manager()
    }

    /// Which they are, for messages.
    pub(super) fn describe(&self) -> String {
        format!("keys of account {} as the resource manager lists them", self.account)
    }

    pub(super) async fn read(&self, http: &IdentityHttp, tokens: &TokenCredential) -> Result<Credential, LookupError> {
        let name = "the resource manager";
        let none = || LookupError::said(name, TokenErrorKind::Refused, "its answer has no keys");
        let url = self.url().ok_or_else(none)?;
        match rest::ask(http, tokens, name, (Method::POST, &url)).await {
            Ok(answer) => self.credential(&answer).ok_or_else(none),
            Err(Failed::NotAsked(error)) => Err(error),
            Err(Failed::Refused(refusal, error)) => Err(match self.known(&refusal, &tokens.describe()) {
                Some(known) => LookupError { known, ..error },
                None => error,
            }),
        }
    }

    /// The first key, with the second to spare. A key that may only read is of no use.
    fn credential(&self, answer: &Value) -> Option<Credential> {
        let full = |key: &&Value| key["permissions"].as_str().is_none_or(|may| may.eq_ignore_ascii_case("full"));
        let mut keys: Vec<&Value> = answer["keys"].as_array()?.iter().filter(full).collect();
        if self.latest {
            // Times of one form, to the second and more: as texts they are in order.
            keys.sort_by_key(|key| std::cmp::Reverse(key["creationTime"].as_str().unwrap_or_default().to_owned()));
        }
        let mut keys = keys.into_iter().filter_map(|key| {
            let name = key["keyName"].as_str().unwrap_or("key");
            AccountKey::parse(&format!("{name} of account {}", self.account), &self.account, key["value"].as_str()?)
                .ok()
        });
        let first = keys.next()?;
        Some(Credential::SharedKey(match keys.next() {
            Some(second) => first.with_spare(&second),
            None => first,
        }))
    }

    /// The finding of a refusal. Codes: "Common error codes for Azure Resource Manager".
    fn known(&self, refusal: &Refusal, principal: &str) -> Option<Diagnosis> {
        let facts = [
            ("principal", principal),
            ("account", &*self.account),
            ("group", &*self.group),
            ("subscription", &*self.subscription),
        ];
        let finding = match (refusal.status, &*refusal.code) {
            (_, "ScopeLocked") => Finding::KeysLocked,
            (401 | 403, _) => Finding::KeysForbidden,
            (404, _) => Finding::AccountNotInGroup,
            _ => return None,
        };
        Some(finding.with(&facts))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keys() -> AccountKeys {
        let (subscription, group) = ("0000-1".to_owned(), "a group/..".to_owned());
        AccountKeys { cloud: Cloud::Germany, subscription, group, account: "acme".to_owned(), latest: false }
    }

    #[test]
    fn a_lock_is_told_from_a_missing_role() {
        let refusal = |status, code: &str| {
            Refusal::read(status, &json!({ "error": { "code": code, "message": "no" } }).to_string())
        };
        for (status, code, wanted) in [
            (409, "ScopeLocked", Some(Finding::KeysLocked)),
            (403, "AuthorizationFailed", Some(Finding::KeysForbidden)),
            (404, "SubscriptionNotFound", Some(Finding::AccountNotInGroup)),
            (400, "InvalidApiVersionParameter", None),
        ] {
            let known = keys().known(&refusal(status, code), "managed identity");
            assert_eq!(known.map(|known| known.finding), wanted, "{code}");
        }
    }

    #[test]
    fn names_cannot_lead_to_another_path() {
        let url = keys().url().unwrap();
        assert_eq!(
            url.as_str(),
            "https://management.microsoftazure.de/subscriptions/0000-1/resourceGroups/a%20group%2F../providers/Microsoft.Storage/storageAccounts/acme/listKeys?api-version=2023-05-01"
        );
    }

    #[test]
    fn both_keys_are_taken_and_one_that_only_reads_is_not() {
        let key = |name, value, may| json!({ "keyName": name, "value": value, "permissions": may });
        let answer = json!({ "keys": [key("ro", "cmVhZA==", "Read"), key("key1", "b25l", "FULL"), key("key2", "dHdv", "Full")] });
        let Some(Credential::SharedKey(first)) = keys().credential(&answer) else { panic!() };
        let one = AccountKey::parse("test", "acme", "b25l").unwrap();
        let two = AccountKey::parse("test", "acme", "dHdv").unwrap();
        assert_eq!(first.sign("x"), one.sign("x"));
        assert_eq!(first.spare().unwrap().sign("x"), two.sign("x"));
        assert!(keys().credential(&json!({ "keys": [] })).is_none());
        let dated = |value, time| json!({ "keyName": "k", "value": value, "creationTime": time });
        let answer = json!({ "keys": [dated("b25l", "2026-01-01T00:00:00Z"), dated("dHdv", "2026-05-01T00:00:00Z")] });
        let Some(Credential::SharedKey(newest)) = (AccountKeys { latest: true, ..keys() }).credential(&answer) else {
            panic!()
        };
        assert_eq!(newest.sign("x"), two.sign("x"));
    }
}
