//! Names: one path component of the kernel to and from one component of a blob's name.
//!
//! The kernel refuses empty components, `.`, `..`, `/` inside a component, and NUL; blob names know none of these
//! limits. A blob that cannot be shown is hidden with one counted, logged reason (DESIGN 10.6), never renamed. With
//! `escape_names` it is shown under a reversible escape instead:
//!
//! | blob | shown as |
//! |---|---|
//! | an empty component (`a//b`, the blob `d/`) | `%00` |
//! | `.` and `..` | `%2E`, `%2E%2E` |
//! | the blob `d` beside blobs `d/...` (the directory `d` is shown) | `d%FF` |
//! | a literal `%00`, `%25`, `%2E` or `%FF` in a name | its `%` becomes `%25` |

use std::{
    collections::HashSet,
    ffi::OsStr,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sync::Mutex;

use super::{Error, Result};

/// Longest component that we create, in bytes (NAME_MAX; `statfs` says the same). Longer ones of other clients are
/// shown up to [`SHOWN_BYTES_MAX`].
pub const NAME_BYTES_MAX: usize = 255;
/// Longest component that the kernel takes in a directory listing (`FUSE_NAME_MAX` of include/uapi/linux/fuse.h was
/// 1024 until Linux 6.13, which production kernels are below).
const SHOWN_BYTES_MAX: usize = 1024;
/// The folder of our own blobs at a volume's root: never shown, never created by a program.
pub const RESERVED: &str = ".azblob";

/// Hidden names are remembered so that each is logged once; past this many, only the counter moves.
const LOGGED_NAMES_MAX: usize = 1000;

/// Why a blob is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HiddenReason {
    /// An empty component: `a//b`, or `d/` without a directory mark.
    EmptyComponent,
    /// A component `.` or `..`.
    DotComponent,
    /// A component over 1024 bytes, or with a NUL.
    Unrepresentable,
    /// The blob `d` where blobs `d/...` make `d` a directory.
    Shadowed,
    /// The volume tells its figures under that name ([`super::Settings::figures`]).
    Figures,
}

impl HiddenReason {
    fn sentence(self) -> &'static str {
        match self {
            Self::EmptyComponent => "its name has an empty component, which a path cannot have",
            Self::DotComponent => "its name has a component '.' or '..', which a path resolves itself",
            Self::Unrepresentable => "a component of its name is longer than 1024 bytes or has a NUL",
            Self::Shadowed => "blobs below the same name make it a directory",
            Self::Figures => "the option stats_file puts the volume's figures under its name",
        }
    }

    fn remedy(self) -> &'static str {
        match self {
            Self::Figures => "mount without -o stats_file",
            _ => "mount with -o escape_names",
        }
    }
}

/// Names that are not shown: how many were met, and which were already logged.
#[derive(Debug, Default)]
pub struct Hidden {
    count: AtomicU64,
    logged: Mutex<HashSet<String>>,
}

impl Hidden {
    /// Counts `blob` once and logs it with its reason and the way to reach it.
    pub fn record(&self, blob: &str, reason: HiddenReason) {
        let mut logged = self.logged.lock();
        if logged.len() >= LOGGED_NAMES_MAX {
            self.count.fetch_add(1, Ordering::Relaxed);
        } else if logged.insert(blob.to_owned()) {
            self.count.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(blob, "hidden: {}; {} to reach it", reason.sentence(), reason.remedy());
        }
    }

    /// How many blobs were hidden so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

/// A component of a blob's name, from what a program asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Component {
    /// The component as the blob has it.
    pub text: String,
    /// Whether the blob of this name is meant even where a directory has the same name (`d%FF`).
    pub blob_only: bool,
}

/// How names are shown, by the mount's options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Naming {
    /// Whether unrepresentable names are shown under escapes.
    pub escape: bool,
}

impl Naming {
    /// The component that `name` stands for.
    ///
    /// # Errors
    /// ENOENT for bytes that are not UTF-8: no blob has such a name.
    pub fn component(self, name: &OsStr) -> Result<Component> {
        let Some(name) = name.to_str() else {
            return Err(Error::new(libc::ENOENT, "a name that is not UTF-8 cannot be a blob's"));
        };
        if !self.escape || !name.contains('%') {
            return Ok(Component { text: name.to_owned(), blob_only: false });
        }
        let (name, blob_only) = match name.strip_suffix("%FF") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        Ok(Component { text: unescape(name), blob_only })
    }

    /// The component that a program may create under `name`.
    ///
    /// # Errors
    /// ENAMETOOLONG over 255 bytes, EILSEQ where it is not UTF-8.
    pub fn new_component(self, name: &OsStr) -> Result<Component> {
        if name.len() > NAME_BYTES_MAX {
            return Err(Error::new(libc::ENAMETOOLONG, format!("a name has at most {NAME_BYTES_MAX} bytes")));
        }
        self.component(name).map_err(|error| error.with_errno(libc::EILSEQ))
    }

    /// What the kernel is shown for `component`, or why it is not shown.
    ///
    /// # Errors
    /// The reason to hide it.
    pub fn show(self, component: &str) -> Result<String, HiddenReason> {
        let problem = match component {
            "" => Some(HiddenReason::EmptyComponent),
            "." | ".." => Some(HiddenReason::DotComponent),
            long if long.len() > SHOWN_BYTES_MAX || long.contains('\0') => {
                return Err(HiddenReason::Unrepresentable);
            }
            _ => None,
        };
        match problem {
            Some(reason) if !self.escape => Err(reason),
            Some(HiddenReason::EmptyComponent) => Ok("%00".to_owned()),
            Some(_) => Ok("%2E".repeat(component.len())),
            None if self.escape => Ok(escape_literals(component)),
            None => Ok(component.to_owned()),
        }
    }

    /// What the kernel is shown for a blob whose name a directory has taken.
    ///
    /// # Errors
    /// [`HiddenReason::Shadowed`] without `escape_names`.
    pub fn show_shadowed(self, component: &str) -> Result<String, HiddenReason> {
        if self.escape { self.show(component).map(|shown| shown + "%FF") } else { Err(HiddenReason::Shadowed) }
    }
}

/// Codes that an escaped name may hold; a literal one is told apart by escaping its `%`.
const CODES: [&str; 4] = ["00", "25", "2E", "FF"];

fn escape_literals(component: &str) -> String {
    let mut shown = String::with_capacity(component.len());
    for (position, character) in component.char_indices() {
        shown.push(character);
        if character == '%' && CODES.iter().any(|code| component[position + 1..].starts_with(code)) {
            shown.push_str("25");
        }
    }
    shown
}

fn unescape(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    let mut rest = name;
    while let Some(position) = rest.find('%') {
        text.push_str(&rest[..position]);
        let (replacement, used) = match rest.get(position + 1..position + 3) {
            Some("00") => ("", 3),
            Some("25") => ("%", 3),
            Some("2E") => (".", 3),
            _ => ("%", 1),
        };
        text.push_str(replacement);
        rest = &rest[position + used..];
    }
    text.push_str(rest);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_names_are_never_changed() {
        let plain = Naming { escape: false };
        for name in ["ünï", "sp ace", "100%25", "..a", "a%FF", "%00"] {
            assert_eq!(plain.show(name).unwrap(), name);
            assert_eq!(plain.component(OsStr::new(name)).unwrap(), Component { text: name.into(), blob_only: false });
        }
    }

    #[test]
    fn escapes_are_reversible_for_every_component() {
        let escaping = Naming { escape: true };
        for component in ["", ".", "..", "100%25", "%00", "%2E", "a%FF", "%", "%%25", "%2500", "..a", "ünï", "a%2Fb"]
        {
            let shown = escaping.show(component).unwrap();
            assert!(!shown.is_empty() && shown != "." && shown != "..", "{component:?} is shown as {shown:?}");
            let back = escaping.component(OsStr::new(&shown)).unwrap();
            assert_eq!(back, Component { text: component.into(), blob_only: false }, "{component:?} via {shown:?}");
        }
        let shadowed = escaping.show_shadowed("d").unwrap();
        assert_eq!(escaping.component(OsStr::new(&shadowed)).unwrap(), Component { text: "d".into(), blob_only: true });
    }

    #[test]
    fn what_a_path_cannot_hold_is_hidden_with_its_reason() {
        let plain = Naming::default();
        assert_eq!(plain.show(""), Err(HiddenReason::EmptyComponent));
        assert_eq!(plain.show(".."), Err(HiddenReason::DotComponent));
        assert_eq!(plain.show(&"x".repeat(1025)), Err(HiddenReason::Unrepresentable));
        assert_eq!(plain.show_shadowed("d"), Err(HiddenReason::Shadowed));
    }

    #[test]
    fn a_hidden_name_is_counted_once() {
        let hidden = Hidden::default();
        hidden.record("a//b", HiddenReason::EmptyComponent);
        hidden.record("a//b", HiddenReason::EmptyComponent);
        hidden.record("c//d", HiddenReason::EmptyComponent);
        assert_eq!(hidden.count(), 2);
    }
}
