//! The table itself, in the order of the checks. One sentence each: `cause: fix`, without a full stop at the end, since a
//! request's own words may follow. Codes: REST "Common REST API error codes", Entra ID "authentication and authorization
//! error codes".

use super::{Check, Finding as F, Row};

/// Test files that provoke findings; see there.
const NAMES: &str = "doctor::each_mistake_in_a_name_is_told_apart";
const SECRETS: &str = "doctor::each_mistake_in_a_secret_is_told_apart";
const WAYS: &str = "doctor::each_way_not_to_reach_the_service_is_told_apart";
const REFUSALS: &str = "doctor::each_refusal_of_the_service_is_told_apart";
const APPLICATIONS: &str = "doctor::each_mistake_of_an_application_is_told_apart";
const FEDERATION: &str = "doctor::each_mistake_of_a_federated_token_is_told_apart";
const MANAGED: &str = "doctor::each_mistake_of_a_managed_identity_is_told_apart";
const MACHINE: &str = "doctor::what_the_machine_lacks_is_told";
const PROBES: &str = "doctor::each_permission_is_probed_by_itself";
const NEWS: &str = "watch::what_grew_is_said_once_with_its_sentence";
const ORIGINS: &str = "doctor::the_rules_for_an_origin_are_shown";
const ENTRIES: &str = "secrets::missing_wrong_and_contradicting_entries_are_refused_without_their_values";
const WHITESPACE: &str = "secret::a_secret_of_whitespace_is_empty";
const NO_CA: &str = "remedy::a_machine_without_ca_certificates_is_told_so_before_any_endpoint_is_named";
const TOKENS: &str = "diagnose::a_token_that_is_not_there_is_told_in_the_words_of_its_source";
const BLOB: &str = "remedy::what_the_answer_leaves_open_is_left_open";
const AADSTS: &str = "aadsts::a_refusal_without_claims_names_no_token";
const ANSWERS: &str = "diagnose::every_answer_of_the_service_has_its_finding";

const SECRET_FILES: &str = "secret_files::a_file_that_cannot_be_read_is_named_with_its_variable";
const STAGE_LOST: &str =
    "restart::without_its_secret_a_volume_is_not_staged_again_and_the_sentence_says_what_is_missing";
const ENDINGS: &str = "ending::what_the_service_does_not_take_goes_to_lost_and_found_and_the_volume_ends";
const POD_TOKENS: &str = "pod_token::a_volume_for_its_pods_identity_needs_the_pods_token";
const POD_TOKEN: &str = "workload_identity::a_pods_token_is_replaced_by_a_newer_one_and_never_shown";
const ACCOUNTS: &str = "accounts::a_refusal_to_find_or_make_an_account_has_its_finding";
const LOOKUPS: &str = "doctor::each_mistake_of_a_lookup_is_told_apart";
const LOCKS: &str = "resource_manager::a_lock_is_told_from_a_missing_role";
const VAULT_RULES: &str = "key_vault::network_rules_are_told_from_a_missing_role";

const EXPIRY: &str = "expiry::a_sas_is_said_to_end_a_day_and_an_hour_ahead_once_each";

const fn row(finding: F, check: Check, [symptom, cause, fix]: [&'static str; 3], test: &'static str) -> Row {
    Row { finding, check, symptom, cause, fix, test }
}

/// Every finding, once.
#[rustfmt::skip] // A row is four lines, however long.
pub const TABLE: &[Row] = &[
    row(F::UrlMalformed, Check::Location, [
        "is not a container URL",
        "\"{text}\" is not a container URL: {reason}",
        "expected https://ACCOUNT.blob.core.windows.net/CONTAINER[/PREFIX], http://HOST:PORT/ACCOUNT/CONTAINER[/PREFIX], or CONTAINER[/PREFIX] with the account given apart"], NAMES),
    row(F::ContainerUnnamed, Check::Location, [
        "no container given",
        "no container given",
        "write its URL before the mount point, or set AZURE_STORAGE_CONTAINER"], NAMES),
    row(F::ContainerNameIllegal, Check::Location, [
        "is not a container name; InvalidResourceName",
        "\"{text}\" is not a container name: {reason}",
        "it has 3 to 63 characters of a-z, 0-9 and -, begins and ends with a letter or digit and is without --; or it is $root, $web or $logs"], NAMES),
    row(F::AccountNameIllegal, Check::Location, [
        "is not a storage account name",
        "\"{text}\" is not a storage account name",
        "3 to 24 characters of a-z and 0-9"], NAMES),
    row(F::AccountUnnamed, Check::Location, [
        "the storage account of container ... is not known",
        "the storage account of container \"{container}\" is not known",
        "give the whole container URL, --account, or AZURE_STORAGE_ACCOUNT"], NAMES),
    row(F::AccountNamedTwice, Check::Location, [
        "was given apart",
        "the URL is about account \"{account}\", but account \"{other}\" was given apart",
        "remove one of them"], NAMES),
    row(F::CloudUnknown, Check::Location, [
        "unknown cloud",
        "unknown cloud \"{text}\"",
        "expected AzurePublicCloud, AzureUSGovernment, AzureChinaCloud or AzureGermanCloud, or give storageEndpointSuffix"], NAMES),

    row(F::SecretEmpty, Check::Credential, [
        "is empty",
        "{source} is empty",
        "remove it or give it a value"], WHITESPACE),
    row(F::SecretFileUnreadable, Check::Credential, [
        "file of AZURE_STORAGE_KEY_FILE cannot be read",
        "file {file}, which {variable} names, cannot be read ({reason})",
        "check the path, and that the Secret or file is mounted where this process runs"], SECRET_FILES),
    row(F::SecretMissing, Check::Credential, [
        "a gRPC error Unauthenticated of a stage",
        "{wanted}",
        "reference a Secret with azurestorageaccountname and azurestorageaccountkey, or azurestorageaccountsastoken, or connectionstring (nodeStageSecretRef of a PersistentVolume, nodePublishSecretRef of an inline volume, csi.storage.k8s.io/provisioner-secret-name and node-stage-secret-name of a StorageClass), or set AzureStorageAuthType: anonymous for a public container"], ENTRIES),
    row(F::SecretWithoutAccount, Check::Credential, [
        "is given, but not its account",
        "the {source} is given, but not its account",
        "add accountname to the Secret"], ENTRIES),
    row(F::SecretContradicts, Check::Credential, [
        "with different values",
        "the Secret has both {one} and {other}, with different values",
        "remove one of them from it"], ENTRIES),
    row(F::KeyNotBase64, Check::Credential, [
        "is not a storage account key",
        "{source} is not a storage account key",
        "keys are base64 text (88 characters for Azure accounts); copy it again from the account's \"Access keys\" page"], SECRETS),
    row(F::KeyLength, Check::Credential, [
        "AuthenticationFailed, although the key looks right",
        "the account key has {bytes} bytes, and keys of Azure have 64 (88 characters in base64)",
        "copy it again, whole: az storage account keys list --account-name {account}"], SECRETS),
    row(F::KeyWithoutAccount, Check::Credential, [
        "but not the storage account that it belongs to",
        "{source} is set, but not the storage account that it belongs to",
        "set AZURE_STORAGE_ACCOUNT or give the account in the URL"], SECRETS),
    row(F::KeyOfOtherAccount, Check::Credential, [
        "AuthenticationFailed with a key that works elsewhere",
        "the key is given for account {other}, and the container is in account {account}",
        "give the key of {account}, or the URL of {other}"], ANSWERS),
    row(F::SasUnsigned, Check::Credential, [
        "is not a SAS token",
        "{source} is not a SAS token",
        "it has no sig= parameter; expected text of the form sv=...&sp=...&sig=... (with or without a leading ?)"], SECRETS),
    row(F::SasExpired, Check::Credential, [
        "403 AuthenticationFailed: Signature not valid in the specified time frame",
        "the SAS has expired{when?}",
        "make a new one (se), and check this machine's clock"], SECRETS),
    row(F::SasEnds, Check::Credential, [
        "an event SasEnds of a claim; a warning in the log of a mount",
        "the SAS ends on {when}, in less than {ahead}",
        "make a new one and put it where this one is, in the Secret or the file: it is taken without a remount"], EXPIRY),
    row(F::SasNotYetValid, Check::Credential, [
        "403 AuthenticationFailed: Signature not valid in the specified time frame",
        "the SAS is not valid yet, it begins on {start} (st)",
        "wait, or make one that begins earlier; and check this machine's clock"], SECRETS),
    row(F::SasOtherService, Check::Credential, [
        "403 AuthorizationServiceMismatch",
        "the SAS is for other services{shown?}",
        "a volume needs an account SAS with ss=b (Blob)"], SECRETS),
    row(F::SasResourceTypes, Check::Credential, [
        "403 AuthorizationResourceTypeMismatch",
        "the SAS does not cover containers and blobs{shown?}",
        "a volume needs an account SAS with srt=co (container and object)"], SECRETS),
    row(F::SasSingleBlob, Check::Credential, [
        "a SAS with sr=b",
        "the SAS is for a single blob (sr=b)",
        "a volume needs one for the container (sr=c)"], SECRETS),
    row(F::SasPermissions, Check::Credential, [
        "403 AuthorizationPermissionMismatch with a SAS",
        "the SAS lacks permissions{shown?}",
        "a volume needs sp=rl to be read, and sp=racwdl to be written"], SECRETS),
    row(F::SasAddress, Check::Credential, [
        "403 AuthorizationSourceIPMismatch",
        "the SAS is limited to other addresses (sip)",
        "make one for this machine's outbound address"], REFUSALS),
    row(F::SasProtocol, Check::Credential, [
        "403 AuthorizationProtocolMismatch",
        "the SAS allows https only (spr), and the endpoint is http",
        "use the https endpoint"], REFUSALS),
    row(F::ConnectionStringMalformed, Check::Credential, [
        "is not a connection string",
        "{source} is not a connection string",
        "expected Key=Value pairs separated by semicolons, such as DefaultEndpointsProtocol=https;AccountName=...;AccountKey=...;EndpointSuffix=core.windows.net"], SECRETS),
    row(F::ConnectionStringWithoutAccount, Check::Credential, [
        "names neither an account nor a blob endpoint",
        "{source} names neither an account nor a blob endpoint",
        "add AccountName=... or BlobEndpoint=... to it"], SECRETS),
    row(F::AuthMode, Check::Credential, [
        "AZURE_STORAGE_AUTH_MODE is ..., AzureStorageAuthType is ...",
        "{source} is \"{mode}\"",
        "{reason}"], SECRETS),
    row(F::AuthIncomplete, Check::Credential, [
        "cannot sign in without; incomplete environment variable configuration; missing environment variable AZURE_CLIENT_ID",
        "{mode} cannot sign in without {what}",
        "set it"], APPLICATIONS),
    row(F::AuthorityMalformed, Check::Credential, [
        "is no host of Entra ID",
        "\"{authority}\" is no host of Entra ID",
        "expected https://HOST, such as https://login.microsoftonline.com"], APPLICATIONS),
    row(F::TenantMalformed, Check::Credential, [
        "is no tenant; AADSTS900023",
        "\"{tenant}\" is no tenant",
        "expected its ID, or a domain of it, such as contoso.onmicrosoft.com"], APPLICATIONS),
    row(F::IdentityNamedTwice, Check::Credential, [
        "a managed identity is named by one of",
        "a managed identity is named by one of client ID, object ID and resource ID",
        "remove the others"], MANAGED),
    row(F::IdentityNotSelectable, Check::Credential, [
        "this managed identity cannot be asked for here",
        "this managed identity cannot be asked for here",
        "{reason}"], MANAGED),
    row(F::IdentityEndpointMalformed, Check::Credential, [
        "which is no URL",
        "{source} is \"{value}\", which is no URL",
        "expected http://HOST[:PORT][/PATH]"], MANAGED),
    row(F::CaFile, Check::Credential, [
        "CA certificates FILE: ...",
        "CA certificates {file}",
        "{reason}"], WAYS),
    row(F::NoCaCertificates, Check::Credential, [
        "TLS cannot be set up",
        "TLS cannot be set up{reason?}",
        "install this machine's CA certificates (package ca-certificates), set SSL_CERT_FILE, or mount a bundle at /etc/ssl/certs"], NO_CA),

    row(F::NoFuseDevice, Check::Kernel, [
        "cannot open /dev/fuse; fuse: device not found",
        "cannot open /dev/fuse",
        "load the kernel module (modprobe fuse); in a container, add the device /dev/fuse (privileged, or a device plugin)"], MACHINE),
    row(F::MountNotPermitted, Check::Kernel, [
        "not permitted",
        "cannot mount{place?}: not permitted",
        "run as root (CAP_SYS_ADMIN), in a container privileged"], MACHINE),
    row(F::FileLimit, Check::Kernel, [
        "too many open files",
        "this process may open {limit} files at once, which is few for connections and cached files",
        "raise the limit (ulimit -n 65536, or LimitNOFILE of the service)"], MACHINE),
    row(F::CacheDirectoryUnusable, Check::CacheDirectory, [
        "the cache directory cannot be used",
        "the cache directory {directory} cannot be used ({reason})",
        "make it (mkdir -p), on a local disk, writable for this user"], MACHINE),
    row(F::CacheDirectoryFull, Check::CacheDirectory, [
        "nothing is kept in the cache directory",
        "the file system of {directory} has {free} of {all} free, and {floor} percent of it are to stay free",
        "make room, give another --cache-dir, or lower --cache-free"], MACHINE),

    row(F::NameUnknown, Check::Dns, [
        "dns error; no such host; DNS lookup failed errno=6",
        "the name {host} does not resolve",
        "check the account name and the cloud (suffix) for typing errors, and that DNS on this machine knows the endpoint (private endpoints need their private DNS zone)"], WAYS),
    row(F::NobodyListens, Check::Tcp, [
        "connection refused",
        "Nobody listens at {host}",
        "check host and port, and that the service (or the emulator: azurite, or docker run -p 10000:10000 mcr.microsoft.com/azure-storage/azurite azurite-blob --blobHost 0.0.0.0) runs"], WAYS),
    row(F::Unreachable, Check::Tcp, [
        "no answer within the deadline; connection timed out",
        "no connection to {host}",
        "check that a firewall, network policy or proxy lets this machine reach it on its port"], WAYS),
    row(F::DfsUnreachable, Check::Tcp, [
        "the account's dfs endpoint cannot be reached",
        "{host} cannot be reached",
        "a hierarchical account needs its dfs endpoint beside the blob one, in firewalls, private endpoints and private DNS zones alike"], BLOB),
    row(F::ProxyUnreachable, Check::Tcp, [
        "an https_proxy that is not there",
        "the proxy {proxy} cannot be used ({reason})",
        "check https_proxy, and the endpoint's name, which the proxy looks up; or name the endpoint in no_proxy"], WAYS),
    row(F::TlsAuthority, Check::Tls, [
        "invalid peer certificate: UnknownIssuer; x509: certificate signed by unknown authority",
        "the certificate of {host} comes from an authority that this machine does not trust",
        "behind a proxy that replaces certificates, or with a private CA, give its certificate with --ca-file or SSL_CERT_FILE"], WAYS),
    row(F::TlsName, Check::Tls, [
        "invalid peer certificate: certificate not valid for name",
        "the certificate of {host} is for another name",
        "use the account's own name (ACCOUNT.blob.core.windows.net, also for private endpoints), and check what DNS makes of it"], WAYS),
    row(F::TlsTime, Check::Tls, [
        "invalid peer certificate: certificate expired",
        "the certificate of {host} is not valid now",
        "check this machine's clock (timedatectl); if it is right, the endpoint has to renew its certificate"], WAYS),
    row(F::TlsFailed, Check::Tls, [
        "received corrupt message; handshake failure",
        "TLS with {host} failed",
        "check that the endpoint speaks https, that this machine has current CA certificates, and that no proxy replaces the certificate"], WAYS),
    row(F::NotABlobService, Check::Http, [
        "the answer's header ... is missing; invalid character 'C' looking for beginning of value",
        "what answers at {host} is no Blob service ({reason})",
        "check the endpoint for typing errors, and that no proxy or login page answers in its place"], WAYS),
    row(F::ServiceTooOld, Check::Http, [
        "400 InvalidHeaderValue",
        "the service does not know a header of ours: it may be older than version 2023-11-03 of the Blob protocol",
        "update it (Azurite: or start it with --skipApiVersionCheck)"], REFUSALS),
    row(F::HttpsRequired, Check::Http, [
        "400 AccountRequiresHttps",
        "the account accepts https only",
        "use the https endpoint"], REFUSALS),
    row(F::HeaderMalformed, Check::Http, [
        "failed to parse header value",
        "a metadata value or header has characters that HTTP does not allow",
        "use printable ASCII"], BLOB),
    row(F::ClockSkew, Check::Clock, [
        "403 AuthenticationFailed: Request date header too old",
        "this machine's clock differs from the service's by {skew}",
        "synchronise it (NTP: timedatectl set-ntp true)"], REFUSALS),

    row(F::AadApplicationUnknown, Check::ServicePrincipal, [
        "AADSTS700016, AADSTS7000229",
        "there is no application {client} in tenant {tenant}",
        "check client ID (the application's or identity's, not its object ID) and tenant ID"], APPLICATIONS),
    row(F::AadSecretWrong, Check::ServicePrincipal, [
        "AADSTS7000215",
        "the client secret is wrong",
        "use the secret's value, not its ID, and a current one"], APPLICATIONS),
    row(F::AadSecretExpired, Check::ServicePrincipal, [
        "AADSTS7000222",
        "the client secret has expired",
        "make a new one: az ad app credential reset --id {client} --append"], APPLICATIONS),
    row(F::AadTenantUnknown, Check::ServicePrincipal, [
        "AADSTS90002, AADSTS900023, AADSTS50034",
        "there is no tenant {tenant} at {authority}",
        "check the tenant ID, and that the cloud is the right one (AZURE_AUTHORITY_HOST)"], APPLICATIONS),
    row(F::AadCertificateUnknown, Check::ServicePrincipal, [
        "AADSTS700027",
        "the certificate is not registered, or its key does not fit",
        "az ad app credential reset --id {client} --cert @certificate.pem --append"], APPLICATIONS),
    row(F::AadAudienceUnknown, Check::ServicePrincipal, [
        "AADSTS500011",
        "this tenant does not know the storage audience",
        "check the cloud, and token-audience where it is custom"], APPLICATIONS),
    row(F::AadConditionalAccess, Check::ServicePrincipal, [
        "AADSTS53003, AADSTS530003",
        "a Conditional Access policy of the tenant forbids it",
        "allow this workload identity there"], APPLICATIONS),
    row(F::CertificateFile, Check::ServicePrincipal, [
        "certificate file ... cannot be read",
        "certificate file {file} {reason}",
        "give a PEM file with the certificate and its RSA key, readable for this user"], APPLICATIONS),
    row(F::TokenFileUnreadable, Check::WorkloadIdentity, [
        "token file ... cannot be read; no client ID specified. Check pod configuration",
        "token file {file} cannot be read ({reason})",
        "the pod needs the label azure.workload.identity/use: \"true\", its ServiceAccount the annotation azure.workload.identity/client-id, and the cluster the webhook (or a projected serviceAccountToken volume, with AZURE_FEDERATED_TOKEN_FILE naming its file)"], FEDERATION),
    row(F::TokenFileEmpty, Check::WorkloadIdentity, [
        "token file ... is empty",
        "token file {file} is empty",
        "check the projected serviceAccountToken volume that it comes from"], FEDERATION),
    row(F::StageLost, Check::Credential, [
        "a gRPC error FailedPrecondition of a publish; FailedMount: is no longer mounted at",
        "volume {volume} is no longer mounted at {path} (an earlier process of the node plugin mounted it), and the Secret to mount it with again cannot be had ({reason})",
        "let the node plugin read it (node.readSecrets=true of the chart), or name it in nodePublishSecretRef of the PersistentVolume as well; or delete all pods of the volume on this node, so that the kubelet stages it anew"], STAGE_LOST),
    row(F::PodTokenMissing, Check::WorkloadIdentity, [
        "a gRPC error Unauthenticated of a publish; FailedMount: no token of the pod",
        "the volume is for the identity of its pod, but the kubelet handed over no token of the pod for api://AzureADTokenExchange",
        "apply the CSIDriver object of this driver (its tokenRequests must have audience api://AzureADTokenExchange)"], POD_TOKENS),
    row(F::PodTokenMalformed, Check::WorkloadIdentity, [
        "the pod's token is none",
        "what the kubelet handed over as the pod's token is no token",
        "apply the CSIDriver object of this driver, with its tokenRequests as they are"], POD_TOKEN),
    row(F::FederationMismatch, Check::WorkloadIdentity, [
        "AADSTS70021, AADSTS700211, AADSTS700212, AADSTS700213, AADSTS7002138; No matching federated identity record found",
        "no federated credential of identity {client} fits this token (issuer {issuer}, subject {subject}, audience {audience})",
        "compare all three to the letter{differs?}, or add one: az identity federated-credential create --name NAME --identity-name IDENTITY --resource-group GROUP --issuer {issuer} --subject {subject} --audiences {wanted}"], FEDERATION),
    row(F::FederationMissing, Check::WorkloadIdentity, [
        "AADSTS70025",
        "no federated credential of the identity fits the token",
        "add one: az identity federated-credential create --name NAME --identity-name IDENTITY --resource-group GROUP --issuer ISSUER --subject system:serviceaccount:NAMESPACE:SERVICEACCOUNT --audiences api://AzureADTokenExchange"], AADSTS),
    row(F::FederatedTokenTime, Check::WorkloadIdentity, [
        "AADSTS700024",
        "the token is outside of its time",
        "check this machine's clock, and that the token file is renewed"], FEDERATION),
    row(F::IdentityServiceSilent, Check::ManagedIdentity, [
        "the identity service does not answer; no default identity",
        "the identity service at {host} does not answer",
        "this machine has none, or a network policy is in the way: allow 169.254.169.254, or sign in in another way"], MANAGED),
    row(F::IdentityNotAssigned, Check::ManagedIdentity, [
        "400 Identity not found; failed to authenticate a system assigned identity",
        "no identity is assigned to the machine",
        "assign one (az vmss identity assign, or az vm identity assign), or name the user-assigned one (client-id, or AzureStorageIdentityClientID)"], MANAGED),
    row(F::IdentityOther, Check::ManagedIdentity, [
        "400 Identity not found",
        "this identity is not assigned to the machine",
        "az vmss identity assign (or az vm identity assign) --identities RESOURCE_ID"], MANAGED),
    row(F::IdentityAmbiguous, Check::ManagedIdentity, [
        "Multiple user assigned identities exist; The client_id parameter or AZURE_CLIENT_ID environment variable must be set",
        "several identities are assigned",
        "name one (client-id, or AzureStorageIdentityClientID)"], MANAGED),
    row(F::CliMissing, Check::Token, [
        "Azure CLI not found on path",
        "there is no program az in PATH",
        "install the Azure CLI and run az login"], APPLICATIONS),
    row(F::CliSignedOut, Check::Token, [
        "Please run 'az login' to setup account",
        "{said}",
        "run az login again"], APPLICATIONS),
    row(F::NoIdentity, Check::Token, [
        "DefaultAzureCredential: failed to acquire a token; failed to create default credential",
        "none of the sources of the default chain has a token ({reasons})",
        "set up one of them (on AKS workload identity, on a virtual machine a managed identity, at a desk az login), and pick it with auth"], APPLICATIONS),
    row(F::AuthorityUnreachable, Check::Token, [
        "Entra ID cannot be reached",
        "{host} cannot be reached ({reason})",
        "check DNS, and that a firewall, network policy or proxy (https_proxy, no_proxy) lets this machine reach it"], APPLICATIONS),
    row(F::CloudConfigUnfit, Check::Credential, [
        "is no cloud config",
        "{file} is no cloud config ({reason})",
        "it is azure.json of a node, or cloud-config of the Secret azure-cloud-provider: JSON with tenantId, subscriptionId, resourceGroup and aadClientId, readable for the driver"], LOOKUPS),
    row(F::ClusterIdentityMissing, Check::Credential, [
        "no key for storage account; DefaultAzureCredential authentication failed",
        "{what} can only be looked up by an identity of the cluster, and none is known",
        "give the node plugin the cluster's cloud config (--cloud-config, or the Secret azure-cloud-provider), or reference a Secret with the key"], LOOKUPS),
    row(F::AccountUnplaced, Check::Credential, [
        "the subscription or resource group of account ... is not known",
        "the {what} of account {account} is not known, and its keys cannot be listed without",
        "set {attribute} in volumeAttributes, or reference a Secret with the key"], LOOKUPS),
    row(F::VaultUrlMalformed, Check::Credential, [
        "is no URL of a key vault",
        "\"{text}\" is no URL of a key vault ({reason})",
        "expected https://VAULT.vault.azure.net in keyVaultURL"], LOOKUPS),
    row(F::VaultSecretMissing, Check::Credential, [
        "404 SecretNotFound",
        "key vault {vault} has no secret {secret} (or not this version)",
        "correct keyVaultSecretName and keyVaultSecretVersion, or make it: az keyvault secret set --vault-name {vault} --name {secret} --value KEY_OR_SAS"], LOOKUPS),
    row(F::VaultSecretDisabled, Check::Credential, [
        "Operation get is not allowed on a disabled secret",
        "secret {secret} of key vault {vault} is disabled",
        "az keyvault secret set-attributes --vault-name {vault} --name {secret} --enabled true"], LOOKUPS),
    row(F::VaultSecretUnfit, Check::Credential, [
        "is neither an account key nor a SAS",
        "secret {secret} of key vault {vault} is neither an account key nor a SAS",
        "store the key as it is (base64), or the SAS with its parameters (sv=...&sig=...)"], LOOKUPS),
    row(F::VaultForbidden, Check::Credential, [
        "403 Forbidden: Caller is not authorized to perform action on resource",
        "{principal} may not read secret {secret} of key vault {vault}",
        "az role assignment create --assignee IDENTITY --role \"Key Vault Secrets User\" --scope VAULT_ID (or, for vaults with access policies: az keyvault set-policy --name {vault} --object-id IDENTITY --secret-permissions get)"], LOOKUPS),
    row(F::VaultFirewall, Check::Credential, [
        "403 ForbiddenByFirewall, ForbiddenByConnection",
        "the network rules of key vault {vault} do not let this machine in",
        "allow its network (az keyvault network-rule add --name {vault} --ip-address ADDRESS), or use a private endpoint"], VAULT_RULES),
    row(F::KeysForbidden, Check::Credential, [
        "403 AuthorizationFailed: does not have authorization to perform action 'Microsoft.Storage/storageAccounts/listKeys/action'",
        "{principal} may not list the keys of account {account}",
        "az role assignment create --assignee IDENTITY --role \"Storage Account Key Operator Service Role\" --scope /subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{account}; or reference a Secret with the key; or sign in without keys (AzureStorageAuthType: msi or workload_identity)"], LOOKUPS),
    row(F::KeysLocked, Check::Credential, [
        "409 ScopeLocked",
        "a lock on account {account} (ReadOnly) forbids listing its keys",
        "remove the lock, or reference a Secret with the key"], LOCKS),
    row(F::AccountNotInGroup, Check::Credential, [
        "404 ResourceNotFound, ResourceGroupNotFound, SubscriptionNotFound",
        "there is no account {account} in resource group {group} of subscription {subscription}",
        "correct resourceGroup and subscriptionID (az storage account show --name {account} --query id)"], LOOKUPS),
    row(F::AccountsForbidden, Check::Credential, [
        "403 AuthorizationFailed: does not have authorization to perform action 'Microsoft.Storage/storageAccounts/read' or '/write'",
        "{principal} may not find or make storage accounts in resource group {group} ({reason})",
        "az role assignment create --assignee IDENTITY --role \"Storage Account Contributor\" --scope /subscriptions/{subscription}/resourceGroups/{group}; or name an account in storageAccount of the StorageClass"], ACCOUNTS),
    row(F::AccountAgainstPolicy, Check::Credential, [
        "403 RequestDisallowedByPolicy",
        "a policy of subscription {subscription} forbids the account that would be made in resource group {group}: {reason}",
        "set what it asks for in the StorageClass (tags, location, allowBlobPublicAccess, allowSharedKeyAccess, publicNetworkAccess, requireInfraEncryption), or make an account and name it in storageAccount"], ACCOUNTS),
    row(F::AccountsTooMany, Check::Credential, [
        "MaxStorageAccountsCountPerSubscriptionExceeded",
        "subscription {subscription} has as many storage accounts in this region as it may: {reason}",
        "remove accounts that nobody needs, ask for a larger quota, or let the StorageClass take one that is there (storageAccount; a class whose parameters fit an account shares it)"], ACCOUNTS),
    row(F::GroupMissing, Check::Credential, [
        "404 ResourceGroupNotFound, SubscriptionNotFound",
        "there is no resource group {group} in subscription {subscription}",
        "correct resourceGroup and subscriptionID of the StorageClass, or of the driver's cloud config (az group list --query [].name)"], ACCOUNTS),
    row(F::LookupRefused, Check::Credential, [
        "the resource manager, or a key vault, answers something else",
        "{service} answered: {reason}",
        "try again when it is in order; a Secret with the key makes the volume independent of it"], LOOKUPS),

    row(F::TokenOverHttp, Check::Token, [
        "Authentication scheme Bearer is not allowed with HTTP; only sent over https",
        "a token is only sent over https, and the endpoint {host} is http",
        "use its https endpoint, or a key or SAS"], APPLICATIONS),
    row(F::TokenOtherTenant, Check::Token, [
        "401 InvalidAuthenticationInfo; 401 Unauthorized",
        "the service refuses the token{tenant?}",
        "check that account {account} belongs to the identity's tenant and cloud, and that this machine's clock is right"], APPLICATIONS),
    row(F::TokenRefused, Check::Token, [
        "no token from ...",
        "{reason}",
        "the words of the identity service say what it needs; its codes are in the reference of Entra ID"], TOKENS),

    row(F::Firewall, Check::Firewall, [
        "403 AuthorizationFailure: This request is not authorized to perform this operation",
        "the network rules of account {account} refuse this machine",
        "allow its subnet or address under \"Networking\" (az storage account network-rule add --account-name {account} --ip-address ADDRESS), or reach the account through a private endpoint"], REFUSALS),
    row(F::AccountDisabled, Check::Account, [
        "403 AccountIsDisabled, InsufficientAccountPermissions",
        "account {account} is disabled or read-only here",
        "check its state and the subscription's in the portal"], REFUSALS),
    row(F::SharedKeyDisabled, Check::SharedKey, [
        "403 KeyBasedAuthenticationNotPermitted",
        "account {account} forbids account keys (allowSharedKeyAccess is false)",
        "use an identity of Entra ID or a user delegation SAS, or allow keys: az storage account update --name {account} --allow-shared-key-access true"], REFUSALS),
    row(F::KeyRefused, Check::Key, [
        "403 AuthenticationFailed with an account key",
        "the account key is refused: it is not, or no longer, a key of account {account}",
        "copy the current one (keys may have been rotated), without blanks around it: az storage account keys list --account-name {account}; and check that this machine's clock is right"], REFUSALS),
    row(F::SignatureRefused, Check::Key, [
        "403 AuthenticationFailed in the log of a mount",
        "the account key or SAS is not valid for account {account}",
        "copy the current one (keys may have been rotated), check that it belongs to this account, and that this machine's clock is right"], BLOB),
    row(F::SasRefused, Check::Key, [
        "403 AuthenticationFailed with a SAS",
        "the SAS is refused{shown?}: it was made for another account or container, with a key that was rotated, or was changed on its way",
        "make a new one for account {account}, and copy it whole"], REFUSALS),
    row(F::NotPublic, Check::PublicAccess, [
        "401 NoAuthenticationInformation, 409 PublicAccessNotPermitted, 404 ResourceNotFound without a credential",
        "container {container} is not public and no credential was given",
        "set an account key, SAS, connection string or identity (in Kubernetes: reference a Secret)"], REFUSALS),
    row(F::PermissionMissing, Check::Role, [
        "403 AuthorizationPermissionMismatch in the log of a mount",
        "the credential is valid but lacks the permission for {operation}",
        "a SAS needs sp=rl to read and rwdl with c or a to write, an identity the role Storage Blob Data Contributor (or Reader) on container {container}"], BLOB),
    row(F::RoleMissing, Check::Role, [
        "403 AuthorizationPermissionMismatch with a token",
        "{principal} lacks the role for {operation}",
        "assign it Storage Blob Data Contributor (or Reader), and wait up to ten minutes: az role assignment create --assignee {assignee} --role \"Storage Blob Data Contributor\" --scope /subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Storage/storageAccounts/{account}/blobServices/default/containers/{container}"], REFUSALS),
    row(F::RoleOwnerMissing, Check::Role, [
        "403 AuthorizationPermissionMismatch for Path - Update",
        "the credential may not set modes and access lists",
        "a SAS needs p in sp, an identity the role Storage Blob Data Owner on container {container}"], BLOB),
    row(F::Denied, Check::Role, [
        "403 without a code",
        "the credential does not open container {container}",
        "check key, SAS permissions and network rules of the account"], ANSWERS),
    row(F::ContainerMissing, Check::Container, [
        "404 ContainerNotFound; The specified container does not exist",
        "Container {container} does not exist",
        "check its name, mount with createContainer: \"true\" (--create-container), or create it: az storage container create --name {container} --account-name {account}"], REFUSALS),
    row(F::ContainerBeingDeleted, Check::Container, [
        "409 ContainerBeingDeleted",
        "Container {container} is being deleted, which takes the service half a minute or longer",
        "try again later, or use another name"], REFUSALS),
    row(F::ReadDenied, Check::Read, [
        "403 for Get Blob; EACCES at open",
        "the credential may not read blobs of container {container}",
        "a SAS needs r in sp, an identity the role Storage Blob Data Reader"], PROBES),
    row(F::WriteDenied, Check::Write, [
        "403 for Put Blob; EACCES at close",
        "the credential may not write blobs of container {container}",
        "a SAS needs w with c or a in sp, an identity the role Storage Blob Data Contributor; or mount with -o ro"], PROBES),
    row(F::DeleteDenied, Check::Delete, [
        "403 for Delete Blob; EACCES at unlink",
        "the credential may not delete blobs of container {container}{left?}",
        "a SAS needs d in sp, an identity the role Storage Blob Data Contributor"], PROBES),
    row(F::Throttled, Check::List, [
        "503 ServerBusy, 429",
        "the account is at its limit, or the service is busy",
        "this is tried again; spread the load, or ask for higher limits of the account"], REFUSALS),
    row(F::Conflict, Check::Write, [
        "ESTALE at close or fsync; event Conflict",
        "{count} commits were refused, since another client had changed the blob meanwhile: nothing was overwritten",
        "let one writer write a file at a time; what could not be saved is in lost+found of the node's spool directory after the last close"], NEWS),
    row(F::NotSaved, Check::Write, [
        "EIO, EACCES or ETIMEDOUT at close or fsync; event NotSaved",
        "{count} commits failed: what was written is kept on the node and is not at the service",
        "look into the node plugin's log for the reason; it is tried again"], NEWS),
    row(F::LeftUnsaved, Check::Write, [
        "event LeftUnsaved",
        "{count} files of volume {volume} were not saved when it was unmounted: the service refused them, or did not take them in time",
        "look into lost+found of the node's spool directory, which has each with a record of what it is, and copy back what is worth it"], ENDINGS),
    row(F::QuotaReached, Check::Write, [
        "EDQUOT, Disk quota exceeded; event QuotaReached",
        "{count} writes were refused: the volume of {capacity} bytes is full and has quota=hard",
        "remove files, or expand the claim"], NEWS),
    row(F::Archived, Check::Read, [
        "409 BlobArchived",
        "the blob is in the archive tier",
        "rehydrate it (set its tier to Hot or Cool) and wait until that is done"], ANSWERS),
    row(F::Blocked, Check::Write, [
        "409 or 412 about leases, legal holds and policies",
        "a lease, policy or concurrent change is in the way",
        "end it, then try again"], ANSWERS),
    row(F::RequestRefused, Check::Http, [
        "400 with another code",
        "the service does not take the request",
        "check endpoint and names"], ANSWERS),
    row(F::CorsMissing, Check::Cors, [
        "a browser says: blocked by CORS policy",
        "no CORS rule of account {account} lets pages of {origin} read it ({rules})",
        "az storage cors add --services b --methods GET HEAD OPTIONS --origins {origin} --allowed-headers \"*\" --exposed-headers \"*\" --max-age 3600 --account-name {account}"], ORIGINS),
    row(F::CorsUnknown, Check::Cors, [
        "403 for Get Blob Service Properties",
        "the credential may not look at the CORS rules of account {account}",
        "look with an account key, or: az storage cors list --services b --account-name {account}"], ORIGINS),
];
