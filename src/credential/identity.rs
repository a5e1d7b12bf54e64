//! Which Entra ID identity is meant, put together from options and environment, and the source that speaks for it.
//!
//! An option goes before a variable, and blobfuse's variables (AZURE_STORAGE_SPN_*, AZURE_STORAGE_IDENTITY_*) before the
//! SDK's (AZURE_CLIENT_ID, ...). Found by itself ([`IdentitySettings::found`]), where no way is named and there is no
//! key or SAS: a service principal, then workload identity, then a managed identity that is named. What is only guessed
//! (is there an identity service? is somebody signed in?) is asked by `default` alone, which has to be named.

use std::{path::PathBuf, sync::Arc};

use secrecy::SecretString;

use super::{
    AuthMode, Cloud, Credential, Error, IdentityHttp, TokenCredential, TokenSource, Trust,
    azure_cli::AzureCli,
    chain::{Chain, Link},
    cloud::STORAGE_AUDIENCE,
    entra::Application,
    managed_identity::{IdentityEndpoints, IdentityId, ManagedIdentity},
    service_principal::{Secret, ServicePrincipal},
    workload_identity::{Assertion, PodToken, TokenFile, WorkloadIdentity},
};

/// What options of a volume say. No secrets: options are seen by everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdentityOptions {
    /// Which identity: of an application, or one that is assigned to the machine.
    pub id: IdentityId,
    /// The tenant.
    pub tenant_id: Option<String>,
    /// Host of Entra ID.
    pub authority: Option<String>,
    /// Where managed identities are asked for.
    pub msi_endpoint: Option<String>,
    /// The resource that tokens are made for, in custom clouds.
    pub audience: Option<String>,
    /// A file with a federated token.
    pub token_file: Option<PathBuf>,
    /// A PEM file with certificate and key.
    pub certificate_file: Option<PathBuf>,
}

/// All that is known about identities.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    options: IdentityOptions,
    /// AZURE_STORAGE_IDENTITY_*.
    managed: IdentityId,
    endpoints: IdentityEndpoints,
    /// AZURE_CLIENT_ID.
    client_id: Option<String>,
    /// AZURE_STORAGE_SPN_CLIENT_ID.
    spn_client_id: Option<String>,
    /// AZURE_TENANT_ID.
    tenant_id: Option<String>,
    /// AZURE_STORAGE_SPN_TENANT_ID.
    spn_tenant_id: Option<String>,
    client_secret: Option<SecretString>,
    certificate_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
    authority: Option<String>,
}

impl IdentitySettings {
    /// Reads the environment (`variable` answers for one name); `options` go before it. Empty variables count as absent.
    pub fn new(variable: impl Fn(&str) -> Option<String>, options: IdentityOptions) -> Self {
        let text = |name: &str| variable(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
        let first = |names: &[&str]| names.iter().find_map(|name| text(name));
        let secret = |names: &[&str]| first(names).map(SecretString::from);
        Self {
            managed: IdentityId {
                client_id: text("AZURE_STORAGE_IDENTITY_CLIENT_ID"),
                object_id: text("AZURE_STORAGE_IDENTITY_OBJECT_ID"),
                resource_id: text("AZURE_STORAGE_IDENTITY_RESOURCE_ID"),
            },
            endpoints: IdentityEndpoints {
                identity_endpoint: text("IDENTITY_ENDPOINT"),
                identity_header: secret(&["IDENTITY_HEADER"]),
                imds_endpoint: text("IMDS_ENDPOINT"),
                msi_endpoint: options.msi_endpoint.clone().or_else(|| text("MSI_ENDPOINT")),
                msi_secret: secret(&["MSI_SECRET"]),
                imds_host: text("AZURE_POD_IDENTITY_AUTHORITY_HOST"),
            },
            client_id: text("AZURE_CLIENT_ID"),
            spn_client_id: text("AZURE_STORAGE_SPN_CLIENT_ID"),
            tenant_id: text("AZURE_TENANT_ID"),
            spn_tenant_id: text("AZURE_STORAGE_SPN_TENANT_ID"),
            client_secret: secret(&["AZURE_STORAGE_SPN_CLIENT_SECRET", "AZURE_CLIENT_SECRET"]),
            certificate_file: options
                .certificate_file
                .clone()
                .or_else(|| text("AZURE_CLIENT_CERTIFICATE_PATH").map(PathBuf::from)),
            token_file: options.token_file.clone().or_else(|| text("AZURE_FEDERATED_TOKEN_FILE").map(PathBuf::from)),
            authority: options
                .authority
                .clone()
                .or_else(|| first(&["AZURE_STORAGE_AAD_ENDPOINT", "AZURE_AUTHORITY_HOST"])),
            options,
        }
    }

    /// The same with secrets that were handed in, where they were: those go before the environment's.
    #[must_use]
    pub fn with_secrets(mut self, client_secret: Option<SecretString>, msi_secret: Option<SecretString>) -> Self {
        self.client_secret = client_secret.or(self.client_secret);
        self.endpoints.msi_secret = msi_secret.or(self.endpoints.msi_secret);
        self
    }

    /// Host of Entra ID, where it is said.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// The way that fits what is there, in the order of the module's doc.
    #[must_use]
    pub fn found(&self) -> Option<AuthMode> {
        let (tenant, client) = (self.spn_tenant().is_some(), self.spn_client().is_some());
        if tenant && client && (self.client_secret.is_some() || self.certificate_file.is_some()) {
            return Some(AuthMode::ServicePrincipal);
        }
        if self.token_file.is_some() && self.tenant().is_some() && self.client().is_some() {
            return Some(AuthMode::WorkloadIdentity);
        }
        let named = !self.managed.is_empty() || !self.options.id.is_empty();
        named.then_some(AuthMode::ManagedIdentity)
    }

    /// The credential of the identity that `mode` means, for storage in `cloud`; `None` for ways without an identity. Sends
    /// no request.
    ///
    /// # Errors
    /// [`Error::Missing`] naming what is not set; those of the sources.
    pub fn credential(&self, mode: AuthMode, cloud: Cloud, trust: &Trust) -> Result<Option<Credential>, Error> {
        let audience = self.options.audience.as_deref().unwrap_or(STORAGE_AUDIENCE);
        Ok(self.tokens(mode, cloud, trust, audience)?.map(Credential::Token))
    }

    /// Tokens of the same identity for another resource.
    ///
    /// # Errors
    /// As [`Self::credential`].
    pub fn tokens(
        &self,
        mode: AuthMode,
        cloud: Cloud,
        trust: &Trust,
        audience: &str,
    ) -> Result<Option<TokenCredential>, Error> {
        let build = || Ok::<_, Error>(Builder { settings: self, cloud, http: trust.identity_http()? });
        let source: Arc<dyn TokenSource> = match mode {
            AuthMode::WorkloadIdentity => build()?.workload_identity()?,
            AuthMode::ManagedIdentity => build()?.managed_identity(&self.managed_id())?,
            AuthMode::ServicePrincipal => build()?.service_principal()?,
            AuthMode::AzureCli => Arc::new(AzureCli::new(self.tenant())),
            AuthMode::Default => Arc::new(Chain::new(build()?.links())),
            AuthMode::Key | AuthMode::Sas | AuthMode::ConnectionString | AuthMode::Anonymous => return Ok(None),
        };
        Ok(Some(TokenCredential::new(source, audience)))
    }

    /// The identity of a pod: `token` is its service account's, `client` and `tenant` are the volume's. No client and no token
    /// of the environment, which are the driver's own, stands in for one of the pod's; the tenant, which is nobody's, does.
    ///
    /// # Errors
    /// [`Error::Missing`] naming the attribute; those of the application.
    pub fn pod_credential(&self, token: PodToken, cloud: Cloud, trust: &Trust) -> Result<Credential, Error> {
        let audience = self.options.audience.as_deref().unwrap_or(STORAGE_AUDIENCE);
        self.pod_tokens(token, cloud, trust, audience).map(Credential::Token)
    }

    /// Tokens of the same identity for another resource.
    ///
    /// # Errors
    /// As [`Self::pod_credential`].
    pub fn pod_tokens(
        &self,
        token: PodToken,
        cloud: Cloud,
        trust: &Trust,
        audience: &str,
    ) -> Result<TokenCredential, Error> {
        let mode = AuthMode::WorkloadIdentity.name();
        let client = self.options.id.client_id.clone().ok_or(missing(mode, POD_CLIENT))?;
        let tenant = self.tenant().ok_or(missing(mode, "attribute tenantID, or AZURE_TENANT_ID of the driver"))?;
        let builder = Builder { settings: self, cloud, http: trust.identity_http()? };
        let source = WorkloadIdentity::new(builder.application(&tenant, &client)?, Arc::new(token));
        Ok(TokenCredential::new(Arc::new(source), audience))
    }

    fn client(&self) -> Option<String> {
        self.options.id.client_id.clone().or_else(|| self.client_id.clone())
    }

    fn tenant(&self) -> Option<String> {
        self.options.tenant_id.clone().or_else(|| self.tenant_id.clone())
    }

    fn spn_client(&self) -> Option<String> {
        let id = &self.options.id.client_id;
        id.clone().or_else(|| self.spn_client_id.clone()).or_else(|| self.client_id.clone())
    }

    fn spn_tenant(&self) -> Option<String> {
        let id = &self.options.tenant_id;
        id.clone().or_else(|| self.spn_tenant_id.clone()).or_else(|| self.tenant_id.clone())
    }

    /// Options name an identity as a whole: a variable must not add a second id.
    fn managed_id(&self) -> IdentityId {
        if self.options.id.is_empty() { self.managed.clone() } else { self.options.id.clone() }
    }
}

/// Makes sources.
struct Builder<'a> {
    settings: &'a IdentitySettings,
    cloud: Cloud,
    http: IdentityHttp,
}

impl Builder<'_> {
    fn application(&self, tenant: &str, client: &str) -> Result<Application, Error> {
        let authority = self.settings.authority.clone().unwrap_or_else(|| self.cloud.authority());
        Application::new(self.http.clone(), &authority, tenant, client)
    }

    fn workload_identity(&self) -> Result<Arc<dyn TokenSource>, Error> {
        let mode = "workload_identity";
        let client = self.settings.client().ok_or(missing(mode, WORKLOAD_CLIENT))?;
        let tenant = self.settings.tenant().ok_or(missing(mode, "AZURE_TENANT_ID, or option tenant-id"))?;
        let file = self.settings.token_file.clone();
        let file = file.ok_or(missing(mode, "AZURE_FEDERATED_TOKEN_FILE, or option token-file"))?;
        let assertion: Arc<dyn Assertion> = Arc::new(TokenFile(file));
        Ok(Arc::new(WorkloadIdentity::new(self.application(&tenant, &client)?, assertion)))
    }

    fn managed_identity(&self, id: &IdentityId) -> Result<Arc<dyn TokenSource>, Error> {
        Ok(Arc::new(ManagedIdentity::new(self.http.clone(), &self.settings.endpoints, id)?))
    }

    fn service_principal(&self) -> Result<Arc<dyn TokenSource>, Error> {
        let mode = "spn";
        let settings = self.settings;
        let client = settings.spn_client();
        let client =
            client.ok_or(missing(mode, "AZURE_STORAGE_SPN_CLIENT_ID or AZURE_CLIENT_ID, or option client-id"))?;
        let tenant = settings.spn_tenant();
        let tenant =
            tenant.ok_or(missing(mode, "AZURE_STORAGE_SPN_TENANT_ID or AZURE_TENANT_ID, or option tenant-id"))?;
        let secret = match (&settings.client_secret, &settings.certificate_file) {
            (Some(secret), _) => Secret::Text(secret.clone()),
            (None, Some(file)) => Secret::CertificateFile(file.clone()),
            (None, None) => {
                return Err(missing(
                    mode,
                    "AZURE_STORAGE_SPN_CLIENT_SECRET, AZURE_CLIENT_SECRET or AZURE_CLIENT_CERTIFICATE_PATH",
                ));
            }
        };
        Ok(Arc::new(ServicePrincipal::new(self.application(&tenant, &client)?, secret)))
    }

    /// The links of `default`, in the order that the SDKs' DefaultAzureCredential has.
    fn links(&self) -> Vec<Link> {
        let link =
            |name, source: Result<Arc<dyn TokenSource>, Error>| (name, source.map_err(|error| error.to_string()));
        let mut managed = self.settings.managed_id();
        if managed.is_empty() {
            managed.client_id = self.settings.client();
        }
        vec![
            link("environment", self.service_principal()),
            link("workload identity", self.workload_identity()),
            link("managed identity", self.managed_identity(&managed)),
            link("Azure CLI", Ok(Arc::new(AzureCli::new(self.settings.tenant())))),
        ]
    }
}

/// What names the identity of a pod, and where it comes from there.
const WORKLOAD_CLIENT: &str = "AZURE_CLIENT_ID, or option client-id (in a pod, the webhook sets it from the ServiceAccount's annotation azure.workload.identity/client-id, where the pod has the label azure.workload.identity/use: \"true\")";

/// What names the identity of a pod that a volume is mounted for.
const POD_CLIENT: &str = "attribute clientID of the volume (the driver's own identity is not lent to pods)";

fn missing(mode: &'static str, what: &'static str) -> Error {
    Error::Missing { mode, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(variables: &[(&str, &str)], options: IdentityOptions) -> IdentitySettings {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        IdentitySettings::new(variable, options)
    }

    fn described(settings: &IdentitySettings, mode: AuthMode) -> String {
        match settings.credential(mode, Cloud::Public, &Trust::default()) {
            Ok(Some(Credential::Token(token))) => token.describe(),
            Ok(other) => format!("{other:?}"),
            Err(error) => error.to_string(),
        }
    }

    const WORKLOAD: [(&str, &str); 3] =
        [("AZURE_CLIENT_ID", "c1"), ("AZURE_TENANT_ID", "t1"), ("AZURE_FEDERATED_TOKEN_FILE", "/var/run/token")];

    #[test]
    fn the_way_is_found_by_what_is_there() {
        let none = IdentityOptions::default();
        let found = |variables: &[(&str, &str)]| settings(variables, none.clone()).found();
        assert_eq!(found(&[]), None);
        assert_eq!(found(&WORKLOAD), Some(AuthMode::WorkloadIdentity));
        assert_eq!(found(&WORKLOAD[..2]), None);
        let mut all = WORKLOAD.to_vec();
        all.push(("AZURE_CLIENT_SECRET", "s3cret"));
        assert_eq!(found(&all), Some(AuthMode::ServicePrincipal));
        assert_eq!(found(&[("AZURE_STORAGE_IDENTITY_RESOURCE_ID", "/s")]), Some(AuthMode::ManagedIdentity));
        assert_eq!(found(&[("IDENTITY_ENDPOINT", "http://localhost")]), None, "it is there, nobody named it");
    }

    #[test]
    fn options_go_before_variables_and_name_the_identity_as_a_whole() {
        let id = IdentityId { client_id: Some("c2".into()), ..IdentityId::default() };
        let options = IdentityOptions { id, tenant_id: Some("t2".into()), ..IdentityOptions::default() };
        let mut variables = WORKLOAD.to_vec();
        variables.push(("AZURE_STORAGE_IDENTITY_OBJECT_ID", "o1"));
        let settings = settings(&variables, options);
        assert_eq!(
            described(&settings, AuthMode::WorkloadIdentity),
            "workload identity c2 of tenant t2 (token file /var/run/token)"
        );
        assert_eq!(described(&settings, AuthMode::ManagedIdentity), "managed identity (client id c2)");
    }

    #[test]
    fn what_is_missing_is_named_and_no_secret_is_shown() {
        let none = IdentityOptions::default();
        let settings = settings(&[("AZURE_STORAGE_SPN_CLIENT_SECRET", "s3cret"), ("IDENTITY_HEADER", "s3cret")], none);
        assert!(described(&settings, AuthMode::ServicePrincipal).contains("AZURE_STORAGE_SPN_CLIENT_ID"));
        assert!(described(&settings, AuthMode::WorkloadIdentity).contains("AZURE_CLIENT_ID"));
        assert_eq!(described(&settings, AuthMode::Key), "None");
        let shown =
            format!("{settings:?} {:?}", settings.credential(AuthMode::Default, Cloud::Public, &Trust::default()));
        assert!(!shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn two_principals_that_differ_in_their_secret_are_not_the_same() {
        let with = |secret: &str| {
            let settings = settings(
                &[("AZURE_CLIENT_ID", "c"), ("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_SECRET", secret)],
                IdentityOptions::default(),
            );
            let credential = settings.credential(AuthMode::ServicePrincipal, Cloud::Public, &Trust::default());
            let Ok(Some(Credential::Token(token))) = credential else { panic!("no token") };
            token
        };
        assert!(with("one").is_same(&with("one")));
        assert!(!with("one").is_same(&with("two")));
    }
}
