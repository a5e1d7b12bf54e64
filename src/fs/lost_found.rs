//! lost+found: where changes go that the service will never take, so that they are never dropped.
//!
//! `<spool>/lost+found/<account>/<container>/<UTC time>-<path, escaped>-<inode>-<random>` holds the file as the program saw it,
//! sparse; the record `....json` beside it says what it was, what it was based on, why it was refused and which bytes
//! were nowhere to be had. The record is written last: a file without one is the rest of an attempt. Format and care:
//! docs/TROUBLESHOOTING.md. Knows nothing of when this must happen (`last_close`).

use std::{
    fs::DirBuilder,
    io,
    ops::Range,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};

use base64::Engine;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::Serialize;
use tokio::{
    fs::{File, OpenOptions},
    io::{AsyncSeekExt, AsyncWriteExt},
};

use super::{
    FileSystem, Invalidation,
    attributes::Attributes,
    inode::{Base, Fate, Inode, Refusal},
    overlay::{Overlay, Segment, StagedRun},
};
use crate::cache::PIECE_BYTES;

/// The directory in the spool.
const NAME: &str = "lost+found";
/// What cannot stand in a file's name, and `%` itself, so that the escape can be undone.
const ESCAPED: &AsciiSet = &CONTROLS.add(b'/').add(b'%').add(b'\\');
/// Random digits at the end of a name: two files of one path, second and inode number never meet.
const TAG_DIGITS: usize = 8;
/// Longest part of a name that is the path; the record has all of it. NAME_MAX is 255, the rest takes up to 50.
const PATH_BYTES_MAX: usize = 180;
/// Bytes copied at a time.
const CHUNK_BYTES: u64 = 1 << 20;
/// Unchanged bytes that are fetched for one file at most: more stays in the container, where the record's ETag says.
const FETCHED_BYTES_MAX: u64 = 1 << 30;

/// What could not be saved of an inode, at one moment.
struct Remains {
    /// From the top down.
    layers: Vec<Overlay>,
    base: Option<Arc<Base>>,
    attributes: Attributes,
    refusal: Option<Refusal>,
    size: u64,
}

/// Where a stretch of the file is to be had.
#[derive(Debug, PartialEq, Eq)]
enum Stretch {
    /// In this layer.
    Layer(usize, Range<u64>),
    /// In the committed version.
    Base(Range<u64>),
    /// Nowhere: sent to the service, which discards it, and given up here.
    Gone(Range<u64>),
}

/// What the record says. Offsets are bytes, ends exclusive.
#[derive(Serialize)]
struct Record {
    container: String,
    blob: Option<String>,
    inode: u64,
    saved_at: String,
    error: Option<String>,
    errno: Option<i32>,
    based_on_etag: Option<String>,
    size: u64,
    /// Name of the file beside the record; none where only attributes were to be saved.
    content: Option<String>,
    /// Whether `content` has every byte.
    complete: bool,
    changed: Vec<(u64, u64)>,
    missing: Vec<(u64, u64)>,
    uncommitted: Vec<Uncommitted>,
    mode: Option<String>,
    uid: Option<u32>,
    gid: Option<u32>,
    mtime: Option<String>,
}

/// A block that the service has and nobody has committed: it keeps it for a week, unless somebody writes the blob (REST
/// page "Put Block").
#[derive(Serialize)]
struct Uncommitted {
    start: u64,
    end: u64,
    /// As Put Block List wants it: in base64.
    block_id: String,
}

impl FileSystem {
    /// Moves what an inode could not save to lost+found, and makes it clean. With `even_open` also under open handles;
    /// without, an inode that was opened meanwhile keeps its changes.
    ///
    /// # Errors
    /// No spool, or what the node's disk says. Nothing was changed then.
    pub(super) async fn set_aside(self: &Arc<Self>, inode: &Arc<Inode>, even_open: bool) -> io::Result<()> {
        let _in_order = inode.commit.lock().await;
        let Some(remains) = remains_of(inode) else { return Ok(()) };
        if inode.directory.is_some() {
            // Times and modes of a directory, whose failure chmod(2) has reported: nothing that a file could keep.
            tracing::warn!(inode = inode.number.0, "the attributes of a directory could not be saved");
            self.forget_changes(inode, even_open);
            return Ok(());
        }
        let Some(spool) = self.resources.spool.clone() else {
            return Err(io::Error::other("there is no spool directory (--spool-dir)"));
        };
        let (account, container) = account_and_container(self.identity());
        let parts = [account.to_owned(), container.to_owned()];
        let directory = tokio::task::spawn_blocking(move || make_directory(&spool, NAME, &parts));
        let directory = directory.await.map_err(io::Error::other)??;
        let path = self.former_path(inode, &remains);
        let stamp = humantime::format_rfc3339_seconds(SystemTime::now()).to_string().replace(['-', ':'], "");
        // Processes that share a spool have inodes of one number, and refusals in one second: the last part is random.
        let tag = &uuid::Uuid::new_v4().simple().to_string()[..TAG_DIGITS];
        let name = format!("{stamp}-{}-{}-{tag}", escaped(&path), inode.number.0);
        let place = directory.join(&name);
        if let Err(error) = self.write_remains(inode, &remains, &path, &place).await {
            // Best effort: the record, which comes last, is what makes it count.
            let _ = tokio::fs::remove_file(&place).await;
            return Err(error);
        }
        self.set_aside_count.fetch_add(1, Ordering::Relaxed);
        let why = remains.refusal.as_ref().map_or("the volume ends", |refusal| refusal.sentence.as_str());
        tracing::warn!(blob = path, file = %place.display(), "not saved ({why}): the changes are in lost+found");
        self.forget_changes(inode, even_open);
        Ok(())
    }

    /// The blob that the changes were for, below the container.
    fn former_path(&self, inode: &Inode, remains: &Remains) -> String {
        let refused = remains.refusal.as_ref().map(|refusal| refusal.blob.to_string());
        let own = || self.blob_name(inode).ok().map(|name| name.to_string());
        let base = || remains.base.as_ref().map(|base| base.content.source().name.to_string());
        refused.or_else(own).or_else(base).unwrap_or_else(|| "unnamed".to_owned())
    }

    async fn write_remains(&self, inode: &Inode, remains: &Remains, path: &str, place: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        if !remains.layers.is_empty() {
            let mut file = create(place).await?;
            missing = self.write_content(remains, &mut file).await?;
            file.set_len(remains.size).await?;
            file.sync_all().await?;
        }
        let time = |time: Option<SystemTime>| time.map(|time| humantime::format_rfc3339_nanos(time).to_string());
        let content = place.file_name().map(|name| name.to_string_lossy().into_owned());
        let changed = stretches(&remains.layers, remains.size).into_iter().filter_map(|stretch| match stretch {
            Stretch::Layer(_, range) | Stretch::Gone(range) => Some((range.start, range.end)),
            Stretch::Base(_) => None,
        });
        let record = Record {
            container: self.identity().to_owned(),
            blob: Some(path.to_owned()),
            inode: inode.number.0,
            saved_at: humantime::format_rfc3339_seconds(SystemTime::now()).to_string(),
            error: remains.refusal.as_ref().map(|refusal| refusal.sentence.clone()),
            errno: remains.refusal.as_ref().map(|refusal| refusal.errno),
            based_on_etag: remains.base.as_ref().map(|base| base.properties.etag.0.to_string()),
            size: remains.size,
            content: content.filter(|_| !remains.layers.is_empty()),
            complete: missing.is_empty(),
            changed: joined(changed),
            missing: joined(missing.into_iter()),
            uncommitted: remains.layers.iter().flat_map(Overlay::staged).map(uncommitted).collect(),
            mode: remains.attributes.mode.map(|mode| format!("{mode:04o}")),
            uid: remains.attributes.uid,
            gid: remains.attributes.gid,
            mtime: time(remains.attributes.mtime),
        };
        let mut text = serde_json::to_vec_pretty(&record)?;
        text.push(b'\n');
        let mut name = place.as_os_str().to_owned();
        name.push(".json");
        let mut file = create(Path::new(&name)).await?;
        file.write_all(&text).await?;
        file.sync_all().await?;
        // The names are on the disk only with their directory.
        match place.parent() {
            Some(parent) => File::open(parent).await?.sync_all().await,
            None => Ok(()),
        }
    }

    /// Writes all that can be had; returns what cannot.
    async fn write_content(&self, remains: &Remains, file: &mut File) -> io::Result<Vec<(u64, u64)>> {
        let mut missing = Vec::new();
        let mut base = BaseReader { file_system: self, remains, service_answers: true, fetched: 0 };
        for stretch in stretches(&remains.layers, remains.size) {
            let (range, layer) = match &stretch {
                Stretch::Gone(range) => {
                    missing.push((range.start, range.end));
                    continue;
                }
                Stretch::Layer(layer, range) => (range, remains.layers.get(*layer)),
                Stretch::Base(range) => (range, None),
            };
            for chunk in chunks(range, CHUNK_BYTES) {
                let Some(layer) = layer else {
                    base.copy(&chunk, file, &mut missing).await?;
                    continue;
                };
                let mut bytes = vec![0; usize::try_from(chunk.end - chunk.start).unwrap_or_default()];
                match layer.copy_to(&chunk, &mut bytes) {
                    Ok(()) => write_at(file, chunk.start, &bytes).await?,
                    Err(error) => {
                        tracing::error!("the spool does not give back what it keeps: {error}");
                        missing.push((chunk.start, chunk.end));
                    }
                }
            }
        }
        file.flush().await?;
        Ok(missing)
    }

    /// The inode is as the service has it again; a file that the service never had loses its name.
    fn forget_changes(&self, inode: &Arc<Inode>, even_open: bool) {
        let (never_saved, fate) = {
            let mut state = inode.state.lock();
            if state.opened > 0 && !even_open {
                return;
            }
            state.discard_changes();
            self.restore_mode(&mut state);
            (state.base.is_none() && inode.directory.is_none(), state.fate)
        };
        self.settle_owed(inode);
        if fate == Fate::Linked
            && never_saved
            && let Some((parent, name)) = self.table.place(inode.number)
        {
            self.detach(parent, &name, inode);
            if let Some(known) = self.table.get(parent).as_ref().and_then(|parent| parent.directory.as_ref()) {
                known.forget();
            }
        }
        self.views.invalidate(None, &Invalidation::Data(inode.number));
    }
}

/// Reads unchanged bytes: from the service while it gives them, then only what is in memory.
struct BaseReader<'a> {
    file_system: &'a FileSystem,
    remains: &'a Remains,
    service_answers: bool,
    fetched: u64,
}

impl BaseReader<'_> {
    async fn copy(&mut self, range: &Range<u64>, file: &mut File, missing: &mut Vec<(u64, u64)>) -> io::Result<()> {
        let Some(base) = &self.remains.base else { return Ok(()) };
        let cache = self.file_system.cache();
        let stream = cache.stream();
        if self.service_answers && self.fetched < FETCHED_BYTES_MAX {
            match cache.read(&base.content, range.clone(), &stream).await {
                Ok(found) => {
                    self.fetched += found.len() as u64;
                    return write_at(file, range.start, &found.to_vec()).await;
                }
                Err(error) => {
                    tracing::debug!(%error, "unchanged bytes cannot be read any more");
                    self.service_answers = false;
                }
            }
        }
        for piece in chunks(range, PIECE_BYTES) {
            match cache.try_read(&base.content, piece.clone(), &stream) {
                Some(found) => write_at(file, piece.start, &found.to_vec()).await?,
                None => missing.push((piece.start, piece.end)),
            }
        }
        Ok(())
    }
}

fn uncommitted(run: &StagedRun) -> Uncommitted {
    let block_id = base64::engine::general_purpose::STANDARD.encode(&run.id.0);
    Uncommitted { start: run.range.start, end: run.range.end, block_id }
}

fn remains_of(inode: &Inode) -> Option<Remains> {
    let state = inode.state.lock();
    let layers = state.overlay.iter().chain(state.committing.as_deref());
    state.is_dirty().then(|| Remains {
        layers: layers.cloned().collect(),
        base: state.base.clone(),
        attributes: state.attributes,
        refusal: state.refusal.clone(),
        size: state.size(),
    })
}

/// What the first `size` bytes of the file are made of, zeros left out.
fn stretches(layers: &[Overlay], size: u64) -> Vec<Stretch> {
    fn below(layers: &[Overlay], depth: usize, range: &Range<u64>, found: &mut Vec<Stretch>) {
        let Some(layer) = layers.get(depth) else { return found.push(Stretch::Base(range.clone())) };
        for segment in layer.segments(range) {
            match segment {
                Segment::Dirty(part) => found.push(Stretch::Layer(depth, part)),
                Segment::Staged(part) => found.push(Stretch::Gone(part)),
                Segment::Zero(_) => {}
                Segment::Below(part) => below(layers, depth + 1, &part, found),
            }
        }
    }
    let mut found = Vec::new();
    if !layers.is_empty() {
        below(layers, 0, &(0..size), &mut found);
    }
    found
}

/// The parts of `range` between multiples of `step`.
fn chunks(range: &Range<u64>, step: u64) -> impl Iterator<Item = Range<u64>> + use<> {
    let (end, mut position) = (range.end, range.start);
    std::iter::from_fn(move || {
        let next = end.min((position / step + 1) * step);
        (position < end).then(|| std::mem::replace(&mut position, next)..next)
    })
}

/// Neighbouring ranges as one.
fn joined(ranges: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match all.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => all.push((start, end)),
        }
    }
    all
}

/// `host/account/container`, without the host.
fn account_and_container(identity: &str) -> (&str, &str) {
    let mut parts = identity.rsplit('/');
    let container = parts.next().unwrap_or("container");
    (parts.next().unwrap_or("account"), container)
}

/// The path as one component of at most [`PATH_BYTES_MAX`] bytes, never cut inside an escape.
fn escaped(path: &str) -> String {
    let mut text = String::new();
    for part in utf8_percent_encode(path, ESCAPED) {
        let units: Vec<&str> =
            if part.starts_with('%') { vec![part] } else { part.split_inclusive(|_| true).collect() };
        for unit in units {
            if text.len() + unit.len() > PATH_BYTES_MAX {
                return text;
            }
            text.push_str(unit);
        }
    }
    text
}

/// Makes the directories, for our eyes only. In a shared directory such as /tmp somebody else may have taken the name:
/// then it is another, with our user's number.
pub(super) fn make_directory(spool: &Path, name: &str, parts: &[String]) -> io::Result<PathBuf> {
    std::fs::create_dir_all(spool)?;
    let own = nix::unistd::geteuid().as_raw();
    let names = [name.to_owned(), format!("{name}-{own}")];
    let mut refused = io::Error::from(io::ErrorKind::PermissionDenied);
    for name in names {
        let mut path = spool.join(name);
        match own_directory(&path, own) {
            Ok(()) => {}
            Err(error) => {
                refused = error;
                continue;
            }
        }
        for part in parts {
            path.push(escaped(part));
            own_directory(&path, own)?;
        }
        return Ok(path);
    }
    Err(refused)
}

fn own_directory(path: &Path, own: u32) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = std::fs::symlink_metadata(path)?;
    if found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0 {
        return Ok(());
    }
    let sentence = format!("{} is not a directory of our own", path.display());
    Err(io::Error::new(io::ErrorKind::PermissionDenied, sentence))
}

async fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).await
}

async fn write_at(file: &mut File, position: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(io::SeekFrom::Start(position)).await?;
    file.write_all(bytes).await
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn layer(below: u64, size: u64) -> Overlay {
        let mut layer = Overlay::over(below);
        layer.truncate(size).unwrap();
        layer
    }

    #[test]
    fn stretches_go_through_all_layers_down_to_the_committed_version() {
        let (top, bottom) = (layer(50, 60), layer(100, 50));
        assert_eq!(stretches(&[top, bottom], 60), [Stretch::Base(0..50)], "10 bytes of zeros are a hole");
        assert_eq!(stretches(&[], 60), []);
        let empty = Overlay::over(0).write(0, b"", &mut BTreeMap::new());
        assert!(empty.is_ok());
    }

    #[test]
    fn a_path_becomes_one_component_that_is_never_cut_inside_an_escape() {
        assert_eq!(escaped("a/b%c"), "a%2Fb%25c");
        let long = escaped(&"ü".repeat(200));
        assert!(long.len() <= PATH_BYTES_MAX && long.len().is_multiple_of(3), "{long}");
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_used() {
        let spool = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/", spool.path().join("lost+found")).unwrap();
        let path = make_directory(spool.path(), NAME, &["account".to_owned(), "container".to_owned()]).unwrap();
        let own = nix::unistd::geteuid();
        assert_eq!(path, spool.path().join(format!("lost+found-{own}/account/container")));
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn ranges_are_cut_at_multiples_and_joined_again() {
        let parts: Vec<_> = chunks(&(5..25), 10).collect();
        assert_eq!(parts, [5..10, 10..20, 20..25]);
        assert_eq!(joined(parts.into_iter().map(|part| (part.start, part.end))), [(5, 25)]);
    }
}
