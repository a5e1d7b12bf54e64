//! [`AzureStore`]: the [`BlobStore`] contract spoken to the real service.
//!
//! One request layer for every operation, on `azure_core`'s pipeline: request id and user agent are the SDK's
//! policies, the credential is ours (`credential/policy.rs`), so is the transport (`azure/transport.rs`). The clients of
//! `azure_storage_blob` are not used: in 1.1 they have no delimiter listing and no SharedKey, drop TAB and LF from
//! names, retry mutations by themselves (an ambiguous try could then not be told from a foreign change), split ranged
//! reads on their own terms, and copy upload bodies. One file an operation; all share `request.rs` (what is asked),
//! `call.rs` (tries and deadline) and `response.rs` (what was answered).

mod account;
mod append;
mod block_list;
mod call;
mod container;
mod containers;
mod copy;
mod cors;
mod delete;
mod dfs;
mod get;
mod greeting;
mod lease;
mod list;
mod put_blob;
mod put_block;
mod request;
mod response;
mod set;
mod source;
mod tags;
mod transport;

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use azure_core::http::{ClientOptions, Method, Pipeline, RetryOptions, Transport};
use tokio::sync::OnceCell;
use url::Url;

pub use containers::ContainerPage;
pub use copy::TOKEN_COPY_BYTES_MAX;
pub use cors::CorsRule;
pub use greeting::Greeting;
pub(in crate::blob) use response::ServiceMessage;
pub use transport::Cause;
pub(in crate::blob) use transport::TransportError;

use self::{
    call::Engine,
    request::{Call, Deadline},
    transport::HttpTransport,
};
use super::{
    AccountInfo, Appended, BlobName, BlobProperties, BlobStore, BlockId, BlockList, Body, Committed, Condition,
    ContentHeaders, CopyOptions, Download, ETag, Error, ErrorKind, HierarchicalStore, LeaseId, Leases, ListPage,
    ListRequest, ListedBlock, Metadata, Result, Traffic, WriteOptions,
    endpoint::Location,
    limit::{REQUESTS_IN_FLIGHT_DEFAULT, REQUESTS_IN_FLIGHT_GROWTH, RequestGate, Urgency, VolumeId},
    link::{Link, LinkEstimate},
    retry::RequestLimits,
};
use crate::credential::{CredentialPolicy, CredentialSlot, Trust};

/// What the stores of a process share: sockets and the gate. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Connections {
    client: reqwest::Client,
    gate: RequestGate,
}

impl Connections {
    /// A pool of connections, and a gate for `in_flight` requests at a time to begin with.
    ///
    /// # Errors
    /// `Unreachable` when TLS cannot be set up (no CA certificates on this machine).
    pub fn new(in_flight: usize) -> Result<Self> {
        Self::trusting(in_flight, &Trust::default())
    }

    /// The same, trusting more certificate authorities than the machine does.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn trusting(in_flight: usize, trust: &Trust) -> Result<Self> {
        Ok(Self {
            client: transport::new_client(in_flight * REQUESTS_IN_FLIGHT_GROWTH, trust)?,
            gate: RequestGate::new(in_flight),
        })
    }

    /// The same with a client that was configured elsewhere (proxy, private CA). It should speak HTTP/1.1, follow no
    /// redirect and decompress nothing.
    #[must_use]
    pub fn with_client(client: reqwest::Client, in_flight: usize) -> Self {
        Self { client, gate: RequestGate::new(in_flight) }
    }

    /// The gate, to see how busy it is.
    #[must_use]
    pub fn gate(&self) -> &RequestGate {
        &self.gate
    }
}

/// A container of the Azure Blob service. Cloning shares everything.
#[derive(Clone, Debug)]
pub struct AzureStore {
    shared: Arc<Shared>,
    limits: RequestLimits,
    /// The lease that changes of blobs are made under.
    lease: Option<LeaseId>,
    /// Who waits for what is read.
    urgency: Urgency,
}

#[derive(Debug)]
struct Shared {
    location: Location,
    identity: String,
    engine: Engine,
    /// Asked once: an account does not change its kind while it is mounted.
    account_info: OnceCell<AccountInfo>,
    /// The service answered that it has no Put Block From URL, so it is not asked again.
    no_put_block_from_url: AtomicBool,
    /// The service answered that it does not check CRC64, so blocks carry MD5 instead.
    no_crc64: AtomicBool,
}

impl AzureStore {
    /// A store with connections of its own. No request is sent.
    ///
    /// # Errors
    /// As [`Connections::new`].
    pub fn new(location: Location, credentials: Arc<CredentialSlot>, limits: RequestLimits) -> Result<Self> {
        Ok(Self::with_connections(location, credentials, limits, &Connections::new(REQUESTS_IN_FLIGHT_DEFAULT)?))
    }

    /// A store on shared connections. No request is sent.
    #[must_use]
    pub fn with_connections(
        location: Location,
        credentials: Arc<CredentialSlot>,
        limits: RequestLimits,
        connections: &Connections,
    ) -> Self {
        let options = ClientOptions {
            per_try_policies: vec![Arc::new(CredentialPolicy::new(Arc::clone(&credentials)))],
            // Ours are in `call.rs`: they know which try may have taken place.
            retry: RetryOptions::none(),
            transport: Some(Transport::with_policy(Arc::new(HttpTransport::new(connections.client.clone())))),
            ..ClientOptions::default()
        };
        let pipeline = Pipeline::new(
            option_env!("CARGO_PKG_NAME"),
            option_env!("CARGO_PKG_VERSION"),
            options,
            vec![],
            vec![],
            None,
        );
        let host = location.host().to_owned();
        let (gate, link) = (connections.gate.clone(), Link::default());
        let traffic = Arc::default();
        let engine = Engine { pipeline, slot: credentials, gate, volume: VolumeId::next(), link, traffic, host };
        let identity = location.identity();
        let shared = Shared {
            location,
            identity,
            engine,
            account_info: OnceCell::new(),
            no_put_block_from_url: AtomicBool::new(false),
            no_crc64: AtomicBool::new(false),
        };
        Self { shared: Arc::new(shared), limits, lease: None, urgency: Urgency::default() }
    }

    /// The same store (connections, credential, what it learned) with other limits: short ones while mounting.
    #[must_use]
    pub fn with_limits(&self, limits: RequestLimits) -> Self {
        Self { limits, ..self.clone() }
    }

    /// Replaces the metadata of the container. Not part of [`BlobStore`]: only provisioning needs it.
    ///
    /// # Errors
    /// `ContainerNotFound`, `Denied`.
    pub async fn set_container_metadata(&self, metadata: &Metadata) -> Result<()> {
        container::set_metadata(self, metadata).await
    }

    /// One page of the account's containers whose names begin with `prefix`. Not part of [`BlobStore`]: only provisioning asks. Takes the
    /// account's key, an account SAS with srt=s, or a role on the account.
    ///
    /// # Errors
    /// `Denied`.
    pub async fn list_containers(&self, prefix: &str, marker: Option<&str>) -> Result<ContainerPage> {
        containers::list(self, prefix, marker).await
    }

    /// Copies a blob of `source`, another container of this or another account, with its metadata and headers, and returns when this
    /// copy has succeeded. Another account's blob is opened by a SAS that is signed for it, or by the token of this store, up to
    /// [`TOKEN_COPY_BYTES_MAX`].
    ///
    /// # Errors
    /// As [`BlobStore::copy`]; code `SourceConditionNotMet` where the source is not `source_version`.
    pub async fn copy_from(
        &self,
        source: &Self,
        source_name: &BlobName,
        source_version: &ETag,
        name: &BlobName,
        options: &CopyOptions,
    ) -> Result<Committed> {
        copy::copy_from(self, source, (source_name, source_version), name, options).await
    }

    /// The CORS rules of the account. Not part of [`BlobStore`]: only the doctor looks at them. Takes the account's key, an
    /// account SAS with srt=s, or a role of the management plane.
    ///
    /// # Errors
    /// `Denied`.
    pub async fn cors_rules(&self) -> Result<Vec<CorsRule>> {
        cors::rules(self).await
    }

    /// Asks the Data Lake endpoint of the account for the container's root: whether there is one. Directories and renames of a
    /// hierarchical account go there.
    ///
    /// # Errors
    /// `Unreachable`, `Denied`; `Invalid` for a flat account.
    pub async fn reaches_hierarchy(&self) -> Result<bool> {
        dfs::root_has_access_control(self).await
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.shared.location
    }

    /// The slot that its credential comes from.
    #[must_use]
    pub fn credentials(&self) -> &Arc<CredentialSlot> {
        &self.shared.engine.slot
    }

    fn engine(&self) -> &Engine {
        &self.shared.engine
    }

    /// A call about a blob.
    fn blob_call(&self, operation: &'static str, method: Method, name: &BlobName) -> Result<Call> {
        let location = &self.shared.location;
        let resource = format!("{}/{name}", location.container());
        match location.blob_url(name) {
            Some(url) => {
                let changes = matches!(method, Method::Put | Method::Delete);
                let call = Call { urgency: self.urgency, ..new_call(operation, method, resource, url, false) };
                Ok(match self.lease.as_ref().filter(|_| changes) {
                    Some(lease) => call.header("x-ms-lease-id", lease.0.as_ref()),
                    None => call,
                })
            }
            None => Err(self.invalid(operation, resource, "no HTTP request can carry a blob name of only dots")),
        }
    }

    /// A call about the container.
    fn container_call(&self, operation: &'static str, method: Method) -> Result<Call> {
        let location = &self.shared.location;
        let resource = location.container().to_owned();
        match location.container_url() {
            Some(url) => Ok(new_call(operation, method, resource, url, true)),
            None => Err(self.invalid(operation, resource, "the container has no URL")),
        }
    }

    fn invalid(&self, operation: &'static str, resource: String, reason: &'static str) -> Error {
        Error {
            kind: ErrorKind::Invalid,
            operation,
            resource,
            host: self.engine().host.clone(),
            status: None,
            code: None,
            request_id: None,
            source: Some(reason.into()),
        }
    }
}

fn new_call(operation: &'static str, method: Method, resource: String, url: Url, about_container: bool) -> Call {
    Call {
        operation,
        resource,
        about_container,
        method,
        url,
        headers: Vec::new(),
        source: None,
        body: Body::new(),
        deadline: Deadline::Names,
        buffered: false,
        measured: false,
        urgency: Urgency::default(),
    }
}

#[async_trait]
impl BlobStore for AzureStore {
    fn hierarchy(&self) -> Option<&dyn HierarchicalStore> {
        Some(self)
    }

    fn leases(&self) -> Option<&dyn Leases> {
        Some(self)
    }

    fn traffic(&self) -> Option<&Arc<Traffic>> {
        Some(&self.engine().traffic)
    }

    fn identity(&self) -> &str {
        &self.shared.identity
    }

    fn url(&self, name: &BlobName) -> String {
        // A literal `%2F` in a name is `%252F` here: only slashes become plain.
        let url = self.shared.location.blob_url(name).map(|url| String::from(url).replace("%2F", "/"));
        url.unwrap_or_else(|| format!("{}/{name}", self.shared.identity))
    }

    fn limits(&self) -> RequestLimits {
        self.limits
    }

    fn link(&self) -> Option<LinkEstimate> {
        self.engine().link.estimate()
    }

    fn ahead(&self) -> Option<Arc<dyn BlobStore>> {
        Some(Arc::new(Self { urgency: Urgency::Ahead, ..self.clone() }))
    }

    async fn get(&self, name: &BlobName, range: Range<u64>, condition: &Condition) -> Result<Download> {
        get::get(self, name, range, condition).await
    }

    async fn head(&self, name: &BlobName, condition: &Condition) -> Result<BlobProperties> {
        get::head(self, name, condition).await
    }

    async fn list(&self, request: &ListRequest) -> Result<ListPage> {
        list::list(self, request).await
    }

    async fn put_blob(&self, name: &BlobName, body: Body, options: &WriteOptions) -> Result<Committed> {
        put_blob::put_blob(self, name, body, options).await
    }

    async fn put_block(&self, name: &BlobName, id: &BlockId, body: Body) -> Result<()> {
        put_block::put_block(self, name, id, body).await
    }

    async fn put_block_from_url(
        &self,
        name: &BlobName,
        id: &BlockId,
        source: &BlobName,
        source_range: Range<u64>,
        source_version: &ETag,
    ) -> Result<()> {
        if self.shared.no_put_block_from_url.load(Ordering::Relaxed) {
            let call = self.blob_call(put_block::FROM_URL, Method::Put, name)?;
            return Err(self.engine().bare(&call, ErrorKind::Unsupported));
        }
        let outcome = put_block::put_block_from_url(self, name, id, source, source_range, source_version).await;
        if outcome.as_ref().is_err_and(|error| error.kind == ErrorKind::Unsupported && error.status.is_some()) {
            self.shared.no_put_block_from_url.store(true, Ordering::Relaxed);
        }
        outcome
    }

    async fn put_block_list(
        &self,
        name: &BlobName,
        blocks: &[ListedBlock],
        options: &WriteOptions,
    ) -> Result<Committed> {
        block_list::put_block_list(self, name, blocks, options).await
    }

    async fn get_block_list(&self, name: &BlobName) -> Result<BlockList> {
        Ok(block_list::get_block_list(self, name).await?.list)
    }

    async fn uncommitted_id_length(&self, name: &BlobName) -> Result<Option<usize>> {
        block_list::uncommitted_id_length(self, name).await
    }

    async fn get_tags(&self, name: &BlobName) -> Result<Option<Arc<str>>> {
        tags::get_tags(self, name).await
    }

    async fn append_block(&self, name: &BlobName, body: Body, position: u64) -> Result<Appended> {
        append::append_block(self, name, body, position).await
    }

    async fn copy(
        &self,
        source: &BlobName,
        source_version: &ETag,
        name: &BlobName,
        options: &CopyOptions,
    ) -> Result<Committed> {
        copy::copy(self, source, source_version, name, options).await
    }

    async fn delete(&self, name: &BlobName, condition: &Condition) -> Result<()> {
        delete::delete(self, name, condition).await
    }

    async fn set_metadata(&self, name: &BlobName, metadata: &Metadata, condition: &Condition) -> Result<Committed> {
        set::set_metadata(self, name, metadata, condition).await
    }

    async fn set_headers(&self, name: &BlobName, headers: &ContentHeaders, condition: &Condition) -> Result<Committed> {
        set::set_headers(self, name, headers, condition).await
    }

    async fn container_metadata(&self) -> Result<Metadata> {
        container::metadata(self).await
    }

    async fn create_container(&self, metadata: &Metadata) -> Result<()> {
        container::create(self, metadata).await
    }

    async fn delete_container(&self) -> Result<()> {
        container::delete(self).await
    }

    async fn account_info(&self) -> Result<AccountInfo> {
        self.shared.account_info.get_or_try_init(|| account::account_info(self)).await.copied()
    }
}

#[async_trait]
impl Leases for AzureStore {
    async fn acquire(&self, name: &BlobName) -> Result<LeaseId> {
        lease::acquire(self, name).await
    }

    async fn renew(&self, name: &BlobName, lease: &LeaseId) -> Result<()> {
        lease::renew(self, name, lease).await
    }

    async fn release(&self, name: &BlobName, lease: &LeaseId) -> Result<()> {
        lease::release(self, name, lease).await
    }

    fn under(&self, lease: &LeaseId) -> Arc<dyn BlobStore> {
        Arc::new(Self { lease: Some(lease.clone()), ..self.clone() })
    }
}
