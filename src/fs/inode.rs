//! One inode: what it is, which version of its blob it stands for, and what was changed here and not yet committed.
//!
//! A foreign version of a blob is a *new* inode (DESIGN 10.1): the kernel's page cache belongs to the inode, so the old
//! one goes on serving old bytes, or ESTALE, and never a mix. Life of an inode's fate:
//!
//! ```text
//!   Linked ──► Replaced   somebody else's version was seen under the name; a new inode has it
//!      │
//!      └─────► Unlinked   the name was removed or taken here; open handles still read and write it
//! ```

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use crate::sync::AtomicBool;

use super::{
    attributes::{Attributes, Kind},
    behind::Owed,
    commit::Attempt,
    directory::Directory,
    latch::ErrorLatch,
    overlay::Overlay,
    takeover::{Scribe, StateCell},
    xattr::MetadataChanges,
};
use crate::{
    blob::{BlobName, BlobProperties, CommittedBlock, ETag, Metadata},
    cache::Content,
};

/// The number of an inode; never used again within the life of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InodeNumber(pub u64);

/// The root of every view (FUSE_ROOT_ID of include/uapi/linux/fuse.h).
pub const ROOT: InodeNumber = InodeNumber(1);

/// An access time older than this is renewed by a read (mount(8), `relatime`).
const ACCESS_AGE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Whether an inode still has a name. Transitions: see the module's doc; both ends are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has its name.
    Linked,
    /// The name belongs to a newer version of somebody else.
    Replaced,
    /// The name was removed here.
    Unlinked,
}

/// The committed version that an inode stands for. Immutable: a commit makes a new one.
#[derive(Debug)]
pub struct Base {
    /// What the service says of it.
    pub properties: BlobProperties,
    /// Its bytes, and where to get them.
    pub content: Arc<Content>,
    /// Its committed blocks, once asked for (or committed by us). Empty: one Put Blob.
    pub blocks: Option<Arc<Vec<CommittedBlock>>>,
}

impl Base {
    /// The version that `properties` describes, with its bytes at `content`.
    #[must_use]
    pub fn new(properties: BlobProperties, content: Arc<Content>) -> Self {
        Self { properties, content, blocks: None }
    }
}

/// What a commit writes beside the bytes, as it was when the commit began.
#[derive(Clone, Debug, Default)]
pub struct Carried {
    /// POSIX attributes.
    pub attributes: Attributes,
    /// Changes of other metadata.
    pub metadata_changes: MetadataChanges,
}

/// What changes about an inode.
#[derive(Debug)]
pub struct State {
    /// POSIX attributes as they will be after the next commit.
    pub attributes: Attributes,
    /// Last read that counts (see [`Self::note_read`]); never written to the blob.
    pub read_at: Option<SystemTime>,
    /// Changes of other metadata than theirs, over that of `base`.
    pub metadata_changes: MetadataChanges,
    /// Whether either differs from what `base` has.
    pub attributes_dirty: bool,
    /// The committed version; `None` while nothing of it is on the service.
    pub base: Option<Arc<Base>>,
    /// The layer that takes writes; `None` while there are none since the last commit began.
    pub overlay: Option<Overlay>,
    /// The layer that a commit is sending, or that a failed one left; goes first.
    pub committing: Option<Arc<Overlay>>,
    /// That `committing` is in the journal, or for a directory that its marker is: a close has returned, and the service
    /// must still get it ([`super::behind`]).
    /// Boxed: hardly any inode has it, and all of them count.
    pub owed: Option<Box<Owed>>,
    /// Layers that were given up just now.
    pub retired: Vec<Arc<Overlay>>,
    /// When `base` was last known to be current; `None` for what only we have.
    pub checked: Option<Instant>,
    /// Whether it still has a name.
    pub fate: Fate,
    /// Open handles.
    pub opened: u32,
    /// Open handles that may write.
    pub writers: u32,
    /// Open handles that may read.
    pub readers: u32,
    /// Where the stretches of `overlay` begin that are on their way to the service; none is sent twice at once.
    pub staging: BTreeSet<u64>,
    /// A commit waits for those: no more are sent ahead.
    pub draining: bool,
    /// The name is about to go or to change: nothing may be sent ahead under it.
    pub name_in_motion: bool,
    /// The version whose end a reader has reached, and whose blocks were asked for.
    pub watched: Option<ETag>,
    /// Bytes of `committing` that an append blob has already: an append cannot be taken back.
    pub appended: u64,
    /// Metadata that requests without an answer were to give the version.
    pub setting: Vec<Metadata>,
    /// Bytes that an Append Block, which was not answered, was to put behind the end of `base`.
    pub appending: u64,
    /// The last write at the end of the file: the view, and the number of its request.
    pub last_append: Option<(u64, u64)>,
    /// Length of block ids that another client's uncommitted blocks force on us until the next commit, in bytes.
    pub id_length: Option<usize>,
    /// Where its bytes are since its name went while it was open.
    pub orphan: Option<BlobName>,
    /// Failed commits that handles must still hear of.
    pub errors: ErrorLatch,
    /// The last commit that failed, until one succeeds.
    pub refusal: Option<Refusal>,
    /// Commits that failed so far: who waited for its turn meanwhile need not try the same again.
    pub failures: u64,
    /// Versions that commits of `committing` may have made although no answer came.
    pub attempts: Vec<Attempt>,
    /// A block could not be sent ahead: no more are until a commit succeeds.
    pub sending_failed: bool,
    /// A task tries to save what the last close could not.
    pub is_retried: bool,
    /// Whether a timer runs that saves what was appended.
    pub is_aging: bool,
}

/// What a commit was refused with.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// The blob that it was for.
    pub blob: BlobName,
    /// The errno that programs were told.
    pub errno: i32,
    /// Why, in a sentence.
    pub sentence: String,
    /// Whether another try can succeed.
    pub may_pass: bool,
}

impl State {
    /// The state of what stands for `base`, which was known to be current at `checked`.
    pub(super) fn new(base: Option<Arc<Base>>, attributes: Attributes, checked: Option<Instant>) -> Self {
        Self {
            attributes,
            read_at: None,
            metadata_changes: MetadataChanges::default(),
            attributes_dirty: false,
            base,
            overlay: None,
            committing: None,
            retired: Vec::new(),
            owed: None,
            checked,
            fate: Fate::Linked,
            opened: 0,
            writers: 0,
            readers: 0,
            staging: BTreeSet::new(),
            draining: false,
            name_in_motion: false,
            watched: None,
            appended: 0,
            setting: Vec::new(),
            appending: 0,
            last_append: None,
            id_length: None,
            orphan: None,
            errors: ErrorLatch::default(),
            refusal: None,
            failures: 0,
            attempts: Vec::new(),
            sending_failed: false,
            is_retried: false,
            is_aging: false,
        }
    }

    /// Whether something here is not on the service yet.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.overlay.is_some() || self.committing.is_some() || self.attributes_dirty
    }

    /// Size as a local program sees it, in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        let layer = self.overlay.as_ref().or(self.committing.as_deref()).map(Overlay::size);
        layer.unwrap_or_else(|| self.base.as_ref().map_or(0, |base| base.properties.length))
    }

    /// The layer that takes writes, made if there is none.
    pub fn overlay_mut(&mut self) -> &mut Overlay {
        let size = self.size();
        self.overlay.get_or_insert_with(|| Overlay::over(size))
    }

    /// Whether what we know of the name must not be replaced by what the service says: it is ours until it is
    /// committed, or a program is writing it.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.is_dirty() || self.writers > 0
    }

    /// What a commit that begins now writes beside the bytes: what is owed goes as it was closed.
    #[must_use]
    pub fn carried(&self) -> Carried {
        match (&self.owed, &self.committing) {
            (Some(owed), Some(_)) => owed.carried.clone(),
            _ => self.carried_now(),
        }
    }

    /// What a program sees beside the bytes, and the next close writes.
    #[must_use]
    pub fn carried_now(&self) -> Carried {
        Carried { attributes: self.attributes, metadata_changes: self.metadata_changes.clone() }
    }

    /// Once `sent` is on the service: whether anything changed since is left to a later commit.
    pub fn note_carried(&mut self, sent: &Carried) {
        self.metadata_changes.forget(&sent.metadata_changes);
        self.attributes_dirty = self.attributes != sent.attributes || !self.metadata_changes.is_empty();
    }

    /// Gives up everything that is not on the service: the inode is as its committed version.
    pub fn discard_changes(&mut self) {
        // Not before it is written down that they are gone.
        self.retired.extend(self.overlay.take().map(Arc::new));
        self.retired.extend(self.committing.take());
        (self.overlay, self.committing, self.attributes_dirty, self.refusal) = (None, None, false, None);
        self.metadata_changes = MetadataChanges::default();
        self.attempts.clear();
        self.appended = 0;
        if let Some(base) = &self.base {
            self.attributes = Attributes::read_from(&base.properties.metadata);
        }
        self.checked = None;
    }

    /// Whether a read now counts as an access, as `relatime` of mount(8) has it: when the last one is not younger than the
    /// last change, or a day old.
    #[must_use]
    pub fn counts_read(&self) -> bool {
        let last = self.read_at.max(self.attributes.atime);
        let changed = self.attributes.mtime.max(self.attributes.ctime);
        let now = SystemTime::now();
        let is_old = |last: SystemTime| now.duration_since(last).is_ok_and(|age| age >= ACCESS_AGE_MAX);
        last <= changed || last.is_none_or(is_old)
    }

    /// Counts a read as an access.
    pub fn note_read(&mut self) {
        self.read_at = Some(SystemTime::now());
    }

    /// Sets mtime and ctime to now: the data changed.
    pub fn touch(&mut self) {
        let now = SystemTime::now();
        self.attributes.mtime = Some(now);
        self.attributes.ctime = Some(now);
    }
}

/// An inode. See the module's doc.
#[derive(Debug)]
pub struct Inode {
    /// Its number.
    pub number: InodeNumber,
    /// What it is; a change of kind is a new inode.
    pub kind: Kind,
    /// What changes.
    pub state: StateCell,
    /// Held through a commit, a rename and an unlink: one at a time, in order. Taken before `state`.
    pub commit: Arc<crate::sync::tokio::sync::Mutex<()>>,
    /// Whether a kernel was given bytes of it, and so may have them in its pages.
    pub was_read: AtomicBool,
    /// Woken when a staged block has arrived or failed.
    pub staged: crate::sync::tokio::sync::Notify,
    /// What only a directory has.
    pub directory: Option<Directory>,
}

impl Inode {
    /// An inode that stands for `base`, or for nothing committed yet. `scribe` writes down what becomes of it.
    #[must_use]
    pub fn new(
        number: InodeNumber,
        kind: Kind,
        base: Option<Arc<Base>>,
        attributes: Attributes,
        scribe: Option<&Arc<Scribe>>,
    ) -> Arc<Self> {
        let checked = base.as_ref().map(|_| Instant::now());
        let state = State::new(base, attributes, checked);
        let cell = StateCell::new(number, kind, state, scribe);
        if scribe.is_some() {
            cell.lock().fate = Fate::Linked; // Written down.
        }
        Arc::new(Self {
            number,
            kind,
            state: cell,
            commit: Arc::default(),
            was_read: AtomicBool::new(false),
            staged: crate::sync::tokio::sync::Notify::new(),
            directory: (kind == Kind::Directory).then(Directory::default),
        })
    }

    /// One that another process has written down, with the numbers of its layers.
    pub(super) fn taken_over(
        number: InodeNumber,
        kind: Kind,
        state: State,
        layers: [Option<u64>; 2],
        scribe: &Arc<Scribe>,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            kind,
            state: StateCell::taken_over(number, kind, state, layers, scribe),
            commit: Arc::default(),
            // Whatever its kernel was given.
            was_read: AtomicBool::new(true),
            staged: crate::sync::tokio::sync::Notify::new(),
            directory: (kind == Kind::Directory).then(Directory::default),
        })
    }

    /// Whether it is a directory that only the journal has.
    #[must_use]
    pub fn is_owed_directory(&self) -> bool {
        let state = self.state.lock();
        self.directory.is_some() && state.owed.is_some() && state.base.is_none()
    }
}
