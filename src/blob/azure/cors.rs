//! Which pages of the web may ask the account: the CORS rules of Get Blob Service Properties.

use azure_core::http::Method;

use super::{AzureStore, call::ReplyBody, new_call};
use crate::blob::{ErrorKind, Result};

/// One rule, as the account has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CorsRule {
    /// Origins, or `*`.
    pub origins: Vec<String>,
    /// Methods.
    pub methods: Vec<String>,
}

impl CorsRule {
    /// Whether pages of `origin` may read by it.
    #[must_use]
    pub fn lets_read(&self, origin: &str) -> bool {
        let reads = self.methods.iter().any(|method| method.eq_ignore_ascii_case("GET"));
        reads && self.origins.iter().any(|allowed| allowed == "*" || allowed.eq_ignore_ascii_case(origin))
    }
}

pub(super) async fn rules(store: &AzureStore) -> Result<Vec<CorsRule>> {
    const OPERATION: &str = "Get Blob Service Properties";
    let location = &store.shared.location;
    let account = location.account().to_owned();
    let Some(url) = location.service_url() else {
        return Err(store.invalid(OPERATION, account, "the account has no URL"));
    };
    let call = new_call(OPERATION, Method::Get, account, url, false)
        .query("restype", "service")
        .query("comp", "properties")
        .buffered();
    let reply = store.engine().ask(&call, &store.limits).await?;
    match reply.body {
        ReplyBody::Whole(body) => Ok(read(&String::from_utf8_lossy(&body))),
        ReplyBody::Arriving(_) => Err(store.engine().bare(&call, ErrorKind::Corrupt)),
    }
}

/// The rules in the XML of the answer.
fn read(text: &str) -> Vec<CorsRule> {
    let list = |rule: &str, name: &str| -> Vec<String> {
        let inner = rule.split_once(&format!("<{name}>")).and_then(|(_, rest)| rest.split_once("</"));
        let inner = inner.map(|(inner, _)| inner).unwrap_or_default();
        inner.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect()
    };
    text.split("<CorsRule>")
        .skip(1)
        .map(|rule| CorsRule { origins: list(rule, "AllowedOrigins"), methods: list(rule, "AllowedMethods") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_lets_its_origins_read_if_it_names_get() {
        let rules = read(
            "<StorageServiceProperties><Cors><CorsRule><AllowedOrigins>https://a.example,https://b.example</AllowedOrigins>\
             <AllowedMethods>GET,HEAD</AllowedMethods></CorsRule><CorsRule><AllowedOrigins>*</AllowedOrigins>\
             <AllowedMethods>PUT</AllowedMethods></CorsRule></Cors></StorageServiceProperties>",
        );
        assert_eq!(rules.len(), 2);
        assert!(rules[0].lets_read("https://B.example") && !rules[0].lets_read("https://c.example"));
        assert!(!rules[1].lets_read("https://c.example"));
        assert!(read("<Cors />").is_empty());
    }
}
