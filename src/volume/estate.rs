//! What a mounted volume leaves with the keeper, and what the next process finds there: the ledger, the memory for dirty data,
//! files of the spool, and the kernel's end of each mount.
//!
//! A group of the keeper's is one volume's. Everything is given away before anything rests on it; what is found is checked
//! against the kernel's table of mounts, without touching one.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use prost::Message as _;

use super::mountinfo::MountTable;
use crate::{
    cache::Vault,
    fs::{Holder, Kept, TAKEOVER_FORMAT},
    fuse::{Connected, Keep, Tell, handshake::Agreement},
    keeper::{self, Claim, Item, Teller, notification},
    ledger::{Contents, Ledger},
};

/// Type of our mounts in the kernel's table.
const OUR_TYPE: &str = "fuse.azblob-csi";
const LEDGER: &str = "ledger";
const VAULT: &str = "vault";

/// What the next process reads beside a mount's descriptor.
#[derive(Clone, PartialEq, prost::Message)]
struct ConnectionNote {
    #[prost(bytes = "vec", tag = "1")]
    asked: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    answered: Vec<u8>,
    #[prost(uint64, tag = "3")]
    view: u64,
    #[prost(bytes = "vec", tag = "4")]
    mount_point: Vec<u8>,
    /// The superblock, as mountinfo writes it.
    #[prost(string, tag = "5")]
    device: String,
}

/// What a volume has with the keeper.
#[derive(Clone, Debug)]
pub struct Estate {
    claim: Arc<Claim>,
    teller: Arc<Teller>,
}

/// What was found there.
#[derive(Debug)]
pub struct Found {
    /// What a volume is opened with.
    pub kept: Kept,
    /// Mounts that are to be gone on with.
    pub connections: Vec<Connected>,
}

#[derive(Debug)]
struct Shelved(Arc<Claim>);

impl Holder for Shelved {
    fn hold(&self, key: &str, file: BorrowedFd<'_>) -> io::Result<()> {
        keep(&self.0, key, Vec::new(), file)
    }

    fn let_go(&self, key: &str) {
        if let Err(error) = Claim::drop(&self.0, key) {
            tracing::warn!(key, %error, "the keeper goes on holding something that nobody needs");
        }
    }
}

impl Tell for Teller {
    fn inval_inode(&self, device: BorrowedFd<'_>, inode: u64, offset: i64) -> io::Result<()> {
        self.tell(device, &notification::inval_inode(inode, offset, 0))
    }

    fn inval_entry(&self, device: BorrowedFd<'_>, parent: u64, name: &str) -> io::Result<()> {
        self.tell(device, &notification::inval_entry(parent, name.as_bytes()))
    }
}

fn keep(claim: &Claim, key: &str, note: Vec<u8>, file: BorrowedFd<'_>) -> io::Result<()> {
    let descriptors = Arc::new(vec![file.try_clone_to_owned()?]);
    claim.keep(Item { key: key.to_owned(), note, descriptors }).map_err(io::Error::other)
}

/// The only descriptor of an item, for us alone.
fn descriptor(item: &Item) -> io::Result<OwnedFd> {
    let file = item.descriptors.first().ok_or(io::ErrorKind::NotFound)?;
    file.try_clone()
}

impl Estate {
    /// Claims what the keeper at `keeper` holds of the volume `group`, waiting up to `patience` for a process that is about to
    /// end. Blocks.
    ///
    /// # Errors
    /// [`keeper::Error`]; what of the state cannot be read is no error: see [`Kept::is_lost`].
    pub fn claim(keeper: &Path, group: &str, patience: Duration) -> Result<(Self, Found), keeper::Error> {
        let (claim, items) = Claim::new(keeper, group, patience)?;
        let estate = Self { claim: Arc::new(claim), teller: Arc::new(Teller::new(keeper)) };
        let mut items: BTreeMap<String, Item> = items.into_iter().map(|item| (item.key.clone(), item)).collect();
        let connections = estate.connections(&mut items);
        let kept = estate.kept(&mut items, !connections.is_empty()).map_err(keeper::Error::Gone)?;
        Ok((estate, Found { kept, connections }))
    }

    /// Who tells the kernel for its mounts.
    #[must_use]
    pub fn teller(&self) -> Arc<dyn Tell> {
        Arc::clone(&self.teller) as Arc<dyn Tell>
    }

    /// Whether the keeper is there: without it, mounts end with this process.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.claim.is_held()
    }

    /// Takes back everything: the volume has ended in order.
    pub fn end(&self) {
        self.claim.drop_all();
    }

    /// What gives a new mount to the keeper.
    #[must_use]
    pub fn keep_mount(&self) -> Keep {
        let claim = Arc::clone(&self.claim);
        Box::new(move |connected| {
            let table = MountTable::read()?;
            let device = table.at(&connected.mount_point).map(|mount| mount.device.clone()).unwrap_or_default();
            let note = ConnectionNote {
                asked: connected.agreement.asked.clone(),
                answered: connected.agreement.answered.clone(),
                view: connected.view,
                mount_point: os_bytes(&connected.mount_point),
                device,
            };
            keep(&claim, &connection_key(connected.view), note.encode_to_vec(), connected.device.as_fd())
        })
    }

    /// A mount has ended.
    pub fn forget_mount(&self, view: u64) {
        if let Err(error) = Claim::drop(&self.claim, &connection_key(view)) {
            tracing::warn!(view, %error, "the keeper goes on holding a mount that has ended");
        }
    }

    /// The mounts among `items` that are still there. What is left of others is taken back.
    fn connections(&self, items: &mut BTreeMap<String, Item>) -> Vec<Connected> {
        let table = MountTable::read().unwrap_or_default();
        let mut connections = Vec::new();
        for (key, item) in std::mem::take(items) {
            if !key.starts_with(CONNECTION) {
                items.insert(key, item);
                continue;
            }
            match connected(&item, &table) {
                Some(connected) => connections.push(connected),
                None => {
                    tracing::info!(key, "a mount that is gone is not taken over");
                    let _ = Claim::drop(&self.claim, &key);
                }
            }
        }
        connections
    }

    /// What a volume is opened with; memory files that are not there are made, and given away.
    fn kept(&self, items: &mut BTreeMap<String, Item>, has_mounts: bool) -> io::Result<Kept> {
        let found = items.get(LEDGER).zip(items.get(VAULT));
        let read = found.map(|(ledger, vault)| {
            let (ledger, contents, format) = Ledger::open(descriptor(ledger)?).map_err(io::Error::other)?;
            Ok::<_, io::Error>((ledger, contents, format, Vault::open(descriptor(vault)?)?))
        });
        let is_lost = match &read {
            Some(Err(error)) => {
                tracing::error!("the takeover state is not readable: {}", crate::telemetry::chain(error));
                true
            }
            Some(Ok(_)) => false,
            None => has_mounts,
        };
        let (ledger, contents, format, vault) = match read {
            Some(Ok(read)) => read,
            _ => {
                let ledger = Ledger::create(TAKEOVER_FORMAT).map_err(io::Error::other)?;
                let vault = Vault::create()?;
                keep(&self.claim, LEDGER, Vec::new(), ledger.as_fd())?;
                keep(&self.claim, VAULT, Vec::new(), vault.as_fd())?;
                (ledger, Contents::new(), TAKEOVER_FORMAT, vault)
            }
        };
        let spools = items.iter().filter(|(key, _)| !matches!(key.as_str(), LEDGER | VAULT));
        let spools = spools.map(|(key, item)| Ok((key.clone(), descriptor(item)?))).collect::<io::Result<_>>()?;
        let holder = Arc::new(Shelved(Arc::clone(&self.claim)));
        Ok(Kept { ledger, format, contents, is_lost, vault, holder, spools })
    }
}

/// Head of the keys of mounts.
const CONNECTION: &str = "connection ";

fn connection_key(view: u64) -> String {
    format!("{CONNECTION}{view}")
}

fn os_bytes(path: &Path) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    path.as_os_str().as_bytes().to_vec()
}

fn connected(item: &Item, table: &MountTable) -> Option<Connected> {
    use std::os::unix::ffi::OsStringExt as _;
    let note = ConnectionNote::decode(item.note.as_slice()).ok()?;
    let mount_point = PathBuf::from(std::ffi::OsString::from_vec(note.mount_point));
    let is_there = table.of_device(&note.device).any(|mount| mount.fs_type == OUR_TYPE);
    let agreement = Agreement { asked: note.asked, answered: note.answered };
    let device = descriptor(item).ok().filter(|_| is_there)?;
    Some(Connected { device, agreement, view: note.view, mount_point })
}

/// Detaches what is left on `mount_point` of a mount of ours that nobody serves. `false`: there is none.
///
/// # Errors
/// What the kernel says.
pub fn detach_dead(mount_point: &Path) -> io::Result<bool> {
    let is_ours = MountTable::read()?.at(mount_point).is_some_and(|mount| mount.fs_type == OUR_TYPE);
    if is_ours {
        nix::mount::umount2(mount_point, nix::mount::MntFlags::MNT_DETACH | nix::mount::MntFlags::UMOUNT_NOFOLLOW)?;
    }
    Ok(is_ours)
}
