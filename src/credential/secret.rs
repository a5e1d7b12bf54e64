//! Secrets as people paste them: with a newline at the end. Trimming happens here, once, with one warning.

use secrecy::SecretString;

use super::Error;

/// Takes a secret without the whitespace around it. Logs one warning that names the secret where there was some:
/// `echo key | base64` and editors add a newline, and a signature made with it is refused without a useful reason.
///
/// # Errors
/// [`Error::Empty`] when nothing is left.
pub fn trimmed(source_name: &str, text: &str) -> Result<SecretString, Error> {
    let secret = text.trim();
    if secret.is_empty() {
        return Err(Error::Empty { source_name: source_name.to_owned() });
    }
    if secret.len() != text.len() {
        tracing::warn!(secret = source_name, "{source_name} has whitespace or a newline around it, which is ignored");
    }
    Ok(SecretString::from(secret.to_owned()))
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    #[test]
    fn whitespace_around_a_secret_is_ignored() {
        assert_eq!(trimmed("key", " abc=\r\n").unwrap().expose_secret(), "abc=");
        assert_eq!(trimmed("key", "a b").unwrap().expose_secret(), "a b");
    }

    #[test]
    fn a_secret_of_whitespace_is_empty() {
        assert_eq!(trimmed("key", " \n").unwrap_err(), Error::Empty { source_name: "key".into() });
    }
}
