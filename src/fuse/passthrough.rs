//! Files that the kernel reads from the node's disk without us (FUSE_PASSTHROUGH, Linux 6.9 and later).
//!
//! All handles of an inode are read that way, or none: the kernel refuses an open of the other kind with EIO
//! (fuse_inode_uncached_io_start and fuse_file_cached_io_open in fs/fuse/iomode.c), and one whose backing file is another.
//! So the first open decides, and those beside it follow. We count a handle until its RELEASE, which the kernel sends after
//! it has let go: where we see none, there is none. Knows nothing of what is in the files.

use std::{collections::HashMap, fs::File};

use fuser::{BackingId, FileHandle, FopenFlags, INodeNo, InitFlags, KernelConfig, ReplyOpen};

use crate::sync::{Arc, AtomicBool, AtomicU64, Mutex, Ordering};

/// File systems that may be stacked below: the copy lies on an ordinary one. More would forbid overlays above us.
const STACK_DEPTH: u32 = 1;

/// How one session's files are opened.
#[derive(Debug, Default)]
pub(super) struct Passthrough {
    enabled: AtomicBool,
    /// Inodes with open handles. Short sections; one ioctl(2) at most, which waits for nobody.
    opened: Mutex<HashMap<u64, Opened>>,
    handed_over: AtomicU64,
}

/// The open handles of one inode.
#[derive(Debug)]
struct Opened {
    handles: u32,
    /// What the kernel reads instead of asking us.
    backing: Option<Arc<BackingId>>,
}

impl Passthrough {
    /// Asks the kernel for it in INIT.
    pub(super) fn negotiate(&self, config: &mut KernelConfig) {
        let offered = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH).is_ok();
        let enabled = offered && config.set_max_stack_depth(STACK_DEPTH).is_ok();
        self.enabled.store(enabled, Ordering::Relaxed);
    }

    /// Whether the kernel can do it, and we want it.
    pub(super) fn is_enabled(&self) -> bool {
        self.enabled.load(Ordering::Relaxed)
    }

    /// Opens that were answered so.
    pub(super) fn handed_over(&self) -> u64 {
        self.handed_over.load(Ordering::Relaxed)
    }

    /// Answers an open; `copy` has all bytes of the file, where there is such a copy. Pages of a node id belong to one
    /// version, hence they are always kept.
    pub(super) fn answer(&self, reply: ReplyOpen, inode: INodeNo, handle: FileHandle, copy: Option<File>) {
        if !self.is_enabled() {
            reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE);
            return;
        }
        let backing = {
            let mut opened = self.opened.lock();
            let first = || Opened { handles: 0, backing: copy.and_then(|copy| self.hand_over(&reply, &copy)) };
            let inode = opened.entry(inode.0).or_insert_with(first);
            inode.handles += 1;
            inode.backing.clone()
        };
        match backing {
            Some(backing) => {
                self.handed_over.fetch_add(1, Ordering::Relaxed);
                // With any other flag the kernel answers EIO.
                reply.opened_passthrough(handle, FopenFlags::empty(), &backing);
            }
            None => reply.opened(handle, FopenFlags::FOPEN_KEEP_CACHE),
        }
    }

    /// A handle was released.
    pub(super) fn released(&self, inode: INodeNo) {
        if !self.is_enabled() {
            return;
        }
        let mut opened = self.opened.lock();
        let Some(found) = opened.get_mut(&inode.0) else { return };
        found.handles -= 1;
        if found.handles == 0 {
            let last = opened.remove(&inode.0);
            drop(opened);
            drop(last);
        }
    }

    fn hand_over(&self, reply: &ReplyOpen, copy: &File) -> Option<Arc<BackingId>> {
        match reply.open_backing(copy) {
            Ok(backing) => Some(Arc::new(backing)),
            Err(error) => {
                // Without CAP_SYS_ADMIN, or the copy lies on a stacked file system: it will not be otherwise next time. Nobody
                // counts on it, so those that are open may go on.
                tracing::info!(%error, "the kernel does not take files of the cache directory: they are read through us");
                None
            }
        }
    }
}
