//! The emulator as a value: started by a test or a demo, looked into and turned while it runs, gone with its drop.
//! Must not know HTTP.

use std::{io, net::SocketAddr, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use thiserror::Error;
use tokio::{net::TcpListener, runtime::Handle};

use crate::{
    blob::{Blob, Block, ContentHeaders, Kind},
    call::{Metadata, Payload},
    counters::{CountersView, RequestRecord},
    data::Data,
    faults::FaultRule,
    hierarchy::shown_metadata,
    lease::Lease,
    running::Running,
    server::{Service, serve},
    settings::Settings,
    state::{Account, Container, DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, PublicAccess, Stamps, State},
};

/// Why an emulator cannot be started or changed.
#[derive(Debug, Error)]
pub enum EmulatorError {
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// No thread or runtime.
    #[error("cannot start the emulator's runtime")]
    Runtime(#[source] io::Error),
    /// A name that no account can have.
    #[error("\"{0}\" is no account name: it has 3 to 24 lower-case letters and digits")]
    AccountName(String),
    /// A key that is no base64.
    #[error("the key of account {0} is not base64")]
    Key(String),
    /// No such container.
    #[error("there is no container {0}; create it first")]
    NoContainer(String),
}

/// A running emulator.
pub struct Emulator {
    pub(crate) service: Arc<Service>,
    address: SocketAddr,
    running: Running,
}

impl std::fmt::Debug for Emulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Emulator {
    /// Starts one on a free port of the loopback interface, with a runtime and threads of its own.
    ///
    /// # Errors
    /// [`EmulatorError::Listen`], [`EmulatorError::Runtime`].
    pub fn start(settings: Settings) -> Result<Self, EmulatorError> {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), settings)
    }

    /// Starts one at an address, with a runtime and threads of its own.
    ///
    /// # Errors
    /// [`EmulatorError::Listen`], [`EmulatorError::Runtime`].
    pub fn start_at(address: SocketAddr, settings: Settings) -> Result<Self, EmulatorError> {
        let (listener, address) = listen(address)?;
        let service = new_service(settings);
        let shared = Arc::clone(&service);
        let running = Running::on_threads("blob-emulator", move || async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => serve(listener, shared).await,
                Err(error) => tracing::error!(%error, "cannot use the listening socket"),
            }
        });
        Ok(Self { service, address, running: running.map_err(EmulatorError::Runtime)? })
    }

    /// Starts one on a runtime that is there. Connections end with that runtime.
    ///
    /// # Errors
    /// [`EmulatorError::Listen`].
    pub fn start_on(runtime: &Handle, address: SocketAddr, settings: Settings) -> Result<Self, EmulatorError> {
        let (listener, address) = listen(address)?;
        let service = new_service(settings);
        let shared = Arc::clone(&service);
        let listener = {
            let _inside = runtime.enter();
            TcpListener::from_std(listener).map_err(|source| EmulatorError::Listen { address, source })?
        };
        let task = runtime.spawn(serve(listener, shared));
        Ok(Self { service, address, running: Running::Task(task) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the default account: `http://127.0.0.1:PORT/devstoreaccount1`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        self.endpoint_of(DEVELOPMENT_ACCOUNT)
    }

    /// The URL of an account.
    #[must_use]
    pub fn endpoint_of(&self, account: &str) -> String {
        format!("http://{}/{account}", self.address)
    }

    /// Name of the default account.
    #[must_use]
    pub fn account(&self) -> &'static str {
        DEVELOPMENT_ACCOUNT
    }

    /// First key of the default account, in base64.
    #[must_use]
    pub fn key(&self) -> String {
        let state = self.service.state.lock();
        state.accounts.get(DEVELOPMENT_ACCOUNT).map(|account| account.keys[0].clone()).unwrap_or_default()
    }

    /// Connection string of the default account.
    #[must_use]
    pub fn connection_string(&self) -> String {
        format!(
            "DefaultEndpointsProtocol=http;AccountName={DEVELOPMENT_ACCOUNT};AccountKey={};BlobEndpoint={};",
            self.key(),
            self.endpoint()
        )
    }

    /// Adds an account, or gives an existing one a new key: the old one stops working at once.
    ///
    /// # Errors
    /// [`EmulatorError::AccountName`], [`EmulatorError::Key`].
    pub fn set_key(&self, account: &str, key: &str) -> Result<(), EmulatorError> {
        set_key(&self.service, account, key)
    }

    /// Gives the default account a new random key and returns it. The old one stops working at once.
    #[must_use]
    pub fn rotate_key(&self) -> String {
        let key = random_key();
        self.set_keys([key.clone(), key.clone()]);
        key
    }

    /// Gives the default account these two keys, in base64. The old ones stop working at once.
    pub fn set_keys(&self, keys: [String; 2]) {
        self.with_account(|account, _, _| account.keys = keys);
    }

    /// Creates a container of the default account, if it is not there yet.
    pub fn create_container(&self, name: &str) {
        self.with_account(|account, stamps, now| {
            account.containers.entry(name.to_owned()).or_insert_with(|| {
                let (etag, modified) = stamps.change(now);
                Container { etag, modified: Some(modified), ..Container::default() }
            });
        });
    }

    /// Deletes a container of the default account, if it is there.
    pub fn delete_container(&self, name: &str) {
        self.with_account(|account, _, _| drop(account.containers.remove(name)));
    }

    /// Sets who may read a container without credentials.
    ///
    /// # Errors
    /// [`EmulatorError::NoContainer`].
    pub fn set_public_access(&self, container: &str, access: PublicAccess) -> Result<(), EmulatorError> {
        self.with_container(container, |container, _, _| container.public = access)
    }

    /// Names of the containers of the default account.
    #[must_use]
    pub fn containers(&self) -> Vec<String> {
        self.with_account(|account, _, _| account.containers.keys().cloned().collect())
    }

    /// Writes a blob as another client would with one Put Blob, and returns its ETag.
    ///
    /// # Errors
    /// [`EmulatorError::NoContainer`].
    pub fn put(
        &self,
        container: &str,
        name: &str,
        bytes: impl Into<Bytes>,
        metadata: &[(&str, &str)],
    ) -> Result<String, EmulatorError> {
        let payload = Payload::of(Data::from_parts([bytes.into()]), true);
        let metadata = metadata.iter().map(|&(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect();
        self.place(container, name, Kind::Block(Vec::new()), payload.data, payload.md5, metadata)
    }

    /// Writes a blob of zeros as another client would: in committed blocks of `block_bytes` (the last may be shorter) under
    /// ids of six digits, or with one Put Blob. Costs no memory, whatever its length in bytes. Returns its ETag.
    ///
    /// # Errors
    /// [`EmulatorError::NoContainer`].
    pub fn put_zeros(
        &self,
        container: &str,
        name: &str,
        length: u64,
        block_bytes: Option<u64>,
    ) -> Result<String, EmulatorError> {
        let starts =
            block_bytes.into_iter().flat_map(|bytes| (0..length).step_by(bytes as usize).zip(std::iter::repeat(bytes)));
        let block = |(index, (start, bytes)): (usize, (u64, u64))| Block {
            id: format!("{index:06}").into_bytes(),
            data: Data::zeros(bytes.min(length - start)),
        };
        let blocks = starts.enumerate().map(block).collect();
        self.place(container, name, Kind::Block(blocks), Data::zeros(length), None, Metadata::new())
    }

    /// Writes a blob of these parts as another client would, each a committed block with an id of six digits. The bytes are
    /// shared, not copied: a part that comes a hundred times is in memory once. Returns the blob's ETag.
    ///
    /// # Errors
    /// [`EmulatorError::NoContainer`].
    pub fn put_blocks(
        &self,
        container: &str,
        name: &str,
        parts: impl IntoIterator<Item = Bytes>,
    ) -> Result<String, EmulatorError> {
        let block = |(index, part): (usize, Bytes)| Block {
            id: format!("{index:06}").into_bytes(),
            data: Data::from_parts([part]),
        };
        let blocks: Vec<Block> = parts.into_iter().enumerate().map(block).collect();
        let data = Data::concat(blocks.iter().map(|block| &block.data));
        self.place(container, name, Kind::Block(blocks), data, None, Metadata::new())
    }

    /// Writes an append blob of these blocks as another client would, or adds them to one that is there.
    ///
    /// # Errors
    /// [`EmulatorError::NoContainer`].
    pub fn append(&self, container: &str, name: &str, blocks: &[&[u8]]) -> Result<(), EmulatorError> {
        let is_append = |blob: &Blob| matches!(blob.kind, Kind::Append(_));
        if !self.with_blob(container, name, is_append).unwrap_or(false) {
            self.place(container, name, Kind::Append(0), Data::default(), None, Metadata::new())?;
        }
        self.with_container(container, |container, stamps, now| {
            let Some(blob) = container.blobs.get_mut(name) else { return };
            for block in blocks {
                blob.data.append(&Data::from_parts([Bytes::copy_from_slice(block)]));
                if let Kind::Append(count) = &mut blob.kind {
                    *count += 1;
                }
            }
            blob.touch(stamps, now);
        })
    }

    /// Whether a blob is leased now.
    #[must_use]
    pub fn is_leased(&self, container: &str, name: &str) -> bool {
        let now = self.service.now();
        self.with_blob(container, name, |blob| blob.lease.is_active(now)).unwrap_or(false)
    }

    fn place(
        &self,
        container: &str,
        name: &str,
        kind: Kind,
        data: Data,
        md5: Option<[u8; 16]>,
        metadata: Metadata,
    ) -> Result<String, EmulatorError> {
        let hierarchical = self.service.settings().hierarchical;
        self.with_container(container, |container, stamps, now| {
            let (etag, modified) = stamps.change(now);
            let blob = Blob {
                kind,
                data,
                headers: ContentHeaders { md5, ..ContentHeaders::default() },
                metadata,
                etag: etag.clone(),
                modified,
                created: modified,
                tier: None,
                tier_changed: None,
                tags: Vec::new(),
                lease: Lease::default(),
                copy: None,
                node: None,
            };
            container.staged.remove(name);
            let old = container.blobs.insert(name.to_owned(), blob).and_then(|old| old.node);
            if hierarchical {
                container.adopt(stamps, now, name, old);
            }
            etag
        })
    }

    /// Who may do what with a path of a hierarchical account, as (x-ms-permissions, x-ms-acl).
    #[must_use]
    pub fn access(&self, container: &str, name: &str) -> Option<(String, String)> {
        let node = self.with_blob(container, name, |blob| blob.node.clone()).flatten()?;
        Some((node.access.permissions(), node.access.acl()))
    }

    /// Whether a path is a directory of a hierarchical account.
    #[must_use]
    pub fn is_directory(&self, container: &str, name: &str) -> bool {
        self.with_blob(container, name, Blob::is_directory).unwrap_or(false)
    }

    /// Removes a blob as another client would; whether it was there. Of a directory of a hierarchical account only the entry
    /// goes: what is below it stays, as old data may be.
    pub fn delete(&self, container: &str, name: &str) -> bool {
        self.with_container(container, |container, _, _| container.blobs.remove(name).is_some()).unwrap_or(false)
    }

    /// The bytes of a blob, if it is there.
    #[must_use]
    pub fn get(&self, container: &str, name: &str) -> Option<Vec<u8>> {
        self.with_blob(container, name, |blob| blob.data.clone()).map(|data| data.to_vec())
    }

    /// The bytes of a part of a blob, if it is there.
    #[must_use]
    pub fn read(&self, container: &str, name: &str, range: std::ops::Range<u64>) -> Option<Vec<u8>> {
        self.with_blob(container, name, |blob| blob.data.sub(range)).map(|data| data.to_vec())
    }

    /// The length of a blob in bytes, if it is there.
    #[must_use]
    pub fn length(&self, container: &str, name: &str) -> Option<u64> {
        self.with_blob(container, name, |blob| blob.data.len())
    }

    /// The user metadata of a blob as the Blob endpoint shows it, if it is there.
    #[must_use]
    pub fn metadata(&self, container: &str, name: &str) -> Option<Metadata> {
        self.with_blob(container, name, shown_metadata)
    }

    /// The ETag of a blob, if it is there.
    #[must_use]
    pub fn etag(&self, container: &str, name: &str) -> Option<String> {
        self.with_blob(container, name, |blob| blob.etag.clone())
    }

    /// Decoded ids and sizes of the committed blocks of a blob, if it is there.
    #[must_use]
    pub fn committed_blocks(&self, container: &str, name: &str) -> Option<Vec<(Vec<u8>, u64)>> {
        self.with_blob(container, name, |blob| match &blob.kind {
            Kind::Block(blocks) => blocks.iter().map(|block| (block.id.clone(), block.data.len())).collect(),
            Kind::Append(_) | Kind::Page(..) => Vec::new(),
        })
    }

    /// How many uncommitted blocks a name has.
    #[must_use]
    pub fn uncommitted_blocks(&self, container: &str, name: &str) -> usize {
        let count = |container: &mut Container| container.staged.get(name).map_or(0, |staged| staged.len());
        self.with_container(container, |container, _, _| count(container)).unwrap_or(0)
    }

    /// Names of all blobs of a container, in order. Empty if there is no such container.
    #[must_use]
    pub fn names(&self, container: &str) -> Vec<String> {
        self.with_container(container, |container, _, _| container.blobs.keys().cloned().collect()).unwrap_or_default()
    }

    /// Changes settings, for connections that exist as well.
    pub fn settings(&self, change: impl FnOnce(&mut Settings)) {
        let mut settings = (*self.service.settings()).clone();
        change(&mut settings);
        self.service.apply(settings);
    }

    /// Adds a fault rule behind those that are there.
    pub fn fault(&self, rule: FaultRule) {
        self.settings(|settings| settings.faults.push(rule));
    }

    /// Removes all fault rules.
    pub fn clear_faults(&self) {
        self.settings(|settings| settings.faults.clear());
    }

    /// A look at the counters.
    #[must_use]
    pub fn counters(&self) -> CountersView {
        self.service.counters.view()
    }

    /// Sets the counters to zero.
    pub fn reset_counters(&self) {
        self.service.counters.reset();
    }

    /// The last requests, oldest first; as many as the setting `request_log` says.
    #[must_use]
    pub fn requests(&self) -> Vec<RequestRecord> {
        self.service.counters.log()
    }

    /// Waits until the emulator ends by itself: for the binary.
    pub fn wait(mut self) {
        if let Running::Thread(_, thread) = &mut self.running
            && let Some(thread) = thread.take()
        {
            let _ = thread.join();
        }
    }

    fn with_account<T>(&self, act: impl FnOnce(&mut Account, &mut Stamps, time::OffsetDateTime) -> T) -> T {
        let now = self.service.now();
        let mut state = self.service.state.lock();
        let State { accounts, stamps, .. } = &mut *state;
        let account = accounts.entry(DEVELOPMENT_ACCOUNT.to_owned()).or_insert_with(|| Account::new(DEVELOPMENT_KEY));
        act(account, stamps, now)
    }

    fn with_container<T>(
        &self,
        name: &str,
        act: impl FnOnce(&mut Container, &mut Stamps, time::OffsetDateTime) -> T,
    ) -> Result<T, EmulatorError> {
        self.with_account(|account, stamps, now| {
            let container = account.containers.get_mut(name);
            let container = container.ok_or_else(|| EmulatorError::NoContainer(name.to_owned()))?;
            container.settle(stamps, now);
            Ok(act(container, stamps, now))
        })
    }

    fn with_blob<T>(&self, container: &str, name: &str, look: impl FnOnce(&Blob) -> T) -> Option<T> {
        self.with_container(container, |container, _, _| container.blobs.get(name).map(look)).ok().flatten()
    }
}

/// A new account key, in base64.
pub(crate) fn random_key() -> String {
    let bytes: Vec<u8> = (0..4).flat_map(|_| uuid::Uuid::new_v4().into_bytes()).collect();
    STANDARD.encode(bytes)
}

/// A socket that listens, and its address.
///
/// # Errors
/// [`EmulatorError::Listen`].
pub(crate) fn listen(address: SocketAddr) -> Result<(std::net::TcpListener, SocketAddr), EmulatorError> {
    let failed = |source| EmulatorError::Listen { address, source };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let actual = listener.local_addr().map_err(failed)?;
    Ok((listener, actual))
}

fn new_service(settings: Settings) -> Arc<Service> {
    let accounts = [(DEVELOPMENT_ACCOUNT.to_owned(), Account::new(DEVELOPMENT_KEY))].into();
    let state = State { accounts, stamps: Stamps::new(time::OffsetDateTime::now_utc()), directory: None };
    Arc::new(Service::new(state, settings))
}

/// Adds an account or replaces its key.
///
/// # Errors
/// [`EmulatorError::AccountName`], [`EmulatorError::Key`].
pub(crate) fn set_key(service: &Service, account: &str, key: &str) -> Result<(), EmulatorError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    if !(3..=24).contains(&account.len()) || !account.chars().all(plain) {
        return Err(EmulatorError::AccountName(account.to_owned()));
    }
    if STANDARD.decode(key).is_err() || key.is_empty() {
        return Err(EmulatorError::Key(account.to_owned()));
    }
    let mut state = service.state.lock();
    let entry = state.accounts.entry(account.to_owned()).or_insert_with(|| Account::new(key));
    entry.keys = [key.to_owned(), key.to_owned()];
    Ok(())
}
