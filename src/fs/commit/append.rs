//! Commits of append blobs: what was written at the end goes there, by Append Block.
//!
//! Several clients may append to one blob; that is what it is for. Where another one was faster, our bytes go behind theirs,
//! as O_APPEND means it. An append cannot be taken back, so what of a layer has arrived is counted (`State::appended`),
//! and a commit that failed in between goes on there.

use std::{sync::Arc, time::Instant};

use super::super::{
    Error, FileSystem, Result,
    inode::{Base, Inode, State},
    overlay::{Overlay, Segment},
};
use crate::blob::{Appended, BlobKind, BlobName, BlobProperties, Body, Condition, ErrorKind};

/// Bytes of one Append Block: what every service version takes. 50,000 of them are 195 GiB.
const APPEND_BYTES: u64 = 4 << 20;
/// How often one append makes way for others'. A guess: each loss is a race against one request of somebody else.
const RACES_MAX: u32 = 64;

impl FileSystem {
    /// Commits a layer over an append blob.
    ///
    /// # Errors
    /// EPERM for anything but bytes at the end; ESTALE when the blob is another one now; EFBIG when it has its 50,000
    /// blocks; what the service says.
    pub(super) async fn commit_append(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        name: &BlobName,
        layer: &Arc<Overlay>,
    ) -> Result<()> {
        check_appends(layer)?;
        let failed = |error| Error::from_store(format!("cannot append to {name}"), error);
        let mut races = 0;
        loop {
            let (start, end) = {
                let state = inode.state.lock();
                let start = layer.below() + state.appended;
                (start, layer.size().min(start + APPEND_BYTES))
            };
            let base = inode.state.lock().base.clone();
            let Some(base) = base.filter(|_| start < end) else { break };
            let body = self.body_of(layer, None, start..end).await?;
            if self.scribe.is_some() {
                let appending = std::mem::replace(&mut inode.state.lock().appending, end - start);
                if appending > 0 && self.has_appended(inode, name, &base, &body, appending).await? {
                    continue;
                }
            }
            match self.store.append_block(name, body, base.properties.length).await {
                Ok(appended) => self.note_appended(inode, &base, &appended, end - start),
                Err(error) if error.kind == ErrorKind::Precondition && races < RACES_MAX => {
                    races += 1;
                    if !self.find_end(inode, name, &base).await? {
                        return Err(self.conflict(inode, name, failed(error)));
                    }
                }
                Err(error) if matches!(error.kind, ErrorKind::Precondition | ErrorKind::NotFound) => {
                    return Err(self.conflict(inode, name, failed(error)));
                }
                Err(error) => return Err(failed(error)),
            }
        }
        let mut state = inode.state.lock();
        state.committing = None;
        state.appended = 0;
        drop(state);
        self.publish(inode);
        Ok(())
    }

    /// Whether an Append Block of these bytes, which was not answered, has come to its end: they are where it was to put
    /// them. Notes it then.
    async fn has_appended(
        &self,
        inode: &Inode,
        name: &BlobName,
        base: &Base,
        body: &Body,
        appending: u64,
    ) -> Result<bool> {
        if body.len() < appending || !self.find_end(inode, name, base).await? {
            return Ok(false);
        }
        let Some(now) = inode.state.lock().base.clone() else { return Ok(false) };
        let (from, to) = (base.properties.length, base.properties.length + appending);
        if now.properties.length < to {
            return Ok(false);
        }
        let found = self.cache().read(&now.content, from..to, &self.cache().stream()).await;
        let found = found.map_err(|error| Error::from_store(format!("cannot check the end of {name}"), error))?;
        let sent: Vec<u8> =
            body.pieces().iter().flat_map(|piece| piece.iter().copied()).take(appending as usize).collect();
        if found.to_vec() != sent {
            return Ok(false);
        }
        let mut state = inode.state.lock();
        state.appended += appending;
        state.appending = 0;
        Ok(true)
    }

    fn note_appended(&self, inode: &Inode, base: &Base, appended: &Appended, bytes: u64) {
        let properties = BlobProperties {
            etag: appended.committed.etag.clone(),
            last_modified: appended.committed.last_modified,
            length: appended.length,
            ..base.properties.clone()
        };
        let grown = Arc::new(self.grown(base, properties));
        let mut state = inode.state.lock();
        state.base = Some(grown);
        state.appended += bytes;
        state.appending = 0;
        state.checked = Some(Instant::now());
    }

    /// Looks where the end is now. `false`: it is another blob.
    async fn find_end(&self, inode: &Inode, name: &BlobName, base: &Base) -> Result<bool> {
        let found = match self.store.head(name, &Condition::None).await {
            Ok(found) => found,
            Err(error) if error.kind == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(Error::from_store(format!("cannot append to {name}"), error)),
        };
        let same = found.kind == BlobKind::Append
            && found.created == base.properties.created
            && found.length >= base.properties.length;
        if same {
            let grown = Arc::new(self.grown(base, found));
            inode.state.lock().base = Some(grown);
        }
        Ok(same)
    }

    /// The version that `base` became by growing: what is cached of it stays.
    pub(in crate::fs) fn grown(&self, base: &Base, properties: BlobProperties) -> Base {
        let same = 0..base.properties.length;
        let content = self.cache().derive(&base.content, properties.etag.clone(), properties.length, &[same]);
        Base::new(properties, content)
    }
}

fn check_appends(layer: &Overlay) -> Result<()> {
    let start = layer.below();
    let appends = |segment: &Segment| match segment {
        Segment::Below(range) => range.end <= start,
        Segment::Dirty(range) => range.start >= start,
        Segment::Staged(_) | Segment::Zero(_) => false,
    };
    if layer.segments(&(0..layer.size())).iter().all(appends) { Ok(()) } else { Err(only_at_its_end()) }
}

/// Whether bytes from `position` on may be written, or with `cut` the file may end there.
///
/// # Errors
/// EPERM: append blobs take bytes at their end only, page blobs none.
pub(in crate::fs) fn check_change(state: &State, position: u64, cut: bool) -> Result<()> {
    match state.base.as_deref().map_or(BlobKind::Block, |base| base.properties.kind) {
        BlobKind::Append if position != state.size() => Err(only_at_its_end()),
        BlobKind::Page if !(cut && position == state.size()) => Err(read_only_pages()),
        _ => Ok(()),
    }
}

/// Whether holes and zeros may be made.
///
/// # Errors
/// EPERM for append and page blobs.
pub(in crate::fs) fn check_holes(state: &State) -> Result<()> {
    match state.base.as_deref().map_or(BlobKind::Block, |base| base.properties.kind) {
        BlobKind::Block => Ok(()),
        BlobKind::Append => Err(only_at_its_end()),
        BlobKind::Page => Err(read_only_pages()),
    }
}

/// What a program hears that would change a page blob.
pub(in crate::fs) fn read_only_pages() -> Error {
    Error::new(libc::EPERM, "page blobs can be read, not written")
}

/// What a program hears that would change an append blob elsewhere.
pub(in crate::fs) fn only_at_its_end() -> Error {
    Error::new(libc::EPERM, "an append blob takes bytes at its end only; copy it to a new file to change it")
}
