//! The JSON that every token service answers with, and how long what it holds is good for. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use secrecy::SecretString;
use serde_json::Value;

use super::{
    AccessToken, TokenError,
    entra::{Claims, refused},
};

/// Life of a token whose answer does not tell: short, so that being wrong costs a request, not a refusal.
const LIFE_UNKNOWN: Duration = Duration::from_secs(300);

/// Reads a token out of an answer: `access_token` with `expires_in` (seconds) or `expires_on` (seconds since 1970), as
/// numbers or as text; the Azure CLI writes `accessToken`.
///
/// # Errors
/// `Refused` where there is no token.
pub(super) fn parse(name: &str, text: &str) -> Result<AccessToken, TokenError> {
    let answer: Value = serde_json::from_str(text).map_err(|_| refused(name, "its answer is no JSON"))?;
    let token = ["access_token", "accessToken"].iter().find_map(|key| answer.get(key)?.as_str());
    let Some(token) = token.filter(|token| !token.is_empty()) else {
        return Err(refused(name, "its answer has no access_token"));
    };
    let token = SecretString::from(token.to_owned());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let left = |end: u64| Some(end.saturating_sub(now)).filter(|left| *left > 0);
    let said = number(&answer, "expires_in");
    let until = number(&answer, "expires_on").and_then(left);
    // A token out of a cache (IMDS) has lived already: the shorter of the two is true, unless our clock is off.
    let life = match (said, until) {
        (Some(said), Some(until)) => Some(said.min(until)),
        (one, other) => one.or(other),
    };
    let life = life.or_else(|| Claims::read(&token)?.exp?.try_into().ok().and_then(left));
    Ok(AccessToken { text: token, life: life.map_or(LIFE_UNKNOWN, Duration::from_secs) })
}

/// A number, or one in quotes.
fn number(answer: &Value, key: &str) -> Option<u64> {
    let value = answer.get(key)?;
    value.as_u64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn life(text: &str) -> u64 {
        parse("test", text).unwrap().life.as_secs()
    }

    #[test]
    fn every_form_of_an_answer_is_understood() {
        assert_eq!(life(r#"{"token_type":"Bearer","expires_in":3599,"access_token":"a"}"#), 3599);
        assert_eq!(life(r#"{"expires_in":"86399","expires_on":"not a number","access_token":"a"}"#), 86399);
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 1000;
        let cached = life(&format!(r#"{{"expires_in":"86399","expires_on":"{end}","access_token":"a"}}"#));
        assert!((999..=1000).contains(&cached), "{cached}");
        let of_cli = life(&format!(r#"{{"accessToken":"a","expires_on":{end},"expiresOn":"2026-01-01 00:00:00"}}"#));
        assert!((999..=1000).contains(&of_cli), "{of_cli}");
        assert_eq!(life(r#"{"access_token":"opaque"}"#), LIFE_UNKNOWN.as_secs());
        assert_eq!(parse("test", r#"{"access_token":"a"}"#).unwrap().text.expose_secret(), "a");
    }

    #[test]
    fn an_answer_without_a_token_is_refused_without_being_shown() {
        for text in ["<html>hunter2</html>", r#"{"token":"hunter2"}"#, r#"{"access_token":""}"#] {
            let error = parse("test", text).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
