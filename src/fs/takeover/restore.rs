//! The other side: what another process has written down becomes tables again, before the first request is served.
//!
//! All of it is read and checked before anything is changed. What contradicts itself is refused as a whole: the volume then
//! begins anew under numbers that were never used, so that the kernel's old ones are answered ESTALE (it looks the path up
//! again) and old handles EIO. Wrong data is never served.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::fd::OwnedFd,
    sync::atomic::AtomicU64,
    time::{Duration, Instant, SystemTime},
};

use prost::Message;

use super::{
    super::{
        Error, FileSystem, Result, Settings, View, ViewSettings,
        attributes::Attributes,
        by_number::ByNumber,
        commit::Attempt,
        directory::{Given, Reader},
        handle::{Access, DirectoryHandle, FileHandle, HandleId},
        inode::{Base, Inode, InodeNumber, ROOT, State},
        lock::{Lock, LockCall, Owner},
        name::Naming,
        overlay::{LayerId, Overlay},
        spool::SpoolFile,
        table::LeftRow,
        view::Invalidation,
    },
    Counter, FORMAT, GIVEN_BITS, Scribe,
    inodes::{kind_of, read_state},
    layers::{self, spool_key},
    numbers_of,
    rows::{BaseRow, BegunRow, DeleteRow, GivenRow, HandleRow, InodeRow, LocksRow, NameRow, VolumeRow},
    section,
};
use crate::{
    blob::{BlobName, ETag},
    ledger::{Contents, Section},
    sync::{Arc, Mutex},
};

/// How long what was begun by another process is remembered after the takeover: its request is sent again at once, and may
/// take as long as a request may.
const BEGUN_AGE: Duration = Duration::from_secs(600);

/// What was taken over and is not yet claimed.
#[derive(Debug, Default)]
pub(in crate::fs) struct Left {
    begun: Mutex<HashMap<u64, BegunRow>>,
    views: Mutex<BTreeMap<u64, ByNumber<InodeNumber, u64>>>,
    /// What kernels may have a copy of that nobody else knows: files that change without a kernel's doing, directories whose
    /// readers go on in another order, names that went or came and no reply said so.
    doubted: Mutex<Vec<Invalidation>>,
    /// Handles that a kernel has let go, each with its view and inode.
    closed: Mutex<Vec<(u64, HandleId, InodeNumber)>>,
    /// The volume goes on with what another process had.
    is_taken_over: bool,
}

impl Left {
    /// What another process had begun.
    pub(super) fn begun(&self, key: u64) -> Option<BegunRow> {
        self.begun.lock().get(&key).cloned()
    }

    /// Unlinks and renames of which another process did not note the end, with their keys.
    pub(super) fn unfinished(&self) -> Vec<(u64, BegunRow)> {
        let begun = self.begun.lock();
        let open = begun.iter().filter(|(_, row)| row.outcome.is_none() && row.inode != 0);
        open.map(|(key, row)| (*key, row.clone())).collect()
    }

    /// What another process had begun has ended.
    pub(super) fn end(&self, key: u64, row: BegunRow) {
        self.begun.lock().insert(key, row);
    }

    /// Kernels must be told this, once they are taken over.
    pub(super) fn doubt(&self, invalidation: Invalidation) {
        self.doubted.lock().push(invalidation);
    }
}

/// Everything that was written down, understood.
#[derive(Debug, Default)]
pub(in crate::fs) struct Understood {
    volume: VolumeRow,
    counters: [u64; 4],
    rows: BTreeMap<u64, (InodeRow, Option<BaseRow>, NameRow)>,
    root: Option<InodeRow>,
    handles: Vec<(u64, HandleRow)>,
    /// What the readers of directories were given, by handle.
    given: BTreeMap<u64, Vec<Given>>,
    lookups: BTreeMap<u64, ByNumber<InodeNumber, u64>>,
    locks: Vec<(InodeNumber, Vec<Lock>)>,
    begun: HashMap<u64, BegunRow>,
    deletes: BTreeMap<u64, String>,
    heads: BTreeMap<u64, Vec<u8>>,
    buffers: BTreeMap<u64, BTreeMap<u64, Vec<u8>>>,
    /// Rows that nothing needs.
    stale: Vec<(Section, u64)>,
}

/// The state cannot be believed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(in crate::fs) struct Unreadable(String);

fn unreadable(what: impl Into<String>) -> Unreadable {
    Unreadable(what.into())
}

fn decoded<T: Message + Default>(what: &str, key: u64, row: &[u8]) -> std::result::Result<T, Unreadable> {
    T::decode(row).map_err(|error| unreadable(format!("{what} {key}: {error}")))
}

fn number_of(what: &str, key: u64, row: &[u8]) -> std::result::Result<u64, Unreadable> {
    let bytes = row.try_into().map_err(|_| unreadable(format!("{what} {key} has {} bytes", row.len())))?;
    Ok(u64::from_le_bytes(bytes))
}

impl Understood {
    /// Reads all rows. `format` is that of their writer.
    pub(in crate::fs) fn read(contents: &Contents, format: u32) -> std::result::Result<Self, Unreadable> {
        if format == 0 || format > FORMAT {
            return Err(unreadable(format!("format {format} is newer than this version knows ({FORMAT})")));
        }
        let mut read = Self::default();
        let (mut versions, mut names, mut inodes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (&(section, key), row) in contents {
            match section {
                section::VOLUME => read.volume = decoded("the volume", key, row)?,
                section::INODE => drop(inodes.insert(key, decoded::<InodeRow>("inode", key, row)?)),
                section::VERSION => drop(versions.insert(key, decoded::<BaseRow>("version", key, row)?)),
                section::NAME => drop(names.insert(key, decoded::<NameRow>("name", key, row)?)),
                section::LOOKUPS => {
                    let (view, number) = numbers_of(key);
                    let count = number_of("lookups", key, row)?;
                    read.lookups.entry(view).or_default().insert(InodeNumber(number), count);
                }
                section::HANDLE => read.handles.push((key, decoded("handle", key, row)?)),
                section::GIVEN => {
                    let row: GivenRow = decoded("names given", key, row)?;
                    let given = row.given().ok_or_else(|| unreadable(format!("names given {key} are none")))?;
                    read.given.entry(key >> GIVEN_BITS).or_default().push(given);
                }
                section::LOCKS => read.locks.push((InodeNumber(key), locks_of(&decoded("locks", key, row)?)?)),
                section::LAYER => drop(read.heads.insert(key, row.clone())),
                section::BUFFER => {
                    read.buffers.entry(LayerId::of_key(key).0).or_default().insert(key, row.clone());
                }
                section::BEGUN => drop(read.begun.insert(key, decoded("request", key, row)?)),
                section::NUMBERS => match usize::try_from(key).ok().and_then(|key| read.counters.get_mut(key)) {
                    Some(counter) => *counter = number_of("counter", key, row)?,
                    None => return Err(unreadable(format!("a counter {key}"))),
                },
                section::DELETE => drop(read.deletes.insert(key, decoded::<DeleteRow>("delete", key, row)?.blob)),
                // A later version's, of the same format: it does without.
                _ => read.stale.push((section, key)),
            }
        }
        read.root = inodes.remove(&ROOT.0);
        for (number, row) in inodes {
            match names.remove(&number) {
                Some(name) => drop(read.rows.insert(number, (row, versions.remove(&number), name))),
                // It lost the race for its name, or was let go between two rows.
                None => read.stale.extend([(section::INODE, number), (section::VERSION, number)]),
            }
        }
        read.stale.extend(names.into_keys().map(|number| (section::NAME, number)));
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> std::result::Result<(), Unreadable> {
        let next = self.counters[Counter::Inodes as usize];
        if let Some((number, _)) = self.rows.last_key_value().filter(|(number, _)| **number >= next) {
            return Err(unreadable(format!("inode {number} is not below {next}, which was never given")));
        }
        for (number, (row, version, _)) in &self.rows {
            if row.base != version.is_some() {
                return Err(unreadable(format!("inode {number} and its version do not agree")));
            }
            if kind_of(row.kind).is_none() {
                return Err(unreadable(format!("inode {number} is of an unknown kind {}", row.kind)));
            }
        }
        let next = self.counters[Counter::Handles as usize];
        for (id, handle) in &self.handles {
            if *id >= next || !(handle.inode == ROOT.0 || self.rows.contains_key(&handle.inode)) {
                return Err(unreadable(format!("handle {id} is of inode {}, which is not there", handle.inode)));
            }
        }
        Ok(())
    }

    /// The path of an inode below the volume's root, as it is shown; `None` when its name is gone.
    fn path_of(&self, number: u64) -> Option<Vec<&str>> {
        let (mut path, mut at) = (Vec::new(), number);
        while at != ROOT.0 {
            let (_, _, name) = self.rows.get(&at).filter(|(_, _, name)| name.linked)?;
            path.push(name.name.as_str());
            at = name.parent;
            if path.len() > self.rows.len() {
                return None; // A circle.
            }
        }
        path.reverse();
        Some(path)
    }

    fn blob_of(&self, number: u64, settings: &Settings) -> Option<BlobName> {
        let naming = Naming { escape: settings.escape_names };
        let path = self.path_of(number)?;
        let parts = path.iter().map(|name| naming.component(name.as_ref()).ok().map(|part| part.text));
        let path = parts.collect::<Option<Vec<String>>>()?.join("/");
        BlobName::new(format!("{}{path}", settings.prefix)).ok()
    }
}

impl Understood {
    /// How often kernels have looked each inode up, and how many handles are open on it.
    fn references(&self) -> HashMap<u64, u64> {
        let mut references: HashMap<u64, u64> = HashMap::new();
        for lookups in self.lookups.values() {
            lookups.iter().for_each(|(number, count)| *references.entry(number.0).or_default() += count);
        }
        self.handles.iter().for_each(|(_, row)| *references.entry(row.inode).or_default() += 1);
        references
    }

    /// Has `scribe` go on with the rows of the layers that are there; the others are stale.
    fn take_over_layers(&mut self, scribe: &Scribe, kept: &BTreeSet<u64>, spooled: Vec<u64>) {
        let mut written: BTreeMap<u64, layers::Written> = BTreeMap::new();
        for (layer, buffers) in &self.buffers {
            match kept.contains(layer) {
                true => written.entry(*layer).or_default().keys.extend(buffers.keys()),
                false => self.stale.extend(buffers.keys().map(|key| (section::BUFFER, *key))),
            }
        }
        for layer in spooled {
            written.entry(layer).or_default().is_spooled = true;
        }
        let forgotten = self.heads.keys().filter(|layer| !kept.contains(layer));
        self.stale.extend(forgotten.map(|layer| (section::LAYER, *layer)));
        scribe.layers.take_over(self.counters[Counter::Layers as usize], written);
    }
}

fn locks_of(row: &LocksRow) -> std::result::Result<Vec<Lock>, Unreadable> {
    let lock = |row: &super::rows::LockRow| {
        let call = match row.call {
            0 => LockCall::Flock,
            1 => LockCall::Fcntl,
            2 => LockCall::Either,
            other => return Err(unreadable(format!("a lock by an unknown call {other}"))),
        };
        let (owner, range) = (Owner { view: row.view, id: row.owner }, row.start..=row.end);
        Ok(Lock { owner, call, handle: HandleId(row.handle), range, exclusive: row.exclusive, pid: row.pid })
    };
    row.held.iter().map(lock).collect()
}

fn access_of(bits: u32) -> Access {
    let has = |bit: u32| bits & bit != 0;
    Access { read: has(1), write: has(2), append: has(4), synchronous: has(8), ..Access::default() }
}

impl FileSystem {
    /// Whether it goes on with what another process had.
    #[must_use]
    pub fn is_taken_over(&self) -> bool {
        self.left.is_taken_over
    }

    /// Takes over what another process has written down. The tables are empty but for the root, and nothing is served yet.
    ///
    /// # Errors
    /// [`Unreadable`]; nothing was changed then but the vault's slots.
    pub(in crate::fs) fn take_over(
        self: &Arc<Self>,
        scribe: &Arc<Scribe>,
        mut read: Understood,
        mut spools: BTreeMap<String, OwnedFd>,
    ) -> std::result::Result<(), Unreadable> {
        let all_spools: BTreeSet<String> = spools.keys().cloned().collect();
        let mut opened: HashMap<u64, [u32; 3]> = HashMap::new();
        for (_, row) in &read.handles {
            let (access, count) = (access_of(row.access), opened.entry(row.inode).or_default());
            if !row.directory {
                count[0] += 1;
                count[1] += u32::from(access.write);
                count[2] += u32::from(access.read);
            }
        }
        let mut inodes: HashMap<u64, Arc<Inode>> = HashMap::new();
        let mut layers_kept: BTreeSet<u64> = BTreeSet::new();
        for (number, (row, version, _)) in &read.rows {
            let kind = kind_of(row.kind).ok_or_else(|| unreadable("an unknown kind"))?;
            let mut state = State::new(None, Attributes::default(), None);
            read_state(row, &mut state);
            if let Some(version) = version {
                state.appended = version.appended;
                state.base = Some(Arc::new(self.base_left(*number, version, &read)?));
            }
            [state.opened, state.writers, state.readers] = opened.get(number).copied().unwrap_or_default();
            let mut layer = |id: Option<u64>| id.map(|id| self.layer_left(scribe, id, &read, &mut spools)).transpose();
            let committing = layer(row.committing)?.map(Arc::new);
            state.overlay = layer(row.overlay)?;
            if let Some(layer) = &committing {
                state.attempts = row.attempts.iter().map(|row| Attempt::of_row(row, layer)).collect();
            }
            state.committing = committing;
            let layers = [row.overlay, row.committing];
            layers_kept.extend(layers.into_iter().flatten());
            inodes.insert(*number, Inode::taken_over(InodeNumber(*number), kind, state, layers, scribe));
        }
        let spooled = layers_kept.iter().copied().filter(|layer| all_spools.contains(&spool_key(*layer))).collect();
        // What no layer wants any more.
        spools.into_keys().for_each(|key| scribe.holder.let_go(&key));
        read.take_over_layers(scribe, &layers_kept, spooled);
        self.take_over_tables(scribe, &mut read, &inodes);
        scribe.vault.seal();
        Ok(())
    }

    fn base_left(&self, number: u64, version: &BaseRow, read: &Understood) -> std::result::Result<Base, Unreadable> {
        let properties = version.properties();
        let named = version.source_name.as_deref().and_then(|name| BlobName::new(name).ok());
        let name = named.or_else(|| read.blob_of(number, &self.settings));
        let name = name.ok_or_else(|| unreadable(format!("inode {number} has a version and no blob")))?;
        let etag = version.source_etag.as_deref().map_or_else(|| properties.etag.clone(), |etag| ETag(etag.into()));
        let content = self.content(&name, &etag, properties.length);
        Ok(Base::new(properties, content))
    }

    fn layer_left(
        &self,
        scribe: &Scribe,
        id: u64,
        read: &Understood,
        spools: &mut BTreeMap<String, OwnedFd>,
    ) -> std::result::Result<Overlay, Unreadable> {
        let head = read.heads.get(&id).ok_or_else(|| unreadable(format!("layer {id} has no head")))?;
        let none = BTreeMap::new();
        let buffers = read.buffers.get(&id).unwrap_or(&none);
        let spool = spools.remove(&spool_key(id)).map(|file| Arc::new(SpoolFile::from_fd(file)));
        let rows = buffers.iter().map(|(key, row)| (*key, row.as_slice()));
        let reserve = |bytes| self.pool().budget().admit_dirty(&self.dirty_share, bytes);
        Overlay::restore(head, rows, &scribe.vault, spool, reserve)
            .map_err(|error| unreadable(format!("layer {id}: {error}")))
    }

    fn take_over_tables(self: &Arc<Self>, scribe: &Scribe, read: &mut Understood, inodes: &HashMap<u64, Arc<Inode>>) {
        // What is given from here on is below these again.
        for (counter, next) in Counter::ALL.into_iter().zip(read.counters) {
            scribe.reserve_numbers(counter, next);
        }
        // Changes that nobody has open are retried: they hold their inodes until they are saved.
        let unsaved: Vec<Arc<Inode>> = inodes.values().filter(|inode| is_left_over(inode)).cloned().collect();
        let references = read.references();
        let left = read.rows.iter().filter_map(|(number, (_, _, name))| {
            let held = references.get(number).copied().unwrap_or_default();
            let is_unsaved = || unsaved.iter().any(|inode| inode.number.0 == *number);
            Some(LeftRow {
                inode: Arc::clone(inodes.get(number)?),
                parent: InodeNumber(name.parent),
                name: Arc::from(name.name.as_str()),
                linked: name.linked,
                references: if held == 0 { u64::from(is_unsaved()) } else { held },
            })
        });
        self.table.take_over(left.collect(), read.counters[Counter::Inodes as usize]);
        if let (Some(root), Some(row)) = (self.table.get(ROOT), &read.root) {
            let mut state = root.state.lock();
            state.attributes = row.carried.as_ref().map(|row| row.carried().attributes).unwrap_or_default();
        }
        let closed = read.handles.iter().filter(|(_, row)| row.closed);
        *self.left.closed.lock() = closed.map(|(id, row)| (row.view, HandleId(*id), InodeNumber(row.inode))).collect();
        self.take_over_handles(scribe, read, inodes);
        self.locks.take_over(std::mem::take(&mut read.locks));
        self.views.count_from(read.counters[Counter::Views as usize]);
        let has_views = read.lookups.len() > 1;
        let changes = |row: &InodeRow| row.kind == 0 && (has_views || row.followed);
        let changing = read.rows.iter().filter(|(_, (row, _, _))| changes(row));
        self.left.doubted.lock().extend(changing.map(|(number, _)| Invalidation::Data(InodeNumber(*number))));
        *self.left.views.lock() = std::mem::take(&mut read.lookups);
        let begun = std::mem::take(&mut read.begun);
        scribe.ended.remember(begun.keys().copied(), Instant::now() + BEGUN_AGE);
        *self.left.begun.lock() = begun;
        read.stale.drain(..).for_each(|(section, key)| scribe.ledger.remove(section, key));
        let deletes = std::mem::take(&mut read.deletes).into_iter();
        self.go_on_deleting(deletes.filter_map(|(ticket, blob)| Some((ticket, BlobName::new(blob).ok()?))).collect());
        for inode in unsaved {
            self.retry_later(&inode);
            if !references.contains_key(&inode.number.0) {
                self.table.release(inode.number, 1);
            }
        }
    }

    /// Goes on with the last closes that the process before has begun, of a view whose kernel will not tell of them once more:
    /// locks and changes would stay for as long as the mount.
    pub fn finish_closes(self: &Arc<Self>, view: &View) {
        let id = view.id();
        let closed: Vec<_> = self.left.closed.lock().extract_if(.., |(view, ..)| *view == id).collect();
        for (_, handle, number) in closed {
            let volume = Arc::clone(self);
            self.resources.runtime.spawn(async move {
                if let Err(error) = volume.release(handle).await {
                    tracing::error!("releasing a file that was closed in another process: {}", error.to_chain());
                }
                volume.unlock_handle(number, handle);
            });
        }
    }

    fn take_over_handles(&self, scribe: &Scribe, read: &mut Understood, inodes: &HashMap<u64, Arc<Inode>>) {
        let find = |number: u64| match number == ROOT.0 {
            true => self.table.get(ROOT),
            false => inodes.get(&number).cloned(),
        };
        let (mut files, mut directories) = (Vec::new(), Vec::new());
        for (id, row) in std::mem::take(&mut read.handles) {
            let (Some(inode), id) = (find(row.inode), HandleId(id)) else { continue };
            let view = row.view;
            if row.directory {
                let left = read.given.remove(&id.0).unwrap_or_default();
                if let (Some(known), Some(given)) = (&inode.directory, left.iter().map(Given::last).max()) {
                    known.begin_behind(given);
                    self.left.doubt(Invalidation::Data(inode.number));
                }
                let (listing, stamp) = (Mutex::new(None), Mutex::new(None));
                let reader = Mutex::new(Reader::taken_over(left));
                directories.push((id, DirectoryHandle { inode, listing, stamp, view, reader }));
            } else {
                let (stream, heard) = (self.cache().stream(), AtomicU64::new(row.heard));
                files.push((id, FileHandle { id, inode, access: access_of(row.access), stream, heard, view }));
            }
        }
        for (handle, left) in std::mem::take(&mut read.given) {
            scribe.cut_given(HandleId(handle), 0..left.len(), None);
        }
        self.handles.take_over(files, directories, read.counters[Counter::Handles as usize]);
    }

    /// Goes on with the view `id`, whose kernel another process has served. `None`: nothing was left of it.
    pub fn take_over_view(&self, id: u64, settings: ViewSettings) -> Option<Arc<View>> {
        let lookups = self.left.views.lock().remove(&id);
        if !self.left.is_taken_over {
            return None;
        }
        let view = self.views.take_over(id, settings, lookups.unwrap_or_default(), self.scribe.as_ref());
        // What the other process was about to tell this kernel is not known.
        self.left.doubted.lock().iter().for_each(|doubted| view.tell(doubted.clone()));
        Some(view)
    }

    /// The files and directories that a view's kernel has open.
    #[must_use]
    pub fn handles_of(&self, view: &View) -> (Vec<HandleId>, Vec<HandleId>) {
        self.handles.of_view(view.id())
    }

    /// The length of the longest file that a view's kernel has open for writing, if it has any.
    #[must_use]
    pub fn longest_written(&self, view: &View) -> Option<u64> {
        self.handles.written(view.id()).iter().map(|inode| inode.state.lock().size()).max()
    }

    /// Lets go what no kernel is there for any more, once all views are taken over.
    pub async fn end_takeover(self: &Arc<Self>) {
        let gone = std::mem::take(&mut *self.left.views.lock());
        for (view, lookups) in gone {
            let (files, directories) = self.handles.of_view(view);
            directories.into_iter().for_each(|handle| self.close_directory(handle));
            for handle in files {
                if let Err(error) = self.release(handle).await {
                    tracing::error!("releasing a file that was open in another process: {}", error.to_chain());
                }
            }
            for (number, count) in lookups {
                if let Some(scribe) = &self.scribe {
                    scribe.note_lookups(view, number, 0);
                }
                self.table.release(number, count);
            }
        }
    }
}

/// Whether something of an inode is to be saved, and nobody has it open who would.
fn is_left_over(inode: &Inode) -> bool {
    let state = inode.state.lock();
    state.is_dirty() && state.opened == 0
}

/// A number that none of a process whose state cannot be read has given: they count from 1, or from an earlier moment.
pub(in crate::fs) fn number_of_now() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    // 44 bits hold that until the year 2106.
    now.as_secs() << 12
}

impl Left {
    /// With the mark that the volume goes on with what another process had.
    pub(in crate::fs) fn of_takeover(is_taken_over: bool) -> Self {
        Self { is_taken_over, ..Self::default() }
    }
}

/// Checks that what is taken over is what is to be mounted.
///
/// # Errors
/// EINVAL, with both named.
pub(in crate::fs) fn check_identity(read: &Understood, identity: &str) -> Result<()> {
    match read.volume.identity == identity {
        true => Ok(()),
        false => Err(Error::new(
            libc::EINVAL,
            format!("what is mounted there is {}, not {identity}: unmount it first", read.volume.identity),
        )),
    }
}

impl Understood {
    /// Whether the account has a hierarchy.
    pub(in crate::fs) fn hierarchical(&self) -> bool {
        self.volume.hierarchical
    }

    /// Who that process was to the hidden copies of its open files.
    pub(in crate::fs) fn orphan_owner(&self) -> &str {
        &self.volume.orphan_owner
    }
}
