//! A certificate with its key, from PEM, and the assertion that it signs for Entra ID ("application authentication
//! certificate credentials"): a JWT under PS256, with the certificate's SHA-256 thumbprint. Does no I/O.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{rand::SystemRandom, rsa::KeyPair, signature::RSA_PSS_SHA256};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString};
use sha2::{Digest, Sha256};

/// Life of an assertion, in seconds. It is used at once; the service asks for five to ten minutes at most.
const ASSERTION_LIFE_SECONDS: u64 = 300;

/// What is needed to prove that one holds the key.
pub(super) struct Certificate {
    key: KeyPair,
    /// SHA-256 of the certificate.
    thumbprint: [u8; 32],
}

impl Certificate {
    /// Reads the first certificate and the RSA key of a PEM text, in any order. Errors complete the sentence "the file ...".
    pub(super) fn parse(text: &SecretString) -> Result<Self, String> {
        let mut certificate = None;
        let mut key = None;
        for section in sections(text.expose_secret()) {
            let (label, bytes) = section?;
            let bytes: SecretSlice<u8> = bytes.into();
            let slice = bytes.expose_secret();
            let rejected =
                |error| format!("has a key that cannot be used ({error}): RSA of 2048 bits or more is needed");
            match label {
                "CERTIFICATE" if certificate.is_none() => certificate = Some(Sha256::digest(slice).into()),
                "PRIVATE KEY" => key = Some(KeyPair::from_pkcs8(slice).map_err(rejected)?),
                "RSA PRIVATE KEY" => key = Some(KeyPair::from_der(slice).map_err(rejected)?),
                "ENCRYPTED PRIVATE KEY" => {
                    return Err(
                        "has a key with a password: write it without, openssl pkcs8 -in FILE -out KEY".to_owned()
                    );
                }
                "EC PRIVATE KEY" => return Err("has an elliptic curve key: Entra ID takes RSA alone".to_owned()),
                _ => {}
            }
        }
        match (certificate, key) {
            (Some(thumbprint), Some(key)) => Ok(Self { key, thumbprint }),
            (None, None) => Err(
                "is no PEM file with certificate and key: of a PFX file, openssl pkcs12 -in FILE.pfx -out FILE.pem -nodes makes one"
                    .to_owned(),
            ),
            (None, _) => Err("has no certificate: add its -----BEGIN CERTIFICATE----- section".to_owned()),
            (_, None) => Err("has no private key: add its -----BEGIN PRIVATE KEY----- section".to_owned()),
        }
    }

    /// An assertion of the application `client_id` for `audience`, the token endpoint.
    pub(super) fn assertion(&self, client_id: &str, audience: &str) -> Result<SecretString, String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let thumbprint = URL_SAFE_NO_PAD.encode(self.thumbprint);
        let header = serde_json::json!({ "alg": "PS256", "typ": "JWT", "x5t#S256": thumbprint });
        let claims = serde_json::json!({
            "aud": audience,
            "iss": client_id,
            "sub": client_id,
            "jti": uuid::Uuid::new_v4().to_string(),
            "nbf": now,
            "iat": now,
            "exp": now + ASSERTION_LIFE_SECONDS,
        });
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PSS_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| "has a key that cannot sign".to_owned())?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)).into())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

fn encode(value: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// The sections of a PEM text (RFC 7468): label and bytes. What stands between them is skipped.
fn sections(text: &str) -> impl Iterator<Item = Result<(&str, Vec<u8>), String>> {
    text.split("-----BEGIN ").skip(1).filter_map(|section| {
        let (label, rest) = section.split_once("-----")?;
        let (body, _) = rest.split_once("-----END")?;
        let plain: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(plain).map_err(|_| format!("has a {label} section that is no base64"));
        Some(bytes.map(|bytes| (label, bytes)))
    })
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        encoding::{AsDer, Pkcs8V1Der},
        rsa::KeySize,
        signature::{KeyPair as _, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey},
    };

    use super::*;

    /// A key, and the PEM of it with some bytes that stand in for a certificate (nobody parses them here).
    fn pem() -> (KeyPair, String) {
        let key = KeyPair::generate(KeySize::Rsa2048).unwrap();
        let der: Pkcs8V1Der<'_> = key.as_der().unwrap();
        let section = |label: &str, bytes: &[u8]| {
            let body = STANDARD.encode(bytes);
            let lines: Vec<&str> = body.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
            format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
        };
        let text =
            format!("Bag Attributes\n{}{}", section("PRIVATE KEY", der.as_ref()), section("CERTIFICATE", b"leaf"));
        (key, text)
    }

    #[test]
    fn the_assertion_names_the_application_and_is_signed_with_the_key() {
        let (key, text) = pem();
        let certificate = Certificate::parse(&text.into()).unwrap();
        let assertion = certificate.assertion("client-1", "https://login/t/oauth2/v2.0/token").unwrap();
        let parts: Vec<&str> = assertion.expose_secret().split('.').collect();
        let json = |part: &str| -> serde_json::Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let header = json(parts[0]);
        assert_eq!(header["alg"], "PS256");
        assert_eq!(header["x5t#S256"], URL_SAFE_NO_PAD.encode(Sha256::digest(b"leaf")));
        let claims = json(parts[1]);
        assert_eq!((&claims["iss"], &claims["sub"]), (&"client-1".into(), &"client-1".into()));
        assert_eq!(claims["aud"], "https://login/t/oauth2/v2.0/token");
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["nbf"].as_u64().unwrap(), ASSERTION_LIFE_SECONDS);
        let signed = format!("{}.{}", parts[0], parts[1]);
        let public = UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA256, key.public_key().as_ref());
        public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(parts[2]).unwrap()).unwrap();
    }

    #[test]
    fn a_file_that_lacks_something_says_what() {
        let (_, text) = pem();
        let key_alone = text.split("-----BEGIN CERTIFICATE").next().unwrap().to_owned();
        let certificate_alone =
            format!("-----BEGIN CERTIFICATE{}", text.split("-----BEGIN CERTIFICATE").nth(1).unwrap());
        for (text, reason) in [
            (key_alone.as_str(), "no certificate"),
            (certificate_alone.as_str(), "no private key"),
            ("binary", "openssl pkcs12"),
            ("-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----", "password"),
            ("-----BEGIN PRIVATE KEY-----\n!!\n-----END PRIVATE KEY-----", "no base64"),
            ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", "RSA of 2048 bits"),
        ] {
            let error = Certificate::parse(&text.to_owned().into()).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
    }
}
