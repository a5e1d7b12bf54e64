//! Exact blob names. A name is never normalised: `a//b`, `d/`, `..`, `%41` are all different blobs.

use std::{borrow::Borrow, fmt, sync::Arc};

/// Longest name the service takes, in characters (REST: "Naming and referencing containers, blobs, and metadata").
pub const BLOB_NAME_CHARACTERS_MAX: usize = 1024;

/// A name that the Blob service cannot hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// Names have at least one character.
    #[error("a blob name cannot be empty")]
    Empty,
    /// Names have at most [`BLOB_NAME_CHARACTERS_MAX`] characters.
    #[error("a blob name has at most {BLOB_NAME_CHARACTERS_MAX} characters, this one has {0}")]
    TooLong(usize),
}

/// The exact name of a blob inside its container, 1 to 1024 characters. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BlobName(Arc<str>);

impl BlobName {
    /// Checks the length and takes the name as it is.
    ///
    /// # Errors
    /// [`InvalidName`] when it is empty or too long.
    pub fn new(name: impl Into<Arc<str>>) -> Result<Self, InvalidName> {
        let name = name.into();
        match name.chars().count() {
            0 => Err(InvalidName::Empty),
            count if count > BLOB_NAME_CHARACTERS_MAX => Err(InvalidName::TooLong(count)),
            _ => Ok(Self(name)),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for BlobName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BlobName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_kept_to_the_letter() {
        for name in ["a//b", "d/", "..", "%41", "ünï", " ", "tab\tname"] {
            assert_eq!(BlobName::new(name).unwrap().as_str(), name);
        }
    }

    #[test]
    fn length_is_counted_in_characters_not_bytes() {
        assert!(BlobName::new("ü".repeat(1024)).is_ok());
        assert_eq!(BlobName::new("ü".repeat(1025)), Err(InvalidName::TooLong(1025)));
        assert_eq!(BlobName::new(""), Err(InvalidName::Empty));
    }
}
