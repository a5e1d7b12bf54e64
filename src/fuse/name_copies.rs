//! Copies of directories' names that the kernel keeps, to read a directory again without asking us (FOPEN_CACHE_DIR, Linux 4.20).
//!
//! The kernel gives its copy up when it changes the directory itself, and at an open without FOPEN_KEEP_CACHE. It knows neither
//! what others change nor how long names may be believed, and puts a copy together from what several readers were given
//! (fs/fuse/readdir.c). Hence:
//!
//! 1. A copy is kept at an open exactly while the names are those that it was read from ([`Stamp`]), and fresh.
//! 2. Handles that are open at once and read or fill the copy are all of one stamp; others are answered past it.
//! 3. A reader who begins again is not seen by us. So the copy is taken away when its time is over while somebody has it open, and
//!    when another view changes the directory (`notifier`).
//!
//! Knows nothing of what is in the directories.

use std::{collections::HashMap, fs};

use fuser::{FopenFlags, INodeNo};
use tokio::{runtime::Handle, task::AbortHandle};

use crate::{
    fs::{HandleId, InodeNumber, Stamp, View},
    sync::{Arc, Mutex},
};

/// Copies that nobody has open are remembered up to this number (about 100 bytes each): one that is forgotten is read again.
const COPIES_MAX: usize = 4096;

/// The copies of one session's kernel.
#[derive(Debug)]
pub(super) struct NameCopies {
    view: Arc<View>,
    runtime: Handle,
    is_enabled: bool,
    /// By inode number. Short sections, nothing awaits inside.
    copies: Mutex<HashMap<u64, NameCopy>>,
}

#[derive(Debug, Default)]
struct NameCopy {
    source: Source,
    /// Handles that read it and add to it.
    open: Vec<HandleId>,
    /// Takes it away from them when its time is over.
    end: Option<AbortHandle>,
}

/// What a copy was read from, or something that came after it.
#[derive(Clone, Copy, Debug, Default)]
enum Source {
    /// Nothing was read yet, or from different names at once.
    #[default]
    Unknown,
    Names(Stamp),
}

impl NameCopies {
    pub(super) fn new(view: Arc<View>, runtime: Handle, is_wanted: bool) -> Self {
        Self { view, runtime, is_enabled: is_wanted && kernel_gives_copies_up(), copies: Mutex::default() }
    }

    /// The flags of an open, after which the names are those of `stamp` (`None`: they will be asked for).
    pub(super) fn opened(self: &Arc<Self>, inode: INodeNo, handle: HandleId, stamp: Option<Stamp>) -> FopenFlags {
        if !self.is_enabled {
            return FopenFlags::empty();
        }
        let mut copies = self.copies.lock();
        if copies.len() >= COPIES_MAX {
            copies.retain(|_, copy| !copy.open.is_empty());
        }
        let copy = copies.entry(inode.0).or_default();
        let flags = match (copy.source, stamp) {
            (Source::Names(read), Some(now)) if read.is_of(&now) => {
                FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE
            }
            _ if copy.open.is_empty() => {
                copy.source = Source::Unknown;
                FopenFlags::FOPEN_CACHE_DIR
            }
            _ => return FopenFlags::empty(),
        };
        copy.open.push(handle);
        self.watch_end(inode, copy);
        flags
    }

    /// A handle is given the first names; what was there to be read when it began.
    pub(super) fn reads(self: &Arc<Self>, inode: INodeNo, handle: HandleId, stamp: Option<Stamp>) {
        let mut copies = self.copies.lock();
        let Some(copy) = copies.get_mut(&inode.0).filter(|copy| copy.open.contains(&handle)) else { return };
        let is_alone = copy.open.len() == 1;
        copy.source = match (copy.source, stamp) {
            (Source::Names(read), Some(now)) if read.is_of(&now) => return,
            (_, Some(now)) if is_alone => Source::Names(now),
            _ => Source::Unknown,
        };
        self.watch_end(inode, copy);
    }

    /// A handle was released.
    pub(super) fn closed(&self, inode: INodeNo, handle: HandleId) {
        let mut copies = self.copies.lock();
        let Some(copy) = copies.get_mut(&inode.0) else { return };
        copy.open.retain(|open| *open != handle);
        if !copy.open.is_empty() {
            return;
        }
        if let Some(end) = copy.end.take() {
            end.abort();
        }
        if matches!(copy.source, Source::Unknown) {
            copies.remove(&inode.0);
        }
    }

    /// Whether somebody may read a copy without asking us.
    pub(super) fn is_open(&self, inode: InodeNumber) -> bool {
        self.copies.lock().get(&inode.0).is_some_and(|copy| !copy.open.is_empty())
    }

    /// Has the copy taken away when what it was read from is not believed any more; at once if that is not known.
    fn watch_end(&self, inode: INodeNo, copy: &mut NameCopy) {
        let number = InodeNumber(inode.0);
        let fresh_until = match copy.source {
            Source::Names(stamp) => stamp.fresh_until,
            Source::Unknown if copy.open.len() > 1 => return self.view.forget_data(number),
            Source::Unknown => None,
        };
        if let Some(end) = copy.end.take() {
            end.abort();
        }
        let Some(end) = fresh_until else { return };
        let view = Arc::clone(&self.view);
        let forgetting = async move {
            tokio::time::sleep_until(end.into()).await;
            view.forget_data(number);
        };
        copy.end = Some(self.runtime.spawn(forgetting).abort_handle());
    }
}

/// Linux 6.9 to 6.13 keep a copy at every open, FOPEN_KEEP_CACHE or not (commit "fuse: respect FOPEN_KEEP_CACHE on opendir" of
/// 6.14; later patch levels of some of these have it as well). There names are always asked for.
fn kernel_gives_copies_up() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    gives_copies_up(&release)
}

fn gives_copies_up(release: &str) -> bool {
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit()).map_while(|number| number.parse().ok());
    let version: Option<(u32, u32)> = numbers.next().zip(numbers.next());
    version.is_some_and(|version| !((6, 9)..=(6, 13)).contains(&version))
}

#[cfg(test)]
mod tests {
    use super::gives_copies_up;

    #[test]
    fn kernels_that_keep_every_copy_get_none() {
        for release in ["6.9.0", "6.12.5-generic", "6.13.0-rc1", "", "unknown"] {
            assert!(!gives_copies_up(release), "{release:?}");
        }
        for release in ["5.15.0-1071-azure", "6.8.0", "6.14.0", "6.18.44-fc", "7.0"] {
            assert!(gives_copies_up(release), "{release:?}");
        }
    }
}
