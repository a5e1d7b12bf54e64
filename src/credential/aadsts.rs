//! What Entra ID's refusals mean: one table from AADSTS codes to what to do, filled in with what the request said. Pure.

use serde::Deserialize;

use super::entra::{Application, Claims};

/// Longest text of the service that is passed on, in characters: its first sentences say what is wrong.
const SAID_CHARACTERS_MAX: usize = 300;

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

/// Says what the service said, and what to do; `None` for text that is no refusal of Entra ID.
pub(super) fn sentence(text: &str, application: &Application, claims: Option<&Claims>) -> Option<String> {
    let refusal: Refusal = serde_json::from_str(text).ok()?;
    let said = refusal.error_description.split(" Trace ID:").next().unwrap_or_default();
    let said = said.lines().next().unwrap_or_default().trim();
    let said = if said.is_empty() { refusal.error.as_str() } else { said };
    if said.is_empty() {
        return None;
    }
    let said: String = said.chars().take(SAID_CHARACTERS_MAX).collect();
    let code = refusal.error_codes.first().copied().or_else(|| code_in(&said));
    let fix = code.and_then(|code| fix(code, application, claims)).map(|fix| format!("; {fix}")).unwrap_or_default();
    Some(format!("{}{fix}", said.trim_end_matches('.')))
}

/// The digits of `AADSTS7000215: ...`.
fn code_in(said: &str) -> Option<u32> {
    let digits: String = said.strip_prefix("AADSTS")?.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

fn fix(code: u32, application: &Application, claims: Option<&Claims>) -> Option<String> {
    let (client, tenant) = (&application.client_id, &application.tenant);
    let text = match code {
        700_016 | 7_000_229 => format!(
            "there is no application {client} in tenant {tenant}: check client ID (the application's or identity's, not its object ID) and tenant ID"
        ),
        7_000_215 => "the client secret is wrong: use the secret's value, not its ID, and a current one".to_owned(),
        7_000_222 => format!("make a new one: az ad app credential reset --id {client} --append"),
        90_002 | 900_023 | 50_034 => format!(
            "there is no tenant {tenant} at {}: check the tenant ID, and that the cloud is the right one (AZURE_AUTHORITY_HOST)",
            application.authority()
        ),
        70_021 | 700_211 | 700_212 | 700_213 => return Some(federation(client, claims)),
        700_024 => "the token is outside of its time: check this machine's clock, and that the token file is renewed"
            .to_owned(),
        700_027 => format!(
            "the certificate is not registered, or its key does not fit: az ad app credential reset --id {client} --cert @certificate.pem --append"
        ),
        500_011 => {
            "this tenant does not know the storage audience: check the cloud, and token-audience where it is custom"
                .to_owned()
        }
        53_003 | 530_003 => {
            "a Conditional Access policy of the tenant forbids it: allow this workload identity there".to_owned()
        }
        _ => return None,
    };
    Some(text)
}

/// The federated credential that would fit.
fn federation(client: &str, claims: Option<&Claims>) -> String {
    let Some(claims) = claims else { return "no federated credential of the identity fits the token".to_owned() };
    let (issuer, subject, audience) = (&claims.iss, &claims.sub, claims.audience());
    format!(
        "no federated credential of identity {client} fits this token (issuer {issuer}, subject {subject}, audience {audience}): compare all three to the letter, or add one: \
         az identity federated-credential create --name NAME --identity-name IDENTITY --resource-group GROUP --issuer {issuer} --subject {subject} --audiences {audience}"
    )
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
        sentence(&body.to_string(), &application, Some(&claims)).unwrap()
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
    fn an_unknown_refusal_is_passed_on_and_other_text_is_none() {
        assert_eq!(say("AADSTS1: Odd.", 1), "AADSTS1: Odd");
        let http = IdentityHttp::new(&Trust::default()).unwrap();
        let application = Application::new(http, "https://a", "t", "c").unwrap();
        assert!(sentence("<html>", &application, None).is_none());
        assert!(sentence("{}", &application, None).is_none());
    }
}
