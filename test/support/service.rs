//! A Blob service of one's own on the loopback interface, and what another client does to its one container.
//! Knows nothing of file systems.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use azblob_csi::{
    blob::{
        AzureStore, BlobName, BlobStore, BlockId, Body, Condition, ContentHeaders, ListedBlock, Location,
        LocationHints, Metadata, RequestLimits, WriteOptions,
    },
    credential::{CredentialSlot, parse_connection_string},
};
use blob_emulator::{Emulator, FaultKind, FaultRule, Operation, Settings};
use bytes::Bytes;

/// The container of every test.
pub const CONTAINER: &str = "volume";

/// A blob as the container holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its version.
    pub etag: String,
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Whether it marks a directory.
    pub directory: bool,
}

/// All blobs of the container, by name.
pub type Snapshot = BTreeMap<String, Blob>;

/// A service of its own, gone when dropped.
pub struct Service {
    emulator: Emulator,
}

impl Service {
    /// Starts a service with one empty container.
    pub fn start() -> Self {
        Self::start_with(harness::account_settings())
    }

    /// Starts a service whose account is hierarchical.
    pub fn start_hierarchical() -> Self {
        Self::start_with(Settings { hierarchical: true, ..Settings::default() })
    }

    fn start_with(settings: Settings) -> Self {
        let emulator = Emulator::start(settings).expect("the emulator starts");
        emulator.create_container(CONTAINER);
        Self { emulator }
    }

    /// The service itself, to turn its knobs.
    pub fn emulator(&self) -> &Emulator {
        &self.emulator
    }

    /// The service refuses this operation so from now on, `times` times if given.
    pub fn refuse(&self, operation: Operation, status: u16, code: &str, times: Option<u64>) {
        let kind = FaultKind::Status { status, code: Some(code.to_owned()), retry_after: None };
        self.emulator.fault(FaultRule { count: times, ..FaultRule::new(kind).on(operation) });
    }

    /// Nothing is refused any more.
    pub fn relent(&self) {
        self.emulator.clear_faults();
    }

    /// The account's URL.
    pub fn endpoint(&self) -> String {
        self.emulator.endpoint()
    }

    /// The container's URL.
    pub fn url(&self) -> String {
        format!("{}/{CONTAINER}", self.endpoint())
    }

    /// What the Azure SDKs call a connection string.
    pub fn connection_string(&self) -> String {
        self.emulator.connection_string()
    }

    /// A client of the container, with our own code.
    pub fn store(&self) -> Arc<dyn BlobStore> {
        self.store_with(RequestLimits::STANDARD)
    }

    /// A client whose requests may take so long.
    pub fn store_with(&self, limits: RequestLimits) -> Arc<dyn BlobStore> {
        let account = parse_connection_string("the test's connection string", &self.connection_string()).unwrap();
        let (location, _) = Location::parse(&self.url(), &LocationHints::from(&account)).unwrap();
        let slot = CredentialSlot::new(account.credential.unwrap());
        Arc::new(AzureStore::new(location, slot, limits).unwrap())
    }

    /// Another client writes a blob with one Put Blob.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        self.put_with(name, bytes, &[]);
    }

    /// Another client writes a blob with metadata.
    pub fn put_with(&self, name: &str, bytes: &[u8], metadata: &[(&str, &str)]) {
        self.emulator.put(CONTAINER, name, bytes.to_vec(), metadata).unwrap();
    }

    /// Another client writes a blob of blocks, with ids of its own form.
    pub async fn put_blocks(&self, name: &str, blocks: &[Vec<u8>]) {
        self.put_blocks_with(name, blocks, |index| format!("{index:06}").into_bytes()).await;
    }

    /// Another client writes a blob of blocks under the ids that it likes.
    pub async fn put_blocks_with(&self, name: &str, blocks: &[Vec<u8>], id: impl Fn(usize) -> Vec<u8>) {
        let (store, name) = (self.store(), BlobName::new(name).unwrap());
        let mut ids = Vec::new();
        for (index, block) in blocks.iter().enumerate() {
            let id = BlockId(Bytes::from(id(index)));
            store.put_block(&name, &id, Body::from(Bytes::from(block.clone()))).await.unwrap();
            ids.push(ListedBlock::Staged(id));
        }
        let options = WriteOptions {
            condition: Condition::None,
            metadata: Metadata::default(),
            headers: ContentHeaders::default(),
            access_tier: None,
        };
        store.put_block_list(&name, &ids, &options).await.unwrap();
    }

    /// The bytes of a blob, as another client reads them.
    pub fn blob(&self, name: &str) -> Vec<u8> {
        self.find(name).unwrap_or_else(|| panic!("there is no blob {name}, only {:?}", self.names()))
    }

    /// The bytes of a blob, if it is there.
    pub fn find(&self, name: &str) -> Option<Vec<u8>> {
        self.emulator.get(CONTAINER, name)
    }

    /// Every blob with its ETag and bytes, and whether it marks a directory.
    pub fn snapshot(&self) -> Snapshot {
        let blob = |name: &String| {
            let marked = self.metadata(name).contains_key("hdi_isfolder");
            let etag = self.emulator.etag(CONTAINER, name).expect("the blob exists");
            Blob { etag, bytes: self.blob(name), directory: marked }
        };
        self.names().into_iter().map(|name| (name.clone(), blob(&name))).collect()
    }

    /// Another client deletes a blob, if it is there.
    pub fn remove(&self, name: &str) {
        self.emulator.delete(CONTAINER, name);
    }

    /// The names of all blobs, in order.
    pub fn names(&self) -> Vec<String> {
        self.emulator.names(CONTAINER)
    }

    /// The metadata of a blob.
    pub fn metadata(&self, name: &str) -> BTreeMap<String, String> {
        self.emulator.metadata(CONTAINER, name).expect("the blob exists").into_iter().collect()
    }

    /// Requests so far.
    pub fn requests(&self) -> u64 {
        self.emulator.counters().total()
    }

    /// Requests of one operation so far.
    pub fn count(&self, operation: Operation) -> u64 {
        self.emulator.counters().of(operation)
    }

    /// Bytes of request bodies so far.
    pub fn bytes_in(&self) -> u64 {
        self.emulator.counters().operations.values().map(|operation| operation.bytes_in).sum()
    }

    /// Bytes of answers so far.
    pub fn bytes_out(&self) -> u64 {
        self.emulator.counters().operations.values().map(|operation| operation.bytes_out).sum()
    }

    /// Another client writes zeros, in blocks of a size or with one Put Blob.
    pub fn put_zeros(&self, name: &str, length: u64, block_bytes: Option<u64>) {
        self.emulator.put_zeros(CONTAINER, name, length, block_bytes).unwrap();
    }

    /// Another client appends to an append blob, or makes one.
    pub fn append(&self, name: &str, blocks: &[&[u8]]) {
        self.emulator.append(CONTAINER, name, blocks).unwrap();
    }

    /// Whether somebody holds a lease on a blob.
    pub fn is_leased(&self, name: &str) -> bool {
        self.emulator.is_leased(CONTAINER, name)
    }

    /// The service's clock is so far ahead of ours from now on.
    pub fn set_clock_ahead(&self, ahead: Duration) {
        self.emulator.settings(|settings| settings.clock_ahead = ahead);
    }

    /// Some bytes of a blob, as another client reads them.
    pub fn read(&self, name: &str, range: std::ops::Range<u64>) -> Vec<u8> {
        self.emulator.read(CONTAINER, name, range).expect("the blob exists")
    }

    /// Length of a blob.
    pub fn length(&self, name: &str) -> u64 {
        self.emulator.length(CONTAINER, name).expect("the blob exists")
    }

    /// Ids and lengths of a blob's committed blocks.
    pub fn blocks(&self, name: &str) -> Vec<(Vec<u8>, u64)> {
        self.emulator.committed_blocks(CONTAINER, name).expect("the blob exists")
    }

    /// From now on this goes wrong.
    pub fn fault(&self, rule: FaultRule) {
        self.emulator.fault(rule);
    }

    /// Put Block From URL is answered as by Azurite, which has none.
    pub fn refuse_copies(&self) {
        let refused = FaultKind::Status { status: 501, code: Some("APINotImplemented".to_owned()), retry_after: None };
        self.emulator.fault(FaultRule::new(refused).on(Operation::PutBlockFromURL));
    }

    /// Every request takes this much longer from now on.
    pub fn delay(&self, latency: Duration) {
        self.emulator.settings(|settings| settings.latency = latency);
    }
}
