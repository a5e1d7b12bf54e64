//! Claims about keys: each is known once, does what the table says, and no inline volume gets further than its list.

use super::*;

fn map(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn class(entries: &[(&str, &str)]) -> Result<Parameters> {
    Parameters::of_storage_class(&map(entries))
}

fn inline(entries: &[(&str, &str)]) -> Result<Parameters> {
    let mut attributes = map(entries);
    attributes.insert("csi.storage.k8s.io/ephemeral".to_owned(), "true".to_owned());
    Parameters::of_volume(&attributes)
}

#[test]
fn the_table_has_each_key_once_and_says_what_it_does() {
    let mut seen = std::collections::BTreeSet::new();
    for row in TABLE {
        for name in std::iter::once(&row.key).chain(row.also) {
            assert!(seen.insert(name.to_lowercase()), "{name} stands there twice");
        }
        assert!(row.places.volume, "{}: what a StorageClass says becomes an attribute", row.key);
        let says = match row.effect {
            Effect::None(reason) | Effect::Refused(reason) => reason,
            _ => row.doc,
        };
        assert!(says.len() > 5 && !says.contains('|'), "{}: {says}", row.key);
    }
}

/// Sections 1.1 and 1.2 of the facts about the Azure Blob CSI driver.
#[test]
fn every_key_of_the_azure_blob_csi_driver_is_known() {
    let class = "skuName storageAccountType location resourceGroup subscriptionID storageAccount protocol containerName \
        containerNamePrefix server storageEndpointSuffix networkEndpointType privateDNSZoneResourceGroup vnetResourceGroup vnetName \
        subnetName vnetLinkName publicNetworkAccess accessTier allowBlobPublicAccess allowSharedKeyAccess requireInfraEncryption tags \
        tagValueDelimiter matchTags useDataPlaneAPI softDeleteBlobs softDeleteContainers enableBlobVersioning isHnsEnabled \
        storeAccountKey getLatestAccountKey secretName secretNamespace AzureStorageAuthType AzureStorageIdentityClientID \
        AzureStorageIdentityObjectID AzureStorageIdentityResourceID MSIEndpoint AzureStorageAADEndpoint clientID tenantID \
        mountWithWorkloadIdentityToken blobStorageAccountType mountPermissions fsGroupChangePolicy";
    for key in class.split_whitespace() {
        assert!(table::find(key).is_some_and(|row| row.places.class), "{key}");
    }
    let volume = "storageAccountName getAccountKeyFromSecret AzureStorageSPNClientID AzureStorageSPNTenantID keyVaultURL \
        keyVaultSecretName keyVaultSecretVersion mountOptions csi.storage.k8s.io/pvc/name csi.storage.k8s.io/pvc/namespace \
        csi.storage.k8s.io/pv/name csi.storage.k8s.io/ephemeral csi.storage.k8s.io/pod.name csi.storage.k8s.io/pod.namespace \
        csi.storage.k8s.io/pod.uid csi.storage.k8s.io/serviceAccount.name csi.storage.k8s.io/serviceAccount.tokens \
        storage.kubernetes.io/csiProvisionerIdentity";
    for key in volume.split_whitespace() {
        assert!(table::find(&key.to_uppercase()).is_some_and(|row| row.places.volume), "{key}");
    }
}

#[test]
fn what_makes_networks_is_refused_for_new_volumes_and_accepted_in_those_that_exist() {
    for key in [
        "networkEndpointType",
        "privateDNSZoneResourceGroup",
        "vnetResourceGroup",
        "VNetName",
        "subnetName",
        "vnetLinkName",
    ] {
        let error = class(&[(key, "privateEndpoint")]).unwrap_err();
        assert!(error.message.contains(key) && error.message.contains("storageAccount"), "{error}");
        assert!(class(&[(key, "")]).is_ok(), "{key} says nothing");
        assert!(Parameters::of_volume(&map(&[(key, "privateEndpoint")])).is_ok(), "{key}");
    }
}

#[test]
fn an_inline_volume_has_what_is_listed_for_it_and_nothing_else() {
    let allowed =
        inline(&[("containerName", "logs"), ("skuName", "Premium_LRS"), ("x", "y"), ("vnetName", "v")]).unwrap();
    assert_eq!((allowed.get("containername"), allowed.get("skuname")), (Some("logs"), None));
    for (key, value) in [
        ("MSIEndpoint", "http://10.0.0.1"),
        ("warmup", "/"),
        ("AzureStorageAADEndpoint", "https://login.example.com"),
        ("mountOptions", "--tmp-path=/etc"),
        ("mountOptions", "-o allow_other --block-cache-path /etc"),
        ("mountOptions", "--config-file=/etc/x"),
        ("mountOptions", "-o allow_other,TMP_PATH=/etc"),
        ("mountOptions", "--secure-config"),
        ("mountOptions", "--container-name=other"),
        ("mountOptions", "-o warmup=/"),
        ("mountOptions", "-o token-file=/var/run/secrets/token"),
        ("mountOptions", "-o test-block-divisor=2"),
    ] {
        let error = inline(&[("containerName", "logs"), ("AzureStorageAuthType", "msi"), (key, value)]).unwrap_err();
        assert!(error.message.contains("inline volume"), "{key} {value}: {error}");
    }
    assert!(inline(&[("AzureStorageAADEndpoint", "https://login.microsoftonline.us")]).is_ok());
    let usual =
        "-o allow_other,attr_timeout=120 --use-adls=true --file-cache-timeout-in-seconds=120, --log-level=LOG_WARNING";
    assert!(inline(&[("mountOptions", usual)]).is_ok());
    let pod = ("csi.storage.k8s.io/pod.namespace", "apps");
    assert!(inline(&[pod, ("secretNamespace", "apps")]).is_ok());
    assert!(inline(&[pod, ("secretNamespace", "kube-system")]).unwrap_err().message.contains("kube-system"));
}

#[test]
fn each_option_that_is_listed_for_inline_volumes_is_one_that_sets_something() {
    for name in inline::OPTIONS {
        let row = crate::volume::options::TABLE.iter().find(|row| row.name == name);
        assert!(matches!(row.map(|row| row.effect), Some(crate::volume::options::Effect::Sets(_))), "{name}");
    }
}

#[test]
fn an_identitys_token_goes_to_the_accounts_own_endpoints() {
    for host in [
        "acme.blob.core.windows.net",
        "https://acme.blob.core.windows.net/",
        "ACME.dfs.core.chinacloudapi.cn",
        "acme-secondary.blob.core.windows.net",
        "acme.privatelink.blob.core.windows.net",
        "acme.z7.blob.storage.azure.net",
    ] {
        assert!(is_own_host("acme", host), "{host}");
    }
    for host in [
        "acme.blob.example.com",
        "http://acme.blob.core.windows.net",
        "other.blob.core.windows.net",
        "acmeblob.core.windows.net",
        "acme.blob.core.windows.net.example.com",
        "acme.blob.core.windows.net:8443",
        "acme.blob.core.windows.net@example.com",
        "acme.z100.blob.storage.azure.net",
        "acme.z0.blob.storage.azure.net",
        "acme.x.blob.core.windows.net",
        "acme.blob.evilcore.windows.net",
        "",
    ] {
        assert!(!is_own_host("acme", host), "{host}");
    }
    assert!(is_suffix("core.windows.net") && !is_suffix("windows.net") && !is_suffix("x.core.windows.net"));
}

/// Set AZBLOB_UPDATE_DOCS=1 to write the tables into the page instead of comparing.
#[test]
fn the_configuration_page_shows_these_tables() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/CONFIGURATION.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (begin, end) = ("<!-- parameters: printed from src/csi/parameters/table.rs -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(begin).expect("the page has the marker before the tables");
    let (shown, after) = rest.split_once(end).expect("the page has the marker behind the tables");
    if std::env::var_os("AZBLOB_UPDATE_DOCS").is_some() {
        std::fs::write(path, format!("{before}{begin}{}{end}{after}", markdown())).unwrap();
        return;
    }
    assert!(
        shown == markdown(),
        "docs/CONFIGURATION.md is out of date: run AZBLOB_UPDATE_DOCS=1 cargo test --lib parameters"
    );
}

#[test]
fn an_unknown_parameter_is_refused_by_its_name() {
    let error = class(&[("skuName", "Premium_LRS"), ("skuNmae", "x")]).unwrap_err();
    assert!(error.message.contains("\"skuNmae\""), "{error}");
    assert!(class(&[("keyVaultURL", "https://x")]).is_err(), "an attribute of volumes only");
}

#[test]
fn unknown_attributes_are_ignored_and_keys_have_no_case() {
    let attributes = map(&[("ContainerName", "logs"), ("storageAccountName", "acme"), ("x/y", "z")]);
    let parameters = Parameters::of_volume(&attributes).unwrap();
    assert_eq!(parameters.container().unwrap().as_deref(), Some("logs"));
    assert_eq!(parameters.account(), Some("acme"));
}

#[test]
fn keys_that_differ_in_case_or_by_another_name_must_agree() {
    let twice = |other| Parameters::of_volume(&map(&[("containerName", "a"), ("containername", other)]));
    assert!(twice("a").is_ok());
    assert!(twice("b").unwrap_err().message.contains("containername"));
    assert!(class(&[("storageAccount", "a"), ("storageAccountName", "b")]).is_err());
}

#[test]
fn the_aks_storage_class_is_accepted() {
    assert!(class(&[("skuName", "Premium_LRS"), ("protocol", "fuse2"), ("storageAccount", "acme")]).is_ok());
}

#[test]
fn nfs_and_unknown_protocols_are_told_apart() {
    assert!(class(&[("protocol", "nfs")]).unwrap_err().message.contains("NFS"));
    assert!(class(&[("protocol", "smb")]).unwrap_err().message.contains("expected fuse"));
}

#[test]
fn an_identity_belongs_to_its_way_to_sign_in() {
    let msi = ("AzureStorageAuthType", "MSI");
    assert_eq!(class(&[msi]).unwrap().auth_mode().unwrap(), Some(AuthMode::ManagedIdentity));
    let named = class(&[msi, ("AzureStorageIdentityObjectID", "o1"), ("MSIEndpoint", "http://10.0.0.1")]).unwrap();
    assert_eq!(named.identity().id.object_id.as_deref(), Some("o1"));
    assert_eq!(named.identity().msi_endpoint.as_deref(), Some("http://10.0.0.1"));
    let workload = class(&[("AzureStorageAuthType", "workload_identity"), ("clientID", "c1"), ("tenantID", "t1")]);
    assert_eq!(workload.unwrap().identity().tenant_id.as_deref(), Some("t1"));
    let error = class(&[msi, ("clientID", "c9d2281e")]).unwrap_err();
    assert!(error.message.contains("clientID") && error.message.contains("workload_identity"), "{error}");
    assert!(class(&[("AzureStorageAuthType", "azcli")]).unwrap_err().message.contains("node"));
}

#[test]
fn who_names_a_client_or_asks_for_the_pods_token_gets_the_pods_identity() {
    let mounts = ("mountWithWorkloadIdentityToken", "true");
    let (mode, client) = (("AzureStorageAuthType", "workload_identity"), ("clientID", "c1"));
    let inline = ("csi.storage.k8s.io/ephemeral", "true");
    let annotated = ("azure.workload.identity/client-id", "c1");
    for (attributes, wanted) in [
        (&[mounts][..], true),
        (&[client], true),
        (&[annotated], true),
        (&[mounts, mode, client], true),
        // The driver's own token; an inline volume never gets that.
        (&[mode, client], false),
        (&[mode, client, inline], true),
        (&[("mountWithWorkloadIdentityToken", "false")], false),
    ] {
        assert_eq!(Parameters::of_volume(&map(attributes)).unwrap().is_for_pod().unwrap(), wanted, "{attributes:?}");
    }
    let msi = ("AzureStorageAuthType", "msi");
    assert!(class(&[mounts, msi]).unwrap_err().message.contains("remove one"));
    assert!(class(&[("mountWithWorkloadIdentityToken", "perhaps")]).is_err());
}

#[test]
fn placeholders_of_the_container_name_are_replaced() {
    let claim = ("csi.storage.k8s.io/pvc/name", "data");
    let name = ("containerName", "x-${pvc.metadata.name}");
    assert_eq!(class(&[name, claim]).unwrap().container().unwrap().as_deref(), Some("x-data"));
    let error = class(&[name]).unwrap().container().unwrap_err();
    assert!(error.message.contains("extra-create-metadata"), "{error}");
    let error = class(&[("containerName", "${pvc.name}")]).unwrap().container().unwrap_err();
    assert!(error.message.contains("${pvc.metadata.name}"), "{error}");
}

#[test]
fn a_directory_for_each_claim_is_named_by_placeholders_and_may_outlive_its_volume() {
    let (claim, namespace) = (("csi.storage.k8s.io/pvc/name", "data"), ("csi.storage.k8s.io/pvc/namespace", "apps"));
    let shared =
        [("subDir", "/${pvc.metadata.namespace}/${pvc.metadata.name}/"), ("onDelete", "Retain"), claim, namespace];
    let parameters = class(&shared).unwrap();
    assert_eq!(parameters.sub_directory().unwrap().as_deref(), Some("apps/data"));
    assert!(parameters.keeps().unwrap() && !class(&[]).unwrap().keeps().unwrap());
    assert!(class(&[("onDelete", "archive")]).unwrap_err().message.contains("retain"));
}

#[test]
fn flags_are_true_or_false() {
    assert!(class(&[("createContainer", "TRUE")]).unwrap().flag("createcontainer").unwrap());
    assert!(class(&[("createContainer", "maybe")]).is_err());
}
