//! The keeper's side: one thread and poll(2), since it must stay below 10 MiB with a connection for each volume of a node. Whatever
//! it is asked for takes microseconds. A client that does not read its answers is let go after a moment, as long as the
//! others wait.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd},
        unix::fs::{DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _},
    },
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        socket::{
            AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, accept4, bind, getsockopt, listen,
            setsockopt, shutdown, socket, sockopt,
        },
        time::TimeVal,
    },
    unistd::geteuid,
};

use super::{
    notification, packet,
    protocol::{Answer, Ask, Busy, Done, Hello, Keep, Refused, Reply, Request, Tell, Told, VERSION, Welcome},
    shelf::{ClientId, Item, Shelf},
};
use crate::telemetry;

/// How long a client may have no room for an answer (some 200 KiB are unread then) before it is taken for stuck.
const SEND_TIMEOUT_SECONDS: i64 = 2;
/// Between two looks for what was abandoned, at most.
const LOOK_INTERVAL_MAX: Duration = Duration::from_secs(5);
/// After an accept(2) that failed for want of descriptors: who has them gives some back meanwhile.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Of a thread that makes one system call.
const TELL_STACK_BYTES: usize = 64 << 10;

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
    is_stopped: AtomicBool,
    /// Held as long as the socket is ours.
    _lock: Flock<File>,
}

impl Keeper {
    /// Listens at the socket of `settings`, whose directory is made where it is missing. A file that a killed keeper left there is
    /// replaced, a living keeper is not.
    ///
    /// # Errors
    /// What the kernel says, with the path.
    pub fn listen(settings: Settings) -> io::Result<Self> {
        raise_descriptor_limit();
        let path = settings.socket.as_path();
        let (listener, lock) = made_directory(path)
            .and_then(|()| locked(path))
            .and_then(|lock| Ok((bound(path)?, lock)))
            .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self { listener, settings, is_stopped: AtomicBool::new(false), _lock: lock })
    }

    /// Ends [`Self::serve`], which lets go of what it holds.
    pub fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        // Wakes the poll(2) below: a socket that is shut down is ready for ever.
        let _ = shutdown(self.listener.as_raw_fd(), Shutdown::Both);
    }

    /// Serves until it is stopped, or accept(2) fails for good.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn serve(&self) -> io::Result<()> {
        let age = self.settings.abandon_age;
        tracing::info!(
            socket = %self.settings.socket.display(),
            abandon_after_seconds = age.as_secs_f64(),
            "the keeper listens, and holds nothing yet"
        );
        let look_interval = LOOK_INTERVAL_MAX.min(age / 4);
        let (mut serving, mut next_look) = (Serving::default(), Instant::now() + look_interval);
        loop {
            let is_asked = serving.wait(self.listener.as_fd(), next_look.saturating_duration_since(Instant::now()))?;
            if self.is_stopped.load(Ordering::Acquire) {
                let (groups, items) = serving.shelf.counts();
                tracing::info!(groups, items, "the keeper ends, and lets go of what it holds");
                return Ok(());
            }
            if is_asked {
                serving.welcome(self.listener.as_fd())?;
            }
            if Instant::now() >= next_look {
                serving.let_go(age);
                next_look = Instant::now() + look_interval;
            }
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.settings.socket);
    }
}

/// All clients and what they have given.
#[derive(Debug, Default)]
struct Serving {
    shelf: Shelf,
    clients: Vec<Client>,
    /// How many there were.
    welcomed: u64,
}

/// A client and the group that it has.
#[derive(Debug)]
struct Client {
    socket: OwnedFd,
    id: ClientId,
    pid: i32,
    group: Option<String>,
}

impl Serving {
    /// Waits until somebody says something, at most for `limit`, and answers. Returns whether somebody new knocks at `listener`.
    fn wait(&mut self, listener: BorrowedFd<'_>, limit: Duration) -> io::Result<bool> {
        // Rounded up, so that it does not turn around for the rest of a millisecond.
        let limit = PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        let sockets = std::iter::once(listener).chain(self.clients.iter().map(|client| client.socket.as_fd()));
        let mut watched: Vec<PollFd<'_>> = sockets.map(|socket| PollFd::new(socket, PollFlags::POLLIN)).collect();
        match poll(&mut watched, limit) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
        // What is not told (an error, the end) shows when it is read.
        let mut ready = watched.iter().map(|watched| watched.revents().is_none_or(|events| !events.is_empty()));
        let is_asked = ready.next().unwrap_or(false);
        let ready: Vec<bool> = ready.collect();
        let mut ready = ready.into_iter();
        let (shelf, clients) = (&mut self.shelf, &mut self.clients);
        clients.retain_mut(|client| !ready.next().unwrap_or(false) || client.is_served(shelf));
        Ok(is_asked)
    }

    fn welcome(&mut self, listener: BorrowedFd<'_>) -> io::Result<()> {
        let socket = match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC) {
            // SAFETY: accept4(2) has just opened it for us.
            Ok(number) => unsafe { OwnedFd::from_raw_fd(number) },
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNABORTED) => return Ok(()),
            Err(errno @ (Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM | Errno::ENOBUFS)) => {
                tracing::warn!(%errno, "cannot accept a connection now");
                thread::sleep(ACCEPT_PAUSE);
                return Ok(());
            }
            Err(errno) => return Err(errno.into()),
        };
        let id = ClientId(self.welcomed);
        self.welcomed += 1;
        match Client::new(socket, id) {
            Ok(client) => self.clients.extend(client),
            Err(error) => tracing::warn!(client = id.0, "a client was turned away: {}", telemetry::chain(&error)),
        }
        Ok(())
    }

    fn let_go(&mut self, age: Duration) {
        for (group, items) in self.shelf.abandoned(age, Instant::now()) {
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

impl Client {
    /// A client at the other end of `socket`; `None` for one that may not be.
    fn new(socket: OwnedFd, id: ClientId) -> io::Result<Option<Self>> {
        let peer = getsockopt(&socket, sockopt::PeerCredentials)?;
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(SEND_TIMEOUT_SECONDS, 0))?;
        let client = Self { socket, id, pid: peer.pid(), group: None };
        // The descriptors give whoever has them every byte of a volume.
        if peer.uid() != 0 && peer.uid() != geteuid().as_raw() {
            client.refuse(&format!("user {} may not use the keeper of user {}", peer.uid(), geteuid()))?;
            return Ok(None);
        }
        Ok(Some(client))
    }

    /// Answers what is said. False once the client is gone, or is let go: its group is free then.
    fn is_served(&mut self, shelf: &mut Shelf) -> bool {
        match self.answer_next(shelf) {
            Ok(true) => return true,
            Ok(false) => {}
            Err(error) => tracing::warn!(client = self.id.0, "a client is let go: {}", telemetry::chain(&error)),
        }
        if let Some(group) = self.group.take() {
            let held = shelf.free(&group, self.id, Instant::now());
            tracing::info!(group, pid = self.pid, held, "its process is gone, or has let go");
        }
        false
    }

    fn answer_next(&mut self, shelf: &mut Shelf) -> io::Result<bool> {
        let Some((request, descriptors)) = packet::receive::<Request>(self.socket.as_fd())? else { return Ok(false) };
        match (request.ask, self.group.as_deref()) {
            (Some(Ask::Hello(hello)), None) => self.claim(hello, shelf)?,
            (Some(Ask::Keep(Keep { key, note })), Some(group)) => {
                // What it replaces is closed here: the last close of a FUSE connection ends everybody who waits in it.
                drop(shelf.keep(group, Item { key, note, descriptors: Arc::new(descriptors) }));
                self.done(1)?;
            }
            (Some(Ask::Drop(dropped)), Some(group)) => {
                let gone = shelf.take(group, &dropped.key);
                self.done(usize::from(gone.is_some()))?;
            }
            (Some(Ask::Fetch(_)), Some(group)) => self.fetch(&shelf.items(group))?,
            (Some(Ask::Tell(tell)), None) => self.tell(tell, descriptors)?,
            (Some(Ask::Hello(_)), Some(_)) => self.refuse("this connection has a group already")?,
            (Some(Ask::Tell(_)), Some(_)) => self.refuse("this connection has a group")?,
            (Some(_), None) => self.refuse("say Hello first")?,
            (None, _) => {
                self.refuse("this keeper is older than the question; restart it when no pod is in need of it")?;
            }
        }
        Ok(true)
    }

    fn claim(&mut self, hello: Hello, shelf: &mut Shelf) -> io::Result<()> {
        if hello.version < VERSION || hello.group.is_empty() {
            return self.refuse("a version and a group are wanted");
        }
        match shelf.claim(&hello.group, self.id, self.pid) {
            Ok(held) => {
                tracing::info!(group = hello.group, pid = self.pid, held, "has a process");
                self.group = Some(hello.group);
                self.answer(Answer::Welcome(Welcome { version: VERSION }), &[])
            }
            Err(pid) => self.answer(Answer::Busy(Busy { pid }), &[]),
        }
    }

    /// Has a thread of its own write it, which may have to wait: for what the kernel holds until the client, or the next one,
    /// has answered a request.
    fn tell(&self, tell: Tell, descriptors: Vec<OwnedFd>) -> io::Result<()> {
        let Some(device) = descriptors.into_iter().next() else { return self.refuse("a device is wanted") };
        if !notification::is_for(&device, &tell.message) {
            return self.refuse("only notifications, and only to a FUSE device");
        }
        let socket = self.socket.try_clone()?;
        let teller = thread::Builder::new().name("tell".to_owned()).stack_size(TELL_STACK_BYTES);
        teller.spawn(move || {
            let errno = notification::write(&device, &tell.message);
            // Who is gone need not hear of it.
            let _ = packet::send(socket.as_fd(), &Reply { answer: Some(Answer::Told(Told { errno })) }, &[]);
        })?;
        Ok(())
    }

    fn fetch(&self, items: &[Item]) -> io::Result<()> {
        for item in items {
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

    fn answer(&self, answer: Answer, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        packet::send(self.socket.as_fd(), &Reply { answer: Some(answer) }, descriptors)
    }
}

/// Whoever may enter the directory may try the socket: nobody else may where it is made here.
fn made_directory(socket: &Path) -> io::Result<()> {
    match socket.parent() {
        Some(directory) if !directory.as_os_str().is_empty() => {
            DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}

/// Two keepers that find a dead one's socket at the same time would both replace it. The lock ends with the process, however it ends.
fn locked(socket: &Path) -> io::Result<Flock<File>> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let file = File::options().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => io::Error::new(io::ErrorKind::AddrInUse, "another keeper serves this socket"),
        errno => errno.into(),
    })
}

/// A bound socket that only its owner may use. Who calls has the lock, so a socket that is there is a dead keeper's.
fn bound(path: &Path) -> io::Result<OwnedFd> {
    match fs::symlink_metadata(path) {
        // Only what is a socket: a file that a typing mistake names stays.
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path)?,
        Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket")),
        Err(_) => {}
    }
    // Who knocked may be gone when it is let in.
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
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
