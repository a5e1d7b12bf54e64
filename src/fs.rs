//! The file system: POSIX names, bytes and attributes on top of blobs. No FUSE type appears here; every operation can be
//! called from a plain test.
//!
//! | to understand | read |
//! |---|---|
//! | what a file is made of | `inode` (versions and fates), `overlay` (what is not committed), `table` (numbers and names), `by_number` |
//! | how a name is found | `lookup`, `list`, `directory`, `subtree` (listed ahead), `name` |
//! | how bytes come | `open`, `opening`, `siblings`, `read`, `growth`, `seek`; before anybody asks: `warm_up` |
//! | how bytes go | `write`, `allocate`, `copy_range`, `stage`, `plan` (pure), `body`, `lease`, `commit` |
//! | what a close need not wait for | `behind` |
//! | what becomes of failures | `latch` (who must hear), `last_close` (retries), `lost_found` (what nobody takes), `error` |
//! | files without a name | `remove`, `orphan` |
//! | what an unlink need not wait for | `deletes` |
//! | how names change | `create`, `remove`, `rename` |
//! | what a hierarchical account changes | `hierarchy` |
//! | who sees what | `view`, `attributes`, `attr`, `xattr` |
//! | what is counted | `meter`, `usage`; who is told | `figures` |
//! | who keeps whom out | `lock` |
//! | what the next process must know | `takeover` |
//!
//! Every operation is a future that is ready at its first poll whenever nothing has to be asked of the service or waited
//! for. So an adapter polls once on the thread that brought the request, answers there, and gives only what is pending
//! to the runtime: hits cost no task.
//!
//! Promises and refusals are in `docs/SEMANTICS.md`, each with its test. Lock order: an inode's `commit` lock (two at once
//! only in [`rename`](FileSystem::rename), by ascending number), then the `turn` of a removal in the journal, then a listing's
//! `loading`, then the short locks, which are never held together (but a view's queue and
//! the count of `usage` under an inode's state) and never across an await.

mod allocate;
mod append_age;
mod attr;
mod attributes;
mod behind;
mod body;
mod by_number;
mod commit;
mod copy_range;
mod create;
mod deletes;
mod directory;
mod error;
mod figures;
mod growth;
mod handle;
mod hierarchy;
mod inode;
mod last_close;
mod latch;
mod lease;
mod list;
mod local_copy;
mod lock;
mod lookup;
mod lost_found;
mod meter;
mod name;
mod open;
mod opening;
mod orphan;
mod overlay;
mod plan;
#[cfg(test)]
#[cfg(feature = "shuttle")]
mod races;
mod ranges;
mod read;
mod remove;
mod rename;
mod seek;
mod siblings;
mod spool;
mod stage;
mod subtree;
mod table;
mod takeover;
mod usage;
mod view;
mod warm_up;
mod write;
mod xattr;

use std::{
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

pub use allocate::Allocation;
pub use attr::{Attr, Entry, SetAttr, SetTime};
pub use attributes::Kind;
pub use behind::{Debts, Durability};
pub use directory::Stamp;
pub use error::{Error, Result};
pub use figures::FIGURES_NAME;
pub use handle::{Access, HandleId};
pub use inode::{InodeNumber, ROOT};
pub use last_close::SetAside;
pub use list::DirectoryEntry;
pub use lock::{LockCall, LockHolder, LockRequest};
pub use meter::{Meter, MeterTotals, Operation};
pub use name::RESERVED;
pub use read::ReadData;
pub use rename::RenameMode;
pub use seek::Seek;
pub use takeover::{FORMAT as TAKEOVER_FORMAT, Holder, Kept, Scribe};
pub use usage::{Quota, Usage};
pub use view::{Caller, Invalidation, InvalidationQueue, View, ViewSettings};
pub use write::WriteMode;
pub use xattr::SetXattr;

use crate::{
    blob::{BlobName, BlobStore, RequestLimits, Traffic},
    cache::{Cache, DirtyShare, Pool, Vault},
    sync::AtomicUsize,
};
use attributes::Attributes;
use directory::NameMemory;
use handle::HandleTable;
use inode::Inode;
use name::{Hidden, Naming};
use table::InodeTable;
use view::Views;

/// How long a name or an attribute counts as current when `metadata-ttl` does not say otherwise. Short enough that a
/// person who looks again sees the change, long enough that `git status` does not ask twice for a name.
pub const METADATA_TTL_DEFAULT: Duration = Duration::from_secs(10);
/// Largest [`Settings::block_divisor`]: blocks of 2 KiB.
pub const BLOCK_DIVISOR_MAX: u64 = 4096;
/// How old appended bytes get when `append-age` does not say otherwise: who follows a log looks that often, and a request
/// every five seconds is little for a log that is written all the time.
pub const APPEND_AGE_DEFAULT: Duration = Duration::from_secs(5);
/// How old an answer fetched ahead may be that an open rests on when `sibling-age` does not say otherwise: below what a
/// person notices, and far longer than a program that reads a directory through takes from one small file to the next.
pub const SIBLING_AGE_DEFAULT: Duration = Duration::from_secs(1);
/// How long a closed file waits before it is sent: a temporary file that is renamed or removed within that time (git, rsync,
/// editors and package managers make many) is never sent under its first name.
pub const LINGER_DEFAULT: Duration = Duration::from_millis(100);
/// Unlinks in a row that are a program emptying a directory: who removes a few files, and acts on the answer, has it from the
/// service.
pub const UNLINKS_WAITED_DEFAULT: u32 = 8;
/// Stands for "never expires" where the kernel wants a number: a year.
const FOREVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// What is promised about changes by other clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// open(2) sees every close that returned before it; names and attributes may be `metadata_ttl` old.
    #[default]
    CloseToOpen,
    /// This mount is the only writer: nothing expires.
    Exclusive,
    /// Blobs never change: nothing expires, and nothing can be written.
    Immutable,
}

/// How a volume behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The part of the container that is the volume's root: empty, or without a leading and with a trailing `/`.
    pub prefix: String,
    /// Names the identity that the volume is read with: volumes of one container share cached bytes exactly where this
    /// text is equal (DESIGN 10.11).
    pub scope: String,
    /// What is promised about changes by other clients.
    pub consistency: Consistency,
    /// How old names and attributes may be.
    pub metadata_ttl: Duration,
    /// How old an answer fetched ahead may be that an open rests on; zero: nothing is fetched ahead of an open.
    pub sibling_age: Duration,
    /// How old appended bytes get before they are saved without being asked to; zero: never.
    pub append_age: Duration,
    /// What close(2) waits for.
    pub durability: Durability,
    /// How old what was closed gets before the journal is forced to the disk; zero: each close waits for that.
    pub journal_age: Duration,
    /// How long a file that was closed into the journal waits before it is sent.
    pub linger: Duration,
    /// Paths below the root whose files are fetched into the cache once the volume is open; an empty one is the root.
    pub warm_up: Vec<String>,
    /// How many unlinks of one directory in a row wait for the service, each, before later ones are answered while their
    /// Deletes are under way.
    pub unlinks_waited: u32,
    /// How long requests may take.
    pub limits: RequestLimits,
    /// Shows unrepresentable names under escapes.
    pub escape_names: bool,
    /// Refuses every change with EROFS, for all views.
    pub read_only: bool,
    /// Checks O_EXCL at the service even in directories that this mount made.
    pub excl_strict: bool,
    /// Divides the sizes that blocks and lists are planned by: tests then meet in a file of KiB what else takes GiB. A power
    /// of two up to [`BLOCK_DIVISOR_MAX`]; 1 in production.
    pub block_divisor: u64,
    /// What `statfs` reports as the volume's size, in bytes, to begin with; `None`: a petabyte, since an account has no limit
    /// to show.
    pub capacity: Option<u64>,
    /// What becomes of writes that this size has no room for.
    pub quota: Quota,
    /// Whether the root has a virtual file [`FIGURES_NAME`], which tells the volume's figures.
    pub figures: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            prefix: String::new(),
            scope: String::new(),
            consistency: Consistency::default(),
            metadata_ttl: METADATA_TTL_DEFAULT,
            sibling_age: SIBLING_AGE_DEFAULT,
            append_age: APPEND_AGE_DEFAULT,
            durability: Durability::default(),
            journal_age: Duration::ZERO,
            linger: LINGER_DEFAULT,
            warm_up: Vec::new(),
            unlinks_waited: UNLINKS_WAITED_DEFAULT,
            limits: RequestLimits::STANDARD,
            escape_names: false,
            read_only: false,
            excl_strict: false,
            block_divisor: 1,
            capacity: None,
            quota: Quota::default(),
            figures: false,
        }
    }
}

/// What all volumes of a process share.
#[derive(Clone, Debug)]
pub struct Resources {
    /// Clean bytes, and the budget and buffers that dirty ones share with them.
    pub cache: Cache,
    /// Directory for dirty bytes beyond the budget, and for lost+found; without one, a file that outgrows the budget is
    /// committed early, and what the service refuses for good stays in memory.
    pub spool: Option<std::path::PathBuf>,
    /// Where background work runs.
    pub runtime: crate::sync::tokio::runtime::Handle,
}

/// A mounted volume: the core that all its views share.
#[derive(Debug)]
pub struct FileSystem {
    store: Arc<dyn BlobStore>,
    resources: Arc<Resources>,
    settings: Settings,
    naming: Naming,
    hidden: Hidden,
    table: InodeTable,
    /// What listings may keep.
    names: Arc<NameMemory>,
    /// What is listed ahead of walkers.
    subtrees: subtree::Subtrees,
    handles: HandleTable,
    views: Views,
    writer: stage::Writer,
    hierarchy: hierarchy::Hierarchy,
    checked_opens: open::CheckedOpens,
    /// The window of the last directory that was read through: the next one begins with it.
    walking: AtomicUsize,
    /// What it may hold of the memory for dirty data.
    dirty_share: DirtyShare,
    /// Where dirty data lives that is to survive the process; `None`: it does not.
    vault: Option<Arc<Vault>>,
    /// Who we are to the hidden copies of our open files.
    orphan_owner: String,
    /// Files moved to lost+found.
    set_aside_count: AtomicU64,
    meter: Arc<Meter>,
    /// The virtual file that tells them, where it is asked for.
    figures: Option<figures::Figures>,
    /// What is in use.
    space: usage::Space,
    link_refusal: std::sync::Once,
    exchange_refusal: std::sync::Once,
    locks: lock::Locks,
    /// Unlinks that the service has not answered.
    deletes: deletes::Deletes,
    /// The journal, where closes wait for that.
    behind: Option<behind::Behind>,
    /// Writes down what the next process must know, where there is a keeper.
    scribe: Option<Arc<Scribe>>,
    /// What another process has left.
    left: takeover::Left,
}

impl FileSystem {
    /// Opens the volume, after asking the service for the first names below its root: what a mount must be able to do.
    ///
    /// # Errors
    /// What the service says: no such container, no permission, no connection.
    pub async fn open(store: Arc<dyn BlobStore>, resources: Arc<Resources>, settings: Settings) -> Result<Arc<Self>> {
        Box::pin(Self::open_as(store, resources, settings, None)).await
    }

    /// As [`Self::open`], for a volume that the next process can take over, or that is taken over from another one. What of
    /// that cannot be read is lost, and said in the log: old handles answer EIO then.
    ///
    /// # Errors
    /// As [`Self::open`]; EINVAL where another volume is mounted there.
    pub async fn open_kept(
        store: Arc<dyn BlobStore>,
        resources: Arc<Resources>,
        settings: Settings,
        kept: Kept,
    ) -> Result<Arc<Self>> {
        Box::pin(Self::open_as(store, resources, settings, Some(kept))).await
    }

    async fn open_as(
        store: Arc<dyn BlobStore>,
        resources: Arc<Resources>,
        settings: Settings,
        kept: Option<Kept>,
    ) -> Result<Arc<Self>> {
        let settings = Settings { prefix: normal_prefix(&settings.prefix), ..settings };
        let identity = format!("{}/{}", store.identity(), settings.prefix);
        let begun = kept.map(|kept| takeover::begin(kept, &identity)).transpose()?;
        let (scribe, taken) = begun.map_or((None, takeover::Taken::Nothing), |(scribe, taken)| (Some(scribe), taken));
        let hierarchical = match taken.hierarchical() {
            Some(known) => known,
            None => {
                let account = store.account_info().await;
                let failed = |error| Error::from_store("cannot find out what the account is", error);
                account.map_err(failed)?.hierarchical
            }
        };
        let is_taken_over = taken.hierarchical().is_some();
        let root = Inode::new(ROOT, Kind::Directory, None, Attributes::default(), scribe.as_ref());
        let naming = Naming { escape: settings.escape_names };
        let writer = stage::Writer::new(settings.block_divisor);
        let space = usage::Space::new(settings.quota, settings.capacity);
        let figures = figures::Figures::new(settings.figures);
        let behind = journal_of(&resources, store.identity(), &settings, hierarchical);
        let file_system = Arc::new(Self {
            store,
            dirty_share: resources.cache.dirty_share(),
            vault: scribe.as_ref().map(|scribe| Arc::clone(scribe.vault())),
            names: NameMemory::new(resources.cache.budget()),
            subtrees: subtree::Subtrees::default(),
            resources,
            settings,
            naming,
            hidden: Hidden::default(),
            table: InodeTable::new(root, scribe.as_ref()),
            handles: HandleTable::new(scribe.as_ref()),
            views: Views::default(),
            writer,
            checked_opens: open::CheckedOpens::default(),
            walking: AtomicUsize::new(0),
            hierarchy: hierarchy::Hierarchy::new(hierarchical),
            orphan_owner: taken.orphan_owner().map_or_else(orphan::new_owner, str::to_owned),
            set_aside_count: AtomicU64::new(0),
            meter: Arc::default(),
            figures,
            space,
            link_refusal: std::sync::Once::new(),
            exchange_refusal: std::sync::Once::new(),
            locks: lock::Locks::new(scribe.as_ref()),
            deletes: deletes::Deletes::default(),
            behind,
            left: taken.left(),
            scribe,
        });
        file_system.replay_journals().await?;
        file_system.finish_begin(&identity, taken);
        file_system.settle_begun().await;
        if !is_taken_over {
            file_system.load_root().await?;
            file_system.report_unfinished_renames().await;
            file_system.begin_warm_up();
        }
        file_system.sweep_regularly();
        Ok(file_system)
    }

    /// Opens a view: one kernel's sight of the volume.
    pub fn add_view(&self, settings: ViewSettings) -> Arc<View> {
        self.views.add(settings, self.scribe.as_ref())
    }

    /// Ends a view, once its kernel sends no more requests; its lookups are given back.
    pub fn remove_view(&self, view: &View) {
        self.views.remove(view);
        self.end_locks(view);
        for (number, count) in view.forget_all() {
            self.table.release(number, count);
        }
    }

    /// Whether any view is open.
    #[must_use]
    pub fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// How many inodes are known and how many handles are open, for metrics.
    #[must_use]
    pub fn gauges(&self) -> (usize, usize) {
        (self.table.len(), self.handles.len())
    }

    /// What the kernel asked of it.
    #[must_use]
    pub fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// What it asked of the service, where the store counts that.
    #[must_use]
    pub fn traffic(&self) -> Option<&Arc<Traffic>> {
        self.store.traffic()
    }

    /// Memory that holds what the service does not have yet, in bytes.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.dirty_share.used_bytes()
    }

    /// Bytes of memory that the names of listed directories take, for metrics.
    #[must_use]
    pub fn name_bytes(&self) -> u64 {
        self.names.used_bytes()
    }

    /// The settings that it was opened with.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where its data lives: `host/account/container`, for messages.
    #[must_use]
    pub fn identity(&self) -> &str {
        self.store.identity()
    }

    /// What the process shares, for those who need its runtime.
    #[must_use]
    pub fn resources(&self) -> &Arc<Resources> {
        &self.resources
    }

    /// How many blobs were met that cannot be shown (DESIGN 10.6).
    #[must_use]
    pub fn hidden_names(&self) -> u64 {
        self.hidden.count()
    }

    fn cache(&self) -> &Cache {
        &self.resources.cache
    }

    fn pool(&self) -> &Pool {
        self.resources.cache.pool()
    }

    /// The inode of `number`, or ESTALE: the kernel then looks its name up again.
    fn inode(&self, number: InodeNumber) -> Result<Arc<Inode>> {
        self.table.get(number).ok_or_else(|| match self.is_figures(number) {
            true => figures::only_readable(),
            false => Error::new(libc::ESTALE, format!("inode {} is gone", number.0)),
        })
    }

    /// How old what we know may be.
    fn fresh_for(&self) -> Duration {
        match self.settings.consistency {
            Consistency::CloseToOpen => self.settings.metadata_ttl,
            Consistency::Exclusive | Consistency::Immutable => FOREVER,
        }
    }

    /// The blob path of an inode below the volume's root, without a trailing `/`; `None` when it has no name any more.
    fn blob_path(&self, number: InodeNumber) -> Option<String> {
        let shown = self.table.names(number)?;
        let components = shown.iter().map(|name| self.naming.component(name.as_ref().as_ref()).map(|part| part.text));
        let components: Vec<String> = components.collect::<Result<_>>().ok()?;
        Some(components.join("/"))
    }

    /// The exact name of the blob at `path` below the volume's root.
    fn name_at(&self, path: &str) -> Result<BlobName> {
        BlobName::new(format!("{}{path}", self.settings.prefix))
            .map_err(|error| Error::new(libc::ENAMETOOLONG, format!("cannot name a blob: {error}")))
    }

    /// The blob of an inode, or ESTALE when its name is gone.
    fn blob_name(&self, inode: &Inode) -> Result<BlobName> {
        let gone = || Error::new(libc::ESTALE, format!("inode {} has no name any more", inode.number.0));
        self.name_at(&self.blob_path(inode.number).ok_or_else(gone)?)
    }

    /// The prefix of the blobs inside a directory, or ESTALE when its name is gone.
    fn directory_prefix(&self, number: InodeNumber) -> Result<String> {
        let gone = || Error::new(libc::ESTALE, format!("directory {} has no name any more", number.0));
        let path = self.blob_path(number).ok_or_else(gone)?;
        Ok(if number == ROOT { self.settings.prefix.clone() } else { format!("{}{path}/", self.settings.prefix) })
    }

    /// EROFS where the volume or the caller's view takes no changes.
    fn check_writable(&self, caller: &Caller) -> Result<()> {
        let immutable = self.settings.consistency == Consistency::Immutable;
        if self.settings.read_only || immutable || caller.view.settings().read_only {
            return Err(Error::new(libc::EROFS, "the volume is mounted read-only"));
        }
        Ok(())
    }
}

/// The journal of a volume whose closes wait for one.
fn journal_of(
    resources: &Resources,
    identity: &str,
    settings: &Settings,
    hierarchical: bool,
) -> Option<behind::Behind> {
    let is_written = !settings.read_only && settings.consistency != Consistency::Immutable;
    if settings.durability == Durability::Close || !is_written {
        return None;
    }
    if hierarchical {
        tracing::warn!("durability=fsync has no effect on a hierarchical account: close(2) waits for the service");
        return None;
    }
    behind::Behind::open(resources, identity, settings)
}

/// `a/b`, `/a/b` and `a/b/` mean the same prefix: `a/b/`.
fn normal_prefix(prefix: &str) -> String {
    match prefix.trim_matches('/') {
        "" => String::new(),
        path => format!("{path}/"),
    }
}
