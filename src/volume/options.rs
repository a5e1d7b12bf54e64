//! Mount options: what people write behind `-o`, in a StorageClass or in a PV, as one table and one parser.
//!
//! [`TABLE`] has a row for every option that we or blobfuse know: what it takes, what it does here, and if nothing, why.
//! Help, docs/CONFIGURATION.md and messages are printed from it. Options written for blobfuse never break a mount; one
//! that nobody knows does, since it is a typing error that would otherwise pass for a setting. Knows nothing of sessions,
//! requests or secrets.

mod document;
mod nearest;
mod table;
mod value;

use std::{collections::BTreeSet, time::Duration};

pub use document::{markdown, options_help};
pub use table::{Effect, Row, TABLE, Takes};
pub use value::{format_bytes, parse_bytes, parse_duration};

use crate::{
    blob::RequestLimits,
    credential::{AuthMode, Cloud, IdentityOptions},
    fs::{
        APPEND_AGE_DEFAULT, Consistency, Durability, METADATA_TTL_DEFAULT, Quota, SIBLING_AGE_DEFAULT, Settings,
        ViewSettings,
    },
    fuse::SessionOptions,
};

/// Permission bits where `allow_other` is given without any mode: blobfuse does the same, and pods that run under
/// another uid rely on it.
const MODE_FOR_ALL: u32 = 0o777;

/// What the options of one volume say. `None`: not said, the default of the table holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountOptions {
    /// No change is accepted (EROFS).
    pub read_only: bool,
    /// Users other than the one that mounted may look.
    pub allow_other: bool,
    /// Owner of blobs that do not name one.
    pub uid: Option<u32>,
    /// Group of blobs that do not name one.
    pub gid: Option<u32>,
    /// Permission bits taken away, where no mode is given.
    pub umask: Option<u32>,
    /// Permission bits of files that do not carry their own.
    pub file_mode: Option<u32>,
    /// Permission bits of directories that do not carry their own.
    pub dir_mode: Option<u32>,
    /// How old names and attributes may be.
    pub metadata_ttl: Option<Duration>,
    /// How old an answer fetched ahead may be that an open rests on.
    pub sibling_age: Option<Duration>,
    /// How old appended bytes get before they are saved.
    pub append_age: Option<Duration>,
    /// What close(2) waits for.
    pub durability: Option<Durability>,
    /// How old what was closed gets before the journal is forced to the disk.
    pub journal_age: Option<Duration>,
    /// Paths whose files are fetched into the cache after mounting.
    pub warm_up: Vec<String>,
    /// How long a read or an operation on names may take.
    pub io_deadline: Option<Duration>,
    /// How long a write, commit or copy may take.
    pub commit_deadline: Option<Duration>,
    /// What is promised about changes by others.
    pub consistency: Option<Consistency>,
    /// Shows names that POSIX cannot hold under escapes.
    pub escape_names: bool,
    /// Programs on the mount cannot be run.
    pub no_exec: bool,
    /// The kernel does not touch access times.
    pub no_atime: bool,
    /// Makes the container when it is missing.
    pub create_container: bool,
    /// Asks the service at every exclusive create.
    pub excl_strict: bool,
    /// What becomes of writes beyond the capacity.
    pub quota: Option<Quota>,
    /// A virtual file in the root tells the volume's figures.
    pub stats_file: bool,
    /// Divides the sizes of blocks.
    pub block_divisor: Option<u64>,
    /// Only names below this prefix of the container.
    pub prefix: Option<String>,
    /// The container, where nothing else names it.
    pub container: Option<String>,
    /// How to sign in, where that is not found by itself.
    pub auth: Option<AuthMode>,
    /// Which identity of Entra ID signs in.
    pub identity: IdentityOptions,
    /// The cloud, where neither endpoint nor environment tells.
    pub cloud: Option<Cloud>,
    /// Names of all options that were given, in their usual spelling.
    pub given: BTreeSet<&'static str>,
    /// Shortest of the libfuse timeouts given: stands in for `metadata_ttl` where that is not said.
    kernel_timeout: Option<Duration>,
}

/// An option that cannot be taken. The text names the option and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// Nobody knows it.
    #[error("unknown mount option \"{name}\"{}; docs/CONFIGURATION.md lists all", nearest_hint(.nearest))]
    Unknown {
        /// As written.
        name: String,
        /// The known one that looks most like it.
        nearest: Option<&'static str>,
    },
    /// The value makes no sense.
    #[error("mount option {name}={value}: expected {expected}")]
    BadValue {
        /// The option.
        name: &'static str,
        /// As written.
        value: String,
        /// What is right, with an example.
        expected: String,
    },
    /// It takes a value and has none.
    #[error("mount option {name} needs a value: {expected}")]
    MissingValue {
        /// The option.
        name: &'static str,
        /// What is right, with an example.
        expected: String,
    },
    /// Known, and refused because going on without its effect would be worse than failing.
    #[error("mount option {name} is not supported: {reason}")]
    Refused {
        /// The option.
        name: &'static str,
        /// Why, and what to do instead.
        reason: &'static str,
    },
}

fn nearest_hint(nearest: &Option<&'static str>) -> String {
    nearest.map_or_else(String::new, |name| format!(", did you mean \"{name}\"?"))
}

impl MountOptions {
    /// Reads options in every form that blobfuse's users write: `-o a`, `-o a,b=v`, `-oa`, `--x`, `--x=v`, `--x v`, and
    /// bare lists `a,b=v`. An item may hold several words. The last of two contradicting options wins. Beside the
    /// options come sentences about those that have no effect here, for the log.
    ///
    /// # Errors
    /// [`OptionError`], about the first bad option.
    pub fn parse<I>(items: I) -> Result<(Self, Vec<String>), OptionError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let mut options = Self::default();
        let mut warnings = Vec::new();
        let words: Vec<String> =
            items.into_iter().flat_map(|item| split_words(item.as_ref())).filter(|word| !word.is_empty()).collect();
        let mut words = words.iter().map(String::as_str).peekable();
        while let Some(word) = words.next() {
            if let Some(long) = word.strip_prefix("--") {
                options.take_long(long, &mut words, &mut warnings)?;
            } else if let Some(list) = word.strip_prefix("-o") {
                let list = if list.is_empty() { words.next().unwrap_or_default() } else { list };
                options.take_list(list, &mut warnings)?;
            } else {
                options.take_list(word, &mut warnings)?;
            }
        }
        options.metadata_ttl = options.metadata_ttl.or(options.kernel_timeout);
        Ok((options, warnings))
    }

    /// How the volume behaves under these options.
    #[must_use]
    pub fn settings(&self) -> Settings {
        Settings {
            prefix: self.prefix.clone().unwrap_or_default(),
            consistency: self.consistency.unwrap_or_default(),
            metadata_ttl: self.metadata_ttl.unwrap_or(METADATA_TTL_DEFAULT),
            sibling_age: self.sibling_age.unwrap_or(SIBLING_AGE_DEFAULT),
            append_age: self.append_age.unwrap_or(APPEND_AGE_DEFAULT),
            durability: self.durability.unwrap_or_default(),
            journal_age: self.journal_age.unwrap_or_default(),
            warm_up: self.warm_up.clone(),
            escape_names: self.escape_names,
            read_only: self.read_only,
            excl_strict: self.excl_strict,
            block_divisor: self.block_divisor.unwrap_or(1),
            quota: self.quota.unwrap_or_default(),
            figures: self.stats_file,
            limits: self.request_limits(),
            ..Settings::default()
        }
    }

    /// How long requests may take under these options.
    fn request_limits(&self) -> RequestLimits {
        let standard = RequestLimits::STANDARD;
        RequestLimits {
            names: self.io_deadline.unwrap_or(standard.names),
            commits: self.commit_deadline.unwrap_or(standard.commits),
            ..standard
        }
    }

    /// How one view shows the volume under these options.
    #[must_use]
    pub fn view_settings(&self) -> ViewSettings {
        let default = ViewSettings::default();
        let for_all = match self.umask {
            Some(umask) => Some(0o777 & !umask),
            None => self.allow_other.then_some(MODE_FOR_ALL),
        };
        ViewSettings {
            uid: self.uid.unwrap_or(default.uid),
            gid: self.gid.unwrap_or(default.gid),
            file_mode: self.file_mode.or(for_all).unwrap_or(default.file_mode),
            dir_mode: self.dir_mode.or(for_all).unwrap_or(default.dir_mode),
            read_only: self.read_only,
            ..default
        }
    }

    /// How the mount itself is made under these options. `source` is what mount(8) shows.
    #[must_use]
    pub fn session_options(&self, source: String) -> SessionOptions {
        SessionOptions {
            source,
            allow_other: self.allow_other,
            read_only: self.read_only || self.consistency == Some(Consistency::Immutable),
            no_exec: self.no_exec,
            no_atime: self.no_atime,
            ..SessionOptions::default()
        }
    }

    /// `--name`, `--name=value` or `--name value`.
    fn take_long<'a>(
        &mut self,
        long: &str,
        words: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>,
        warnings: &mut Vec<String>,
    ) -> Result<(), OptionError> {
        if let Some((name, value)) = long.split_once('=') {
            return self.take(name, Some(value), warnings);
        }
        let takes_value = find(long).is_some_and(|row| row.takes != Takes::Flag);
        let value = if takes_value { words.next_if(|word| !word.starts_with('-')) } else { None };
        self.take(long, value, warnings)
    }

    /// `a,b=v,c`.
    fn take_list(&mut self, list: &str, warnings: &mut Vec<String>) -> Result<(), OptionError> {
        for part in list.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some((name, value)) => self.take(name, Some(value), warnings)?,
                None => self.take(part, None, warnings)?,
            }
        }
        Ok(())
    }

    fn take(&mut self, name: &str, value: Option<&str>, warnings: &mut Vec<String>) -> Result<(), OptionError> {
        let name = name.trim();
        let Some(row) = find(name) else {
            return Err(OptionError::Unknown { name: name.to_owned(), nearest: nearest::nearest(name) });
        };
        self.given.insert(row.name);
        let value = value.map(|value| value.trim().trim_matches(['"', '\'']));
        match row.effect {
            Effect::Sets(set) => {
                let value = row.value_or_flag(value)?;
                set(self, &value).map_err(|expected| OptionError::BadValue { name: row.name, value, expected })
            }
            Effect::None(reason) => {
                warnings.push(format!("mount option {} has no effect: {reason}", row.name));
                Ok(())
            }
            // `--cpk-enabled=false` asks for what is the case anyway.
            Effect::Refused(_) if row.takes == Takes::Flag && value == Some("false") => Ok(()),
            Effect::Refused(reason) => Err(OptionError::Refused { name: row.name, reason }),
        }
    }
}

impl Row {
    /// The value as the setter wants it: a flag's is `true` unless it says otherwise.
    fn value_or_flag(&self, value: Option<&str>) -> Result<String, OptionError> {
        match (self.takes, value) {
            (Takes::Flag, None) => Ok("true".to_owned()),
            (_, Some(value)) if !value.is_empty() => Ok(value.to_owned()),
            (takes, _) => Err(OptionError::MissingValue { name: self.name, expected: takes.expected().to_owned() }),
        }
    }
}

/// The row of a name, in any of its spellings: `_` and `-` are one, case does not matter.
fn find(name: &str) -> Option<&'static Row> {
    let wanted = normal(name);
    TABLE.iter().find(|row| normal(row.name) == wanted || row.also.iter().any(|also| normal(also) == wanted))
}

fn normal(name: &str) -> String {
    name.trim_start_matches('-').to_ascii_lowercase().replace('_', "-")
}

/// Words of an item, as the shell of upstream's proxy would split them.
fn split_words(item: &str) -> Vec<String> {
    item.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
