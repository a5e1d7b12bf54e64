//! What a process that was killed has left in its journal is sent before the volume serves again: then nobody sees the
//! volume without it. Sent under the condition that each record names; what a condition forbids goes to lost+found.

use std::{
    collections::{BTreeMap, btree_map},
    fs::{File, OpenOptions},
    io::{self, BufReader, Write},
    ops::Range,
    os::unix::fs::FileExt,
    path::PathBuf,
    sync::Arc,
};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};

use super::{
    journal::{LeftBehind, VERSION, left_behind},
    record::{End, Entry, Put, frame, read_frames},
    volume_directory,
};
use crate::{
    blob::{self, BlobName, BlobProperties, Body, Condition, ETag, ErrorKind},
    fs::{
        Consistency, Error, FileSystem, Kind, Result,
        attributes::Attributes,
        inode::{Inode, Refusal},
        overlay::Overlay,
        write::Place,
    },
    sync::Mutex,
};

/// Records sent at once: with [`super::RECORD_BYTES_MAX`] of memory each, beside the budget, before anything is served.
const SENT_AT_ONCE: usize = 8;
/// A version that changes between question and answer is asked for again; more often than this, somebody keeps changing it.
const TRIES_MAX: u32 = 4;
/// Bytes written at once to an inode on its way to lost+found.
const WRITE_BYTES: usize = 1 << 20;

/// Where the bytes of a record are.
#[derive(Clone, Debug)]
struct Whereabouts {
    segment: PathBuf,
    bytes: Range<u64>,
}

/// One unsaved state after another of a name.
#[derive(Debug)]
struct Chain {
    puts: Vec<Put>,
    /// Of the last one.
    place: Whereabouts,
}

/// What a journal says that is still owed.
#[derive(Debug, Default)]
struct Debts {
    chains: BTreeMap<u64, Chain>,
    /// Versions that are to be deleted, by their chains: blob and ETag.
    removals: BTreeMap<u64, (String, ETag)>,
    /// Where the next entry goes: the last segment, behind its whole frames.
    end: Option<(PathBuf, u64)>,
}

/// How a record stands to what was found under its name.
#[derive(Debug, PartialEq, Eq)]
enum Finding {
    /// The service has it.
    Sent,
    /// It is to be sent over this version, or over nothing.
    Owed(Condition),
    /// Somebody else has the name.
    Foreign,
}

impl Chain {
    fn last(&self) -> Option<&Put> {
        self.puts.last()
    }

    fn judge(&self, found: Option<&BlobProperties>) -> Finding {
        let made = |put: &Put| found.is_some_and(|found| put.made(found));
        if self.last().is_some_and(made) {
            return Finding::Sent;
        }
        let ours = self.puts.iter().any(|put| made(put) || put.expected.is_met(found));
        match found {
            _ if !ours => Finding::Foreign,
            Some(found) => Finding::Owed(Condition::Match(found.etag.clone())),
            None => Finding::Owed(Condition::Absent),
        }
    }
}

impl Debts {
    /// Reads a journal.
    ///
    /// # Errors
    /// What the disk says; a sentence where a segment was damaged, or is of another version.
    fn read(journal: &LeftBehind) -> io::Result<Self> {
        let mut debts = Self::default();
        let segments = journal.segments()?;
        let count = segments.len();
        for (index, path) in segments.into_iter().enumerate() {
            let mut foreign = None;
            let source = BufReader::new(File::open(&path)?);
            let End { whole_bytes, is_torn } = read_frames(source, |entry, bytes| match entry {
                Entry::Volume { version, .. } => foreign = foreign.or((version > VERSION).then_some(version)),
                Entry::Put(put) => debts.note(put, Whereabouts { segment: path.clone(), bytes }),
                Entry::Moved { put, ends } => debts.note_moved(put, ends),
                Entry::Removed { chain, blob, etag } => debts.note_removed(chain, blob, etag),
                Entry::Done { chain } => debts.note_done(chain),
            })?;
            if let Some(version) = foreign {
                let sentence = format!("{} is of version {version}: start the release that wrote it", path.display());
                return Err(io::Error::other(sentence));
            }
            if is_torn && index + 1 < count {
                let sentence = format!("{} is damaged behind byte {whole_bytes}", path.display());
                return Err(io::Error::other(sentence));
            }
            debts.end = Some((path, whole_bytes));
        }
        Ok(debts)
    }

    fn note(&mut self, put: Put, place: Whereabouts) {
        match self.chains.entry(put.chain) {
            btree_map::Entry::Vacant(entry) => drop(entry.insert(Chain { puts: vec![put], place })),
            btree_map::Entry::Occupied(mut entry) => {
                entry.get_mut().puts.push(put);
                entry.get_mut().place = place;
            }
        }
    }

    fn note_moved(&mut self, put: Put, ends: Option<u64>) {
        if let Some(ended) = ends {
            self.chains.remove(&ended);
        }
        if let Some(chain) = self.chains.get_mut(&put.chain) {
            chain.puts.clear(); // They were never sent under the old name, and say nothing of the new one.
            chain.puts.push(put);
        }
    }

    fn note_removed(&mut self, chain: u64, blob: String, etag: String) {
        self.chains.remove(&chain);
        self.removals.insert(chain, (blob, ETag(etag.into())));
    }

    fn note_done(&mut self, chain: u64) {
        self.chains.remove(&chain);
        self.removals.remove(&chain);
    }

    /// The last segment, to say in it what was sent: another kill in between must not find it owed again.
    fn open_end(&self) -> io::Result<Option<File>> {
        let Some((path, whole_bytes)) = &self.end else { return Ok(None) };
        let file = OpenOptions::new().append(true).open(path)?;
        file.set_len(*whole_bytes)?;
        Ok(Some(file))
    }
}

fn read_body(place: &Whereabouts) -> io::Result<Body> {
    let length = usize::try_from(place.bytes.end - place.bytes.start).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    File::open(&place.segment)?.read_exact_at(&mut bytes, place.bytes.start)?;
    Ok(Body::from(Bytes::from(bytes)))
}

impl FileSystem {
    /// Sends what dead processes of this volume have left in its spool directory, whatever its durability is now.
    ///
    /// # Errors
    /// What the service says where another try can help; the journal stays for that. EIO when a journal cannot be read.
    pub(in crate::fs) async fn replay_journals(self: &Arc<Self>) -> Result<()> {
        let Some(spool) = &self.resources.spool else { return Ok(()) };
        let failed = |error: io::Error| Error::new(libc::EIO, format!("a journal of this volume: {error}"));
        let volume = match volume_directory(spool, self.store.identity(), &self.settings.prefix) {
            Ok(Some(volume)) => volume,
            Ok(None) => return Ok(()),
            Err(error) => {
                tracing::warn!(spool = %spool.display(), %error, "journals cannot be looked for");
                return Ok(());
            }
        };
        let journals = left_behind(&volume).map_err(failed)?;
        for journal in journals {
            if self.settings.read_only || self.settings.consistency == Consistency::Immutable {
                tracing::warn!(journal = %journal.directory.display(), "unsaved files of an earlier mount wait for one that may write");
                continue;
            }
            let debts = Debts::read(&journal).map_err(failed)?;
            self.replay(debts).await?;
            journal.remove().map_err(failed)?;
        }
        Ok(())
    }

    async fn replay(self: &Arc<Self>, mut debts: Debts) -> Result<()> {
        let count = debts.chains.len() + debts.removals.len();
        if count == 0 {
            return Ok(());
        }
        tracing::info!(count, "what an earlier process closed and removed is sent now");
        let end = debts.open_end().map_err(|error| Error::new(libc::EIO, format!("a journal: {error}")))?;
        let end = Arc::new(Mutex::new(end));
        self.replay_removals(std::mem::take(&mut debts.removals), &end).await?;
        let chains: Vec<_> = std::mem::take(&mut debts.chains)
            .into_iter()
            .map(|(number, chain)| {
                let end = Arc::clone(&end);
                async move {
                    self.replay_chain(&chain).await?;
                    note_done(&end, number);
                    Ok::<(), Error>(())
                }
            })
            .collect();
        futures::stream::iter(chains).buffer_unordered(SENT_AT_ONCE).try_collect::<()>().await?;
        tracing::info!(count, "all of them are settled");
        Ok(())
    }

    /// Deletes what was removed, where it is still the version that was.
    async fn replay_removals(
        self: &Arc<Self>,
        removals: BTreeMap<u64, (String, ETag)>,
        end: &Arc<Mutex<Option<File>>>,
    ) -> Result<()> {
        let removals: Vec<_> = removals
            .into_iter()
            .map(|(number, (blob, etag))| async move {
                let name = BlobName::new(blob.as_str())
                    .map_err(|error| Error::new(libc::EIO, format!("a journal names a blob: {error}")))?;
                match self.store.delete(&name, &Condition::Match(etag)).await {
                    Ok(()) => tracing::info!(blob, "removed, as the journal says"),
                    Err(error) if error.kind == ErrorKind::NotFound => {}
                    Err(error) => {
                        let error = Error::from_store(format!("cannot remove {name}, as the journal says"), error);
                        if error.may_pass() {
                            return Err(error);
                        }
                        tracing::error!(blob, "what an earlier process removed stays: {}", error.to_chain());
                    }
                }
                note_done(end, number);
                Ok::<(), Error>(())
            })
            .collect();
        futures::stream::iter(removals).buffer_unordered(SENT_AT_ONCE).try_collect::<()>().await
    }

    async fn replay_chain(self: &Arc<Self>, chain: &Chain) -> Result<()> {
        let Some(last) = chain.last() else { return Ok(()) };
        let name = BlobName::new(last.blob.as_str())
            .map_err(|error| Error::new(libc::EIO, format!("a journal names a blob: {error}")))?;
        let body = read_body(&chain.place).map_err(|error| Error::new(libc::EIO, format!("a journal: {error}")))?;
        let refused = match self.send_record(&name, chain, last, &body).await {
            Ok(()) => {
                tracing::info!(blob = last.blob, "saved from the journal");
                return Ok(());
            }
            Err(error) if error.may_pass() => return Err(error),
            Err(error) => error,
        };
        tracing::error!(blob = last.blob, "what an earlier process closed cannot be saved: {}", refused.to_chain());
        self.set_record_aside(name, last, &body, &refused).await
    }

    async fn send_record(&self, name: &BlobName, chain: &Chain, last: &Put, body: &Body) -> Result<()> {
        let failed = |error| Error::from_store(format!("cannot save {name} from the journal"), error);
        for _ in 0..TRIES_MAX {
            let found = absent_or(self.store.head(name, &Condition::None).await).map_err(failed)?;
            let condition = match chain.judge(found.as_ref()) {
                Finding::Sent => return Ok(()),
                Finding::Owed(condition) => condition,
                // A directory is one, whoever made it.
                Finding::Foreign if is_directory(last, found.as_ref()) => return Ok(()),
                Finding::Foreign => break,
            };
            match self.store.put_blob(name, body.clone(), &last.options(condition)).await {
                Err(error) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {}
                sent => return sent.map(drop).map_err(failed),
            }
        }
        let sentence = format!("another client has changed {name}; what was written here was not saved over it");
        Err(Error::new(libc::ESTALE, sentence))
    }

    /// Moves a record to lost+found, by way of an inode that nobody else knows.
    async fn set_record_aside(self: &Arc<Self>, blob: BlobName, put: &Put, body: &Body, refused: &Error) -> Result<()> {
        let attributes = Attributes::read_from(&put.metadata);
        let inode = Inode::new(self.table.next_number(), Kind::File, None, attributes, self.scribe.as_ref());
        inode.state.lock().overlay = Some(Overlay::over(0));
        let mut position = 0;
        for chunk in body.pieces().iter().flat_map(|piece| piece.chunks(WRITE_BYTES)) {
            self.write_layer(&inode, Place::At(position), chunk).await?;
            position += chunk.len() as u64;
        }
        {
            let mut state = inode.state.lock();
            state.attributes = attributes;
            let (errno, sentence) = (refused.errno, refused.to_chain());
            state.refusal = Some(Refusal { blob, errno, sentence, may_pass: false });
        }
        let moved = self.set_aside(&inode, true).await;
        moved.map_err(|error| Error::new(libc::EIO, format!("a record of the journal, to lost+found: {error}")))
    }
}

fn is_directory(put: &Put, found: Option<&BlobProperties>) -> bool {
    let kind = found.map(|found| Kind::of(&found.metadata));
    Kind::of(&put.metadata) == Kind::Directory && kind == Some(Kind::Directory)
}

fn absent_or(answer: blob::Result<BlobProperties>) -> blob::Result<Option<BlobProperties>> {
    match answer {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Says that a chain is settled. Best effort: without it, it is found to be.
fn note_done(end: &Mutex<Option<File>>, chain: u64) {
    let mut end = end.lock();
    let Some(file) = end.as_mut() else { return };
    if let Ok(frame) = frame(&Entry::Done { chain }, std::iter::empty())
        && let Err(error) = file.write_all(&frame)
    {
        tracing::debug!(%error, "the journal does not take that a file was saved");
        *end = None;
    }
}
