//! Managed identity: the platform makes the token. Four protocols, told apart by the environment; on a node it is IMDS.
//!
//! | environment | protocol |
//! |---|---|
//! | IDENTITY_ENDPOINT and IDENTITY_HEADER | App Service, Container Apps |
//! | IDENTITY_ENDPOINT and IMDS_ENDPOINT | Azure Arc: proof of being root is a file that only root reads |
//! | MSI_ENDPOINT and MSI_SECRET | App Service of old |
//! | MSI_ENDPOINT or MSIEndpoint alone; AZURE_POD_IDENTITY_AUTHORITY_HOST | IMDS elsewhere |
//! | none | IMDS at 169.254.169.254 |
//!
//! No request goes through a proxy: an identity service is no farther than the host.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::{
    AccessToken, Error, IdentityHttp, TokenError, TokenErrorKind, TokenSource, entra::refused, http::Answer,
    token_answer,
};
use crate::finding::{Diagnosis, Finding};

/// Where IMDS is on every virtual machine of Azure.
const IMDS: &str = "http://169.254.169.254";
/// IMDS' path.
const IMDS_PATH: &str = "/metadata/identity/oauth2/token";
/// Where Arc's agent puts the files that prove who we are. A path elsewhere is not read: a false agent could have any
/// file of root's sent to it.
const ARC_KEYS: &str = "/var/opt/azcmagent/tokens";
/// Arc's key files are smaller than this, in bytes.
const ARC_KEY_BYTES_MAX: u64 = 4096;

/// Which of the identities that are assigned; none: the system-assigned one, or the only one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityId {
    /// Its client id.
    pub client_id: Option<String>,
    /// Its object (principal) id.
    pub object_id: Option<String>,
    /// Its Azure resource id, `/subscriptions/...`.
    pub resource_id: Option<String>,
}

impl IdentityId {
    /// Whether none is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Kind and value of the one that is named.
    ///
    /// # Errors
    /// [`Error::SeveralIdentities`] for more than one.
    fn one(&self) -> Result<Option<(Kind, String)>, Error> {
        let all =
            [(Kind::Client, &self.client_id), (Kind::Object, &self.object_id), (Kind::Resource, &self.resource_id)];
        let mut named = all.into_iter().filter_map(|(kind, id)| Some((kind, id.clone()?)));
        match (named.next(), named.next()) {
            (_, Some(_)) => Err(Error::SeveralIdentities),
            (one, None) => Ok(one),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Client,
    Object,
    Resource,
}

/// What the environment says about identity services.
#[derive(Clone, Debug, Default)]
pub struct IdentityEndpoints {
    /// IDENTITY_ENDPOINT.
    pub identity_endpoint: Option<String>,
    /// IDENTITY_HEADER.
    pub identity_header: Option<SecretString>,
    /// IMDS_ENDPOINT.
    pub imds_endpoint: Option<String>,
    /// MSI_ENDPOINT, or MSIEndpoint of a volume.
    pub msi_endpoint: Option<String>,
    /// MSI_SECRET.
    pub msi_secret: Option<SecretString>,
    /// AZURE_POD_IDENTITY_AUTHORITY_HOST.
    pub imds_host: Option<String>,
}

#[derive(Debug)]
enum Protocol {
    Imds,
    AppService { header: SecretString },
    AppServiceOld { secret: SecretString },
    Arc { keys: PathBuf },
}

/// A managed identity.
#[derive(Debug)]
pub(super) struct ManagedIdentity {
    http: IdentityHttp,
    protocol: Protocol,
    endpoint: Url,
    id: Option<(Kind, String)>,
}

impl ManagedIdentity {
    /// # Errors
    /// [`Error::IdentityEndpoint`] for an endpoint that is no URL, [`Error::SeveralIdentities`],
    /// [`Error::IdentityNotHere`] for an id that the platform cannot choose by.
    pub(super) fn new(http: IdentityHttp, endpoints: &IdentityEndpoints, id: &IdentityId) -> Result<Self, Error> {
        let id = id.one()?;
        let (protocol, endpoint) = protocol(endpoints)?;
        let unfit = match (&protocol, &id) {
            (Protocol::Arc { .. }, Some(_)) => Some("Azure Arc has the machine's own identity alone: name none"),
            (Protocol::AppServiceOld { .. }, Some((Kind::Object | Kind::Resource, _))) => {
                Some("this platform (MSI_ENDPOINT with MSI_SECRET) chooses by client id alone")
            }
            _ => None,
        };
        match unfit {
            Some(reason) => Err(Error::IdentityNotHere { reason }),
            None => Ok(Self { http, protocol, endpoint, id }),
        }
    }

    /// The request, without headers.
    fn url(&self, audience: &str) -> Url {
        let mut url = self.endpoint.clone();
        let (version, client, object, resource) = match self.protocol {
            Protocol::Imds => ("2018-02-01", "client_id", "object_id", "msi_res_id"),
            Protocol::AppService { .. } => ("2019-08-01", "client_id", "principal_id", "mi_res_id"),
            Protocol::AppServiceOld { .. } => ("2017-09-01", "clientid", "", ""),
            Protocol::Arc { .. } => ("2020-06-01", "", "", ""),
        };
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("api-version", version).append_pair("resource", audience);
            if let Some((kind, id)) = &self.id {
                let name = match kind {
                    Kind::Client => client,
                    Kind::Object => object,
                    Kind::Resource => resource,
                };
                query.append_pair(name, id);
            }
        }
        url
    }

    async fn ask(&self, name: &str, audience: &str) -> Result<Answer, TokenError> {
        let url = self.url(audience);
        match &self.protocol {
            Protocol::Imds => self.http.get_near(name, &url, &[("metadata", "true")]).await,
            Protocol::AppService { header } => {
                self.http.get_near(name, &url, &[("x-identity-header", header.expose_secret())]).await
            }
            Protocol::AppServiceOld { secret } => {
                self.http.get_near(name, &url, &[("secret", secret.expose_secret())]).await
            }
            Protocol::Arc { keys } => self.ask_arc(name, &url, keys).await,
        }
    }

    /// Arc answers the first request with the name of a file that only root can read, and wants its contents.
    async fn ask_arc(&self, name: &str, url: &Url, keys: &Path) -> Result<Answer, TokenError> {
        let first = self.http.get_near(name, url, &[("metadata", "true")]).await?;
        if first.status != 401 {
            return Ok(first);
        }
        let challenge = first.headers.get("www-authenticate").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let file = challenge.split_once("realm=").map(|(_, file)| Path::new(file.trim().trim_matches('"')));
        let fits = |file: &&Path| file.parent() == Some(keys) && file.extension().is_some_and(|ending| ending == "key");
        let Some(file) = file.filter(fits) else {
            return Err(refused(
                name,
                format!("Azure Arc asks for a file outside of {}: it is not read", keys.display()),
            ));
        };
        let cannot = |error: std::io::Error| {
            refused(
                name,
                format!("Azure Arc's key {} cannot be read ({error}): run as root, or in group himds", file.display()),
            )
        };
        if tokio::fs::metadata(file).await.map_err(cannot)?.len() > ARC_KEY_BYTES_MAX {
            return Err(refused(name, format!("Azure Arc's key {} is too long to be one", file.display())));
        }
        let key = SecretString::from(tokio::fs::read_to_string(file).await.map_err(cannot)?);
        let basic = SecretString::from(format!("Basic {}", key.expose_secret().trim()));
        let headers = [("metadata", "true"), ("authorization", basic.expose_secret())];
        self.http.get_near(name, url, &headers).await
    }

    /// What a refusal means.
    fn refusal(&self, name: &str, answer: &Answer) -> TokenError {
        let said = said(&answer.text);
        let lower = said.to_ascii_lowercase();
        let finding = if lower.contains("multiple user assigned") || lower.contains("more than one") {
            Some(Finding::IdentityAmbiguous)
        } else if answer.status == 400 && lower.contains("identity not found") {
            Some(if self.id.is_some() { Finding::IdentityOther } else { Finding::IdentityNotAssigned })
        } else {
            None
        };
        let kind = match answer.status {
            // IMDS while it is updated, and while an identity is being assigned ("Retry guidance").
            404 | 410 => TokenErrorKind::Busy,
            _ => answer.kind(),
        };
        let heard = format!("{} answered HTTP {} {said}", self.endpoint.host_str().unwrap_or_default(), answer.status);
        let heard = heard.trim_end();
        let error = match finding.map(|finding| finding.with(&[])) {
            Some(known) => {
                TokenError::found(kind, name, Diagnosis { cause: format!("{heard}; {}", known.cause), ..known })
            }
            None => TokenError::new(kind, name, heard),
        };
        TokenError { retry_after: answer.retry_after(), ..error }
    }
}

/// The service's words: `error_description`, or `message` of App Service.
fn said(text: &str) -> String {
    let Ok(answer) = serde_json::from_str::<serde_json::Value>(text) else { return String::new() };
    let words = ["error_description", "message", "Message", "error"].iter().find_map(|key| answer.get(key)?.as_str());
    let words = words.unwrap_or_default().lines().next().unwrap_or_default().trim().trim_end_matches('.');
    words.chars().take(300).collect()
}

/// The table of the module's doc.
fn protocol(endpoints: &IdentityEndpoints) -> Result<(Protocol, Url), Error> {
    let parse = |name: &'static str, text: &str| {
        let url = Url::parse(text.trim()).ok().filter(|url| url.host().is_some());
        url.ok_or_else(|| Error::IdentityEndpoint { source_name: name, value: text.to_owned() })
    };
    let imds = |name: &'static str, text: &str| -> Result<(Protocol, Url), Error> {
        let mut url = parse(name, text)?;
        if matches!(url.path(), "" | "/") {
            url.set_path(IMDS_PATH);
        }
        Ok((Protocol::Imds, url))
    };
    let e = endpoints;
    match (&e.identity_endpoint, &e.identity_header, &e.imds_endpoint, &e.msi_endpoint, &e.msi_secret) {
        // A volume that names its endpoint means it, whatever the environment says.
        (_, _, _, Some(endpoint), Some(secret)) => {
            Ok((Protocol::AppServiceOld { secret: secret.clone() }, parse("MSI_ENDPOINT", endpoint)?))
        }
        (_, _, _, Some(endpoint), None) => imds("MSI_ENDPOINT", endpoint),
        (Some(endpoint), Some(header), ..) => {
            Ok((Protocol::AppService { header: header.clone() }, parse("IDENTITY_ENDPOINT", endpoint)?))
        }
        (Some(endpoint), None, Some(_), ..) => {
            Ok((Protocol::Arc { keys: ARC_KEYS.into() }, parse("IDENTITY_ENDPOINT", endpoint)?))
        }
        _ => imds("AZURE_POD_IDENTITY_AUTHORITY_HOST", e.imds_host.as_deref().unwrap_or(IMDS)),
    }
}

#[async_trait]
impl TokenSource for ManagedIdentity {
    async fn fetch(&self, audience: &str) -> Result<AccessToken, TokenError> {
        let name = self.describe();
        let answer = match self.ask(&name, audience).await {
            Err(error) if error.kind == TokenErrorKind::Unreachable => {
                let known =
                    Finding::IdentityServiceSilent.with(&[("host", self.endpoint.host_str().unwrap_or_default())]);
                return Err(TokenError::found(error.kind, name.as_str(), known));
            }
            answer => answer?,
        };
        match answer.status {
            200 => token_answer::parse(&name, &answer.text),
            _ => Err(self.refusal(&name, &answer)),
        }
    }

    fn describe(&self) -> String {
        let which = match &self.id {
            None => "system-assigned, or the only one".to_owned(),
            Some((Kind::Client, id)) => format!("client id {id}"),
            Some((Kind::Object, id)) => format!("object id {id}"),
            Some((Kind::Resource, id)) => format!("resource id {id}"),
        };
        format!("managed identity ({which})")
    }
}

#[cfg(test)]
mod tests;
