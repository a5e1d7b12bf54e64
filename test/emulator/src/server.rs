//! From a TCP connection to a handler and back: accepts, paces, authorises, applies faults, reads bodies, counts.
//! Must not know what an operation means.

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use crc64fast_nvme::Digest;
use http_body_util::BodyExt;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_LENGTH, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use md5::{Digest as _, Md5};
use parking_lot::{Mutex, RwLock};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use uuid::Uuid;

use crate::{
    answer::{Answer, AnswerBody, Cut, SendPlan},
    auth::{self, delegation},
    blob::{append, block, page, parse_md5, properties, read},
    call::{Call, Payload},
    connection::{Connection, ConnectionState, Rates},
    container, control, copy,
    counters::{Counters, RequestRecord},
    data::Data,
    dfs,
    error::{Code, ServiceError},
    faults::{FaultKind, Faults},
    identity::{Door, account_of},
    list,
    operation::Operation,
    settings::Settings,
    state::State,
};

/// Headers of a request: 8 KiB of metadata can be hundreds of them, where a server takes 100 by default.
const HEADERS_MAX: usize = 2048;

/// Largest body of any request (REST page "Put Blob", version 2019-12-12 and later).
const BODY_BYTES_MAX: u64 = 5000 << 20;
/// Pieces that a body is held in. Large enough that a GET is few writes, small enough to allocate as it arrives.
const SEGMENT_BYTES: usize = 4 << 20;

/// Everything that connections share.
pub(crate) struct Service {
    /// Short sections, no await inside; taken before `faults`, never the other way round.
    pub(crate) state: Mutex<State>,
    pub(crate) settings: RwLock<Arc<Settings>>,
    pub(crate) faults: Mutex<Faults>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) rates: Arc<Rates>,
}

impl Service {
    /// A service with its first settings.
    pub(crate) fn new(state: State, settings: Settings) -> Self {
        let service = Self {
            state: Mutex::new(state),
            faults: Mutex::new(Faults::new(&settings.faults, settings.seed)),
            settings: RwLock::default(),
            counters: Arc::default(),
            rates: Arc::default(),
        };
        service.apply(settings);
        service
    }

    /// Puts settings into effect, for connections that exist as well.
    pub(crate) fn apply(&self, settings: Settings) {
        self.rates.per_connection.store(settings.per_connection.unwrap_or(0), Ordering::Relaxed);
        self.rates.total.store(settings.total.unwrap_or(0), Ordering::Relaxed);
        let mut current = self.settings.write();
        let seed = (current.seed != settings.seed).then_some(settings.seed);
        self.faults.lock().replace(&settings.faults, seed);
        *current = Arc::new(settings);
    }

    /// The settings as they are now.
    pub(crate) fn settings(&self) -> Arc<Settings> {
        Arc::clone(&self.settings.read())
    }

    /// The service's clock.
    pub(crate) fn now(&self) -> OffsetDateTime {
        OffsetDateTime::now_utc() + self.settings().clock_ahead
    }
}

/// Accepts connections until the task is dropped.
pub(crate) async fn serve(listener: TcpListener, service: Arc<Service>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // Answers are written whole; waiting for more would only delay them.
                let _ = stream.set_nodelay(true);
                service.counters.connected();
                let state = Arc::new(ConnectionState::default());
                let stream = Connection::new(stream, Arc::clone(&service.rates), Arc::clone(&state));
                let arrival = Arrival { peer: peer.ip(), connection: state, door: None };
                tokio::spawn(serve_connection(stream, arrival, Arc::clone(&service)));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
    }
}

/// How requests of a connection get here.
#[derive(Clone)]
pub(crate) struct Arrival {
    /// The client.
    pub(crate) peer: IpAddr,
    /// The TCP connection.
    pub(crate) connection: Arc<ConnectionState>,
    /// The door of the identity services that it came through, if it did.
    pub(crate) door: Option<Door>,
}

/// Serves the requests of one connection until it ends.
pub(crate) async fn serve_connection<S>(stream: S, arrival: Arrival, service: Arc<Service>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handler = service_fn(move |request| {
        let (service, arrival) = (Arc::clone(&service), arrival.clone());
        async move { answer(service, arrival, request).await }
    });
    let outcome = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .max_headers(HEADERS_MAX)
        .half_close(true)
        .serve_connection(TokioIo::new(stream), handler)
        .await;
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Answers one request.
///
/// # Errors
/// [`Cut`]: the connection is to end.
pub(crate) async fn answer(
    service: Arc<Service>,
    arrival: Arrival,
    request: Request<Incoming>,
) -> Result<Response<AnswerBody>, Cut> {
    let note = arrival.door.as_ref().map(|door| door.note(&request));
    let outcome = Exchange { service, arrival }.run(request).await;
    if let Some(note) = note {
        note.answered(outcome.as_ref().map_or(0, |response| response.status().as_u16()));
    }
    outcome
}

/// One request on its connection.
struct Exchange {
    service: Arc<Service>,
    arrival: Arrival,
}

impl Exchange {
    async fn run(self, request: Request<Incoming>) -> Result<Response<AnswerBody>, Cut> {
        if request.uri().path().starts_with(control::PREFIX) {
            // Looking at the counters must not change them.
            let send = SendPlan { counters: Arc::default(), ..self.send_plan() };
            return Ok(control::handle(&self.service, request, send).await);
        }
        let _in_flight = self.service.counters.begin();
        let settings = self.service.settings();
        let spread = if settings.jitter.is_zero() { 0.0 } else { self.service.faults.lock().roll() };
        let wait = settings.latency + settings.jitter.mul_f64(spread);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        let (parts, body) = request.into_parts();
        let request_id: Arc<str> = Uuid::new_v4().to_string().into();
        let host_account = self.host_account(&parts.headers, &parts.uri);
        let now = self.service.now();
        let id = Arc::clone(&request_id);
        let call = Call::parse(&parts, host_account.as_deref(), self.arrival.peer, now, id, settings.hierarchical);
        match call {
            Ok(mut call) => {
                call.secure = self.arrival.door.as_ref().is_some_and(Door::is_secure);
                self.handle(call, body, &settings).await
            }
            Err(error) => {
                let bytes_in = drain(body).await;
                let answer = Answer::refusal(&error, parts.method == Method::HEAD, false, &request_id, now);
                self.record(None, Some(&answer), error.code.as_ref(), bytes_in, &settings);
                Ok(answer.into_response(None, &request_id, self.send_plan()))
            }
        }
    }

    /// The account that the host name begins with, if it does.
    fn host_account(&self, headers: &hyper::HeaderMap, uri: &hyper::Uri) -> Option<String> {
        let host = headers.get("host").and_then(|host| host.to_str().ok()).or_else(|| uri.host())?;
        let (first, rest) = host.split_once('.')?;
        let account = account_of(first);
        let known = !rest.is_empty() && self.service.state.lock().accounts.contains_key(account);
        known.then(|| account.to_owned())
    }

    fn send_plan(&self) -> SendPlan {
        SendPlan {
            cut_after: None,
            stall: None,
            counters: Arc::clone(&self.service.counters),
            connection: Arc::clone(&self.arrival.connection),
        }
    }

    async fn handle(self, mut call: Call, body: Incoming, settings: &Settings) -> Result<Response<AnswerBody>, Cut> {
        let head = call.method == Method::HEAD;
        let fault = self.service.faults.lock().strike(call.operation, call.blob_name());
        if fault == Some(FaultKind::ResetConnection) {
            self.arrival.connection.reset.store(true, Ordering::Relaxed);
            self.record(Some(&call), None, "", 0, settings);
            return Err(Cut);
        }
        let authorized = auth::authorize(&self.service.state.lock(), settings, &call);
        let (outcome, bytes_in) = match (authorized, injected(fault.as_ref())) {
            (_, Some(error)) | (Err(error), None) => (Err(error), drain(body).await),
            (Ok(grant), None) => {
                call.grant = grant;
                match read_body(&call, body).await {
                    Ok(payload) => {
                        let bytes_in = payload.data.len();
                        let mut state = self.service.state.lock();
                        (dispatch(&mut state, settings, &call, &payload, fault.as_ref()), bytes_in)
                    }
                    Err(error) => (Err(error), 0),
                }
            }
        };
        let code = outcome.as_ref().err().map(|error| error.code.to_string()).unwrap_or_default();
        let json = call.operation.is_data_lake();
        let answer = outcome.unwrap_or_else(|error| Answer::refusal(&error, head, json, &call.request_id, call.now));
        let mut send = self.send_plan();
        match fault {
            Some(FaultKind::ReplyLost) => {
                self.record(Some(&call), None, &code, bytes_in, settings);
                return Err(Cut);
            }
            Some(FaultKind::CutBodyAfter { bytes }) => send.cut_after = Some(bytes),
            Some(FaultKind::Stall { duration, after_bytes: Some(bytes) }) => send.stall = Some((bytes, duration)),
            Some(FaultKind::Stall { duration, after_bytes: None }) => tokio::time::sleep(duration).await,
            _ => {}
        }
        self.record(Some(&call), Some(&answer), &code, bytes_in, settings);
        Ok(answer.into_response(Some(&call), &call.request_id, send))
    }

    fn record(&self, call: Option<&Call>, answer: Option<&Answer>, code: &str, bytes_in: u64, settings: &Settings) {
        let header = |name| call.and_then(|call| call.header(name).ok().flatten()).unwrap_or_default();
        let record = RequestRecord {
            number: 0,
            operation: call.map_or("Unknown", |call| call.operation.name()).to_owned(),
            container: call.map(Call::container_name).unwrap_or_default().to_owned(),
            blob: call.map(Call::blob_name).unwrap_or_default().to_owned(),
            range: [header("x-ms-range"), header("range")]
                .into_iter()
                .find(|text| !text.is_empty())
                .unwrap_or_default()
                .to_owned(),
            status: answer.map_or(0, |answer| answer.status.as_u16()),
            code: code.to_owned(),
            bytes_in,
            bytes_out: answer.map_or(0, |answer| answer.body.iter().map(|part| part.len() as u64).sum()),
        };
        self.service.counters.record(record, settings.request_log);
    }
}

/// The error that a rule puts in place of the operation.
fn injected(fault: Option<&FaultKind>) -> Option<ServiceError> {
    let Some(FaultKind::Status { status, code, retry_after }) = fault else { return None };
    let fitting = match status {
        403 => Code::AuthorizationFailure,
        404 => Code::ResourceNotFound,
        409 => Code::ContainerBeingDeleted,
        412 => Code::ConditionNotMet,
        500 => Code::InternalError,
        _ => Code::ServerBusy,
    };
    let mut error = ServiceError::from(fitting)
        .with_status(StatusCode::from_u16(*status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
    if let Some(code) = code {
        error.code = code.clone().into();
    }
    if let Some(after) = retry_after {
        error = error.header("retry-after", after.as_secs().to_string());
    }
    Some(error)
}

/// Reads a body to its end without keeping it, so that the answer is not lost in a reset.
async fn drain(mut body: Incoming) -> u64 {
    let mut bytes = 0;
    while let Some(Ok(frame)) = body.frame().await {
        bytes += frame.data_ref().map_or(0, Bytes::len) as u64;
    }
    bytes
}

/// Reads a body into segments, with its checksums, and compares those that the request states.
async fn read_body(call: &Call, mut body: Incoming) -> Result<Payload, ServiceError> {
    if call.method != Method::PUT && call.operation != Operation::GetUserDelegationKey {
        drain(body).await;
        return Ok(Payload::default());
    }
    let Some(length) = call.number_header("content-length")? else {
        drain(body).await;
        return Err(Code::MissingContentLengthHeader.into());
    };
    if length > BODY_BYTES_MAX {
        return Err(Code::RequestBodyTooLarge.into());
    }
    let stated_md5 = call.header(CONTENT_MD5)?.map(str::to_owned);
    let mut md5 = (stated_md5.is_some() || call.operation == Operation::PutBlob).then(Md5::new);
    let mut crc64 = Digest::new();
    let (mut parts, mut left) = (Vec::new(), length as usize);
    let mut segment = BytesMut::with_capacity(left.min(SEGMENT_BYTES));
    while let Some(frame) = body.frame().await {
        // A client that goes away: nothing may be done with half a body.
        let frame = frame.map_err(|_| ServiceError::from(Code::OperationTimedOut))?;
        let Some(mut data) = frame.data_ref().cloned() else { continue };
        crc64.write(&data);
        if let Some(md5) = &mut md5 {
            md5.update(&data);
        }
        left = left.saturating_sub(data.len());
        while !data.is_empty() {
            let room = segment.capacity() - segment.len();
            let take = data.split_to(data.len().min(room.max(1)));
            segment.extend_from_slice(&take);
            if segment.len() >= SEGMENT_BYTES {
                parts.push(segment.split().freeze());
                segment = BytesMut::with_capacity((left + data.len()).min(SEGMENT_BYTES));
            }
        }
    }
    parts.push(segment.freeze());
    let payload =
        Payload { data: Data::from_parts(parts), md5: md5.map(|md5| md5.finalize().into()), crc64: crc64.sum64() };
    check_sums(call, stated_md5.as_deref(), &payload)?;
    Ok(payload)
}

/// Content-MD5 as a name for [`Call::header`].
const CONTENT_MD5: &str = "content-md5";

fn check_sums(call: &Call, md5: Option<&str>, payload: &Payload) -> Result<(), ServiceError> {
    if payload.data.len()
        != call.headers.get(CONTENT_LENGTH).and_then(|text| text.to_str().ok()?.parse().ok()).unwrap_or(0)
    {
        return Err(Code::OperationTimedOut.into());
    }
    let crc64 = call.header("x-ms-content-crc64")?;
    if md5.is_some() && crc64.is_some() {
        return Err(ServiceError::bad_header("x-ms-content-crc64", "together with Content-MD5"));
    }
    if let Some(text) = md5
        && Some(parse_md5(text)?) != payload.md5
    {
        return Err(Code::Md5Mismatch.into());
    }
    if let Some(text) = crc64 {
        use base64::{Engine, engine::general_purpose::STANDARD};
        let stated: Option<[u8; 8]> = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
        let stated = stated.ok_or_else(|| ServiceError::bad_header("x-ms-content-crc64", text))?;
        if u64::from_le_bytes(stated) != payload.crc64 {
            return Err(Code::Crc64Mismatch.into());
        }
    }
    Ok(())
}

/// Calls the handler of an operation.
fn dispatch(
    state: &mut State,
    settings: &Settings,
    call: &Call,
    payload: &Payload,
    fault: Option<&FaultKind>,
) -> Result<Answer, ServiceError> {
    let pending = match fault {
        Some(FaultKind::LeaveCopyPending { complete_after }) => Some(*complete_after),
        _ => None,
    };
    match call.operation {
        Operation::ListContainers => list::list_containers(state, call),
        Operation::GetServiceProperties => Ok(container::service_properties()),
        Operation::GetAccountInformation => Ok(container::account_information(settings)),
        Operation::GetUserDelegationKey => delegation::get_key(state, call, payload),
        Operation::CreateContainer => container::create(state, settings, call),
        Operation::GetContainerProperties => container::properties(state, call),
        Operation::DeleteContainer => container::delete(state, settings, call),
        Operation::SetContainerMetadata => container::set_metadata(state, call),
        Operation::GetContainerACL => container::get_acl(state, call),
        Operation::SetContainerACL => container::set_acl(state, settings, call, payload),
        Operation::LeaseContainer => container::lease(state, call),
        Operation::ListBlobs => list::list_blobs(state, call),
        Operation::PutBlob => block::put_blob(state, call, payload),
        Operation::PutBlobFromURL => copy::put_blob_from_url(state, settings, call),
        Operation::GetBlob => read::get(state, call, false),
        Operation::GetBlobProperties => read::get(state, call, true),
        Operation::GetBlobMetadata => read::metadata(state, call),
        Operation::SetBlobMetadata => properties::set_metadata(state, call),
        Operation::SetBlobProperties => properties::set_properties(state, call),
        Operation::DeleteBlob => properties::delete(state, call),
        Operation::LeaseBlob => properties::lease(state, call),
        Operation::CopyBlob => copy::copy_blob(state, settings, call, false, pending),
        Operation::CopyBlobFromURL => copy::copy_blob(state, settings, call, true, None),
        Operation::AbortCopyBlob => copy::abort(state, call),
        Operation::PutBlock => block::put_block(state, call, payload),
        Operation::PutBlockFromURL => copy::put_block_from_url(state, settings, call),
        Operation::PutBlockList => block::put_block_list(state, call, payload),
        Operation::GetBlockList => block::get_block_list(state, call),
        Operation::AppendBlock => append::append_block(state, call, payload),
        Operation::PutPage => page::put_page(state, call, payload),
        Operation::GetPageRanges => page::page_ranges(state, call),
        Operation::SetBlobTier => properties::set_tier(state, call),
        Operation::GetBlobTags => properties::get_tags(state, call),
        Operation::SetBlobTags => properties::set_tags(state, call, payload),
        Operation::CreatePath => dfs::create::create(state, call),
        Operation::RenamePath => dfs::rename::rename(state, settings, call),
        Operation::DeletePath => dfs::delete::delete(state, settings, call),
        Operation::GetPathProperties => dfs::properties::get(state, call),
        Operation::GetPathAccessControl => dfs::access::get(state, call),
        Operation::SetPathAccessControl => dfs::access::set(state, call),
        Operation::SetPathProperties => dfs::properties::set(state, call),
        Operation::ListPaths => dfs::list::list(state, call),
    }
}
