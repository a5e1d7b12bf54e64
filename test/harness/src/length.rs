//! How long tests may take: `make test` runs the short variant of each, `make test-long` the long one.

/// The environment variable that asks for the long variants, and the value that it then has.
const VARIABLE: &str = "AZBLOB_TEST";
const LONG: &str = "long";

/// How much work a suite does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As much as a person waits for.
    Short,
    /// As much as a machine does overnight.
    Long,
}

impl Length {
    /// The first for a short run, the second for a long one.
    #[must_use]
    pub fn of<T>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

/// What this run was asked for: `AZBLOB_TEST=long`, else short.
///
/// # Panics
/// Where the variable says anything else: a typing error must not pass for a long run.
#[must_use]
pub fn length() -> Length {
    match std::env::var(VARIABLE).as_deref() {
        Err(_) | Ok("") => Length::Short,
        Ok(LONG) => Length::Long,
        Ok(other) => panic!("{VARIABLE} is {other:?}; it may be {LONG:?} or unset"),
    }
}
