//! The kernel's side of a mounted session: found by its device number, tuned and aborted through /sys.
//!
//! Never looks into the mount itself: a stat(2) there would wait for us.

use std::{
    fs, io,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// How far the kernel reads ahead for one file: one full request. Its default of 128 KiB makes every read a request of
/// 128 KiB, four to six times slower in sequence (595 against 2300-3500 MiB/s, research 4). More gains nothing, since the
/// cache has its own window (1.6 GB/s with 1 to 2 MiB, 1.4 with 4, 1.2 with 8), and costs as much at every page fault of a
/// mapping (mm/filemap.c reads that much around it).
const READ_AHEAD_KIB: u32 = 1024;

/// Where one mount's kernel state is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    major: u32,
    minor: u32,
}

impl Connection {
    /// The connection mounted on `mount_point` (an absolute path without links), from /proc/self/mountinfo.
    pub(super) fn find(mount_point: &Path) -> io::Result<Option<Self>> {
        Ok(parse(&fs::read("/proc/self/mountinfo")?, mount_point))
    }

    /// Whether that is its number, as mountinfo writes it.
    pub(super) fn is_on(self, device: &str) -> bool {
        device == format!("{}:{}", self.major, self.minor)
    }

    /// Lets the kernel read ahead in full requests. Fails where /sys is read-only (a container that is not privileged).
    pub(super) fn tune(self) -> io::Result<()> {
        let path = format!("/sys/class/bdi/{}:{}/read_ahead_kb", self.major, self.minor);
        fs::write(path, READ_AHEAD_KIB.to_string())
    }

    /// Ends the connection: everybody who waits in the mount gets an error. The last resort.
    pub(super) fn abort(self) -> io::Result<()> {
        fs::write(format!("/sys/fs/fuse/connections/{}/abort", self.minor), "1")
    }
}

/// The last line wins: it is the mount on top.
fn parse(mountinfo: &[u8], mount_point: &Path) -> Option<Connection> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let mut found = lines.filter_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let device = std::str::from_utf8(fields.nth(2)?).ok()?;
        let path = unescape(fields.nth(1)?);
        if path != mount_point {
            return None;
        }
        let (major, minor) = device.split_once(':')?;
        Some(Connection { major: major.parse().ok()?, minor: minor.parse().ok()? })
    });
    found.next_back()
}

/// mountinfo writes space, tab, newline and backslash as three octal digits (fs/seq_file.c, mangle_path).
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, tail @ ..] = rest {
        rest = tail;
        let code = (*first == b'\\').then(|| tail.get(..3).and_then(octal)).flatten();
        match code {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => bytes.push(*first),
        }
    }
    PathBuf::from(std::ffi::OsString::from_vec(bytes))
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::ffi::OsStr::from_bytes(digits).to_str()?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_topmost_mount_of_a_path_with_spaces_is_found() {
        let text = b"22 1 0:21 / /proc rw - proc proc rw\n\
            90 22 0:50 / /mnt/a\\040b rw - fuse x rw\n\
            91 22 0:51 / /mnt/a\\040b rw - fuse y rw\n";
        assert_eq!(parse(text, Path::new("/mnt/a b")), Some(Connection { major: 0, minor: 51 }));
        assert_eq!(parse(text, Path::new("/mnt/a")), None);
    }
}
