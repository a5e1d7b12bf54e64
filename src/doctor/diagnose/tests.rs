//! Every answer of the service has its finding, and the credential tells what the answer leaves open.

use std::sync::Arc;

use async_trait::async_trait;

use super::*;
use crate::{
    blob::LocationHints,
    credential::{AccessToken, AccountKey, SasToken, TokenError, TokenErrorKind, TokenSource},
};

#[derive(Debug)]
struct Principal;

#[async_trait]
impl TokenSource for Principal {
    async fn fetch(&self, _: &str) -> Result<AccessToken, TokenError> {
        Err(TokenError::new(TokenErrorKind::Refused, self.describe(), "never asked"))
    }

    fn describe(&self) -> String {
        "managed identity (client id c-1)".to_owned()
    }
}

fn location() -> Location {
    Location::parse("https://acme.blob.core.windows.net/logs", &LocationHints::default()).unwrap().0
}

fn key(account: &str) -> Credential {
    Credential::SharedKey(AccountKey::parse("test", account, &format!("{}QQ==", "QUFB".repeat(21))).unwrap())
}

fn sas(text: &str) -> Credential {
    Credential::Sas(SasToken::parse("test", &format!("{text}&sig=x")).unwrap())
}

fn token() -> Credential {
    Credential::Token(TokenCredential::new(Arc::new(Principal), "https://storage.azure.com"))
}

fn error(kind: ErrorKind, status: u16, code: &str) -> blob::Error {
    blob::Error {
        kind,
        operation: "List Blobs",
        resource: "logs".to_owned(),
        host: "acme.blob.core.windows.net".to_owned(),
        status: Some(status),
        code: Some(code.to_owned()).filter(|code| !code.is_empty()),
        request_id: None,
        source: None,
    }
}

#[test]
fn every_answer_of_the_service_has_its_finding() {
    use ErrorKind as Kind;
    for (credential, kind, status, code, finding) in [
        (key("acme"), Kind::Denied, 403, "AuthenticationFailed", Finding::KeyRefused),
        (key("other"), Kind::Denied, 403, "AuthenticationFailed", Finding::KeyOfOtherAccount),
        (sas("sp=rl&sr=c"), Kind::Denied, 403, "AuthenticationFailed", Finding::SasRefused),
        (sas("sp=rl&se=2020-01-01"), Kind::Denied, 403, "AuthenticationFailed", Finding::SasExpired),
        (sas("sp=rl&sr=c"), Kind::Denied, 403, "AuthorizationPermissionMismatch", Finding::SasPermissions),
        (token(), Kind::Denied, 403, "AuthorizationPermissionMismatch", Finding::RoleMissing),
        (token(), Kind::Denied, 401, "InvalidAuthenticationInfo", Finding::TokenOtherTenant),
        (Credential::Anonymous, Kind::Denied, 401, "NoAuthenticationInformation", Finding::NotPublic),
        (Credential::Anonymous, Kind::Blocked, 409, "PublicAccessNotPermitted", Finding::NotPublic),
        (Credential::Anonymous, Kind::Denied, 403, "", Finding::NotPublic),
        (key("acme"), Kind::Denied, 403, "", Finding::Denied),
        (key("acme"), Kind::Denied, 403, "AuthorizationFailure", Finding::Firewall),
        (key("acme"), Kind::Denied, 403, "KeyBasedAuthenticationNotPermitted", Finding::SharedKeyDisabled),
        (key("acme"), Kind::Denied, 403, "AccountIsDisabled", Finding::AccountDisabled),
        (key("acme"), Kind::ContainerNotFound, 404, "ContainerNotFound", Finding::ContainerMissing),
        (key("acme"), Kind::ContainerNotFound, 409, "ContainerBeingDeleted", Finding::ContainerBeingDeleted),
        (key("acme"), Kind::Invalid, 400, "InvalidHeaderValue", Finding::ServiceTooOld),
        (key("acme"), Kind::Invalid, 400, "InvalidInput", Finding::RequestRefused),
        (key("acme"), Kind::Throttled, 503, "ServerBusy", Finding::Throttled),
        (key("acme"), Kind::Archived, 409, "BlobArchived", Finding::Archived),
        (key("acme"), Kind::Protected, 409, "BlobImmutableDueToPolicy", Finding::Blocked),
    ] {
        let found = diagnose(&error(kind, status, code), &location(), &credential);
        assert_eq!(found.finding, finding, "{status} {code}: {found}");
    }
}

#[test]
fn a_token_that_is_not_there_is_told_in_the_words_of_its_source() {
    let source = TokenError::new(TokenErrorKind::Refused, "a source", "it says no");
    let failed = blob::Error { status: None, source: Some(Box::new(source)), ..error(ErrorKind::Denied, 0, "") };
    let found = diagnose(&failed, &location(), &token());
    assert_eq!(found.finding, Finding::TokenRefused);
    assert!(found.cause == "no token from a source: it says no", "{found}");
}

#[test]
fn a_key_of_another_length_is_said_to_be_one() {
    let short = Credential::SharedKey(AccountKey::parse("test", "acme", "c2VjcmV0").unwrap());
    let refused = error(ErrorKind::Denied, 403, "AuthenticationFailed");
    let found = diagnose(&refused, &location(), &short);
    assert_eq!(found.finding, Finding::KeyLength);
    assert!(found.cause.contains("6 bytes"), "{found}");
}

#[test]
fn a_missing_role_names_the_identity_and_the_line_that_assigns_it() {
    let refused = error(ErrorKind::Denied, 403, "AuthorizationPermissionMismatch");
    let text = diagnose(&refused, &location(), &token()).to_string();
    for words in ["client id c-1", "--assignee c-1 ", "storageAccounts/acme/", "containers/logs", "List Blobs"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn the_id_of_an_identity_is_found_in_its_description() {
    for (description, id) in [
        ("service principal c1 of tenant t1 with its secret", Some("c1")),
        ("workload identity c2 of tenant t1 (token file /x)", Some("c2")),
        ("managed identity (object id o3)", Some("o3")),
        ("managed identity (system-assigned, or the only one)", None),
        ("Azure CLI", None),
    ] {
        assert_eq!(assignee(description), id, "{description}");
    }
}
