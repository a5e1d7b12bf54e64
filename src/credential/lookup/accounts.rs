//! Azure Resource Manager: an account for new volumes, found among those of a resource group, or made. REST pages "Storage Accounts -
//! List By Resource Group", "- Create", "- Get Properties", "Blob Services - Set Service Properties".
//!
//! Of several that fit the oldest is taken, so that a repeated question has the same answer whatever is made meanwhile. Answers are
//! kept for a minute, refusals for as long as the service asks to be left alone: it throttles whole subscriptions.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    sync::Arc,
    time::{Duration, Instant},
};

use lru::LruCache;
use parking_lot::Mutex;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex as TurnOf;
use url::Url;
use uuid::Uuid;

use super::{
    LookupError, REFUSED_FOR,
    resource_manager::account_url,
    rest::{self, Failed, Refusal},
};
use crate::{
    credential::{Cloud, IdentityHttp, TokenCredential, TokenErrorKind},
    finding::{Diagnosis, Finding},
};

/// How long an answer is taken without asking again, as by the Azure Blob CSI driver.
const FRESH_FOR: Duration = Duration::from_secs(60);
/// Answers that are kept: one a StorageClass.
const ANSWERS_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();
/// First pause before an account that is being made is looked at again, doubling.
const POLL_FIRST: Duration = Duration::from_millis(500);
/// Longest pause. An account takes some twenty seconds.
const POLL_MAX: Duration = Duration::from_secs(5);
/// Looks until it counts as failed: three minutes.
const POLLS_MAX: u32 = 40;
/// An account with this tag is never taken (the Azure cloud provider's word for it).
const SKIP_TAG: &str = "skip-matching";
/// The tag of accounts that drivers make, which cost reports know.
const MADE_TAG: (&str, &str) = ("k8s-azure-created-by", "azure");
const NAME: &str = "the resource manager";

/// What an account has to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountWanted {
    /// The cloud.
    pub cloud: Cloud,
    /// Its subscription.
    pub subscription: String,
    /// Its resource group.
    pub group: String,
    /// Its region; without it one that is found may be anywhere, and none is made.
    pub location: Option<String>,
    /// Its SKU, such as Standard_LRS.
    pub sku: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// One that is found must have them.
    pub match_tags: bool,
    /// Hot, Cool, ...
    pub access_tier: Option<String>,
    /// Enabled, Disabled, SecuredByPerimeter.
    pub public_network_access: Option<String>,
    /// Containers may be public.
    pub allow_blob_public_access: Option<bool>,
    /// Its keys sign.
    pub allow_shared_key_access: Option<bool>,
    /// Encrypted twice.
    pub require_infra_encryption: bool,
    /// Hierarchical namespace.
    pub is_hierarchical: bool,
    /// Days for which deleted blobs are kept.
    pub soft_delete_blobs: Option<u16>,
    /// Days for which deleted containers are kept.
    pub soft_delete_containers: Option<u16>,
    /// Versions of blobs are kept.
    pub versioning: bool,
}

impl AccountWanted {
    /// The resource that tokens for the question are made for.
    #[must_use]
    pub fn audience(&self) -> String {
        self.cloud.resource_manager()
    }

    fn kind(&self) -> &'static str {
        match self.sku.to_ascii_lowercase().starts_with("premium") {
            true => "BlockBlobStorage",
            false => "StorageV2",
        }
    }

    fn url(&self, account: Option<&str>, below: &[&str]) -> Result<Url, LookupError> {
        account_url(self.cloud, &self.subscription, &self.group, account, below)
            .ok_or_else(|| LookupError::said(NAME, TokenErrorKind::Refused, "its URL cannot be made"))
    }

    /// Whether an account that is there is one. What its Blob service keeps is not told here.
    fn is_met_by(&self, account: &Value) -> bool {
        let same = |one: &Value, other: &str| one.as_str().is_some_and(|one| one.eq_ignore_ascii_case(other));
        let place = |text: &str| text.replace(' ', "").to_lowercase();
        let (tags, properties) = (&account["tags"], &account["properties"]);
        let tag = |name: &str| {
            let tags = tags.as_object()?;
            tags.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).and_then(|(_, value)| value.as_str())
        };
        let flag = |name: &str, default: bool| properties[name].as_bool().unwrap_or(default);
        let says = |wanted: &Option<String>, name: &str, default: &str| {
            wanted
                .as_ref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(properties[name].as_str().unwrap_or(default)))
        };
        let encrypted = properties["encryption"]["requireInfrastructureEncryption"].as_bool().unwrap_or_default();
        same(&account["kind"], self.kind())
            && same(&account["sku"]["name"], &self.sku)
            && self
                .location
                .as_ref()
                .is_none_or(|here| account["location"].as_str().is_some_and(|there| place(there) == place(here)))
            && tag(SKIP_TAG).is_none()
            && (!self.match_tags || self.tags.iter().all(|(name, value)| tag(name) == Some(value.as_str())))
            && flag("isHnsEnabled", false) == self.is_hierarchical
            && encrypted == self.require_infra_encryption
            && self.allow_blob_public_access.is_none_or(|wanted| flag("allowBlobPublicAccess", true) == wanted)
            && self.allow_shared_key_access.is_none_or(|wanted| flag("allowSharedKeyAccess", true) == wanted)
            && says(&self.access_tier, "accessTier", "")
            && says(&self.public_network_access, "publicNetworkAccess", "Enabled")
            && !same(&properties["provisioningState"], "Failed")
    }

    /// What a refusal means, where it is a known one.
    fn known(&self, refusal: &Refusal, principal: &str, words: &str) -> Option<Diagnosis> {
        let finding = match (refusal.status, &*refusal.code) {
            (_, "RequestDisallowedByPolicy") => Finding::AccountAgainstPolicy,
            (_, "MaxStorageAccountsCountPerSubscriptionExceeded") => Finding::AccountsTooMany,
            (401 | 403, _) => Finding::AccountsForbidden,
            (404, "ResourceGroupNotFound" | "SubscriptionNotFound") => Finding::GroupMissing,
            _ => return None,
        };
        Some(finding.with(&[
            ("principal", principal),
            ("subscription", &self.subscription),
            ("group", &self.group),
            ("reason", words),
        ]))
    }

    fn keeps_something(&self) -> bool {
        self.soft_delete_blobs.is_some() || self.soft_delete_containers.is_some() || self.versioning
    }

    /// What its Blob service has to keep, as the service's properties say it.
    fn kept(&self) -> Value {
        let days = |days: Option<u16>| days.map(|days| json!({ "enabled": true, "days": days }));
        let mut properties = serde_json::Map::new();
        for (name, value) in [
            ("deleteRetentionPolicy", days(self.soft_delete_blobs)),
            ("containerDeleteRetentionPolicy", days(self.soft_delete_containers)),
            ("isVersioningEnabled", self.versioning.then_some(Value::Bool(true))),
        ] {
            properties.extend(value.map(|value| (name.to_owned(), value)));
        }
        Value::Object(properties)
    }

    fn body(&self, location: &str) -> Value {
        let mut tags = self.tags.clone();
        tags.insert(MADE_TAG.0.to_owned(), MADE_TAG.1.to_owned());
        let mut properties = json!({
            "supportsHttpsTrafficOnly": true,
            "minimumTlsVersion": "TLS1_2",
            "allowBlobPublicAccess": self.allow_blob_public_access.unwrap_or_default(),
            "isHnsEnabled": self.is_hierarchical,
        });
        let optional = [
            ("allowSharedKeyAccess", self.allow_shared_key_access.map(Value::from)),
            ("accessTier", self.access_tier.clone().map(Value::from)),
            ("publicNetworkAccess", self.public_network_access.clone().map(Value::from)),
            (
                "encryption",
                self.require_infra_encryption.then(|| {
                    json!({
                        "keySource": "Microsoft.Storage", "requireInfrastructureEncryption": true,
                        "services": { "blob": { "enabled": true, "keyType": "Account" } },
                    })
                }),
            ),
        ];
        for (name, value) in optional {
            if let Some(value) = value {
                properties[name] = value;
            }
        }
        json!({ "kind": self.kind(), "sku": { "name": self.sku }, "location": location, "tags": tags, "properties": properties })
    }
}

/// An answer.
struct Held {
    answer: Result<String, LookupError>,
    until: Instant,
}

/// One question's answer. Who asks holds the lock meanwhile, and the others wait for the same answer.
type Answer = Arc<TurnOf<Option<Held>>>;

/// The accounts that a process has found and made.
pub struct Accounts {
    /// By identity and question.
    answers: Mutex<LruCache<String, Answer>>,
}

impl Default for Accounts {
    fn default() -> Self {
        Self { answers: Mutex::new(LruCache::new(ANSWERS_MAX)) }
    }
}

impl Accounts {
    /// The name of an account that is as `wanted`; made where there is none. Cancel-safe: one whose making was begun is found by the
    /// next question.
    ///
    /// # Errors
    /// The finding.
    pub async fn find_or_make(
        &self,
        http: &IdentityHttp,
        tokens: &TokenCredential,
        wanted: &AccountWanted,
    ) -> Result<String, LookupError> {
        let key = format!("{} asks for {wanted:?}", tokens.describe());
        let answer = Arc::clone(self.answers.lock().get_or_insert(key, Answer::default));
        let mut held = answer.lock().await;
        if let Some(held) = held.as_ref().filter(|held| Instant::now() < held.until) {
            return held.answer.clone();
        }
        let question = Question { http, tokens, wanted };
        let found = question.ask().await;
        let lasts = match &found {
            Ok(_) => FRESH_FOR,
            Err(error) => error.retry_after.unwrap_or_default().max(REFUSED_FOR),
        };
        *held = Some(Held { answer: found.clone(), until: Instant::now() + lasts });
        found
    }
}

struct Question<'a> {
    http: &'a IdentityHttp,
    tokens: &'a TokenCredential,
    wanted: &'a AccountWanted,
}

impl Question<'_> {
    async fn ask(&self) -> Result<String, LookupError> {
        let mut fitting: Vec<Value> = self.list().await?.into_iter().filter(|one| self.wanted.is_met_by(one)).collect();
        let age = |account: &Value| {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            (text(&account["properties"]["creationTime"]), text(&account["name"]))
        };
        fitting.sort_by_key(age);
        for account in &fitting {
            let Some(name) = account["name"].as_str() else { continue };
            if self.keeps_what_is_wanted(name).await? {
                tracing::info!(account = name, group = self.wanted.group, "found an account for new volumes");
                // It may be one whose making was not waited for to the end.
                return self.until_made(name).await.map(|()| name.to_owned());
            }
        }
        self.make().await
    }

    async fn send(&self, method: Method, url: &Url, body: Option<&Value>) -> Result<Value, Failed> {
        rest::tell(self.http, self.tokens, NAME, (method, url), body).await
    }

    /// A refusal: the finding, or the words of the service.
    fn refused(&self, what: &str, failed: Failed) -> LookupError {
        match failed {
            Failed::NotAsked(error) => error,
            Failed::Refused(refusal, error) => {
                let words = format!("{what}: {}", refusal.in_words());
                let said = match self.wanted.known(&refusal, &self.tokens.describe(), &words) {
                    Some(known) => LookupError::of(error.kind, known),
                    None => LookupError::said(NAME, error.kind, &words),
                };
                LookupError { retry_after: error.retry_after, ..said }
            }
        }
    }

    async fn list(&self) -> Result<Vec<Value>, LookupError> {
        let first = self.wanted.url(None, &[])?;
        let (host, mut next) = (first.host_str().map(str::to_owned), Some(first));
        let mut found = Vec::new();
        while let Some(url) = next.take() {
            let mut page =
                self.send(Method::GET, &url, None).await.map_err(|failed| self.refused("list accounts", failed))?;
            if let Some(accounts) = page["value"].as_array_mut() {
                found.append(accounts);
            }
            // The token goes to no other host.
            next = page["nextLink"].as_str().and_then(|link| Url::parse(link).ok());
            next = next.filter(|link| link.scheme() == "https" && link.host_str() == host.as_deref());
        }
        Ok(found)
    }

    async fn keeps_what_is_wanted(&self, name: &str) -> Result<bool, LookupError> {
        if !self.wanted.keeps_something() {
            return Ok(true);
        }
        let url = self.wanted.url(Some(name), &["blobServices", "default"])?;
        let answer =
            self.send(Method::GET, &url, None).await.map_err(|failed| self.refused("read the Blob service", failed))?;
        let wanted = self.wanted.kept();
        let has = |(name, value): (&String, &Value)| {
            let there = &answer["properties"][name];
            match value.as_object() {
                Some(fields) => fields.iter().all(|(field, value)| there[field] == *value),
                None => there == value,
            }
        };
        Ok(wanted.as_object().is_none_or(|wanted| wanted.iter().all(has)))
    }

    async fn make(&self) -> Result<String, LookupError> {
        let none = || {
            let words = format!(
                "no account of resource group {} fits, and none is made without a region: set location, or name one in storageAccount",
                self.wanted.group
            );
            LookupError::said(NAME, TokenErrorKind::Refused, &words)
        };
        let location = self.wanted.location.as_deref().ok_or_else(none)?;
        // 24 characters of a-z and 0-9 are the most.
        let name: String = format!("fuse{}", Uuid::new_v4().simple()).chars().take(24).collect();
        let url = self.wanted.url(Some(&name), &[])?;
        let made = self.send(Method::PUT, &url, Some(&self.wanted.body(location))).await;
        made.map_err(|failed| self.refused(&format!("make account {name}"), failed))?;
        tracing::info!(account = name, group = self.wanted.group, location, sku = self.wanted.sku, "making an account");
        self.until_made(&name).await?;
        if self.wanted.keeps_something() {
            let url = self.wanted.url(Some(&name), &["blobServices", "default"])?;
            let body = json!({ "properties": self.wanted.kept() });
            let set = self.send(Method::PUT, &url, Some(&body)).await;
            set.map_err(|failed| self.refused(&format!("set up the Blob service of {name}"), failed))?;
        }
        Ok(name)
    }

    /// Waits until the account is there to be used.
    async fn until_made(&self, name: &str) -> Result<(), LookupError> {
        let url = self.wanted.url(Some(name), &[])?;
        let mut pause = POLL_FIRST;
        for _ in 0..POLLS_MAX {
            match self.send(Method::GET, &url, None).await {
                Ok(account) => match account["properties"]["provisioningState"].as_str() {
                    None | Some("Succeeded") => return Ok(()),
                    Some("Failed" | "Canceled") => {
                        let words = format!("account {name} was not made");
                        return Err(LookupError::said(NAME, TokenErrorKind::Refused, &words));
                    }
                    Some(_) => {}
                },
                // Not seen everywhere yet.
                Err(Failed::Refused(refusal, _)) if refusal.status == 404 => {}
                Err(failed) => return Err(self.refused("look at the account", failed)),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(POLL_MAX);
        }
        Err(LookupError::said(NAME, TokenErrorKind::Busy, &format!("account {name} is still being made")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(properties: &Value, tags: &Value) -> Value {
        json!({
            "name": "acme", "kind": "StorageV2", "location": "westeurope", "sku": { "name": "Standard_LRS" },
            "properties": properties, "tags": tags,
        })
    }

    fn wanted() -> AccountWanted {
        AccountWanted {
            sku: "standard_lrs".to_owned(),
            location: Some("West Europe".to_owned()),
            ..AccountWanted::default()
        }
    }

    #[test]
    fn a_refusal_to_find_or_make_an_account_has_its_finding() {
        for (status, code, finding) in [
            (403, "AuthorizationFailed", Some(Finding::AccountsForbidden)),
            (403, "RequestDisallowedByPolicy", Some(Finding::AccountAgainstPolicy)),
            (400, "MaxStorageAccountsCountPerSubscriptionExceeded", Some(Finding::AccountsTooMany)),
            (404, "ResourceGroupNotFound", Some(Finding::GroupMissing)),
            (429, "TooManyRequests", None),
        ] {
            let refusal = Refusal::read(status, &json!({ "error": { "code": code, "message": "no" } }).to_string());
            let wanted = AccountWanted { group: "apps".to_owned(), ..wanted() };
            let known = wanted.known(&refusal, "managed identity", "make account fuse1: no");
            assert_eq!(known.as_ref().map(|known| known.finding), finding, "{code}");
            assert!(known.is_none_or(|known| known.to_string().contains("apps") || code.starts_with("Max")), "{code}");
        }
    }

    #[test]
    fn an_account_fits_when_all_that_is_asked_for_holds() {
        let plain = account(&json!({}), &json!({ "team": "a" }));
        assert!(wanted().is_met_by(&plain));
        let tags = |value: &str| BTreeMap::from([("team".to_owned(), value.to_owned())]);
        assert!(AccountWanted { tags: tags("b"), ..wanted() }.is_met_by(&plain), "tags are for new ones");
        assert!(AccountWanted { tags: tags("a"), match_tags: true, ..wanted() }.is_met_by(&plain));
        for other in [
            AccountWanted { tags: tags("b"), match_tags: true, ..wanted() },
            AccountWanted { sku: "Premium_LRS".to_owned(), ..wanted() },
            AccountWanted { location: Some("northeurope".to_owned()), ..wanted() },
            AccountWanted { is_hierarchical: true, ..wanted() },
            AccountWanted { require_infra_encryption: true, ..wanted() },
            AccountWanted { allow_shared_key_access: Some(false), ..wanted() },
            AccountWanted { access_tier: Some("Cool".to_owned()), ..wanted() },
            AccountWanted { public_network_access: Some("Disabled".to_owned()), ..wanted() },
        ] {
            assert!(!other.is_met_by(&plain), "{other:?}");
        }
        assert!(!wanted().is_met_by(&account(&json!({}), &json!({ "Skip-Matching": "" }))));
        assert!(!wanted().is_met_by(&account(&json!({ "provisioningState": "Failed" }), &json!(null))));
    }

    #[test]
    fn what_is_made_is_what_was_asked_for() {
        let wanted = AccountWanted {
            sku: "Premium_ZRS".to_owned(),
            is_hierarchical: true,
            allow_shared_key_access: Some(false),
            soft_delete_blobs: Some(7),
            ..wanted()
        };
        let mut made = wanted.body("westeurope");
        assert_eq!(
            (&made["kind"], &made["properties"]["allowBlobPublicAccess"]),
            (&json!("BlockBlobStorage"), &json!(false))
        );
        assert_eq!(made["tags"]["k8s-azure-created-by"], "azure");
        made["name"] = json!("fuse1");
        assert!(wanted.is_met_by(&made));
        assert_eq!(wanted.kept(), json!({ "deleteRetentionPolicy": { "enabled": true, "days": 7 } }));
    }
}
