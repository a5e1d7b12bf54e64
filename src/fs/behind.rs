//! Write-behind (`durability=fsync`): close(2) returns once the file is in a journal on the node's disk; the service gets
//! it in the background. fsync(2) of a file or a directory, and the end of the volume, wait for the service.
//!
//! Who reads through this volume sees no difference: what is owed is dirty data of its inode as it is during a commit
//! (`commit`), and the inode is held against the kernel's forgetting. States of a file that is closed:
//!
//! ```text
//!            freeze (close)              journal                          accepted
//!   overlay ───────────────► committing ─────────► committing + owed ───────────────► clean, Done in the journal
//!                                │ no journal: too large, sent ahead,     │ 403, ESTALE, ...: lost+found, Done, told
//!                                │ full, or the disk says no              │ silent, busy: stays, tried again
//!                                ▼                                        ▼
//!                        the close waits for the service           (as above)
//! ```
//!
//! What is frozen is sent as it was closed: who writes the file again meanwhile writes a layer above, and a commit of
//! that one sends the frozen layer first. A close over a frozen layer that nothing of is left takes its place in the journal
//! (the same *chain*: later records replace earlier ones); another waits until the first is sent.
//!
//! A directory that is made inside one of our own is a record as well (an empty blob with its marks); its inode has dirty
//! attributes over nothing instead of a layer.
//!
//! Order: each record stands for one name, and is sent under the condition that it was made over (If-Match or
//! If-None-Match), so records of different names need no order among each other. A file that the service never had is renamed
//! by one more record of its chain (`names`), which also ends the chain of the file that it replaces: of the two names, only
//! one is ever sent. A name whose removal is owed (`removals`) can not be made again before the service has removed it, so at
//! any time a name has one record at most. All else that changes a name on the service (rmdir, other renames) first waits for
//! what is owed of it, or drops it, and tells the journal.
//!
//! Crash points, for `replay` at the next start:
//! - before the record is whole: the close has not returned; the torn frame is ignored;
//! - after it: the record is sent under its condition;
//! - after the service took it and before `Done`: the version found is the record's own (length, MD5, metadata with times
//!   to the nanosecond), and nothing is sent;
//! - before a new name's record is whole: the rename has not returned, both names are what they were;
//! - after it: the chain is sent under the new name, over the version that was replaced there; the old one was never sent;
//! - after a removal's record: the version that it names is deleted, if it is still the one under the name;
//! - anything else found under the name is somebody else's: it stays, and the bytes go to lost+found.
//!
//! `journal` keeps the records, `record` frames them, `queue` says whose turn it is.

mod debts;
mod journal;
mod names;
mod queue;
mod record;
mod removals;
mod replay;

use std::{
    collections::{HashMap, hash_map},
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use futures::StreamExt;
use md5::{Digest, Md5};

pub use self::debts::Debts;
use self::{
    journal::Journal,
    queue::{Debt, Queue, Task},
    record::{Entry, Expected, Put, headers_of},
    removals::Removals,
};
use super::{
    Error, FileSystem, InodeNumber, Kind, Resources, Result, Settings,
    attributes::Attributes,
    commit::write_options,
    inode::{Base, Carried, Fate, Inode},
    lookup::Held,
    lost_found,
    overlay::Overlay,
};
use crate::{
    blob::{BlobKind, BlobName, Body, Condition, ETag, WriteOptions},
    cache::Class,
    sync::{AtomicBool, AtomicU64, Mutex, Ordering},
};

/// Larger files wait for the service at their close: they are bandwidth and not round trips, which the way over the disk
/// would not save.
const RECORD_BYTES_MAX: u64 = 4 << 20;
/// Part of the memory for unsaved data that may be owed: the rest is for who writes now.
const MEMORY_PART: u64 = 4;
/// Failures kept for the next fsync of a directory; more say nothing new.
const FAILURES_MAX: usize = 64;
/// Commits of one fsync of a directory under way at once; the store bounds what the node sends in all.
const COMMITS_AT_ONCE: usize = 32;
/// The journals' directory in the spool.
const NAME: &str = "journal";

/// What close(2) waits for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// The service.
    #[default]
    Close,
    /// The journal in the spool directory; fsync(2) waits for the service.
    Fsync,
}

/// What the journal has of an inode.
#[derive(Clone, Debug)]
pub struct Owed {
    chain: u64,
    /// Bytes of memory that are held for it.
    bytes: u64,
    /// The version under its name that it replaces, of a file that was renamed there and has none of its own.
    over: Option<ETag>,
    /// What goes beside the bytes.
    pub carried: Carried,
}

impl Owed {
    /// Whether the service has another version under the name.
    pub fn replaces(&self) -> bool {
        self.over.is_some()
    }

    /// What the service must have under the name of a file that has no version of its own yet.
    pub fn condition(&self) -> Condition {
        self.over.clone().map_or(Condition::Absent, Condition::Match)
    }
}

/// A file of this volume that could not be saved, for the next fsync of a directory above it.
#[derive(Debug)]
struct Failure {
    blob: String,
    error: Error,
}

/// What a volume with write-behind has more.
#[derive(Debug)]
pub(super) struct Behind {
    journal: Journal,
    queue: Queue,
    /// By their chains, each with the time since which it waits. Held in the inode table, one reference each. Never locked
    /// together with an inode's state.
    owed: Mutex<HashMap<u64, (Arc<Inode>, Instant)>>,
    owed_bytes: AtomicU64,
    removals: Removals,
    failures: Mutex<Vec<Failure>>,
    /// When the log last said that something waits.
    reported: Mutex<Option<Instant>>,
    /// Whether a task is to force the journal to the disk.
    is_forced_soon: AtomicBool,
}

/// A layer at its close.
struct Frozen {
    layer: Arc<Overlay>,
    base: Option<Arc<Base>>,
    carried: Carried,
    /// The chain whose record it replaces.
    chain: Option<u64>,
    /// As [`Owed::over`].
    over: Option<ETag>,
}

/// What a close finds.
enum Freeze {
    /// The journal has everything already.
    Owed,
    /// This must go to the journal.
    Layer(Frozen),
    /// This is for the service.
    Refused,
}

/// Judges what a close has to do, and freezes the top layer if it is for the journal. Called under the commit lock.
fn freeze(inode: &Inode) -> Freeze {
    let mut state = inode.state.lock();
    let for_good = |refusal: &super::inode::Refusal| !refusal.may_pass;
    let plain = |base: &Base| base.properties.kind == BlobKind::Block && base.properties.tag_count == 0;
    let suits = state.fate == Fate::Linked
        && inode.kind == Kind::File
        && state.staging.is_empty()
        && state.attempts.is_empty() // What may have been made is for `recognise`, which knows it by its layer.
        && !state.refusal.as_ref().is_some_and(for_good)
        && state.base.as_deref().is_none_or(plain);
    if !suits {
        return Freeze::Refused;
    }
    let Some(overlay) = &state.overlay else {
        let now = state.carried_now();
        let same = |owed: &Owed| {
            owed.carried.attributes == now.attributes && owed.carried.metadata_changes == now.metadata_changes
        };
        let all_owed = state.committing.is_some() && state.owed.as_deref().is_some_and(same);
        return if all_owed { Freeze::Owed } else { Freeze::Refused };
    };
    let below_is_free = state.committing.is_none() || (state.owed.is_some() && overlay.below() == 0);
    let small = overlay.size() <= RECORD_BYTES_MAX && overlay.staged().next().is_none() && overlay.spooled_bytes() == 0;
    if !below_is_free || !small {
        return Freeze::Refused;
    }
    let carried = state.carried_now();
    let Some(layer) = state.overlay.take().map(Arc::new) else { return Freeze::Refused };
    state.committing = Some(Arc::clone(&layer));
    let (chain, over) = state.owed.as_ref().map(|owed| (owed.chain, owed.over.clone())).unzip();
    Freeze::Layer(Frozen { layer, base: state.base.clone(), carried, chain, over: over.flatten() })
}

impl Behind {
    /// Opens a journal for the volume, if it is to have one.
    pub(super) fn open(resources: &Resources, identity: &str, settings: &Settings) -> Option<Self> {
        let prefix = &settings.prefix;
        let Some(spool) = &resources.spool else {
            tracing::warn!("durability=fsync needs a spool directory (--spool-dir): close(2) waits for the service");
            return None;
        };
        let created = lost_found::make_directory(spool, NAME, &[volume_key(identity, prefix)])
            .and_then(|volume| Journal::create(&volume, identity, prefix));
        match created {
            Ok(journal) => {
                tracing::info!(journal = %journal.directory().display(), "closes wait for the journal, fsync for the service");
                Some(Self {
                    journal,
                    queue: Queue::new(settings.linger),
                    owed: Mutex::default(),
                    owed_bytes: AtomicU64::new(0),
                    removals: Removals::default(),
                    failures: Mutex::default(),
                    reported: Mutex::default(),
                    is_forced_soon: AtomicBool::new(false),
                })
            }
            Err(error) => {
                tracing::warn!(spool = %spool.display(), "no journal: close(2) waits for the service: {error}");
                None
            }
        }
    }

    fn note_failure(&self, blob: String, error: &Error) {
        let mut failures = self.failures.lock();
        if failures.len() < FAILURES_MAX {
            failures.push(Failure { blob, error: error.repeat() });
        }
    }
}

/// One name for the journals of a volume: what it is, for people, behind a digest, since names are cut.
fn volume_key(identity: &str, prefix: &str) -> String {
    let digest = Md5::digest(format!("{identity}\0{prefix}"));
    let digest: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{digest}-{identity}/{prefix}")
}

/// Where the journals of a volume are, if there are any.
fn volume_directory(spool: &Path, identity: &str, prefix: &str) -> io::Result<Option<PathBuf>> {
    let own = nix::unistd::geteuid();
    if !spool.join(NAME).is_dir() && !spool.join(format!("{NAME}-{own}")).is_dir() {
        return Ok(None);
    }
    lost_found::make_directory(spool, NAME, &[volume_key(identity, prefix)]).map(Some)
}

impl FileSystem {
    /// Puts what was written to an inode into the journal, as close(2) does. `false`: it is not for the journal, and the
    /// service must be waited for.
    pub(super) async fn owe(self: &Arc<Self>, inode: &Arc<Inode>) -> bool {
        let Some(behind) = &self.behind else { return false };
        let _in_order = inode.commit.lock().await;
        let room = self.pool().budget().limit_bytes(Class::Dirty) / MEMORY_PART;
        if behind.owed_bytes.load(Ordering::Relaxed) >= room {
            return false;
        }
        let frozen = match freeze(inode) {
            Freeze::Owed => return true,
            Freeze::Refused => return false,
            Freeze::Layer(frozen) => frozen,
        };
        match self.write_record(behind, inode, frozen).await {
            Ok(taken) => taken,
            Err(error) => {
                tracing::debug!(inode = inode.number.0, "not for the journal: {}", error.to_chain());
                false
            }
        }
    }

    async fn write_record(
        self: &Arc<Self>,
        behind: &Behind,
        inode: &Arc<Inode>,
        Frozen { layer, base, carried, chain, over }: Frozen,
    ) -> Result<bool> {
        let Some(chain) = behind.journal.admit(layer.size(), chain) else { return Ok(false) };
        let name = self.blob_name(inode)?;
        let place = self.table.place(inode.number);
        if base.is_none() && place.is_some_and(|(parent, name)| self.is_removed(parent, &name)) {
            return Ok(false); // Another view was quicker to make the name: what it removed must go first.
        }
        let mut options = write_options(inode, base.as_deref(), &carried);
        if let Some(base) = &base {
            options.access_tier = self.with_tier(&name, &base.properties).await?.access_tier;
        }
        let body = self.body_of(&layer, base.as_ref(), 0..layer.size()).await?;
        let Some(expected) = Expected::of(&options.condition) else { return Ok(false) };
        let put = put_of(chain, &name, expected, options, &body);
        if let Err(error) = self.keep_record(behind, put, &body).await {
            return Err(Error::new(libc::EIO, format!("the journal: {error}")));
        }
        let bytes = layer.resident_bytes();
        self.note_owed(behind, inode, Owed { chain, bytes, over, carried });
        Ok(true)
    }

    /// Returns once the record is on the disk, or will be as soon as the volume promises.
    async fn keep_record(self: &Arc<Self>, behind: &Behind, put: Put, body: &Body) -> io::Result<()> {
        let chain = put.chain;
        let position = behind.journal.append(&Entry::Put(put), body, Some(chain))?;
        if !self.settings.journal_age.is_zero() {
            self.force_soon(behind);
            return Ok(());
        }
        let forced = behind.journal.force(position).await;
        if forced.is_err() && !behind.owed.lock().contains_key(&chain) {
            behind.journal.settle(chain);
        }
        forced
    }

    /// Forces the journal to the disk when what it has is as old as it may get.
    fn force_soon(self: &Arc<Self>, behind: &Behind) {
        if behind.is_forced_soon.swap(true, Ordering::AcqRel) {
            return;
        }
        let volume = Arc::clone(self);
        self.resources.runtime.spawn(async move {
            crate::sync::tokio::time::sleep(volume.settings.journal_age).await;
            let Some(behind) = &volume.behind else { return };
            behind.is_forced_soon.store(false, Ordering::Release);
            // A disk that refuses is in the log, and the journal takes nothing more.
            let _ = behind.journal.force(behind.journal.end()).await;
        });
    }

    /// Makes a directory that only the journal has; `None`: its marker is for the service.
    pub(super) async fn owe_directory(
        self: &Arc<Self>,
        parent: &Arc<Inode>,
        (name, asked): (&str, Instant),
        attributes: &Attributes,
    ) -> Result<Option<Held>> {
        let Some(behind) = &self.behind else { return Ok(None) };
        // As O_EXCL: elsewhere the service must say whether the name is free (DESIGN 10.2).
        if !self.judges_names_in(parent) {
            return Ok(None);
        }
        let blob = self.blob_at(parent, name)?;
        let Some(chain) = behind.journal.admit(0, None) else { return Ok(None) };
        let inode = Inode::new(self.table.next_number(), Kind::Directory, None, *attributes, self.scribe.as_ref());
        let carried = inode.state.lock().carried_now();
        let options = write_options(&inode, None, &carried);
        let body = Body::new();
        let put = put_of(chain, &blob, Expected::Absent, options, &body);
        if let Err(error) = self.keep_record(behind, put, &body).await {
            tracing::debug!(%error, "a directory is not for the journal");
            return Ok(None);
        }
        inode.state.lock().attributes_dirty = true;
        let linked = self.link_new(parent, (name, asked), &inode);
        match &linked {
            Ok(Some(held)) => self.note_owed(behind, &held.inode, Owed { chain, bytes: 0, over: None, carried }),
            Ok(None) | Err(_) => behind.journal.settle(chain),
        }
        linked
    }

    fn note_owed(self: &Arc<Self>, behind: &Behind, inode: &Arc<Inode>, owed: Owed) {
        behind.owed_bytes.fetch_add(owed.bytes, Ordering::Relaxed);
        let is_new = match behind.owed.lock().entry(owed.chain) {
            hash_map::Entry::Occupied(_) => false,
            hash_map::Entry::Vacant(place) => {
                place.insert((Arc::clone(inode), Instant::now()));
                true
            }
        };
        if is_new {
            self.table.hold(inode.number, 1);
        }
        let chain = owed.chain;
        let before = inode.state.lock().owed.replace(Box::new(owed));
        behind.owed_bytes.fetch_sub(before.map_or(0, |before| before.bytes), Ordering::Relaxed);
        if behind.queue.put(chain, Debt::File(Arc::clone(inode))) {
            self.start_worker();
        }
    }

    /// Nothing is owed of an inode any more: it was saved, set aside or removed.
    pub(super) fn settle_owed(&self, inode: &Inode) {
        let Some(behind) = &self.behind else { return };
        let chain = inode.state.lock().owed.as_ref().map(|owed| owed.chain);
        if let Some(chain) = chain {
            behind.journal.settle(chain);
            self.release_owed(behind, inode);
        }
    }

    /// The inode has nothing to do with its chain any more.
    fn release_owed(&self, behind: &Behind, inode: &Inode) {
        let Some(owed) = inode.state.lock().owed.take() else { return };
        behind.owed_bytes.fetch_sub(owed.bytes, Ordering::Relaxed);
        behind.queue.remove(owed.chain);
        if behind.owed.lock().remove(&owed.chain).is_some() {
            self.table.release(inode.number, 1);
        }
    }

    fn start_worker(self: &Arc<Self>) {
        let volume = Arc::clone(self);
        self.resources.runtime.spawn(async move {
            let Some(behind) = &volume.behind else { return };
            loop {
                match behind.queue.next() {
                    Task::End => return,
                    Task::Wait(pause) => behind.queue.wait(pause).await,
                    Task::Send(debt, more) => {
                        if more {
                            volume.start_worker();
                        }
                        volume.send_unheard(behind, &debt).await;
                    }
                }
            }
        });
    }

    /// One try to bring what is owed of an inode to the service. What it never takes goes to lost+found.
    ///
    /// # Errors
    /// What the commit says.
    async fn send_owed(self: &Arc<Self>, behind: &Behind, inode: &Arc<Inode>) -> Result<()> {
        let name = self.blob_name(inode).map(|name| name.to_string()).unwrap_or_default();
        let error = match self.commit_owed(inode).await {
            Ok(()) => {
                behind.queue.note_success();
                return Ok(());
            }
            Err(error) => error,
        };
        if error.may_pass() {
            behind.report(&name, &error);
            let chain = inode.state.lock().owed.as_ref().map(|owed| owed.chain);
            if chain.is_some_and(|chain| behind.queue.put_back(chain, Debt::File(Arc::clone(inode)))) {
                self.start_worker();
            }
            return Err(error);
        }
        let fix = error.source.as_ref().and_then(|source| source.remedy());
        tracing::error!(blob = name, fix, "what was closed cannot be saved: {}", error.to_chain());
        // Who has it open may still read it and save it elsewhere: then the last close moves it.
        if inode.state.lock().opened == 0 && !self.settle_unsaved(inode).await {
            self.retry_later(inode);
        }
        Err(error)
    }

    async fn send(self: &Arc<Self>, behind: &Behind, debt: &Debt) -> Result<()> {
        match debt {
            Debt::File(inode) => self.send_owed(behind, inode).await,
            Debt::Removal(removal) => self.send_removal(behind, removal).await,
        }
    }

    /// As [`Self::send`] for nobody: the next fsync of a directory above it hears of what failed for good.
    async fn send_unheard(self: &Arc<Self>, behind: &Behind, debt: &Debt) {
        let name = match debt {
            Debt::File(inode) => self.blob_name(inode).map(|name| name.to_string()).unwrap_or_default(),
            Debt::Removal(removal) => removal.blob.to_string(),
        };
        if let Err(error) = self.send(behind, debt).await
            && !error.may_pass()
        {
            behind.note_failure(name, &error);
        }
    }

    /// fsync(2) of a directory: everything in it and below it that was closed or unlinked is on the service when it returns.
    ///
    /// # Errors
    /// The first commit that failed; else, once, what could not be saved or removed below it since the last such call.
    pub async fn sync_directory(self: &Arc<Self>, number: InodeNumber) -> Result<()> {
        // (A directory without a name holds nothing that could be waited for.)
        if let Ok(prefix) = self.directory_prefix(number) {
            self.finish_deletes_below(&prefix).await?;
        }
        let Some(behind) = &self.behind else { return Ok(()) };
        let prefix = self.directory_prefix(number)?;
        self.send_below(number).await?;
        // So that a loss of power does not bring back what the service has forgotten; an error is in the log.
        let _ = behind.journal.force(behind.journal.end()).await;
        let mut failures = behind.failures.lock();
        let position = failures.iter().position(|failure| failure.blob.starts_with(&prefix));
        let Some(position) = position else { return Ok(()) };
        let told = failures.remove(position).error;
        failures.retain(|failure| !failure.blob.starts_with(&prefix));
        Err(told)
    }

    /// Brings a directory and everything below it that is owed to the service.
    ///
    /// # Errors
    /// The first that failed; the others were tried all the same.
    pub(super) async fn send_below(self: &Arc<Self>, number: InodeNumber) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let owed: Vec<Arc<Inode>> = behind.files();
        let below = owed.into_iter().filter(|inode| self.table.is_within(inode.number, number));
        let sent = self.send_all(behind, below.map(Debt::File).collect()).await;
        let removed = self.send_removals_below(number).await;
        sent.and(removed)
    }

    /// Has everything that was removed in or below a directory removed by the service.
    ///
    /// # Errors
    /// As [`Self::send_below`].
    pub(super) async fn send_removals_below(self: &Arc<Self>, number: InodeNumber) -> Result<()> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let all = behind.removals.all().into_iter();
        let below = all.filter(|removal| self.table.is_within(removal.parent, number));
        self.send_all(behind, below.map(Debt::Removal).collect()).await
    }

    /// Once the service was silent for a whole deadline, what has not begun is not begun any more.
    async fn send_all(self: &Arc<Self>, behind: &Behind, debts: Vec<Debt>) -> Result<()> {
        let is_silent = &AtomicBool::new(false);
        let send = |debt: Debt| async move {
            if is_silent.load(Ordering::Relaxed) {
                return Err(Error::timed_out("the service does not answer"));
            }
            let sent = self.send(behind, &debt).await;
            is_silent.fetch_or(sent.as_ref().is_err_and(|error| error.errno == libc::ETIMEDOUT), Ordering::Relaxed);
            sent
        };
        // Collected first: the compiler cannot see that a stream over a borrowing closure is Send.
        let sends: Vec<_> = debts.into_iter().map(send).collect();
        let outcomes: Vec<Result<()>> = futures::stream::iter(sends).buffer_unordered(COMMITS_AT_ONCE).collect().await;
        outcomes.into_iter().find(Result::is_err).unwrap_or(Ok(()))
    }
}

fn put_of(chain: u64, blob: &BlobName, expected: Expected, options: WriteOptions, body: &Body) -> Put {
    Put {
        chain,
        blob: blob.to_string(),
        expected,
        metadata: options.metadata,
        headers: headers_of(&options.headers),
        access_tier: options.access_tier,
        md5: md5_of(body),
        length: body.len(),
    }
}

fn md5_of(body: &Body) -> [u8; 16] {
    let mut md5 = Md5::new();
    body.pieces().iter().for_each(|piece| md5.update(piece));
    md5.finalize().into()
}
