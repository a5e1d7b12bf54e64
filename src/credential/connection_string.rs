//! Connection strings: `Key=Value;...` as the portal hands them out. Reads them into [`AccountSettings`].

use secrecy::ExposeSecret;

use super::{AccountKey, AccountSettings, Credential, Error, SasToken, trimmed};

/// Account of the emulators (documented with Azurite; not a secret).
const DEVELOPMENT_ACCOUNT: &str = "devstoreaccount1";
/// Key of that account (documented with Azurite; not a secret).
const DEVELOPMENT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";
/// Where the emulators listen.
const DEVELOPMENT_HOST: &str = "http://127.0.0.1";
/// The port of their Blob service.
const DEVELOPMENT_BLOB_PORT: u16 = 10000;

/// The keys that matter to the Blob service, found in one pass. Others (QueueEndpoint, ...) are skipped.
#[derive(Default)]
struct Fields<'a> {
    account: Option<&'a str>,
    key: Option<&'a str>,
    sas: Option<&'a str>,
    endpoint: Option<&'a str>,
    suffix: Option<&'a str>,
    protocol: Option<&'a str>,
    development: bool,
    development_proxy: Option<&'a str>,
}

/// Reads a connection string. Keys are case-insensitive and empty values count as absent. `source_name` says in
/// messages where it came from.
///
/// # Errors
/// [`Error::NotAConnectionString`], [`Error::ConnectionStringWithoutAccount`], [`Error::KeyWithoutAccount`], and those
/// of key and SAS.
pub fn parse_connection_string(source_name: &str, text: &str) -> Result<AccountSettings, Error> {
    let text = trimmed(source_name, text)?;
    let fields = Fields::read(source_name, text.expose_secret())?;
    if fields.development {
        return development(source_name, fields.development_proxy);
    }
    if fields.account.is_none() && fields.endpoint.is_none() {
        return Err(Error::ConnectionStringWithoutAccount { source_name: source_name.to_owned() });
    }
    let credential = match (fields.key, fields.sas) {
        (Some(key), _) => {
            let account = fields
                .account
                .ok_or_else(|| Error::KeyWithoutAccount { source_name: format!("AccountKey of {source_name}") })?;
            Some(Credential::SharedKey(AccountKey::parse(&format!("AccountKey of {source_name}"), account, key)?))
        }
        (None, Some(sas)) => {
            Some(Credential::Sas(SasToken::parse(&format!("SharedAccessSignature of {source_name}"), sas)?))
        }
        (None, None) => None,
    };
    Ok(AccountSettings {
        account: fields.account.map(str::to_owned),
        endpoint: fields.endpoint.map(str::to_owned),
        endpoint_suffix: fields.suffix.map(str::to_owned),
        insecure: fields.protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case("http")),
        container: None,
        mode: None,
        credential,
    })
}

impl<'a> Fields<'a> {
    fn read(source_name: &str, text: &'a str) -> Result<Self, Error> {
        let mut fields = Self::default();
        for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
            // Values may hold '=' (base64 padding, SAS), so only the first one separates.
            let Some((name, value)) = pair.split_once('=') else {
                return Err(Error::NotAConnectionString { source_name: source_name.to_owned() });
            };
            let value = Some(value.trim()).filter(|value| !value.is_empty());
            match name.trim().to_ascii_lowercase().as_str() {
                "accountname" => fields.account = value,
                "accountkey" => fields.key = value,
                "sharedaccesssignature" => fields.sas = value,
                "blobendpoint" => fields.endpoint = value,
                "endpointsuffix" => fields.suffix = value,
                "defaultendpointsprotocol" => fields.protocol = value,
                "usedevelopmentstorage" => {
                    fields.development = value.is_some_and(|value| value.eq_ignore_ascii_case("true"));
                }
                "developmentstorageproxyuri" => fields.development_proxy = value,
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// `UseDevelopmentStorage=true`, where the proxy gives scheme and host and the port stays that of the Blob service.
fn development(source_name: &str, proxy: Option<&str>) -> Result<AccountSettings, Error> {
    let host = proxy.unwrap_or(DEVELOPMENT_HOST).trim_end_matches('/');
    Ok(AccountSettings {
        account: Some(DEVELOPMENT_ACCOUNT.to_owned()),
        endpoint: Some(format!("{host}:{DEVELOPMENT_BLOB_PORT}/{DEVELOPMENT_ACCOUNT}")),
        credential: Some(Credential::SharedKey(AccountKey::parse(source_name, DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY)?)),
        ..AccountSettings::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_portals_string_gives_account_key_and_suffix() {
        let settings = parse_connection_string(
            "test",
            "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VjcmV0PT0=;EndpointSuffix=core.windows.net\n",
        )
        .unwrap();
        assert_eq!(settings.account.as_deref(), Some("acme"));
        assert_eq!(settings.endpoint_suffix.as_deref(), Some("core.windows.net"));
        assert!(!settings.insecure);
        assert!(matches!(settings.credential, Some(Credential::SharedKey(key)) if key.account() == "acme"));
    }

    #[test]
    fn an_endpoint_with_a_sas_needs_no_account_name() {
        let settings = parse_connection_string(
            "test",
            "BlobEndpoint=https://acme.blob.core.windows.net/;QueueEndpoint=https://q/;\
             SharedAccessSignature=sv=2022-11-02&ss=b&sig=ab%3D",
        )
        .unwrap();
        assert_eq!(settings.endpoint.as_deref(), Some("https://acme.blob.core.windows.net/"));
        assert!(matches!(settings.credential, Some(Credential::Sas(_))));
    }

    #[test]
    fn development_storage_is_the_emulator_on_loopback() {
        let settings = parse_connection_string("test", "UseDevelopmentStorage=true").unwrap();
        assert_eq!(settings.endpoint.as_deref(), Some("http://127.0.0.1:10000/devstoreaccount1"));
        let proxied = parse_connection_string(
            "test",
            "UseDevelopmentStorage=true;DevelopmentStorageProxyUri=http://azurite.local",
        );
        assert_eq!(proxied.unwrap().endpoint.as_deref(), Some("http://azurite.local:10000/devstoreaccount1"));
    }

    #[test]
    fn what_is_no_connection_string_says_what_one_looks_like() {
        let error = parse_connection_string("AZURE_STORAGE_CONNECTION_STRING", "hunter2").unwrap_err().to_string();
        assert!(error.contains("AccountName=") && !error.contains("hunter2"), "{error}");
        let error = parse_connection_string("test", "EndpointSuffix=core.windows.net").unwrap_err();
        assert!(matches!(error, Error::ConnectionStringWithoutAccount { .. }));
        let error = parse_connection_string("test", "BlobEndpoint=https://x/;AccountKey=c2VjcmV0").unwrap_err();
        assert!(matches!(error, Error::KeyWithoutAccount { .. }));
    }
}
