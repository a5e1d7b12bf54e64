//! What Entra ID's refusals mean: from AADSTS codes to findings, filled in with what the request said. Pure.

use serde::Deserialize;

use super::entra::{Application, Claims};
use crate::finding::{Diagnosis, Finding};

/// Longest text of the service that is passed on, in characters: its first sentences say what is wrong.
const SAID_CHARACTERS_MAX: usize = 300;

/// Audience of tokens that are made to be exchanged. Sovereign clouds have a suffix to it.
const EXCHANGE_AUDIENCE: &str = "api://AzureADTokenExchange";

/// The body of a refusal.
#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    error: String,
    #[serde(default)]
    error_description: String,
    #[serde(default)]
    error_codes: Vec<u32>,
}

/// Which finding a refusal is, with what the service said in front; what it said alone, for a code that is in no row.
/// `None` for text that is no refusal of Entra ID.
pub(super) fn read(
    text: &str,
    application: &Application,
    claims: Option<&Claims>,
) -> Option<Result<Diagnosis, String>> {
    let refusal: Refusal = serde_json::from_str(text).ok()?;
    let said = refusal.error_description.split(" Trace ID:").next().unwrap_or_default();
    let said = said.lines().next().unwrap_or_default().trim();
    let said = if said.is_empty() { refusal.error.as_str() } else { said };
    if said.is_empty() {
        return None;
    }
    let said: String = said.chars().take(SAID_CHARACTERS_MAX).collect();
    let code = refusal.error_codes.first().copied().or_else(|| code_in(&said));
    let said = said.trim_end_matches('.');
    Some(match code.and_then(|code| finding(code, application, claims)) {
        Some(known) => Ok(Diagnosis { cause: format!("{said}; {}", known.cause), ..known }),
        None => Err(said.to_owned()),
    })
}

/// The digits of `AADSTS7000215: ...`.
fn code_in(said: &str) -> Option<u32> {
    let digits: String = said.strip_prefix("AADSTS")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn finding(code: u32, application: &Application, claims: Option<&Claims>) -> Option<Diagnosis> {
    let finding = match code {
        700_016 | 7_000_229 => Finding::AadApplicationUnknown,
        7_000_215 => Finding::AadSecretWrong,
        7_000_222 => Finding::AadSecretExpired,
        90_002 | 900_023 | 50_034 => Finding::AadTenantUnknown,
        70_021 | 70_025 | 700_211 | 700_212 | 700_213 | 7_002_138 => {
            return Some(federation(code, &application.client_id, claims));
        }
        700_024 => Finding::FederatedTokenTime,
        700_027 => Finding::AadCertificateUnknown,
        500_011 => Finding::AadAudienceUnknown,
        53_003 | 530_003 => Finding::AadConditionalAccess,
        _ => return None,
    };
    Some(finding.with(&[
        ("client", &application.client_id),
        ("tenant", &application.tenant),
        ("authority", application.authority()),
    ]))
}

/// The federated credential that would fit, and which of its three parts does not.
fn federation(code: u32, client: &str, claims: Option<&Claims>) -> Diagnosis {
    let Some(claims) = claims else { return Finding::FederationMissing.with(&[]) };
    let audience = claims.audience();
    let usual = audience.starts_with(EXCHANGE_AUDIENCE);
    let differs = match code {
        _ if !usual => {
            " (the token's audience is none of token exchange: that of the projected volume or of tokenRequests has to be api://AzureADTokenExchange)"
        }
        700_211 => " (it is the issuer that is not known)",
        700_212 => " (it is the audience that is not known)",
        700_213 => " (it is the subject that is not known)",
        7_002_138 => " (the subject differs in upper and lower case)",
        _ => "",
    };
    Finding::FederationMismatch.with(&[
        ("client", client),
        ("issuer", &claims.iss),
        ("subject", &claims.sub),
        ("audience", &audience),
        ("wanted", if usual { &audience } else { EXCHANGE_AUDIENCE }),
        ("differs", differs),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::{IdentityHttp, Trust};

    fn say(description: &str, code: u32) -> String {
        let http = IdentityHttp::new(&Trust::default()).unwrap();
        let application = Application::new(http, "login.microsoftonline.com", "tenant-1", "client-1").unwrap();
        let claims =
            Claims { iss: "https://oidc/".into(), sub: "system:serviceaccount:a:b".into(), ..Claims::default() };
        let body =
            serde_json::json!({ "error": "invalid_client", "error_description": description, "error_codes": [code] });
        read(&body.to_string(), &application, Some(&claims))
            .unwrap()
            .map_or_else(|said| said, |known| known.to_string())
    }

    #[test]
    fn every_refusal_of_entra_that_a_user_meets_names_its_fix() {
        for (code, fix) in [
            (700_016, "client-1 in tenant tenant-1"),
            (7_000_215, "not its ID"),
            (7_000_222, "az ad app credential reset --id client-1"),
            (90_002, "no tenant tenant-1 at https://login.microsoftonline.com"),
            (70_021, "--subject system:serviceaccount:a:b"),
            (700_213, "--issuer https://oidc/"),
            (700_024, "clock"),
            (700_027, "certificate"),
        ] {
            let text = say(&format!("AADSTS{code}: What it says. Trace ID: 1 Correlation ID: 2"), code);
            assert!(text.contains(fix) && text.contains(&format!("AADSTS{code}")), "{text}");
            assert!(!text.contains("Trace ID"), "{text}");
        }
    }

    #[test]
    fn a_refusal_without_claims_names_no_token() {
        let http = IdentityHttp::new(&Trust::default()).unwrap();
        let application = Application::new(http, "https://a", "t", "c").unwrap();
        let body = r#"{"error":"invalid_client","error_description":"AADSTS70025: None.","error_codes":[70025]}"#;
        let known = read(body, &application, None).unwrap().unwrap();
        assert_eq!(known.finding, Finding::FederationMissing);
        assert!(known.cause.starts_with("AADSTS70025: None; "), "{known}");
    }

    #[test]
    fn an_unknown_refusal_is_passed_on_and_other_text_is_none() {
        assert_eq!(say("AADSTS1: Odd.", 1), "AADSTS1: Odd");
        let http = IdentityHttp::new(&Trust::default()).unwrap();
        let application = Application::new(http, "https://a", "t", "c").unwrap();
        assert!(read("<html>", &application, None).is_none());
        assert!(read("{}", &application, None).is_none());
    }
}
