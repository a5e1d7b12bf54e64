//! Short service SAS for one blob, signed with the account key: how a copy inside the service proves that it may read
//! its source ("Put Block From URL" refuses SharedKey alone, DESIGN 10.9). Never leaves the process but in that request.

use std::time::{Duration, SystemTime};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use time::{OffsetDateTime, macros::format_description};

use super::{AccountKey, Error, SasToken};

/// Version of the signing rules. Its string to sign has 16 lines and is the same for every later version of a
/// service SAS on a blob.
const SIGNED_VERSION: &str = "2020-12-06";

/// `sp` of a SAS that may read and nothing else.
pub const READ_PERMISSION: &str = "r";

/// Makes a SAS for `blob` (its decoded name) in `container`, good for `lifetime` from now. There is no start time: a
/// clock that is ahead of the service's would make the token invalid for as long.
///
/// # Errors
/// Cannot fail for a well-formed key; [`Error`] comes from [`SasToken::parse`], which checks the result.
pub fn blob_sas(
    key: &AccountKey,
    container: &str,
    blob: &str,
    permissions: &str,
    lifetime: Duration,
) -> Result<SasToken, Error> {
    let expiry = format_time(SystemTime::now() + lifetime);
    let signature = key.sign(&string_to_sign(key.account(), container, blob, permissions, &expiry));
    let encoded = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
    let expiry = utf8_percent_encode(&expiry, NON_ALPHANUMERIC);
    SasToken::parse("service SAS", &format!("sv={SIGNED_VERSION}&sr=b&sp={permissions}&se={expiry}&sig={encoded}"))
}

/// "Create a service SAS", version 2020-12-06 and later.
fn string_to_sign(account: &str, container: &str, blob: &str, permissions: &str, expiry: &str) -> String {
    let resource = format!("/blob/{account}/{container}/{blob}");
    // After the version: resource type, snapshot time, encryption scope, and the five response headers (none).
    let before = [permissions, "", expiry, &resource, "", "", "", SIGNED_VERSION, "b"];
    let none = [""; 7];
    before.iter().chain(&none).copied().collect::<Vec<_>>().join("\n")
}

fn format_time(time: SystemTime) -> String {
    let format = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");
    // The format has only numeric components, so formatting cannot fail; the epoch would merely be refused.
    OffsetDateTime::from(time).format(format).unwrap_or_else(|_| "1970-01-01T00:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_string_to_sign_has_the_sixteen_lines_of_its_version() {
        let text = string_to_sign("acct", "c", "dir/ünï", "r", "2027-01-01T00:00:00Z");
        let lines: Vec<&str> = text.split('\n').collect();
        assert_eq!(lines.len(), 16);
        assert_eq!(&lines[..4], ["r", "", "2027-01-01T00:00:00Z", "/blob/acct/c/dir/ünï"]);
        assert_eq!(&lines[7..9], [SIGNED_VERSION, "b"]);
    }

    #[test]
    fn the_token_says_what_it_allows_and_for_how_long() {
        let key = AccountKey::parse("test", "acct", "c2VjcmV0").unwrap();
        let token = blob_sas(&key, "c", "b", READ_PERMISSION, Duration::from_secs(600)).unwrap();
        assert_eq!(token.permissions(), Some("r"));
        let left = token.expires().unwrap().duration_since(SystemTime::now()).unwrap();
        assert!((598..=600).contains(&left.as_secs()), "{left:?}");
    }
}
