//! What is asked of the API server, in the name of the driver's own service account: PersistentVolumes, Secrets by name, taints
//! of a node, and events. A few requests, by hand, over the HTTP client that everything else uses. Knows nothing of volumes and credentials.
//!
//! Nothing here is needed for a mount: a driver without these rights does without.

mod objects;
mod quantity;

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde_json::Value;
use url::Url;

pub use objects::{ClaimReference, CsiSource, Metadata, ObjectReference, PersistentVolume, SecretReference};
use objects::{List, NodeObject, SecretObject, Status};

/// Where a pod finds its service account.
pub const SERVICE_ACCOUNT_DIRECTORY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Time for a whole answer. Somebody's request may wait for it.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// PersistentVolumes a page, as kubectl asks for them.
const PAGE: u32 = 500;

/// Why the API server gave no answer that can be used. Holds no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Files of the service account that cannot be used.
    #[error("the service account in {0} cannot be used: {1}")]
    ServiceAccount(String, String),
    /// Nobody answered.
    #[error("the API server does not answer: {0}")]
    Unreachable(String),
    /// It said no.
    #[error("the API server refuses to {what}: HTTP {status} {said}")]
    Refused {
        /// What was asked.
        what: String,
        /// HTTP status.
        status: u16,
        /// Its words.
        said: String,
    },
    /// It said something else.
    #[error("the API server answers {what} with what cannot be read: {reason}")]
    Malformed {
        /// What was asked.
        what: String,
        /// Why not.
        reason: String,
    },
}

/// The API server. Cloning shares the client.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: Url,
    /// Read anew for each request: the kubelet renews it.
    token_file: PathBuf,
}

impl Api {
    /// The API server of the cluster that this process runs in: `variable` answers for KUBERNETES_SERVICE_HOST and _PORT,
    /// `directory` holds the service account. `None` outside of a cluster, or where the pod gets no token.
    ///
    /// # Errors
    /// [`Error::ServiceAccount`].
    pub fn in_cluster(variable: impl Fn(&str) -> Option<String>, directory: &Path) -> Result<Option<Self>, Error> {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let (Some(host), Some(port)) = (set("KUBERNETES_SERVICE_HOST"), set("KUBERNETES_SERVICE_PORT")) else {
            return Ok(None);
        };
        let token_file = directory.join("token");
        if !token_file.exists() {
            return Ok(None);
        }
        let bad = |reason: String| Error::ServiceAccount(directory.display().to_string(), reason);
        // An address of IPv6 comes without its brackets.
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        let base = Url::parse(&format!("https://{host}:{port}/")).map_err(|error| bad(error.to_string()))?;
        let ca = std::fs::read(directory.join("ca.crt")).map_err(|error| bad(format!("ca.crt: {error}")))?;
        let ca = reqwest::Certificate::from_pem_bundle(&ca).map_err(|error| bad(format!("ca.crt: {error}")))?;
        let client = reqwest::Client::builder()
            .tls_certs_only(ca)
            .no_proxy()
            .timeout(ANSWER_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| bad(error.to_string()))?;
        Ok(Some(Self { client, base, token_file }))
    }

    /// The PersistentVolume of this name.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn persistent_volume(&self, name: &str) -> Result<PersistentVolume, Error> {
        let url = self.url(&["api", "v1", "persistentvolumes", name]);
        self.get(&format!("read PersistentVolume {name}"), url).await
    }

    /// The PersistentVolume that `wanted` picks, the first of all.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn find_persistent_volume(
        &self,
        wanted: impl Fn(&PersistentVolume) -> bool,
    ) -> Result<Option<PersistentVolume>, Error> {
        let mut next = String::new();
        loop {
            let mut url = self.url(&["api", "v1", "persistentvolumes"]);
            url.query_pairs_mut().append_pair("limit", &PAGE.to_string());
            if !next.is_empty() {
                url.query_pairs_mut().append_pair("continue", &next);
            }
            let page: List<PersistentVolume> = self.get("list PersistentVolumes", url).await?;
            if let Some(found) = page.items.into_iter().find(&wanted) {
                return Ok(Some(found));
            }
            next = page.metadata.next.unwrap_or_default();
            if next.is_empty() {
                return Ok(None);
            }
        }
    }

    /// The PersistentVolumes of the CSI driver `driver`.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn persistent_volumes(&self, driver: &str) -> Result<Vec<PersistentVolume>, Error> {
        let found = std::sync::Mutex::new(Vec::new());
        let _none = self
            .find_persistent_volume(|volume| {
                if volume.spec.csi.as_ref().is_some_and(|csi| csi.driver == driver)
                    && let Ok(mut found) = found.lock()
                {
                    found.push(volume.clone());
                }
                false
            })
            .await?;
        Ok(found.into_inner().unwrap_or_default())
    }

    /// The entries of a Secret, as the kubelet hands them to a driver. Entries that are no text are left out.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn secret(&self, namespace: &str, name: &str) -> Result<BTreeMap<String, String>, Error> {
        let url = self.url(&["api", "v1", "namespaces", namespace, "secrets", name]);
        let found: SecretObject = self.get(&format!("read Secret {namespace}/{name}"), url).await?;
        let text = |value: String| String::from_utf8(STANDARD.decode(value).ok()?).ok();
        Ok(found.data.into_iter().filter_map(|(name, value)| Some((name, text(value)?))).collect())
    }

    /// Writes a Secret, over one of this name that is there.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn put_secret(&self, namespace: &str, name: &str, entries: &[(&str, &str)]) -> Result<(), Error> {
        let body = objects::secret(namespace, name, entries).to_string();
        let all = self.url(&["api", "v1", "namespaces", namespace, "secrets"]);
        let what = format!("write Secret {namespace}/{name}");
        let request = |method, url| {
            let request = self.client.request(method, url).header("content-type", "application/json");
            self.send(&what, request.body(body.clone()))
        };
        match request(Method::POST, all).await {
            Err(Error::Refused { status: 409, .. }) => {
                let one = self.url(&["api", "v1", "namespaces", namespace, "secrets", name]);
                request(Method::PUT, one).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// The taints of a node, as they are written.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn taints(&self, node: &str) -> Result<Vec<Value>, Error> {
        let found: NodeObject = self.get(&format!("read Node {node}"), self.url(&["api", "v1", "nodes", node])).await?;
        Ok(found.spec.taints)
    }

    /// Writes the taints of a node, if they are still `known`.
    ///
    /// # Errors
    /// [`Error`]; `Refused` with 422 where they are others by now.
    pub async fn replace_taints(&self, node: &str, known: &[Value], wanted: &[Value]) -> Result<(), Error> {
        let url = self.url(&["api", "v1", "nodes", node]);
        let request = self.client.request(Method::PATCH, url).header("content-type", "application/json-patch+json");
        let body = objects::replacement("/spec/taints", known, wanted).to_string();
        self.send(&format!("write the taints of Node {node}"), request.body(body)).await.map(drop)
    }

    /// Writes an event about `object`: a warning with a reason in one word and a message. `component` is who says it, `node` where.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn warn(
        &self,
        object: &ObjectReference,
        reason: &str,
        message: &str,
        component: &str,
        node: &str,
    ) -> Result<(), Error> {
        // Events of what is in no namespace are in this one, as kubectl expects them.
        let namespace = object.namespace.as_deref().unwrap_or("default");
        let event = objects::event(object, namespace, reason, message, component, node);
        let url = self.url(&["api", "v1", "namespaces", namespace, "events"]);
        let what = format!("write an event about {} {}", object.kind, object.name);
        let body = event.to_string();
        let request = |client: &reqwest::Client| {
            client.request(Method::POST, url.clone()).header("content-type", "application/json").body(body.clone())
        };
        self.send(&what, request(&self.client)).await.map(drop)
    }

    async fn get<T: DeserializeOwned>(&self, what: &str, url: Url) -> Result<T, Error> {
        let text = self.send(what, self.client.get(url)).await?;
        // The text may be a Secret: serde's errors name the place, and not what is there.
        serde_json::from_str(text.expose_secret()).map_err(|error| Error::Malformed {
            what: what.to_owned(),
            reason: format!("line {}, column {}", error.line(), error.column()),
        })
    }

    async fn send(&self, what: &str, request: RequestBuilder) -> Result<SecretString, Error> {
        let directory = self.token_file.display().to_string();
        let token = tokio::fs::read_to_string(&self.token_file).await.map(SecretString::from);
        let token = token.map_err(|error| Error::ServiceAccount(directory, error.to_string()))?;
        let unreachable = |error: reqwest::Error| Error::Unreachable(crate::telemetry::chain(&error.without_url()));
        let request = request.bearer_auth(token.expose_secret().trim()).header("accept", "application/json");
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let text = SecretString::from(response.text().await.map_err(unreachable)?);
        if status.is_success() {
            return Ok(text);
        }
        let said = serde_json::from_str::<Status>(text.expose_secret()).map(|status| status.message);
        Err(Error::Refused { what: what.to_owned(), status: status.as_u16(), said: said.unwrap_or_default() })
    }

    fn url(&self, parts: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.clear().extend(parts);
        }
        url
    }
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("base", &self.base.as_str()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_cluster_or_a_token_there_is_no_api() {
        let directory = tempfile::tempdir().unwrap();
        let variable = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            "KUBERNETES_SERVICE_PORT" => Some("443".to_owned()),
            _ => None,
        };
        assert!(Api::in_cluster(|_| None, directory.path()).unwrap().is_none());
        assert!(Api::in_cluster(variable, directory.path()).unwrap().is_none());
        std::fs::write(directory.path().join("token"), "hunter2").unwrap();
        let error = Api::in_cluster(variable, directory.path()).unwrap_err();
        assert!(error.to_string().contains("ca.crt"), "{error}");
        std::fs::write(directory.path().join("ca.crt"), "").unwrap();
        let api = Api::in_cluster(variable, directory.path()).unwrap().unwrap();
        assert_eq!(api.url(&["api", "v1", "a b"]).as_str(), "https://[fd00::1]/api/v1/a%20b");
        assert!(!format!("{api:?}").contains("hunter2"));
    }
}
