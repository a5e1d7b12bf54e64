//! An emulator with identity services, and a client that reaches them through the proxy.

use std::sync::OnceLock;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use blob_emulator::{Emulator, IdentityServices, Settings};
use reqwest::{Certificate, Client, Proxy};
use serde_json::Value;

pub const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
pub const CLIENT: &str = "11111111-2222-3333-4444-555555555555";
pub const STORAGE: &str = "https://storage.azure.com/.default";

/// Emulator and services.
pub struct World {
    pub emulator: Emulator,
    pub identity: IdentityServices,
}

/// An answer, read.
pub struct Got {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Got {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The AADSTS code of a refusal, with the text's claim to be it.
    pub fn code(&self) -> u64 {
        let body = self.json();
        let code = body["error_codes"][0].as_u64().unwrap();
        assert!(body["error_description"].as_str().unwrap().starts_with(&format!("AADSTS{code}: ")), "{body}");
        code
    }
}

fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap())
}

impl World {
    pub fn start() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let emulator = Emulator::start(settings).unwrap();
        emulator.create_container("box");
        emulator.put("box", "a", "content", &[]).unwrap();
        let identity = IdentityServices::start(&emulator).unwrap();
        Self { emulator, identity }
    }

    /// A client that trusts the test's authority and goes through the proxy.
    pub fn client(&self) -> Client {
        let authority = Certificate::from_pem(self.identity.ca_pem().as_bytes()).unwrap();
        let proxy = Proxy::all(self.identity.proxy_url()).unwrap();
        Client::builder().proxy(proxy).tls_certs_only([authority]).build().unwrap()
    }

    /// One that does not go through the proxy.
    pub fn direct_client(&self) -> Client {
        let authority = Certificate::from_pem(self.identity.ca_pem().as_bytes()).unwrap();
        Client::builder().no_proxy().tls_certs_only([authority]).build().unwrap()
    }

    pub fn try_send(
        &self,
        client: &Client,
        method: &str,
        url: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Got, String> {
        let mut request = client.request(method.parse().unwrap(), url).body(body.to_owned());
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        runtime().block_on(async move {
            let reply = request.send().await.map_err(|error| format!("{error:?}"))?;
            let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
            Ok(Got { status, headers, text: reply.text().await.map_err(|error| format!("{error:?}"))? })
        })
    }

    pub fn send(&self, method: &str, url: &str, headers: &[(&str, &str)], body: &str) -> Got {
        self.try_send(&self.client(), method, url, headers, body).unwrap_or_else(|error| panic!("{error}"))
    }

    pub fn get(&self, url: &str, headers: &[(&str, &str)]) -> Got {
        self.send("GET", url, headers, "")
    }

    /// Posts a form to a token endpoint.
    pub fn post(&self, url: &str, form: &[(&str, &str)]) -> Got {
        let encode = |text: &str| {
            text.bytes()
                .map(|byte| {
                    if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                        (byte as char).to_string()
                    } else {
                        format!("%{byte:02X}")
                    }
                })
                .collect::<String>()
        };
        let body: Vec<String> = form.iter().map(|(name, value)| format!("{name}={}", encode(value))).collect();
        self.send("POST", url, &[("content-type", "application/x-www-form-urlencoded")], &body.join("&"))
    }

    /// Asks the public authority for a token with these fields beside the usual ones.
    pub fn ask(&self, tenant: &str, form: &[(&str, &str)]) -> Got {
        let url = format!("https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token");
        let usual = [("grant_type", "client_credentials"), ("client_id", CLIENT), ("scope", STORAGE)];
        let kept = usual.iter().filter(|(name, _)| !form.iter().any(|(own, _)| own == name));
        let all: Vec<(&str, &str)> = kept.chain(form).copied().collect();
        self.post(&url, &all)
    }

    /// A token for storage, by client secret "s3cret".
    pub fn token(&self) -> String {
        let got = self.ask(TENANT, &[("client_secret", "s3cret")]);
        assert_eq!(got.status, 200, "{}", got.text);
        got.json()["access_token"].as_str().unwrap().to_owned()
    }

    /// Sends a request to the emulator's account under its official name, with a token.
    pub fn storage(&self, method: &str, path: &str, token: &str, body: &str) -> Got {
        let url = format!("https://devstoreaccount1.blob.core.windows.net{path}");
        let bearer = format!("Bearer {token}");
        let headers =
            [("authorization", bearer.as_str()), ("x-ms-version", "2023-11-03"), ("x-ms-blob-type", "BlockBlob")];
        self.send(method, &url, &headers, body)
    }
}

/// The claims of a token.
pub fn claims(token: &str) -> Value {
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
