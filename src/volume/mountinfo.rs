//! Reads /proc/self/mountinfo: what is mounted where, without touching any mount.
//!
//! A stat(2) on a FUSE mount whose server is gone or busy fails or hangs (DESIGN 7), so every decision about paths is
//! taken from this table. Knows nothing of volumes. Format: proc_pid_mountinfo(5).

use std::{
    ffi::OsString,
    io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// The table of the mount namespace that this process is in.
const MOUNTINFO_PATH: &str = "/proc/self/mountinfo";

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// Number of the mount, unique while it lives.
    pub id: u64,
    /// Number of the mount that it lies on.
    pub parent: u64,
    /// `major:minor` of the superblock: two binds of one file system have the same.
    pub device: String,
    /// The directory of the file system that is mounted here (`/` unless it is a bind of a part).
    pub root: PathBuf,
    /// Where it is mounted.
    pub mount_point: PathBuf,
    /// Whether this mount is read-only (the superblock may be so too).
    pub read_only: bool,
    /// Type, with its subtype: `fuse.azblob-csi`.
    pub fs_type: String,
    /// What is mounted, as the file system calls it.
    pub source: String,
}

/// All mounts of this namespace, in the order in which they were made.
#[derive(Clone, Debug, Default)]
pub struct MountTable {
    mounts: Vec<Mount>,
}

impl MountTable {
    /// Reads the table as it is now.
    ///
    /// # Errors
    /// When /proc is not mounted, or the table is not in its documented format.
    pub fn read() -> io::Result<Self> {
        Self::parse(&std::fs::read(MOUNTINFO_PATH)?)
    }

    /// Parses the text of the table.
    ///
    /// # Errors
    /// `InvalidData` naming the line that is not in the documented format.
    pub fn parse(text: &[u8]) -> io::Result<Self> {
        let lines = text.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
        let mounts = lines
            .map(|line| {
                parse_line(line).ok_or_else(|| {
                    let line = String::from_utf8_lossy(line);
                    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected line in mountinfo: {line}"))
                })
            })
            .collect::<io::Result<_>>()?;
        Ok(Self { mounts })
    }

    /// The mount that a process sees at `path`: the last of those made exactly there.
    #[must_use]
    pub fn at(&self, path: &Path) -> Option<&Mount> {
        self.mounts.iter().rev().find(|mount| mount.mount_point == path)
    }

    /// All mounts of the superblock `device`.
    pub fn of_device<'a>(&'a self, device: &'a str) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| mount.device == device)
    }

    /// All mounts at `directory` or below it.
    pub fn below<'a>(&'a self, directory: &'a Path) -> impl Iterator<Item = &'a Mount> {
        self.mounts.iter().filter(move |mount| mount.mount_point.starts_with(directory))
    }
}

/// `36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue`; the fields before the lone `-`
/// vary in number.
fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&byte| byte == b' ');
    let id = number(fields.next()?)?;
    let parent = number(fields.next()?)?;
    let device = text(fields.next()?);
    let root = PathBuf::from(unescape(fields.next()?));
    let mount_point = PathBuf::from(unescape(fields.next()?));
    let read_only = fields.next()?.split(|&byte| byte == b',').any(|option| option == b"ro");
    fields.find(|field| *field == b"-")?;
    let fs_type = text(fields.next()?);
    let source = text(fields.next()?);
    Some(Mount { id, parent, device, root, mount_point, read_only, fs_type, source })
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

fn text(field: &[u8]) -> String {
    unescape(field).to_string_lossy().into_owned()
}

/// The kernel writes space, tab, newline, backslash and `#` as a backslash and three octal digits
/// (`mangle` in fs/proc_namespace.c). Anything else behind a backslash is kept as it is.
fn unescape(field: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        match (byte, octal(tail)) {
            (b'\\', Some(value)) => {
                plain.push(value);
                rest = tail.get(3..).unwrap_or_default();
            }
            _ => {
                plain.push(byte);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

/// The value of three octal digits at the start of `tail`.
fn octal(tail: &[u8]) -> Option<u8> {
    let digits = tail.get(..3)?;
    if !digits.iter().all(|digit| (b'0'..=b'7').contains(digit)) {
        return None;
    }
    u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok()
}

/// `path` as mountinfo spells it: absolute, with the symbolic links of its *parent* resolved. The last component is
/// never looked at: it may be a FUSE mount that does not answer.
///
/// # Errors
/// When a directory on the way cannot be read. A missing one is no error: nothing can be mounted there.
pub fn resolve(path: &Path) -> io::Result<PathBuf> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(path.to_path_buf());
    };
    let mut existing = parent;
    let mut missing = Vec::new();
    loop {
        match existing.canonicalize() {
            Ok(found) => {
                let mut resolved = found;
                resolved.extend(missing.iter().rev());
                resolved.push(name);
                return Ok(resolved);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (Some(up), Some(part)) = (existing.parent(), existing.file_name()) else {
                    return Ok(path.to_path_buf());
                };
                missing.push(part);
                existing = if up.as_os_str().as_bytes().is_empty() { Path::new(".") } else { up };
            }
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "\
22 27 0:20 / /sys rw,nosuid shared:7 - sysfs sysfs rw
27 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
90 27 0:51 / /var/lib/kubelet/plugins/x/globalmount rw,nosuid shared:1 master:2 propagate_from:2 - fuse.azblob-csi acme/logs rw,user_id=0
91 27 0:51 / /pods/a\\040b\\134c/mount ro,nosuid - fuse.azblob-csi acme/logs rw
92 27 0:52 / /pods/a\\040b\\134c/mount rw - tmpfs tmpfs rw
93 27 8:1 /srv/x /pods/plain rw - ext4 /dev/sda1 ro
";

    fn table() -> MountTable {
        MountTable::parse(TABLE.as_bytes()).unwrap()
    }

    #[test]
    fn optional_fields_are_skipped_whatever_their_number() {
        let staging = table().at(Path::new("/var/lib/kubelet/plugins/x/globalmount")).cloned().unwrap();
        assert_eq!((staging.id, staging.parent, staging.device.as_str()), (90, 27, "0:51"));
        assert_eq!((staging.fs_type.as_str(), staging.source.as_str()), ("fuse.azblob-csi", "acme/logs"));
        assert!(!staging.read_only);
    }

    #[test]
    fn octal_escapes_are_undone_and_the_topmost_mount_wins() {
        let top = table().at(Path::new("/pods/a b\\c/mount")).cloned().unwrap();
        assert_eq!(top.fs_type, "tmpfs");
        assert_eq!(table().below(Path::new("/pods/a b\\c")).count(), 2);
    }

    #[test]
    fn read_only_is_that_of_the_mount_not_of_the_superblock() {
        let table = table();
        assert!(table.of_device("0:51").any(|mount| mount.read_only));
        let bind = table.at(Path::new("/pods/plain")).unwrap();
        assert!(!bind.read_only);
        assert_eq!(bind.root, Path::new("/srv/x"));
    }

    #[test]
    fn nothing_is_mounted_at_a_parent_or_a_child_of_a_mount() {
        assert!(table().at(Path::new("/pods")).is_none());
        assert!(table().at(Path::new("/pods/plain/below")).is_none());
    }

    #[test]
    fn a_line_out_of_format_is_refused_with_the_line() {
        let error = MountTable::parse(b"22 27 0:20 / /sys rw,nosuid shared:7 sysfs sysfs rw\n").unwrap_err();
        assert!(error.to_string().contains("0:20 / /sys"), "{error}");
    }

    #[test]
    fn a_backslash_without_three_octal_digits_stays() {
        assert_eq!(unescape(b"a\\9b\\04"), OsString::from("a\\9b\\04"));
        assert_eq!(unescape(b"\\777"), OsString::from("\\777"));
    }

    #[test]
    fn the_table_of_this_process_can_be_read() {
        assert!(MountTable::read().unwrap().at(Path::new("/")).is_some());
    }

    #[test]
    fn links_in_the_parent_are_resolved_and_missing_parts_kept() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().canonicalize().unwrap();
        std::fs::create_dir(real.join("real")).unwrap();
        std::os::unix::fs::symlink(real.join("real"), real.join("link")).unwrap();
        assert_eq!(resolve(&real.join("link/mount")).unwrap(), real.join("real/mount"));
        assert_eq!(resolve(&real.join("link/no/such/mount")).unwrap(), real.join("real/no/such/mount"));
    }
}
