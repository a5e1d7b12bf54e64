//! The table: a row for every parameter of a StorageClass and every attribute of a volume that we or the Azure Blob CSI driver know.
//!
//! Order: which container, which account, who signs in, how it behaves; then what has no effect, what is refused, and what the
//! kubelet and the provisioner add. A row that is not for inline volumes is left out of them, or refused there where going on
//! without it would do something else than what was asked for: any pod may write those attributes.

use crate::credential::AuthMode;

/// Where a key may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Places {
    /// In the parameters of a StorageClass. Those become the attributes of its volumes, so `volume` is true as well.
    pub class: bool,
    /// In the attributes of a PersistentVolume.
    pub volume: bool,
    /// In the attributes of an inline volume.
    pub inline: bool,
}

impl Places {
    /// For people.
    #[must_use]
    pub fn names(self) -> String {
        let names = [(self.class, "class"), (self.volume, "volume"), (self.inline, "inline")];
        names.iter().filter(|(here, _)| *here).map(|(_, name)| *name).collect::<Vec<_>>().join(", ")
    }
}

/// Everywhere.
const ALL: Places = Places { class: true, volume: true, inline: true };
/// In what a cluster's administrator writes.
const PERSISTENT: Places = Places { class: true, volume: true, inline: false };
/// In attributes.
const ATTRIBUTE: Places = Places { class: false, volume: true, inline: true };

/// What a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// `true` or `false`.
    Flag,
    /// A number of days, 1 to 365.
    Days,
    /// Text.
    Text,
}

/// What a key does here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// The driver uses it.
    Used,
    /// It picks or shapes the account, where none is named.
    Account,
    /// It says which identity signs in, in one way to sign in; without that way it is refused, since it would do nothing.
    IdentityOf(AuthMode),
    /// It is accepted and logged as without effect, for this reason.
    None(&'static str),
    /// It fails CreateVolume with this fix; existing volumes that carry it are mounted, and it is logged.
    Refused(&'static str),
    /// The kubelet or the provisioner adds it.
    Told,
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its usual spelling. Keys compare without case.
    pub key: &'static str,
    /// Its other names.
    pub also: &'static [&'static str],
    /// Where it may stand.
    pub places: Places,
    /// What it takes.
    pub takes: Takes,
    /// What holds without it.
    pub default: &'static str,
    /// What it does, for people; empty where the effect says it.
    pub doc: &'static str,
    /// What it does, for the driver.
    pub effect: Effect,
}

const fn used(key: &'static str, places: Places, default: &'static str, doc: &'static str) -> Row {
    Row { key, also: &[], places, takes: Takes::Text, default, doc, effect: Effect::Used }
}

const fn account(key: &'static str, default: &'static str, doc: &'static str) -> Row {
    Row { key, also: &[], places: PERSISTENT, takes: Takes::Text, default, doc, effect: Effect::Account }
}

const fn identity(key: &'static str, places: Places, mode: AuthMode, doc: &'static str) -> Row {
    Row { key, also: &[], places, takes: Takes::Text, default: "none", doc, effect: Effect::IdentityOf(mode) }
}

const fn none(key: &'static str, reason: &'static str) -> Row {
    Row { key, also: &[], places: PERSISTENT, takes: Takes::Text, default: "", doc: "", effect: Effect::None(reason) }
}

const fn refused(key: &'static str, fix: &'static str) -> Row {
    Row { key, also: &[], places: PERSISTENT, takes: Takes::Text, default: "", doc: "", effect: Effect::Refused(fix) }
}

const fn told(key: &'static str, places: Places, doc: &'static str) -> Row {
    Row { key, also: &[], places, takes: Takes::Text, default: "", doc, effect: Effect::Told }
}

const fn flag(row: Row) -> Row {
    Row { takes: Takes::Flag, ..row }
}

const fn days(row: Row) -> Row {
    Row { takes: Takes::Days, ..row }
}

const fn known_as(row: Row, also: &'static [&'static str]) -> Row {
    Row { also, ..row }
}

const NO_NETWORK: &str = "this driver makes no private endpoints, DNS zones or subnet rules: make them for an account of yours, and name \
    it in storageAccount (and server)";
const NFS_ONLY: &str = "it concerns NFS; modes and owners here are mount options: file_mode, dir_mode, umask, uid, gid";

/// Every key.
pub const TABLE: &[Row] = &[
    used(
        "containerName",
        ALL,
        "made of the volume's name",
        "The container. `${pvc.metadata.name}`, `${pvc.metadata.namespace}` and `${pv.metadata.name}` are replaced. One that is missing is \
         made by CreateVolume. Goes before the volume handle.",
    ),
    used(
        "containerNamePrefix",
        PERSISTENT,
        "none",
        "What the names of new containers begin with: 1 to 20 characters of a-z, 0-9 and `-`. Not with containerName.",
    ),
    used(
        "subDir",
        ALL,
        "none",
        "The directory of the container that is the volume, with the same placeholders as containerName. In a StorageClass each claim gets \
         its own: `containerName: shared` with `subDir: ${pvc.metadata.namespace}/${pvc.metadata.name}`. CreateVolume makes it, with \
         the claim's size, and DeleteVolume removes it if it was made for that volume.",
    ),
    used(
        "onDelete",
        PERSISTENT,
        "delete",
        "`delete`: DeleteVolume removes the container or directory that was made for the volume. `retain`: its data stays. Noted in \
         its metadata when it is made.",
    ),
    flag(used("createContainer", ALL, "false", "Makes a missing container when the volume is mounted.")),
    used("prefix", ALL, "none", "Only what lies below this prefix of the container is the volume."),
    known_as(
        used(
            "storageAccount",
            ALL,
            "that of the Secret, else one that is found or made",
            "The storage account. Goes before the volume handle.",
        ),
        &["storageAccountName"],
    ),
    used(
        "resourceGroup",
        ALL,
        "the cluster's",
        "Resource group of the account, where keys are listed by the resource manager.",
    ),
    used("subscriptionID", ALL, "the cluster's", "Subscription of the account, likewise."),
    used(
        "server",
        ALL,
        "made of account and suffix",
        "Host or URL of the Blob endpoint: `ACCOUNT.blob.core.windows.net`.",
    ),
    used(
        "storageEndpointSuffix",
        ALL,
        "that of the cloud",
        "What follows `blob.` in the endpoint's host: `core.windows.net`.",
    ),
    used("cloud", ALL, "--cloud", "AzurePublicCloud, AzureUSGovernment, AzureChinaCloud or AzureGermanCloud."),
    used(
        "protocol",
        ALL,
        "fuse",
        "`fuse` or `fuse2`: both are this driver's file system. `nfs`, `aznfs` and `nfsv3` are refused.",
    ),
    used(
        "secretName",
        ALL,
        "`azure-storage-account-NAME-secret`",
        "Secret with the account's key, SAS or connection string, which the driver reads itself where it may, and where no Secret is \
         handed to it.",
    ),
    used(
        "secretNamespace",
        ALL,
        "that of the handle, the claim's, `default`",
        "Its namespace; part of the volume handle. For an inline volume always the pod's.",
    ),
    flag(used(
        "getAccountKeyFromSecret",
        ATTRIBUTE,
        "false",
        "Never lists the account's keys in the name of the cluster's identity.",
    )),
    used(
        "AzureStorageAuthType",
        ALL,
        "what the Secret holds",
        "How to sign in: key, sas, connection_string, msi, spn, workload_identity, default or anonymous.",
    ),
    identity(
        "AzureStorageIdentityClientID",
        ALL,
        AuthMode::ManagedIdentity,
        "Client ID of the managed identity that signs in.",
    ),
    identity(
        "AzureStorageIdentityObjectID",
        ALL,
        AuthMode::ManagedIdentity,
        "Object ID of the managed identity, in place of its client ID.",
    ),
    identity(
        "AzureStorageIdentityResourceID",
        ALL,
        AuthMode::ManagedIdentity,
        "Resource ID of the managed identity, in place of its client ID.",
    ),
    identity(
        "MSIEndpoint",
        PERSISTENT,
        AuthMode::ManagedIdentity,
        "Where managed identities are asked for, if not at the machine's own identity service.",
    ),
    identity("AzureStorageSPNClientID", ATTRIBUTE, AuthMode::ServicePrincipal, "Client ID of the service principal."),
    identity("AzureStorageSPNTenantID", ATTRIBUTE, AuthMode::ServicePrincipal, "Tenant of the service principal."),
    used(
        "AzureStorageAADEndpoint",
        ALL,
        "that of the cloud",
        "Host of Entra ID. In an inline volume only that of a known cloud.",
    ),
    known_as(
        identity(
            "clientID",
            ALL,
            AuthMode::WorkloadIdentity,
            "Client ID for workload identity: each pod signs in itself, unless AzureStorageAuthType says workload_identity.",
        ),
        &["azure.workload.identity/client-id"],
    ),
    known_as(
        used("tenantID", ALL, "AZURE_TENANT_ID of the driver", "Tenant of that client."),
        &["azure.workload.identity/tenant-id"],
    ),
    flag(used(
        "mountWithWorkloadIdentityToken",
        ALL,
        "false",
        "Each pod signs in itself, with the token of its service account, and no key is looked up.",
    )),
    used(
        "keyVaultURL",
        ATTRIBUTE,
        "none",
        "The key vault that holds an account key or SAS: `https://NAME.vault.azure.net`.",
    ),
    used("keyVaultSecretName", ATTRIBUTE, "none", "Name of the secret there."),
    used("keyVaultSecretVersion", ATTRIBUTE, "the newest", "Its version."),
    used(
        "mountOptions",
        ALL,
        "none",
        "Mount options, with commas or blanks in between; those of the PersistentVolume go before them. Inline volumes have no \
         other place for them, and may use only those that concern the volume itself.",
    ),
    used("consistency", ALL, "close-to-open", "As the mount option."),
    used("metadata-ttl", ALL, "10s", "As the mount option."),
    used("durability", ALL, "close", "As the mount option."),
    used("quota", ALL, "soft", "As the mount option."),
    flag(used("statsFile", ALL, "false", "As the mount option stats_file.")),
    used("warmup", PERSISTENT, "nothing", "As the mount option."),
    known_as(
        account("skuName", "Standard_LRS", "Its SKU: Standard_LRS, Premium_LRS, Standard_ZRS, ..."),
        &["storageAccountType"],
    ),
    account("location", "the cluster's", "Its region."),
    account("accessTier", "the service's", "Its access tier: Hot, Cool, Cold or Premium."),
    account("publicNetworkAccess", "the service's", "Enabled, Disabled or SecuredByPerimeter."),
    flag(account("allowBlobPublicAccess", "false", "Whether containers may be public.")),
    flag(account("allowSharedKeyAccess", "true", "Whether its keys sign requests.")),
    flag(account("requireInfraEncryption", "false", "Whether it is encrypted twice.")),
    flag(account(
        "isHnsEnabled",
        "false",
        "Whether it has a hierarchical namespace. That of an account that is given is asked of the service.",
    )),
    account("tags", "none", "Its tags: `name=value,name=value`."),
    account("tagValueDelimiter", "`,`", "What stands between two tags."),
    flag(account("matchTags", "false", "Whether an account that is found must have these tags.")),
    days(account("softDeleteBlobs", "off", "Days for which deleted blobs are kept.")),
    days(account("softDeleteContainers", "off", "Days for which deleted containers are kept.")),
    flag(account("enableBlobVersioning", "off", "Whether versions of blobs are kept. Not with isHnsEnabled.")),
    flag(account(
        "storeAccountKey",
        "true",
        "Whether its key, where the driver looked it up, is kept in the Secret `azure-storage-account-NAME-secret` of secretNamespace.",
    )),
    flag(account(
        "getLatestAccountKey",
        "false",
        "Of the keys that are listed, the one that was made last goes first.",
    )),
    none(
        "useDataPlaneAPI",
        "containers are always made and deleted by the Blob service itself, never by the resource manager",
    ),
    none("blobStorageAccountType", "the kind of the account is asked of the service"),
    none("mountPermissions", NFS_ONLY),
    none("fsGroupChangePolicy", NFS_ONLY),
    refused("networkEndpointType", NO_NETWORK),
    refused("privateDNSZoneResourceGroup", NO_NETWORK),
    refused("vnetResourceGroup", NO_NETWORK),
    refused("vnetName", NO_NETWORK),
    refused("vnetLinkName", NO_NETWORK),
    refused("subnetName", NO_NETWORK),
    told("csi.storage.k8s.io/pvc/name", ALL, "Name of the claim (external-provisioner with --extra-create-metadata)."),
    told("csi.storage.k8s.io/pvc/namespace", ALL, "Its namespace."),
    told("csi.storage.k8s.io/pv/name", ALL, "Name of the PersistentVolume."),
    told(
        "csi.storage.k8s.io/volumesnapshot/name",
        PERSISTENT,
        "Name of the VolumeSnapshot (csi-snapshotter with --extra-create-metadata).",
    ),
    told("csi.storage.k8s.io/volumesnapshot/namespace", PERSISTENT, "Its namespace."),
    told("csi.storage.k8s.io/volumesnapshotcontent/name", PERSISTENT, "Name of its VolumeSnapshotContent."),
    told("csi.storage.k8s.io/ephemeral", ATTRIBUTE, "`true` for an inline volume."),
    told("csi.storage.k8s.io/pod.name", ATTRIBUTE, "Name of the pod."),
    told("csi.storage.k8s.io/pod.namespace", ATTRIBUTE, "Its namespace."),
    told("csi.storage.k8s.io/pod.uid", ATTRIBUTE, "Its uid."),
    told("csi.storage.k8s.io/serviceAccount.name", ATTRIBUTE, "Name of its service account."),
    told("csi.storage.k8s.io/serviceAccount.tokens", ATTRIBUTE, "Tokens of its service account; never logged."),
    told("storage.kubernetes.io/csiProvisionerIdentity", ATTRIBUTE, "Which provisioner made the volume."),
];

/// The row of a key in any of its names.
#[must_use]
pub fn find(key: &str) -> Option<&'static Row> {
    let is = |name: &str| name.eq_ignore_ascii_case(key);
    TABLE.iter().find(|row| is(row.key) || row.also.iter().any(|also| is(also)))
}
