//! Who we are: what a credential says about itself, and whether there is a token.

use std::time::{Duration, SystemTime};

use super::examine::Step;
use crate::{blob::Location, credential::Credential, finding::Finding};

/// Time for a token: a little more than the sources themselves take at most, so that their own words are heard.
const TOKEN_WITHIN: Duration = Duration::from_secs(35);

/// What is wrong with a credential as far as it shows by itself. `works`: the service took it, so our doubts are none.
pub(super) fn shape(credential: &Credential, works: bool) -> Step<String> {
    if let Credential::Sas(sas) = credential
        && !works
        && let Some(problem) = sas.problem(SystemTime::now())
    {
        return Step::Failed(problem);
    }
    Step::Done(match credential {
        Credential::SharedKey(key) => format!("account key of {}, {} bytes", key.account(), key.size_bytes()),
        Credential::Sas(sas) => format!("SAS: {}", sas.describe()),
        Credential::Token(token) => token.describe(),
        Credential::Anonymous => "none".to_owned(),
    })
}

/// Asks for a token, where one is to be shown. Answers with who signed in.
pub(super) async fn token(credential: &Credential, location: &Location) -> Step<String> {
    let Credential::Token(token) = credential else {
        return Step::Skipped(format!("signs with {}", credential.describe()));
    };
    if !location.is_https() {
        return Step::Failed(Finding::TokenOverHttp.with(&[("host", location.host())]));
    }
    match tokio::time::timeout(TOKEN_WITHIN, token.authorization()).await {
        Ok(Ok(_)) => Step::Done(token.describe()),
        Ok(Err(error)) => Step::Failed(error.diagnosis()),
        Err(_) => {
            let reason = format!("{} does not answer within {} seconds", token.describe(), TOKEN_WITHIN.as_secs());
            Step::Failed(Finding::TokenRefused.with(&[("reason", &reason)]))
        }
    }
}
