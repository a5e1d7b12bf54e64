//! The keeper's side: a thread for each connection, of which there are as many as there are plugins and mounts.
//!
//! No runtime and no pools: it must stay below 10 MiB, and each thread touches a few pages of its stack.

use std::{
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd, OwnedFd},
        unix::fs::{FileTypeExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, getsockopt, listen,
            setsockopt, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::geteuid,
};

use super::{
    packet,
    protocol::{Answer, Ask, Busy, Done, Hello, Keep, Refused, Reply, Request, VERSION, Welcome},
    shelf::{ClientId, Item, Shelf},
};
use crate::{sync::Mutex, telemetry};

/// How long a client may leave an answer unread before it is taken for stuck.
const SEND_TIMEOUT_SECONDS: i64 = 10;
/// Between two looks for what was abandoned, at most.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// After an accept(2) that failed for want of descriptors: who has them gives some back meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How the keeper keeps.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Its socket.
    pub socket: PathBuf,
    /// How long it holds what no process has come for.
    pub abandon_age: Duration,
}

/// A keeper that listens. Its socket's file is removed with it.
#[derive(Debug)]
pub struct Keeper {
    listener: OwnedFd,
    settings: Settings,
    shelf: Arc<Mutex<Shelf>>,
    clients: AtomicU64,
}

impl Keeper {
    /// Listens at the socket of `settings`. A file that a killed keeper left there is replaced, a living keeper is not.
    ///
    /// # Errors
    /// What the kernel says, with the path.
    pub fn listen(settings: Settings) -> io::Result<Self> {
        raise_descriptor_limit();
        let path = settings.socket.as_path();
        let listener =
            bound(path).map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { listener, settings, shelf: Arc::default(), clients: AtomicU64::new(0) })
    }

    /// Serves until accept(2) fails for good.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn serve(&self) -> io::Result<()> {
        let (shelf, age) = (Arc::clone(&self.shelf), self.settings.abandon_age);
        thread::Builder::new().name("abandoned".to_owned()).spawn(move || let_go(&shelf, age))?;
        loop {
            match accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
                Ok(number) => {
                    // SAFETY: accept4(2) has just opened it for us.
                    self.welcome(unsafe { std::os::fd::FromRawFd::from_raw_fd(number) });
                }
                Err(Errno::EINTR | Errno::ECONNABORTED) => {}
                Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                    tracing::warn!(%errno, "cannot accept a connection now");
                    thread::sleep(ACCEPT_PAUSE);
                }
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    fn welcome(&self, socket: OwnedFd) {
        let id = ClientId(self.clients.fetch_add(1, Ordering::Relaxed));
        let shelf = Arc::clone(&self.shelf);
        let served = thread::Builder::new().name("client".to_owned()).spawn(move || {
            if let Err(error) = Conversation::hold(&socket, id, &shelf) {
                tracing::warn!(client = id.0, "a client was let go: {}", telemetry::chain(&error));
            }
        });
        if let Err(error) = served {
            tracing::warn!(%error, "cannot serve another client");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.settings.socket);
    }
}

/// One client and the group that it has.
struct Conversation<'a> {
    socket: &'a OwnedFd,
    id: ClientId,
    pid: i32,
    shelf: &'a Mutex<Shelf>,
    group: Option<String>,
}

impl<'a> Conversation<'a> {
    fn hold(socket: &'a OwnedFd, id: ClientId, shelf: &'a Mutex<Shelf>) -> io::Result<()> {
        let peer = getsockopt(socket, sockopt::PeerCredentials)?;
        setsockopt(socket, sockopt::SendTimeout, &TimeVal::new(SEND_TIMEOUT_SECONDS, 0))?;
        let mut conversation = Self { socket, id, pid: peer.pid(), shelf, group: None };
        // The descriptors give whoever has them every byte of a volume.
        if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
            let reason = format!("user {} may not use the keeper of user {}", peer.uid(), geteuid());
            return conversation.answer(Answer::Refused(Refused { reason }), &[]);
        }
        let outcome = conversation.listen();
        if let Some(group) = conversation.group.take() {
            tracing::info!(group, pid = conversation.pid, "its process is gone, or has let go");
            shelf.lock().free(&group, id, Instant::now());
        }
        outcome
    }

    fn listen(&mut self) -> io::Result<()> {
        while let Some((request, descriptors)) = packet::receive::<Request>(self.socket.as_fd())? {
            match (request.ask, self.group.clone()) {
                (Some(Ask::Hello(hello)), None) => self.claim(hello)?,
                (Some(Ask::Keep(keep)), Some(group)) => self.keep(&group, keep, descriptors)?,
                (Some(Ask::Drop(dropped)), Some(group)) => {
                    let gone = self.shelf.lock().take(&group, &dropped.key);
                    self.done(usize::from(gone.is_some()))?;
                }
                (Some(Ask::Fetch(_)), Some(group)) => self.fetch(&group)?,
                (Some(Ask::Hello(_)), Some(_)) => self.refuse("this connection has a group already")?,
                (Some(_), None) => self.refuse("say Hello first")?,
                (None, _) => {
                    self.refuse("this keeper is older than the question; restart it when no pod is in need of it")?;
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, hello: Hello) -> io::Result<()> {
        if hello.version < VERSION || hello.group.is_empty() {
            return self.refuse("a version and a group are wanted");
        }
        let claimed = self.shelf.lock().claim(&hello.group, self.id, self.pid);
        match claimed {
            Ok(()) => {
                tracing::info!(group = hello.group, pid = self.pid, "has a process");
                self.group = Some(hello.group);
                self.answer(Answer::Welcome(Welcome { version: VERSION }), &[])
            }
            Err(pid) => self.answer(Answer::Busy(Busy { pid }), &[]),
        }
    }

    fn keep(&self, group: &str, keep: Keep, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let item = Item { key: keep.key, note: keep.note, descriptors: Arc::new(descriptors) };
        // What it replaces is closed out of the lock: the last close of a FUSE connection ends everybody who waits in it.
        let replaced = self.shelf.lock().keep(group, item);
        drop(replaced);
        self.done(1)
    }

    fn fetch(&self, group: &str) -> io::Result<()> {
        let items = self.shelf.lock().items(group);
        for item in &items {
            let descriptors: Vec<_> = item.descriptors.iter().map(OwnedFd::as_fd).collect();
            self.answer(Answer::Item(Keep { key: item.key.clone(), note: item.note.clone() }), &descriptors)?;
        }
        self.done(items.len())
    }

    fn done(&self, items: usize) -> io::Result<()> {
        self.answer(Answer::Done(Done { items: u32::try_from(items).unwrap_or(u32::MAX) }), &[])
    }

    fn refuse(&self, reason: &str) -> io::Result<()> {
        self.answer(Answer::Refused(Refused { reason: reason.to_owned() }), &[])
    }

    fn answer(&self, answer: Answer, descriptors: &[std::os::fd::BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(self.socket.as_fd(), &Reply { answer: Some(answer) }, descriptors)
    }
}

fn let_go(shelf: &Mutex<Shelf>, age: Duration) {
    loop {
        thread::sleep(LOOK_INTERVAL_MAX.min(age / 4));
        let abandoned = shelf.lock().abandoned(age, Instant::now());
        for (group, items) in abandoned {
            let keys: Vec<&str> = items.iter().map(|item| item.key.as_str()).collect();
            tracing::error!(
                group,
                items = keys.join(", "),
                "no process has come for it in {} s: let go, and whoever waits in these mounts gets an error",
                age.as_secs()
            );
        }
    }
}

/// A bound socket that only its owner may use.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    let address = UnixAddr::new(path)?;
    let stream = || socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None);
    let listener = stream()?;
    match bind(listener.as_raw_fd(), &address) {
        Err(Errno::EADDRINUSE) => {
            let probe = stream()?;
            match connect(probe.as_raw_fd(), &address) {
                Ok(()) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another keeper serves this socket")),
                // Only what is a socket: a file that a typing mistake names stays.
                Err(Errno::ECONNREFUSED) if fs::symlink_metadata(path)?.file_type().is_socket() => {
                    fs::remove_file(path)?;
                }
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
                }
            }
            bind(listener.as_raw_fd(), &address)?;
        }
        bound => bound?,
    }
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&listener, Backlog::new(16)?)?;
    Ok(listener)
}

/// A descriptor for each mount, and some for each volume's memory: as many as the system lets this process have.
fn raise_descriptor_limit() {
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(errno) = raised {
        tracing::warn!(%errno, "cannot raise the limit of open descriptors");
    }
}
