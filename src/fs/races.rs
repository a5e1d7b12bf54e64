//! The commit queue, the names and the cache under a model checker: every lock, atomic, task and reply is a point where
//! another task may go first, and thousands of such orders are tried (`make races`). A deadlock ends a run as well.
//!
//! Only what is shared is here; each test is one meeting of a few tasks. The service is a container in memory (`store`).

mod names;
mod store;
mod versions;

use std::sync::Arc;

use shuttle::future::{self, JoinHandle};

use self::store::Container;
use super::{Access, Caller, FileSystem, HandleId, InodeNumber, ROOT, Resources, Result, Settings, ViewSettings};
use crate::{
    cache::{Cache, CacheOptions},
    sync::tokio::runtime::Handle,
};

/// Orders tried for each meeting, by each of two searches: two seconds of one core.
const ORDERS: usize = 2000;
/// Preemptions of one order that the second, more stubborn search places.
const PREEMPTIONS: usize = 3;
/// Room for a few small files.
const MEMORY_BYTES: u64 = 8 << 20;
const READ_WRITE: Access =
    Access { read: true, write: true, append: false, truncate: false, exclusive: false, synchronous: false };

/// Tries the orders of a meeting, at random and then with few, well placed switches.
fn meet<M: Future<Output = ()> + Send + 'static>(meeting: impl Fn() -> M + Send + Sync + 'static) {
    let meeting = Arc::new(meeting);
    let once = move || future::block_on(meeting());
    shuttle::check_random(once.clone(), ORDERS);
    shuttle::check_pct(once, ORDERS, PREEMPTIONS);
}

/// A volume on a container in memory.
#[derive(Clone)]
struct Volume {
    container: Arc<Container>,
    fs: Arc<FileSystem>,
    caller: Caller,
}

impl Volume {
    async fn open() -> Self {
        Self::on(Arc::new(Container::default())).await
    }

    async fn on(container: Arc<Container>) -> Self {
        Self::on_with(container, Settings::default()).await
    }

    /// On an empty container, behaving as `settings` say.
    async fn with(settings: Settings) -> Self {
        Self::on_with(Arc::new(Container::default()), settings).await
    }

    /// Names never go stale here: time is not what is checked.
    async fn on_with(container: Arc<Container>, settings: Settings) -> Self {
        let runtime = Handle::current();
        let cache = Cache::new(CacheOptions { memory_bytes: MEMORY_BYTES, ..CacheOptions::default() }, runtime.clone());
        let resources = Arc::new(Resources { cache, spool: None, runtime });
        let store = Arc::clone(&container);
        let fs = FileSystem::open(store, resources, Settings { excl_strict: true, ..settings }).await.unwrap();
        let caller = Caller { view: fs.add_view(ViewSettings::default()), uid: 0, gid: 0, pid: 1, request: 0 };
        Self { container, fs, caller }
    }

    async fn lookup(&self, name: &str) -> Result<InodeNumber> {
        Ok(self.fs.lookup(&self.caller, ROOT, name.as_ref()).await?.attr.number)
    }

    fn forget(&self, number: InodeNumber) {
        self.fs.forget(&self.caller.view, number, 1);
    }

    /// open(2), as a kernel does it: with a second try after ESTALE. The lookup is given back.
    async fn open_file(&self, name: &str) -> Result<HandleId> {
        let number = self.lookup(name).await?;
        let opened = self.fs.open_file(&self.caller, number, READ_WRITE).await;
        self.forget(number);
        match opened {
            Err(error) if error.errno == libc::ESTALE => {
                let number = self.lookup(name).await?;
                let opened = self.fs.open_file(&self.caller, number, READ_WRITE).await;
                self.forget(number);
                opened
            }
            other => other,
        }
    }

    async fn create(&self, name: &str, exclusive: bool) -> Result<HandleId> {
        let access = Access { exclusive, ..READ_WRITE };
        let (entry, handle) = self.fs.create_file(&self.caller, ROOT, name.as_ref(), 0o644, access).await?;
        self.forget(entry.attr.number);
        Ok(handle)
    }

    async fn write(&self, handle: HandleId, offset: u64, bytes: &[u8]) {
        assert_eq!(self.fs.write(&self.caller, handle, offset, bytes).await.unwrap() as usize, bytes.len());
    }

    async fn read(&self, handle: HandleId, offset: u64, length: u32) -> Result<Vec<u8>> {
        Ok(self.fs.read(handle, offset, length).await?.with(<[u8]>::to_vec))
    }

    async fn close(&self, handle: HandleId) -> Result<()> {
        let flushed = self.fs.flush(handle).await;
        self.fs.release(handle).await?;
        flushed
    }

    async fn put(&self, name: &str, bytes: &[u8]) {
        let handle = self.create(name, false).await.unwrap();
        self.write(handle, 0, bytes).await;
        self.close(handle).await.unwrap();
    }

    /// Starts a task of this volume.
    fn spawn<F: Future + Send + 'static>(&self, task: impl FnOnce(Self) -> F) -> JoinHandle<F::Output>
    where
        F::Output: Send,
    {
        future::spawn(task(self.clone()))
    }

    /// What holds at the end of every meeting: no handle is open, and nobody but the root is remembered.
    fn is_quiet(&self) {
        assert_eq!(self.fs.gauges(), (1, 0), "an inode or a handle is left");
    }
}

#[test]
#[should_panic(expected = "an update was lost")]
fn the_checker_finds_a_lost_update() {
    use crate::sync::{AtomicU64, Ordering};
    meet(|| async {
        let count = Arc::new(AtomicU64::new(0));
        let add = || {
            let count = Arc::clone(&count);
            future::spawn(async move { count.store(count.load(Ordering::SeqCst) + 1, Ordering::SeqCst) })
        };
        let (first, second) = (add(), add());
        first.await.unwrap();
        second.await.unwrap();
        assert_eq!(count.load(Ordering::SeqCst), 2, "an update was lost");
    });
}
