//! JSON Web Tokens: making, reading, verifying (RS256 and, for assertions, PS256). Must not know what a claim means.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        KeyPair, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256, RsaKeyPair, RsaPublicKeyComponents, UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;

use crate::identity::IdentityError;

/// Bytes of the modulus of a key of 2048 bits.
const MODULUS_BYTES: usize = 256;

/// A token, taken apart. Nothing of it is verified.
#[derive(Clone)]
pub(crate) struct Jwt {
    /// Its header.
    pub(crate) header: Value,
    /// Its claims.
    pub(crate) claims: Value,
    /// What the signature is over.
    pub(crate) signed: String,
    /// The signature.
    pub(crate) signature: Vec<u8>,
}

impl Jwt {
    /// Takes a token apart, if it is one.
    pub(crate) fn parse(token: &str) -> Option<Self> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let document = |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok();
        Some(Self {
            header: document(header)?,
            claims: document(claims)?,
            signed: signed.to_owned(),
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// A claim that is text; of a list the first.
    pub(crate) fn claim(&self, name: &str) -> &str {
        let value = &self.claims[name];
        value.as_str().or_else(|| value[0].as_str()).unwrap_or_default()
    }

    /// A claim that is a time in seconds since 1970.
    pub(crate) fn time(&self, name: &str) -> Option<OffsetDateTime> {
        OffsetDateTime::from_unix_timestamp(self.claims[name].as_i64()?).ok()
    }
}

/// A key that signs tokens, with the id under which it is published.
pub(crate) struct SigningKey {
    pair: RsaKeyPair,
    id: String,
}

impl SigningKey {
    /// Makes a new key.
    ///
    /// # Errors
    /// [`IdentityError::Key`].
    pub(crate) fn generate() -> Result<Self, IdentityError> {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| IdentityError::Key)?;
        let id = URL_SAFE_NO_PAD.encode(&Sha256::digest(pair.public_key().as_ref())[..20]);
        Ok(Self { pair, id })
    }

    /// Signs claims.
    pub(crate) fn sign(&self, claims: &Value) -> String {
        let header = json!({ "typ": "JWT", "alg": "RS256", "x5t": self.id, "kid": self.id });
        let part = |document: &Value| URL_SAFE_NO_PAD.encode(document.to_string());
        let signed = format!("{}.{}", part(&header), part(claims));
        let mut signature = vec![0; self.pair.public_modulus_len()];
        // It fails for a buffer of the wrong length only; then the token is refused like any with a wrong signature.
        let _ = self.pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature);
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether the token was signed with this key.
    pub(crate) fn signed(&self, token: &Jwt) -> bool {
        let key = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, self.pair.public_key().as_ref());
        token.header["alg"] == "RS256" && key.verify(token.signed.as_bytes(), &token.signature).is_ok()
    }

    /// The public key as a JSON Web Key.
    pub(crate) fn jwk(&self) -> Value {
        // RSAPublicKey in DER (RFC 8017, A.1.1): it ends with the modulus and the five bytes of the exponent 65537.
        let der = self.pair.public_key().as_ref();
        let end = der.len().saturating_sub(5);
        let modulus = der.get(end.saturating_sub(MODULUS_BYTES)..end).unwrap_or_default();
        json!({
            "kty": "RSA", "use": "sig", "kid": self.id, "x5t": self.id,
            "n": URL_SAFE_NO_PAD.encode(modulus), "e": URL_SAFE_NO_PAD.encode([1, 0, 1]),
        })
    }
}

/// The public key of somebody else who signs tokens.
pub(crate) struct VerifyingKey(RsaPublicKeyComponents<Vec<u8>>);

impl VerifyingKey {
    /// Reads a JSON Web Key, if it is one of RSA.
    pub(crate) fn from_jwk(jwk: &Value) -> Option<Self> {
        let part = |name: &str| URL_SAFE_NO_PAD.decode(jwk[name].as_str()?).ok();
        Some(Self(RsaPublicKeyComponents { n: part("n")?, e: part("e")? }))
    }

    /// Whether the token was signed with this key.
    pub(crate) fn signed(&self, token: &Jwt) -> bool {
        token.header["alg"] == "RS256"
            && self.0.verify(&RSA_PKCS1_2048_8192_SHA256, token.signed.as_bytes(), &token.signature).is_ok()
    }
}

/// An id with the form of a UUID that is always the same for the same text: object ids need not be written down.
pub(crate) fn uuid_of(text: &str) -> String {
    let hash = Sha256::digest(text);
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash[..16]);
    uuid::Builder::from_random_bytes(bytes).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_back_and_only_its_key_has_signed_it() {
        let (key, other) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
        let text = key.sign(&json!({ "aud": ["one", "two"], "exp": 5 }));
        let token = Jwt::parse(&text).unwrap();
        assert_eq!((token.claim("aud"), token.time("exp")), ("one", OffsetDateTime::from_unix_timestamp(5).ok()));
        assert!(key.signed(&token) && !other.signed(&token));
        let published = |key: &SigningKey| VerifyingKey::from_jwk(&key.jwk()).unwrap();
        assert!(published(&key).signed(&token) && !published(&other).signed(&token));
        assert!(Jwt::parse("a.b").is_none() && Jwt::parse("nonsense").is_none());
        assert_eq!(uuid_of("a"), uuid_of("a"));
    }
}
