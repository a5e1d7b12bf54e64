//! A running emulator and stores on it: what every claim of this suite starts with.

use std::{ops::Range, time::Duration};

use azblob_csi::{
    blob::{
        AzureStore, BlobName, BlobStore, BlockId, Body, Condition, Connections, ContentHeaders, ETag, ListedBlock,
        Location, LocationHints, Metadata, RequestLimits, WriteOptions,
    },
    credential::{AccountKey, Credential, CredentialSlot},
};
use blob_emulator::{DEVELOPMENT_ACCOUNT, DEVELOPMENT_KEY, Emulator, FaultRule, Operation, Settings};
use bytes::Bytes;
use futures::TryStreamExt;

/// The account of the emulator.
pub(crate) const ACCOUNT: &str = DEVELOPMENT_ACCOUNT;
/// Its key (public knowledge).
pub(crate) const KEY: &str = DEVELOPMENT_KEY;
/// The container that every service starts with.
pub(crate) const CONTAINER: &str = "claims";

/// An emulator with an empty container, stopped by its drop.
pub(crate) struct Service {
    emulator: Emulator,
    /// A store on [`CONTAINER`], signed in with the account key.
    pub(crate) store: AzureStore,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings::default()).await
    }

    /// One whose account is hierarchical.
    pub(crate) async fn start_hierarchical() -> Self {
        Self::start_with(Settings { hierarchical: true, ..Settings::default() }).await
    }

    async fn start_with(settings: Settings) -> Self {
        let emulator = Emulator::start(settings).unwrap();
        let store = store(&format!("{}/{CONTAINER}", emulator.endpoint()), key());
        store.create_container(&Metadata::new()).await.unwrap();
        Self { emulator, store }
    }

    /// A store on another container.
    pub(crate) fn store_for(&self, container: &str) -> AzureStore {
        store(&format!("{}/{container}", self.emulator.endpoint()), key())
    }

    /// A store on [`CONTAINER`] with another credential.
    pub(crate) fn store_with(&self, credential: Credential) -> AzureStore {
        store(&format!("{}/{CONTAINER}", self.emulator.endpoint()), credential)
    }

    /// A store at an address where nobody listens.
    pub(crate) fn away() -> AzureStore {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::at(&format!("http://{free}/{ACCOUNT}/{CONTAINER}"))
    }

    /// A store at any place.
    pub(crate) fn at(url: &str) -> AzureStore {
        store(url, key())
    }

    /// Two stores that share connections and a gate.
    pub(crate) fn two_stores_with_gate(&self, in_flight: usize) -> (AzureStore, AzureStore) {
        let connections = Connections::new(in_flight).unwrap();
        let make = || {
            let slot = CredentialSlot::new(key());
            AzureStore::with_connections(self.store.location().clone(), slot, RequestLimits::STANDARD, &connections)
        };
        (make(), make())
    }

    /// Turns the emulator's knobs.
    pub(crate) fn settings(&self, change: impl FnOnce(&mut Settings)) {
        self.emulator.settings(change);
    }

    /// Whether a path is a directory, as the emulator knows it.
    pub(crate) fn is_directory(&self, path: &str) -> bool {
        self.emulator.is_directory(CONTAINER, path)
    }

    /// Replaces the fault rules by this one.
    pub(crate) fn fault(&self, rule: FaultRule) {
        self.faults(&[rule]);
    }

    /// Replaces the fault rules by these: the first one that fits a request strikes.
    pub(crate) fn faults(&self, rules: &[FaultRule]) {
        self.emulator.settings(|settings| settings.faults = rules.to_vec());
    }

    /// Lets every request wait.
    pub(crate) fn wait_before_answers(&self, latency: Duration) {
        self.emulator.settings(|settings| settings.latency = latency);
    }

    pub(crate) fn requests_of(&self, operation: Operation) -> u64 {
        self.emulator.counters().of(operation)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.emulator.counters().connections
    }

    pub(crate) fn in_flight_max(&self) -> u64 {
        self.emulator.counters().in_flight_max
    }
}

fn key() -> Credential {
    Credential::SharedKey(AccountKey::parse("test", ACCOUNT, KEY).unwrap())
}

fn store(url: &str, credential: Credential) -> AzureStore {
    let (location, _) = Location::parse(url, &LocationHints::default()).unwrap();
    AzureStore::new(location, CredentialSlot::new(credential), RequestLimits::STANDARD).unwrap()
}

pub(crate) fn name(text: &str) -> BlobName {
    BlobName::new(text).unwrap()
}

pub(crate) fn body(bytes: &[u8]) -> Body {
    Body::from(Bytes::copy_from_slice(bytes))
}

pub(crate) fn absent() -> Condition {
    Condition::Absent
}

pub(crate) fn matching(etag: &ETag) -> Condition {
    Condition::Match(etag.clone())
}

pub(crate) fn options(condition: Condition) -> WriteOptions {
    WriteOptions { condition, metadata: Metadata::new(), headers: ContentHeaders::default(), access_tier: None }
}

/// Blocks that were staged by us.
pub(crate) fn staged(ids: &[BlockId]) -> Vec<ListedBlock> {
    ids.iter().cloned().map(ListedBlock::Staged).collect()
}

/// The bytes of a range.
pub(crate) async fn read(store: &AzureStore, blob: &str, range: Range<u64>) -> Vec<u8> {
    let download = store.get(&name(blob), range, &Condition::None).await.unwrap();
    let expected = download.range.end - download.range.start;
    let pieces: Vec<Bytes> = download.body.try_collect().await.unwrap();
    let bytes = pieces.concat();
    assert_eq!(bytes.len() as u64, expected, "a body is as long as its range says");
    bytes
}
