//! Small files of a directory that is being read through (`cat d/*`, `find | xargs md5sum`) are fetched ahead of their opens.
//!
//! A [`Walk`] belongs to a directory and notices opens in the order of its listing. From the third on, the next files are
//! asked for in parallel, in a window that doubles when an open had to wait. Each answer says which version the bytes are
//! of, so it is the check of that file's open as well, once, and until it is `sibling-age` old; after that, and for another
//! version, the open asks for itself. A directory after one that was read through begins with its window. Going elsewhere
//! in the directory drops what is under way. The listing is only a hint, however old.

use std::{collections::BTreeMap, time::Instant};

use super::{
    Consistency, FileSystem, Kind,
    directory::{Listing, Slot},
    inode::Inode,
};
use crate::{
    blob::{self, BlobName, BlobStore, Condition, ETag, ErrorKind},
    cache::{Content, Opening},
    sync::{
        Arc, Ordering, Weak,
        tokio::{sync::oneshot, task::AbortHandle},
    },
};

/// Files up to this size are fetched ahead, in bytes: for larger ones bandwidth counts, not the round trip.
const SIBLING_BYTES_MAX: u64 = 256 << 10;
/// First window, in files: cheap when the reader stops after three.
const WINDOW_FIRST: usize = 4;
/// Largest window: half of the requests that the node has in flight by default. At 10 ms that is 3200 files a second.
const WINDOW_MAX: usize = 32;
/// Opens in order before anything is fetched ahead.
const RUN_MIN: u32 = 3;
/// After answers that went stale unused (a slow reader) so many opens in order are waited for, at most.
const RUN_MIN_MAX: u32 = 1024;
/// So many small files may be left out without breaking the order, and so far opens may overtake each other.
const DISORDER: usize = 2;

/// An answer that was asked for ahead of an open: the version that is current, or nothing.
#[derive(Debug)]
pub struct Answer {
    asked: Instant,
    told: oneshot::Receiver<ETag>,
    task: AbortHandle,
    /// An open has come for it: its bytes are wanted, whatever becomes of the answer.
    wanted: bool,
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.wanted {
            self.task.abort();
        }
    }
}

/// How the files of one directory are opened. See the module's doc.
#[derive(Debug, Default)]
pub struct Walk {
    /// Positions are of this listing.
    listing: Weak<Listing>,
    /// Behind the furthest file that was opened.
    next: usize,
    /// Files opened in order so far, and how many it takes.
    run: u32,
    run_min: u32,
    /// Slots in front of this position were looked at.
    looked: usize,
    window: usize,
    /// By position.
    answers: BTreeMap<usize, Answer>,
}

impl Walk {
    /// Notes an open at `position`; returns the answer that was fetched for it, and the slots to fetch now. `eager`: the
    /// window of a walk that came here, or 0.
    fn step(&mut self, listing: &Arc<Listing>, position: usize, eager: usize) -> (Option<Answer>, Vec<(usize, Slot)>) {
        if !std::ptr::eq(self.listing.as_ptr(), Arc::as_ptr(listing)) {
            // Read anew meanwhile: the same names at other positions.
            (self.listing, self.next, self.looked) = (Arc::downgrade(listing), position, position);
            self.answers.clear();
        }
        let left_out = |from: usize| listing.slots_from(from, position.saturating_sub(from).min(64));
        let skipped = left_out(self.next).iter().filter(|(at, slot)| *at < position && is_small_file(slot)).count();
        if self.run == 0 || skipped > DISORDER || position + DISORDER < self.next {
            self.restart(position, eager, left_out(0).iter().all(|(at, slot)| *at >= position || !is_small_file(slot)));
        }
        self.run += u32::from(position >= self.next);
        self.next = self.next.max(position + 1);
        let answer = self.answers.remove(&position).map(|mut answer| {
            answer.wanted = true;
            answer
        });
        self.answers.retain(|at, _| at + DISORDER >= position);
        if self.run < self.run_min.max(RUN_MIN) {
            return (answer, Vec::new());
        }
        if self.window == 0 {
            self.window = WINDOW_FIRST;
        } else if answer.as_ref().is_none_or(|answer| !answer.task.is_finished()) {
            self.window = (self.window * 2).min(WINDOW_MAX);
        }
        (answer, self.next_wanted(listing))
    }

    fn restart(&mut self, position: usize, eager: usize, first: bool) {
        self.answers.clear();
        (self.next, self.looked, self.window, self.run) = (position, position + 1, 0, 0);
        if eager > 0 && first {
            (self.window, self.run) = (eager, self.run_min.max(RUN_MIN));
        }
    }

    fn next_wanted(&mut self, listing: &Listing) -> Vec<(usize, Slot)> {
        self.looked = self.looked.max(self.next);
        let mut found = Vec::new();
        while self.answers.len() + found.len() < self.window {
            let slots = listing.slots_from(self.looked, WINDOW_MAX);
            let Some((last, _)) = slots.last() else { break };
            let room = self.window - self.answers.len() - found.len();
            let mut wanted: Vec<_> =
                slots.iter().filter(|(_, slot)| is_small_file(slot)).take(room + 1).cloned().collect();
            self.looked = if wanted.len() > room { wanted.pop().map_or(0, |(at, _)| at) } else { last + 1 };
            found.append(&mut wanted);
        }
        found
    }

    /// The reader is slower than answers age: they are not worth asking for until it has shown otherwise.
    fn slow_down(&mut self) {
        self.answers.clear();
        (self.run, self.window) = (0, 0);
        self.run_min = (self.run_min.max(RUN_MIN) * 4).min(RUN_MIN_MAX);
    }
}

fn is_small_file(slot: &Slot) -> bool {
    let small = |properties: &Arc<blob::BlobProperties>| {
        properties.length <= SIBLING_BYTES_MAX && properties.access_tier.as_deref() != Some("Archive")
    };
    slot.kind == Kind::File && slot.properties.as_ref().is_some_and(small)
}

impl FileSystem {
    /// Notes that a file is opened to be read, and fetches its siblings ahead where its directory is being read through.
    /// Returns what was fetched ahead for this one.
    pub(super) fn fetch_siblings(self: &Arc<Self>, inode: &Inode) -> Option<Answer> {
        if self.settings.sibling_age.is_zero() {
            return None;
        }
        let (parent, name) = self.table.place(inode.number)?;
        let parent = self.table.get(parent)?;
        let directory = parent.directory.as_ref()?;
        let listing = directory.last_listing()?;
        let position = listing.position(&name)?;
        let eager = self.walking.load(Ordering::Relaxed);
        let (answer, wanted, run, window) = {
            let mut walk = directory.walk.lock();
            let (answer, wanted) = walk.step(&listing, position, eager);
            (answer, wanted, walk.run, walk.window)
        };
        if run >= RUN_MIN {
            self.walking.store(window, Ordering::Relaxed);
        }
        let asked: Vec<_> =
            wanted.into_iter().filter_map(|(at, slot)| Some((at, self.fetch_sibling(&parent, &slot)?))).collect();
        if !asked.is_empty() {
            directory.walk.lock().answers.extend(asked);
        }
        answer
    }

    /// Asks for one file ahead of its open; `None` where there is nothing to ask.
    fn fetch_sibling(&self, directory: &Inode, slot: &Slot) -> Option<Answer> {
        let properties = slot.properties.as_ref()?;
        let blob = self.blob_at(directory, &slot.name).ok()?;
        let content = self.content(&blob, &properties.etag, properties.length);
        let opening = self.cache().claim_ahead(&content, properties.length);
        if opening.is_none() && self.settings.consistency != Consistency::CloseToOpen {
            return None;
        }
        let (tell, told) = oneshot::channel();
        let store = Arc::clone(&self.store);
        let asked = Instant::now();
        let etag = properties.etag.clone();
        let task = self.resources.runtime.spawn(async move {
            match ask(store.as_ref(), &blob, &content, etag.clone(), opening).await {
                Ok(true) => drop(tell.send(etag)),
                Ok(false) => {}
                Err(error) => tracing::debug!(%error, "a file was not fetched ahead; its open will ask"),
            }
        });
        Some(Answer { asked, told, task: task.abort_handle(), wanted: false })
    }

    /// Whether an answer fetched ahead says that the inode's version is current.
    pub(super) async fn is_answered(&self, inode: &Inode, answer: Option<Answer>) -> bool {
        let Some(mut answer) = answer else { return false };
        let left = self.settings.sibling_age.saturating_sub(answer.asked.elapsed());
        if left.is_zero() {
            self.slow_down(inode);
            return false;
        }
        let Ok(Ok(etag)) = crate::sync::tokio::time::timeout(left, &mut answer.told).await else { return false };
        let mut state = inode.state.lock();
        let current = state.base.as_ref().is_some_and(|base| base.properties.etag == etag);
        if current {
            state.checked = state.checked.max(Some(answer.asked));
        }
        current
    }

    fn slow_down(&self, inode: &Inode) {
        self.walking.store(0, Ordering::Relaxed);
        let parent = self.table.place(inode.number).and_then(|(parent, _)| self.table.get(parent));
        if let Some(directory) = parent.as_ref().and_then(|parent| parent.directory.as_ref()) {
            directory.walk.lock().slow_down();
        }
    }
}

/// Asks whether `etag` is current, by a GET where its bytes are wanted, and keeps them. Only its own version's.
async fn ask(
    store: &dyn BlobStore,
    blob: &BlobName,
    content: &Content,
    etag: ETag,
    opening: Option<Opening>,
) -> blob::Result<bool> {
    let Some(opening) = opening else {
        return match store.head(blob, &Condition::NotMatch(etag)).await {
            Ok(_) => Ok(false),
            Err(error) if error.kind == ErrorKind::NotModified => Ok(true),
            Err(error) => Err(error),
        };
    };
    let download = store.get(blob, opening.range(), &Condition::None).await?;
    let current = download.properties.etag == etag && download.properties.length == content.length();
    if current {
        opening.receive(download);
    }
    Ok(current)
}
