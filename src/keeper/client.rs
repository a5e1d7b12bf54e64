//! The side of whoever serves mounts: a claim on a group of the keeper's, and what is held there.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::{
    notification, packet,
    protocol::{Answer, Ask, Drop as DropItem, Fetch, Hello, Keep, Reply, Request, Tell, Told, VERSION},
    shelf::Item,
};
use crate::{sync::Mutex, telemetry};

/// Between two tries for a group that another process still has.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
/// Between two tries to reach a keeper that is gone.
const RETURN_PAUSE: Duration = Duration::from_secs(1);

/// Why the keeper does not help.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no keeper answers at {socket}: start `azblob-csi keeper --socket {socket}`")]
    Unreachable {
        /// Where it was looked for.
        socket: String,
        /// What the kernel says.
        source: io::Error,
    },
    /// Another process serves the group.
    #[error("process {pid} still serves {group}: end it first")]
    Busy {
        /// Whose things they are.
        group: String,
        /// Who has them.
        pid: i32,
    },
    /// It said no.
    #[error("the keeper refuses: {0}")]
    Refused(String),
    /// The conversation broke off.
    #[error("the keeper is gone")]
    Gone(#[source] io::Error),
}

/// A group of the keeper's that is ours. When the keeper is replaced, everything is given to the new one.
#[derive(Debug)]
pub struct Claim {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    path: PathBuf,
    group: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// `None` while the keeper is gone.
    socket: Option<Arc<OwnedFd>>,
    /// What we have given away, to be given to the next keeper too.
    given: BTreeMap<String, Item>,
    /// The claim is given back.
    ended: bool,
}

impl Claim {
    /// Claims `group` of the keeper at `path`, and takes what it holds: from a process that is gone, for us to go on with.
    /// Waits up to `patience` for a process that still has it. Blocks.
    ///
    /// # Errors
    /// [`Error`].
    pub fn new(path: &Path, group: &str, patience: Duration) -> Result<(Self, Vec<Item>), Error> {
        let socket = Arc::new(connected(path, group, Instant::now() + patience)?);
        let items = fetch(&socket)?;
        let given = items.iter().map(|item| (item.key.clone(), item.clone())).collect();
        let state = Mutex::new(State { socket: Some(socket), given, ended: false });
        let shared = Arc::new(Shared { path: path.to_owned(), group: group.to_owned(), state });
        let watched = Arc::downgrade(&shared);
        // A keeper that is replaced must not be found out by the next failure of ours.
        let watch = thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            while let Some(shared) = watched.upgrade() {
                shared.stay();
            }
        });
        watch.map_err(Error::Gone)?;
        Ok((Self { shared }, items))
    }

    /// Gives `item` to the keeper, in place of what had its key before. While the keeper is gone that waits for its return.
    ///
    /// # Errors
    /// [`Error::Refused`]; never that it is gone.
    pub fn keep(&self, item: Item) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        let given = state.give(&item);
        if !matches!(given, Err(Error::Refused(_))) {
            state.given.insert(item.key.clone(), item);
        }
        state.unless_gone(given)
    }

    /// Takes an item back.
    ///
    /// # Errors
    /// [`Error::Refused`]; never that it is gone.
    pub fn drop(&self, key: &str) -> Result<(), Error> {
        let mut state = self.shared.state.lock();
        state.given.remove(key);
        let dropped = state.ask(Ask::Drop(DropItem { key: key.to_owned() }), &[]);
        state.unless_gone(dropped)
    }

    /// Takes all items back. What the keeper, while it is gone, does not hear of it is not given to the next.
    pub fn drop_all(&self) {
        let mut state = self.shared.state.lock();
        for key in std::mem::take(&mut state.given).into_keys() {
            let dropped = state.ask(Ask::Drop(DropItem { key }), &[]);
            if let Err(error) = state.unless_gone(dropped) {
                tracing::warn!(%error, "the keeper goes on holding something that nobody needs");
            }
        }
    }

    /// Whether there is a keeper: without one, mounts end with this process.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.shared.state.lock().socket.is_some()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.ended = true;
        if let Some(socket) = state.socket.take() {
            // The watcher has a share of it: its poll(2) ends with the connection, not with our share.
            let _ = nix::sys::socket::shutdown(socket.as_raw_fd(), nix::sys::socket::Shutdown::Both);
        }
    }
}

impl State {
    fn give(&self, item: &Item) -> Result<(), Error> {
        let descriptors: Vec<_> = item.descriptors.iter().map(OwnedFd::as_fd).collect();
        self.ask(Ask::Keep(Keep { key: item.key.clone(), note: item.note.clone() }), &descriptors)
    }

    fn ask(&self, ask: Ask, descriptors: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let Some(socket) = &self.socket else {
            return Err(Error::Gone(io::ErrorKind::NotConnected.into()));
        };
        match exchange(socket, ask, descriptors)? {
            (Answer::Done(_), _) => Ok(()),
            (answer, _) => Err(unexpected(answer)),
        }
    }

    /// A keeper that is gone is the watcher's to find again.
    fn unless_gone(&mut self, outcome: Result<(), Error>) -> Result<(), Error> {
        match outcome {
            Err(Error::Gone(_)) => {
                self.socket = None;
                Ok(())
            }
            outcome => outcome,
        }
    }
}

impl Shared {
    /// Waits until the connection ends, then for the next keeper, and gives everything to it. Returns in between, so that the
    /// watcher sees when the claim is gone.
    fn stay(&self) {
        let (socket, ended) = {
            let state = self.state.lock();
            (state.socket.clone(), state.ended)
        };
        if ended {
            return thread::sleep(BUSY_PAUSE);
        }
        if let Some(socket) = socket {
            // POLLHUP is told unasked; nothing else is to come.
            let mut watched = [PollFd::new(socket.as_fd(), PollFlags::empty())];
            let timeout = PollTimeout::try_from(RETURN_PAUSE).unwrap_or(PollTimeout::NONE);
            if matches!(poll(&mut watched, timeout), Ok(0) | Err(_)) {
                return;
            }
            let mut state = self.state.lock();
            if !state.ended && state.socket.take().is_some() {
                tracing::warn!(socket = %self.path.display(), "the keeper is gone: mounts would end with this process now");
            }
            return;
        }
        match self.come_back() {
            Ok(()) => tracing::info!(socket = %self.path.display(), "a keeper holds the mounts again"),
            Err(error) => {
                tracing::debug!("still no keeper: {}", telemetry::chain(&error));
                thread::sleep(RETURN_PAUSE);
            }
        }
    }

    fn come_back(&self) -> Result<(), Error> {
        let socket = Arc::new(connected(&self.path, &self.group, Instant::now())?);
        let mut state = self.state.lock();
        if state.ended {
            return Ok(());
        }
        state.socket = Some(socket);
        let given: Vec<Item> = state.given.values().cloned().collect();
        let outcome = given.iter().try_for_each(|item| state.give(item));
        if outcome.is_err() {
            state.socket = None;
        }
        outcome
    }
}

/// Has the keeper tell the kernel ([`notification`]) for a mount, so that this process can end meanwhile.
#[derive(Debug)]
pub struct Teller {
    path: PathBuf,
    /// One notification at a time.
    socket: Mutex<Option<OwnedFd>>,
}

impl Teller {
    /// One that asks the keeper at `path`.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), socket: Mutex::default() }
    }

    /// Tells the kernel behind `device`. Without a keeper, or with one of an earlier version, this thread does it. Blocks.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn tell(&self, device: BorrowedFd<'_>, message: &[u8]) -> io::Result<()> {
        let mut socket = self.socket.lock();
        if socket.is_none() {
            *socket = reached(&self.path).ok();
        }
        let asked = socket.as_ref().map(|socket| {
            let ask = Ask::Tell(Tell { message: message.to_vec() });
            exchange(socket, ask, &[device])
        });
        match asked {
            Some(Ok((Answer::Told(Told { errno: 0 }), _))) => Ok(()),
            Some(Ok((Answer::Told(Told { errno }), _))) => Err(io::Error::from_raw_os_error(errno)),
            _ => {
                *socket = None;
                drop(socket);
                notification::written(device, message)
            }
        }
    }
}

fn reached(path: &Path) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(socket)
}

/// A connection that has `group`.
fn connected(path: &Path, group: &str, until: Instant) -> Result<OwnedFd, Error> {
    let unreachable =
        |errno: nix::Error| Error::Unreachable { socket: path.display().to_string(), source: errno.into() };
    let socket = reached(path).map_err(unreachable)?;
    loop {
        let hello = Hello { version: VERSION, group: group.to_owned() };
        match exchange(&socket, Ask::Hello(hello), &[])?.0 {
            Answer::Welcome(_) => return Ok(socket),
            Answer::Busy(busy) if Instant::now() >= until => {
                return Err(Error::Busy { group: group.to_owned(), pid: busy.pid });
            }
            Answer::Busy(_) => thread::sleep(BUSY_PAUSE),
            answer => return Err(unexpected(answer)),
        }
    }
}

fn fetch(socket: &OwnedFd) -> Result<Vec<Item>, Error> {
    let mut items = Vec::new();
    let mut next = exchange(socket, Ask::Fetch(Fetch {}), &[])?;
    loop {
        match next {
            (Answer::Item(Keep { key, note }), descriptors) => {
                items.push(Item { key, note, descriptors: Arc::new(descriptors) });
            }
            (Answer::Done(_), _) => return Ok(items),
            (answer, _) => return Err(unexpected(answer)),
        }
        next = answer(socket)?;
    }
}

fn exchange(socket: &OwnedFd, ask: Ask, descriptors: &[BorrowedFd<'_>]) -> Result<(Answer, Vec<OwnedFd>), Error> {
    packet::send(socket.as_fd(), &Request { ask: Some(ask) }, descriptors).map_err(Error::Gone)?;
    answer(socket)
}

fn answer(socket: &OwnedFd) -> Result<(Answer, Vec<OwnedFd>), Error> {
    match packet::receive::<Reply>(socket.as_fd()).map_err(Error::Gone)? {
        Some((Reply { answer: Some(answer) }, descriptors)) => Ok((answer, descriptors)),
        Some(_) => Err(Error::Refused("it answers in a newer version of its protocol".to_owned())),
        None => Err(Error::Gone(io::ErrorKind::UnexpectedEof.into())),
    }
}

fn unexpected(answer: Answer) -> Error {
    match answer {
        Answer::Refused(refused) => Error::Refused(refused.reason),
        answer => Error::Refused(format!("an answer that is none: {answer:?}")),
    }
}
