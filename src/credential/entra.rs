//! Microsoft Entra ID's token endpoint: the client credentials grant, with a secret or an assertion as proof. Sources that
//! end there (workload identity, service principal) share it. Keeps no token.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

use super::{AccessToken, Error, IdentityHttp, TokenError, TokenErrorKind, aadsts, token_answer};
use crate::finding::Diagnosis;

/// RFC 7523: what kind of assertion is shown.
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What proves that we are the application.
pub(super) enum Proof {
    Secret(SecretString),
    /// A signed JWT: by the application's certificate, or by a federated issuer.
    Assertion(SecretString),
}

/// An application in a tenant of an authority.
#[derive(Clone, Debug)]
pub(super) struct Application {
    http: IdentityHttp,
    /// `https://login.microsoftonline.com`, without a slash at the end.
    authority: String,
    pub(super) tenant: String,
    pub(super) client_id: String,
}

impl Application {
    /// # Errors
    /// [`Error::Authority`] for one that is no https URL, [`Error::Tenant`] for text that cannot be one.
    pub(super) fn new(http: IdentityHttp, authority: &str, tenant: &str, client_id: &str) -> Result<Self, Error> {
        let tenant = tenant.trim();
        let plain = tenant.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'));
        if tenant.is_empty() || !plain {
            return Err(Error::Tenant { tenant: tenant.to_owned() });
        }
        let authority = check_authority(authority)?;
        Ok(Self { http, authority, tenant: tenant.to_owned(), client_id: client_id.trim().to_owned() })
    }

    /// Where its tokens come from: also the audience of an assertion of its own.
    pub(super) fn endpoint(&self) -> String {
        format!("{}/{}/oauth2/v2.0/token", self.authority, self.tenant)
    }

    /// Asks for a token.
    pub(super) async fn token(&self, name: &str, proof: &Proof, audience: &str) -> Result<AccessToken, TokenError> {
        let scope = format!("{audience}/.default");
        let mut form = vec![("grant_type", "client_credentials"), ("client_id", &*self.client_id), ("scope", &*scope)];
        match proof {
            Proof::Secret(secret) => form.push(("client_secret", secret.expose_secret())),
            Proof::Assertion(assertion) => {
                form.push(("client_assertion_type", ASSERTION_TYPE));
                form.push(("client_assertion", assertion.expose_secret()));
            }
        }
        let answer = self.http.post_form(name, &self.endpoint(), &form).await?;
        if answer.status == 200 {
            return token_answer::parse(name, &answer.text);
        }
        let claims = match proof {
            Proof::Assertion(assertion) => Claims::read(assertion),
            Proof::Secret(_) => None,
        };
        let error = match aadsts::read(&answer.text, self, claims.as_ref()) {
            Some(Ok(known)) => TokenError::found(answer.kind(), name, known),
            Some(Err(said)) => TokenError::new(answer.kind(), name, said),
            None => {
                let reason = format!("{} answered HTTP {} without a reason", self.authority, answer.status);
                TokenError::new(answer.kind(), name, reason)
            }
        };
        Err(TokenError { retry_after: answer.retry_after(), ..error })
    }

    pub(super) fn authority(&self) -> &str {
        &self.authority
    }
}

/// An authority is a host that is sent secrets: https alone.
fn check_authority(text: &str) -> Result<String, Error> {
    let bad = || Error::Authority { authority: text.to_owned() };
    let written = text.trim();
    let written = if written.contains("://") { written.to_owned() } else { format!("https://{written}") };
    let url = Url::parse(&written).map_err(|_| bad())?;
    if url.scheme() != "https" || url.host().is_none() || !url.username().is_empty() || url.query().is_some() {
        return Err(bad());
    }
    Ok(written.trim_end_matches('/').to_owned())
}

/// What an assertion says about itself; not checked, for messages and for its end.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Claims {
    #[serde(default)]
    pub(super) iss: String,
    #[serde(default)]
    pub(super) sub: String,
    #[serde(default)]
    pub(super) aud: serde_json::Value,
    /// When it ends, in seconds since 1970.
    #[serde(default)]
    pub(super) exp: Option<i64>,
}

impl Claims {
    /// Reads the payload of a JWT; `None` for other text.
    pub(super) fn read(token: &SecretString) -> Option<Self> {
        let payload = token.expose_secret().split('.').nth(1)?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?).ok()
    }

    /// The audience, or the first of several.
    pub(super) fn audience(&self) -> String {
        let first = self.aud.as_array().and_then(|all| all.first()).unwrap_or(&self.aud);
        first.as_str().unwrap_or_default().to_owned()
    }
}

/// The kind of an error in the answer's own words.
pub(super) fn refused(name: &str, reason: impl Into<String>) -> TokenError {
    TokenError::new(TokenErrorKind::Refused, name, reason)
}

/// The same for a known reason.
pub(super) fn found(name: &str, known: Diagnosis) -> TokenError {
    TokenError::found(TokenErrorKind::Refused, name, known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_is_https_and_may_go_without_scheme_and_slash() {
        for (text, right) in [
            ("login.microsoftonline.us", Some("https://login.microsoftonline.us")),
            (" https://login.microsoftonline.com/ ", Some("https://login.microsoftonline.com")),
            ("http://login.microsoftonline.com", None),
            ("https://user@login.microsoftonline.com", None),
            ("https://", None),
        ] {
            assert_eq!(check_authority(text).ok().as_deref(), right, "{text}");
        }
    }

    #[test]
    fn the_claims_of_an_assertion_are_read_for_messages() {
        let payload = URL_SAFE_NO_PAD
            .encode(r#"{"iss":"https://oidc/","sub":"system:serviceaccount:a:b","aud":["x","y"],"exp":7}"#);
        let claims = Claims::read(&format!("e30.{payload}.sig").into()).unwrap();
        assert_eq!((claims.iss.as_str(), claims.audience().as_str(), claims.exp), ("https://oidc/", "x", Some(7)));
        assert!(Claims::read(&"no jwt".into()).is_none());
    }
}
