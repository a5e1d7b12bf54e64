//! What a kernel unpacks as its first file system: a cpio archive in the `newc` format, as the kernel's own
//! Documentation/driver-api/early-userspace/buffer-format.rst describes it. Written here, so that no root is needed for the
//! device in it. Not compressed: the machine would spend its time on that.

use std::{collections::BTreeSet, fs, path::Path};

use anyhow::{Context as _, Result, ensure};

const DIRECTORY: u32 = 0o040_755;
const CONSOLE: u32 = 0o020_600;
const PROGRAM: u32 = 0o100_755;
const TEXT: u32 = 0o100_644;

/// Major and minor number of /dev/console, without which process 1 has no output.
const CONSOLE_NUMBER: (u32, u32) = (5, 1);

/// Each header, name and file begins at a multiple of it.
const ALIGNMENT: usize = 4;

/// An archive that grows. Directories above a file come by themselves.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    directories: BTreeSet<String>,
    entries: u32,
}

impl Archive {
    /// Adds a copy of the file `source`, which may be run, as `path` (absolute).
    pub(crate) fn program(&mut self, path: &str, source: &Path) -> Result<()> {
        let bytes = fs::read(source).with_context(|| format!("cannot read {}", source.display()))?;
        self.file(path, PROGRAM, &bytes);
        Ok(())
    }

    /// Adds a file of this text as `path` (absolute).
    pub(crate) fn text(&mut self, path: &str, text: &str) {
        self.file(path, TEXT, text.as_bytes());
    }

    /// Ends it and writes it out.
    pub(crate) fn write_to(mut self, path: &Path) -> Result<()> {
        self.directory("/dev");
        self.entry("/dev/console", CONSOLE, CONSOLE_NUMBER, &[]);
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        ensure!(u32::try_from(self.bytes.len()).is_ok(), "the programs are larger than the machine's memory");
        fs::write(path, self.bytes).with_context(|| format!("cannot write {}", path.display()))
    }

    fn file(&mut self, path: &str, mode: u32, bytes: &[u8]) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entry(path, mode, (0, 0), bytes);
    }

    /// Adds a directory and those above it, unless they are there.
    fn directory(&mut self, path: &str) {
        if path.is_empty() || !self.directories.insert(path.to_owned()) {
            return;
        }
        if let Some((above, _)) = path.rsplit_once('/') {
            self.directory(above);
        }
        self.entry(path, DIRECTORY, (0, 0), &[]);
    }

    fn entry(&mut self, path: &str, mode: u32, (major, minor): (u32, u32), bytes: &[u8]) {
        let name = path.trim_start_matches('/');
        self.entries += 1;
        let (links, owner, time, device, check) = (1, 0, 0, 0, 0);
        let (length, name_length) = (bytes.len() as u32, name.len() as u32 + 1);
        self.bytes.extend_from_slice(b"070701");
        let number = self.entries;
        for field in [number, mode, owner, owner, links, time, length, device, device, major, minor, name_length, check]
        {
            self.bytes.extend_from_slice(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}
