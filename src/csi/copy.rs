//! Copies of volumes inside the service: blob by blob, several at once, each under If-Match of the version that was met. No byte
//! passes through the controller.
//!
//! - Not atomic: blobs that change meanwhile are copied in one of their versions, whole; one that goes is left out, one that comes
//!   may be. A blob that does not hold still is an error that names it.
//! - How far it is stands in the marks of the destination (`marks`), page by page of the source's listing: any replica goes on
//!   from there. A blob that is there already is not copied again, so two that copy at once come to the same.
//! - Nothing that is in the destination is ever overwritten.

mod running;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{StreamExt as _, TryStreamExt as _, stream};

pub(super) use running::{Copies, Outcome};

use super::{
    error::{Error, ErrorKind, Result},
    marks::CopyState,
    place::{Found, Place},
};
use crate::{
    blob::{
        self, AzureStore, BlobName, BlobProperties, BlobStore as _, Condition, CopyOptions, DIRECTORY_MARK, ListEntry,
        ListRequest, RequestLimits,
    },
    fs::RESERVED,
};

/// Copies at once. A copy inside an account takes the service some milliseconds, so this is some thousand blobs a second.
const COPIES_AT_ONCE: usize = 16;
/// Blobs a page of the source's listing: what is looked at again at most after a restart, one request each.
const PAGE: u32 = 500;
/// How often a blob is met in another version before the copy gives up on it.
const VERSIONS_MAX: u32 = 8;
/// First look at a copy that an earlier try left pending, doubling.
const PENDING_FIRST: Duration = Duration::from_millis(200);
/// Looks at it: half an hour in all.
const PENDING_LOOKS: u32 = 13;
/// Modes of directories on a hierarchical account, where the source's are not known.
const DIRECTORY_MODE: u32 = 0o777;

/// How far a copy is, for those who wait for it.
#[derive(Debug, Default)]
pub(super) struct Progress {
    blobs: AtomicU64,
    bytes: AtomicU64,
}

impl Progress {
    /// For people.
    pub(super) fn shown(&self) -> String {
        let (blobs, bytes) = (self.blobs.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        format!("{blobs} blobs, {}", crate::volume::options::format_bytes(bytes))
    }

    fn count(&self, bytes: u64) {
        self.blobs.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A copy to be made.
#[derive(Clone, Debug)]
pub(super) struct Copy {
    pub(super) source: Place,
    pub(super) destination: Place,
}

impl Copy {
    /// Copies what is not there yet, and marks the destination as done. Cancel-safe: the next one goes on.
    ///
    /// # Errors
    /// Those of the service; `Unavailable` naming a blob that does not hold still; `Invalid` for one that cannot be copied.
    pub(super) async fn run(self, progress: Arc<Progress>) -> Result<()> {
        let mut state = self.found().await?.marks.copy().unwrap_or_default();
        progress.blobs.store(state.blobs, Ordering::Relaxed);
        progress.bytes.store(state.bytes, Ordering::Relaxed);
        let work = Work {
            source: self.source.store.with_limits(RequestLimits::STANDARD),
            destination: self.destination.store.with_limits(RequestLimits::STANDARD),
            is_hierarchical: self.destination.is_hierarchical().await,
            copy: &self,
            progress: &progress,
        };
        while !state.is_done {
            let page = match work.page(state.cursor.clone()).await {
                // Where to go on is forgotten by the service: then from the start, past all that is there.
                Err(error) if state.cursor.is_some() && error.kind == blob::ErrorKind::Invalid => {
                    state = CopyState::default();
                    continue;
                }
                page => page.map_err(|error| self.source.failed("list", error))?,
            };
            work.copy_all(page.entries).await?;
            state = CopyState {
                is_done: page.next_marker.is_none(),
                blobs: progress.blobs.load(Ordering::Relaxed),
                bytes: progress.bytes.load(Ordering::Relaxed),
                cursor: page.next_marker,
            };
            // Another replica may have been faster; then the volume is in use already.
            let now = self.found().await?;
            if now.marks.copy().is_some_and(|copy| copy.is_done) {
                return Ok(());
            }
            let marks = now.marks.clone().copied(&state);
            self.destination.mark("mark", &now, marks).await?;
            tracing::info!(from = self.source.shown(), to = self.destination.shown(), "copied {}", progress.shown());
        }
        Ok(())
    }

    async fn found(&self) -> Result<Found> {
        let found = self.destination.find("look at").await?;
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, format!("{} is gone", self.destination.shown())))
    }
}

/// A copy under way.
struct Work<'a> {
    source: AzureStore,
    destination: AzureStore,
    is_hierarchical: bool,
    copy: &'a Copy,
    progress: &'a Progress,
}

impl Work<'_> {
    async fn page(&self, marker: Option<String>) -> blob::Result<blob::ListPage> {
        let prefix = self.copy.source.prefix();
        self.source.list(&ListRequest { prefix, delimited: false, marker, max_results: Some(PAGE) }).await
    }

    async fn copy_all(&self, entries: Vec<ListEntry>) -> Result<()> {
        let (from, to) = (self.copy.source.prefix(), self.copy.destination.prefix());
        let mut directories = Vec::new();
        let mut files = Vec::new();
        for entry in entries {
            let ListEntry::Blob(name, properties) = entry else { continue };
            let below = name.as_str().strip_prefix(&from).unwrap_or_default();
            // Our own blobs: what open files left behind belongs to their node.
            if below.is_empty() || below.split('/').next() == Some(RESERVED) {
                continue;
            }
            let target = BlobName::new(format!("{to}{below}")).map_err(|error| {
                Error::invalid(format!("{name} cannot be copied to {}: {error}", self.copy.destination.shown()))
            })?;
            let is_directory = self.is_hierarchical && properties.metadata.contains_key(DIRECTORY_MARK);
            if is_directory { &mut directories } else { &mut files }.push((name, target, properties));
        }
        for (_, target, properties) in directories {
            self.make_directory(&target, &properties).await?;
        }
        stream::iter(files.into_iter().map(|(name, target, properties)| self.copy_blob(name, target, *properties)))
            .buffer_unordered(COPIES_AT_ONCE)
            .try_collect()
            .await
    }

    async fn make_directory(&self, target: &BlobName, properties: &BlobProperties) -> Result<()> {
        let Some(hierarchy) = self.destination.hierarchy() else { return Ok(()) };
        let mode = properties.mode.unwrap_or(DIRECTORY_MODE);
        match hierarchy.create_directory(target, mode, &properties.metadata, &Condition::Absent).await {
            Err(error) if error.kind != blob::ErrorKind::Precondition => {
                Err(self.copy.destination.failed("copy to", error))
            }
            _ => {
                self.progress.count(0);
                Ok(())
            }
        }
    }

    /// Copies one blob in the version that was met, or in the one that it has by now.
    async fn copy_blob(&self, name: BlobName, target: BlobName, mut met: BlobProperties) -> Result<()> {
        for _ in 0..VERSIONS_MAX {
            let error = match self.copy_version(&name, &target, &met).await {
                Ok(()) => {
                    self.progress.count(met.length);
                    return Ok(());
                }
                Err(error) => error,
            };
            match error.kind {
                blob::ErrorKind::NotFound => {}
                blob::ErrorKind::Precondition if error.code.as_deref() == Some("SourceConditionNotMet") => {}
                // It is there: an earlier try made it. Or one is under way.
                blob::ErrorKind::Precondition | blob::ErrorKind::Blocked => {
                    if self.is_there(&target).await? {
                        self.progress.count(met.length);
                        return Ok(());
                    }
                }
                _ => return Err(self.failed(&name, error)),
            }
            met = match self.source.head(&name, &Condition::None).await {
                Ok(now) => now,
                Err(error) if error.kind == blob::ErrorKind::NotFound => return Ok(()),
                Err(error) => return Err(self.failed(&name, error)),
            };
        }
        let text = format!("{name} of {} changes all the time; the copy is tried again", self.copy.source.shown());
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    async fn copy_version(&self, name: &BlobName, target: &BlobName, met: &BlobProperties) -> blob::Result<()> {
        // A copy of the service has no tags unless they are said again.
        let tags = match met.tag_count {
            0 => None,
            _ => self.source.get_tags(name).await?,
        };
        let options =
            CopyOptions { access_tier: met.access_tier.clone(), tags, ..CopyOptions::under(Condition::Absent) };
        self.destination.copy_from(&self.source, name, &met.etag, target, &options).await.map(drop)
    }

    /// Whether the destination is whole; what an earlier copy left pending is waited for, what it left broken is taken away.
    async fn is_there(&self, target: &BlobName) -> Result<bool> {
        let mut pause = PENDING_FIRST;
        for _ in 0..PENDING_LOOKS {
            let found = match self.destination.head(target, &Condition::None).await {
                Ok(found) => found,
                Err(error) if error.kind == blob::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(self.copy.destination.failed("look at", error)),
            };
            match found.copy.as_ref().map(|(_, status)| status.as_str()) {
                None | Some("success") => return Ok(true),
                Some("pending") => {}
                Some(_) => {
                    let broken = Condition::Match(found.etag);
                    return match self.destination.delete(target, &broken).await {
                        Ok(()) => Ok(false),
                        Err(error) => Err(self.copy.destination.failed("copy to", error)),
                    };
                }
            }
            tokio::time::sleep(pause).await;
            pause *= 2;
        }
        let text = format!("The service is still copying {target} of {}", self.copy.destination.shown());
        Err(Error::new(ErrorKind::Unavailable, text))
    }

    fn failed(&self, name: &BlobName, error: blob::Error) -> Error {
        let failed = self.copy.destination.failed("copy to", error);
        Error { message: format!("{} (blob {name} of {})", failed.message, self.copy.source.shown()), ..failed }
    }
}
