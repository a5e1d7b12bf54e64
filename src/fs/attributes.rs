//! POSIX attributes in blob metadata, under the names and formats of AzCopy's `--preserve-posix-properties`.
//!
//! `permissions` is the decimal of the whole `st_mode` (a value with a leading 0, or one next to `owner`/`group`, is
//! octal); `posix_owner` and `posix_group` are decimal ids; `modtime`, `posix_atime`, `posix_ctime` are nanoseconds
//! since the epoch. What a blob does not say is `None` here; the view that shows it fills the gap. Unknown names are
//! not ours: [`Attributes::write_to`] leaves them as they are.

use std::time::{Duration, SystemTime};

use crate::blob::{DIRECTORY_MARK, Metadata};

/// Marks a blob whose body is the target of a symbolic link.
pub const SYMLINK_MARK: &str = "is_symlink";
const FIFO_MARK: &str = "is_fifo";
const SOCKET_MARK: &str = "is_socket";
const PERMISSIONS: &str = "permissions";
const OWNER: &str = "posix_owner";
const GROUP: &str = "posix_group";
const MODIFIED: &str = "modtime";
const ACCESSED: &str = "posix_atime";
const CHANGED: &str = "posix_ctime";
/// The names above: what most blobs that were written here have, and listings keep in a byte.
pub const METADATA_NAMES: [&str; 10] =
    [DIRECTORY_MARK, SYMLINK_MARK, FIFO_MARK, SOCKET_MARK, PERMISSIONS, OWNER, GROUP, MODIFIED, ACCESSED, CHANGED];
/// Names beside those above that other tools use for what is no extended attribute: AzCopy's other POSIX properties
/// (common/unixStatAdapter.go), and `owner` and `group`, which blobfuse2 and hierarchical accounts write.
const FOREIGN: [&str; 5] = ["owner", "group", "is_block_dev", "is_character_dev", "is_directory"];
/// AzCopy's other names begin so (`posix_nlink`, `posix_rdev`, `linux_btime`, `linux_attribute`, ...).
const FOREIGN_HEADS: [&str; 2] = ["posix_", "linux_"];

/// Whether a metadata name is used by this file system, or by other tools for attributes of the same sort.
#[must_use]
pub fn is_reserved(name: &str) -> bool {
    let ours = [DIRECTORY_MARK, SYMLINK_MARK, FIFO_MARK, SOCKET_MARK, PERMISSIONS, MODIFIED];
    ours.contains(&name) || FOREIGN.contains(&name) || FOREIGN_HEADS.iter().any(|head| name.starts_with(head))
}

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A regular file: a blob.
    File,
    /// A directory: a marker blob, a prefix, or both.
    Directory,
    /// A symbolic link: a small blob with a mark.
    Symlink,
    /// A named pipe: an empty blob with a mark; the kernel does the rest.
    Fifo,
    /// A socket's name: an empty blob with a mark.
    Socket,
}

impl Kind {
    /// The `S_IFMT` bits.
    #[must_use]
    pub fn mode_bits(self) -> u32 {
        match self {
            Self::File => libc::S_IFREG,
            Self::Directory => libc::S_IFDIR,
            Self::Symlink => libc::S_IFLNK,
            Self::Fifo => libc::S_IFIFO,
            Self::Socket => libc::S_IFSOCK,
        }
    }

    /// What the metadata of a blob says that it is.
    #[must_use]
    pub fn of(metadata: &Metadata) -> Self {
        let marked = |name| metadata.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if marked(DIRECTORY_MARK) {
            Self::Directory
        } else if marked(SYMLINK_MARK) {
            Self::Symlink
        } else if marked(FIFO_MARK) {
            Self::Fifo
        } else if marked(SOCKET_MARK) {
            Self::Socket
        } else {
            Self::File
        }
    }

    fn mark(self) -> Option<&'static str> {
        match self {
            Self::File => None,
            Self::Directory => Some(DIRECTORY_MARK),
            Self::Symlink => Some(SYMLINK_MARK),
            Self::Fifo => Some(FIFO_MARK),
            Self::Socket => Some(SOCKET_MARK),
        }
    }
}

/// The attributes that a blob carries itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits with setuid, setgid and sticky (0o7777).
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Last change of the data.
    pub mtime: Option<SystemTime>,
    /// Last access that somebody chose to keep (utimensat); reads do not write it.
    pub atime: Option<SystemTime>,
    /// Last change of data or attributes.
    pub ctime: Option<SystemTime>,
}

impl Attributes {
    /// Reads what `metadata` says. A value that does not parse counts as not said: a stranger's metadata must never
    /// make a file unreachable.
    #[must_use]
    pub fn read_from(metadata: &Metadata) -> Self {
        let id = |name| metadata.get(name).and_then(|value| value.trim().parse().ok());
        let time = |name| metadata.get(name).and_then(|value| parse_nanoseconds(value));
        Self {
            mode: metadata.get(PERMISSIONS).and_then(|value| parse_permissions(value, metadata)),
            uid: id(OWNER),
            gid: id(GROUP),
            mtime: time(MODIFIED),
            atime: time(ACCESSED),
            ctime: time(CHANGED),
        }
    }

    /// Those that take the most room in metadata.
    #[must_use]
    pub fn longest() -> Self {
        // The last nanosecond that fits in 64 bits of seconds would be longer, but no kernel has it: year 9999.
        let time = SystemTime::UNIX_EPOCH.checked_sub(Duration::new(253_402_300_799, 999_999_999));
        Self { mode: Some(0o7777), uid: Some(u32::MAX), gid: Some(u32::MAX), mtime: time, atime: time, ctime: time }
    }

    /// Takes setuid away, and setgid where the group may execute, as a change by somebody without the right to keep
    /// them does (setattr_should_drop_suidgid in fs/attr.c of the kernel). `false` when there was none.
    pub fn drop_set_ids(&mut self) -> bool {
        let Some(mode) = self.mode else { return false };
        let executable = mode & libc::S_IXGRP != 0;
        let kept = mode & !(libc::S_ISUID | if executable { libc::S_ISGID } else { 0 });
        self.mode = Some(kept);
        kept != mode
    }

    /// Writes them into `metadata`, with the mark of `kind`; names that are not ours stay.
    pub fn write_to(&self, kind: Kind, metadata: &mut Metadata) {
        let mut set = |name: &str, value: Option<String>| match value {
            Some(value) => drop(metadata.insert(name.to_owned(), value)),
            None => drop(metadata.remove(name)),
        };
        set(PERMISSIONS, self.mode.map(|mode| (kind.mode_bits() | mode & 0o7777).to_string()));
        set(OWNER, self.uid.map(|uid| uid.to_string()));
        set(GROUP, self.gid.map(|gid| gid.to_string()));
        set(MODIFIED, self.mtime.map(format_nanoseconds));
        set(ACCESSED, self.atime.map(format_nanoseconds));
        set(CHANGED, self.ctime.map(format_nanoseconds));
        if let Some(mark) = kind.mark() {
            metadata.insert(mark.to_owned(), "true".to_owned());
        }
    }
}

/// `permissions` as AzCopy writes it (decimal `st_mode`) or as other tools do (octal).
fn parse_permissions(value: &str, metadata: &Metadata) -> Option<u32> {
    let value = value.trim();
    let octal = value.starts_with('0') || metadata.contains_key("owner") || metadata.contains_key("group");
    u32::from_str_radix(value, if octal { 8 } else { 10 }).ok().map(|mode| mode & 0o7777)
}

fn parse_nanoseconds(value: &str) -> Option<SystemTime> {
    let nanoseconds: i128 = value.trim().parse().ok()?;
    let distance = |magnitude: u128| {
        let seconds = u64::try_from(magnitude / 1_000_000_000).ok()?;
        let rest = u32::try_from(magnitude % 1_000_000_000).ok()?;
        Some(Duration::new(seconds, rest))
    };
    if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance(nanoseconds.unsigned_abs())?)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance(nanoseconds.unsigned_abs())?)
    }
}

fn format_nanoseconds(time: SystemTime) -> String {
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => after.as_nanos().to_string(),
        Err(before) => format!("-{}", before.duration().as_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, &str)]) -> Metadata {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn azcopys_decimal_mode_and_other_tools_octal_mode_are_told_apart() {
        let mode = |pairs: &[(&str, &str)]| Attributes::read_from(&metadata(pairs)).mode;
        assert_eq!(mode(&[("permissions", "33188")]), Some(0o644));
        assert_eq!(mode(&[("permissions", "0755")]), Some(0o755));
        assert_eq!(mode(&[("permissions", "640"), ("owner", "root")]), Some(0o640));
        assert_eq!(mode(&[("permissions", "rw-r--r--")]), None);
    }

    #[test]
    fn attributes_survive_the_round_trip_and_strangers_metadata_stays() {
        let attributes = Attributes {
            mode: Some(0o4750),
            uid: Some(1000),
            gid: Some(u32::MAX - 1),
            mtime: Some(SystemTime::UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)),
            atime: SystemTime::UNIX_EPOCH.checked_sub(Duration::new(5, 1)),
            ctime: None,
        };
        let mut kept = metadata(&[("mine", "1"), ("posix_ctime", "7")]);
        attributes.write_to(Kind::Symlink, &mut kept);
        assert_eq!(Attributes::read_from(&kept), attributes);
        assert_eq!(Kind::of(&kept), Kind::Symlink);
        assert_eq!(kept.get("mine").map(String::as_str), Some("1"));
    }
}
