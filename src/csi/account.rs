//! The account of a new volume, where neither the StorageClass nor a Secret names one: found among those of the resource group or made,
//! in the name of the cluster's identity; and the Secret in which its key is kept for the nodes.

use std::collections::BTreeMap;

use secrecy::ExposeSecret as _;

use super::{
    error::{Error, Result},
    lookup::Asked,
    named_secret::{SECRET_NAMESPACE_DEFAULT, secret_of},
    parameters::Parameters,
    request::{Account, Defaults},
    secrets::Secrets,
};
use crate::credential::{AccountWanted, AuthMode, Credential};

/// The SKU of accounts that are made where none is named.
const SKU_DEFAULT: &str = "Standard_LRS";

/// `parameters` with the account that fits them, where none is given and the driver has an identity that can ask. Cancel-safe.
///
/// # Errors
/// `Invalid` for parameters that contradict each other; `Denied` and `Unavailable` where none can be found or made.
pub(super) async fn chosen(
    defaults: &Defaults,
    parameters: Parameters,
    secrets: &BTreeMap<String, String>,
) -> Result<Parameters> {
    check(&parameters)?;
    let given = Secrets::read(secrets)?;
    let known = given.account(None)?;
    let is_named = parameters.account().is_some() || parameters.get("server").is_some();
    if is_named || known.account.is_some() || known.endpoint.is_some() {
        return Ok(parameters);
    }
    let asked =
        Asked { defaults, parameters: &parameters, id: None, account: None, has_credential: given.has_credential() };
    let Some((place, location)) = asked.place()? else { return Ok(parameters) };
    let days = |key: &str| parameters.get(key).and_then(|days| days.parse().ok());
    let flag = |key: &str| -> Result<Option<bool>> { parameters.get(key).map(|_| parameters.flag(key)).transpose() };
    let text = |key: &str| parameters.get(key).map(str::to_owned);
    let wanted = AccountWanted {
        location: text("location").or(location),
        sku: parameters.get("skuname").unwrap_or(SKU_DEFAULT).to_owned(),
        tags: tags(&parameters)?,
        match_tags: parameters.flag("matchtags")?,
        access_tier: text("accesstier"),
        public_network_access: text("publicnetworkaccess"),
        allow_blob_public_access: flag("allowblobpublicaccess")?,
        // An account whose keys do not sign is of no use to who signs with a key.
        allow_shared_key_access: flag("allowsharedkeyaccess")?.or((!by_identity(&parameters)?).then_some(true)),
        require_infra_encryption: parameters.flag("requireinfraencryption")?,
        is_hierarchical: parameters.flag("ishnsenabled")?,
        soft_delete_blobs: days("softdeleteblobs"),
        soft_delete_containers: days("softdeletecontainers"),
        versioning: parameters.flag("enableblobversioning")?,
        ..place
    };
    let (http, tokens) = asked.cluster_tokens(wanted.cloud, &wanted.audience())?;
    let name = defaults.lookups.accounts.find_or_make(&http, &tokens, &wanted).await?;
    Ok(parameters.with_account(&name))
}

/// Whether somebody signs in, and no key.
fn by_identity(parameters: &Parameters) -> Result<bool> {
    let mode = parameters.auth_mode()?;
    Ok(mode.is_some_and(AuthMode::is_identity) || mode.is_none() && parameters.is_for_pod()?)
}

fn check(parameters: &Parameters) -> Result<()> {
    let on = |key: &str| parameters.flag(key);
    if on("matchtags")? && parameters.account().is_some() {
        return Err(Error::invalid("matchTags chooses an account, and storageAccount names one: remove one of them"));
    }
    if on("enableblobversioning")? && on("ishnsenabled")? {
        return Err(Error::invalid("enableBlobVersioning is not possible with isHnsEnabled"));
    }
    let no_keys = parameters.get("allowsharedkeyaccess").is_some() && !on("allowsharedkeyaccess")?;
    if no_keys && !by_identity(parameters)? && parameters.account().is_none() {
        return Err(Error::invalid(
            "allowSharedKeyAccess is false, but volumes of this class sign with the account's key: set AzureStorageAuthType to msi or \
             workload_identity, or mountWithWorkloadIdentityToken",
        ));
    }
    tags(parameters).map(drop)
}

/// `name=value,name=value`.
fn tags(parameters: &Parameters) -> Result<BTreeMap<String, String>> {
    let Some(written) = parameters.get("tags") else { return Ok(BTreeMap::new()) };
    let delimiter = parameters.get("tagvaluedelimiter").unwrap_or(",");
    let pair = |text: &str| match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.trim().to_owned())),
        _ => Err(Error::invalid(format!("tags {written:?}: expected name=value with {delimiter:?} in between"))),
    };
    written.split(delimiter).filter(|text| !text.trim().is_empty()).map(pair).collect()
}

/// Keeps the key that was looked up for `account` in the Secret that nodes look for, unless the StorageClass forbids it. That it
/// could not be kept is no failure of the volume: a node with the cluster's identity lists the keys itself.
pub(super) async fn keep_key(defaults: &Defaults, parameters: &Parameters, account: &Account) {
    let forbidden = parameters.get("storeaccountkey").is_some() && !parameters.flag("storeaccountkey").unwrap_or(true);
    let (Some(api), Credential::SharedKey(key)) = (&defaults.api, &account.credential) else { return };
    // Who signs in otherwise needs no key.
    if forbidden || account.asker().is_none() || by_identity(parameters).unwrap_or(true) {
        return;
    }
    let namespace = parameters.get("secretnamespace").or_else(|| parameters.get("csi.storage.k8s.io/pvc/namespace"));
    let namespace = namespace.unwrap_or(SECRET_NAMESPACE_DEFAULT);
    let name = parameters.get("secretname").map_or_else(|| secret_of(key.account()), str::to_owned);
    let text = key.text();
    let entries = [("azurestorageaccountname", key.account()), ("azurestorageaccountkey", text.expose_secret())];
    match api.put_secret(namespace, &name, &entries).await {
        Ok(()) => tracing::info!(secret = name, namespace, "keeps the key of account {}", key.account()),
        Err(error) => tracing::warn!(
            secret = name,
            namespace,
            "the account's key is not kept ({error}): nodes need the cluster's identity, or set storeAccountKey to false"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn class(entries: &[(&str, &str)]) -> Parameters {
        let map = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Parameters::of_storage_class(&map).unwrap()
    }

    #[test]
    fn what_contradicts_itself_is_refused_by_name() {
        for (entries, name) in [
            (&[("matchTags", "true"), ("storageAccount", "acme")][..], "matchTags"),
            (&[("enableBlobVersioning", "true"), ("isHnsEnabled", "true")], "enableBlobVersioning"),
            (&[("allowSharedKeyAccess", "false")], "allowSharedKeyAccess"),
            (&[("tags", "team")], "tags"),
        ] {
            assert!(check(&class(entries)).unwrap_err().message.contains(name), "{name}");
        }
        assert!(check(&class(&[("allowSharedKeyAccess", "false"), ("AzureStorageAuthType", "msi")])).is_ok());
    }

    #[test]
    fn tags_may_have_a_delimiter_of_their_own() {
        let read = |entries: &[(&str, &str)]| tags(&class(entries)).unwrap();
        assert_eq!(
            read(&[("tags", "a=b, c=d=e,")]),
            [("a", "b"), ("c", "d=e")].map(|(n, v)| (n.into(), v.into())).into()
        );
        assert_eq!(read(&[("tags", "a=b,c;d=e"), ("tagValueDelimiter", ";")])["a"], "b,c");
    }
}
