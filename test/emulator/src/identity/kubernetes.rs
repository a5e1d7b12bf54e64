//! The part of a Kubernetes API server that drivers use: PersistentVolumes in pages, Secrets by name, nodes, events. Over TLS, for
//! one service account. Must not know what drivers do with it.

use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, path::Path, sync::Arc};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use crate::{
    emulator::listen,
    identity::{IdentityError, certificates::TestAuthority},
    query::Query,
    running::Running,
};

/// Most objects of a page: few, so that clients must ask for the next one.
const PAGE: usize = 2;
/// The name that its certificate is for.
const NAME: &str = "localhost";

#[derive(Default)]
struct State {
    token: String,
    forbidden: bool,
    volumes: Vec<Value>,
    secrets: BTreeMap<(String, String), BTreeMap<String, String>>,
    nodes: BTreeMap<String, Value>,
    events: Vec<Value>,
    requests: Vec<String>,
}

/// A running API server. Ends with its drop.
pub struct KubernetesApi {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    account: TempDir,
    _running: Running,
}

impl KubernetesApi {
    /// Starts it on a free port of the loopback interface, with a service account that may do everything.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn start() -> Result<Self, IdentityError> {
        let authority = TestAuthority::generate()?;
        let token = uuid::Uuid::new_v4().to_string();
        let account = tempfile::tempdir()?;
        std::fs::write(account.path().join("ca.crt"), authority.pem())?;
        std::fs::write(account.path().join("token"), &token)?;
        let acceptor = TlsAcceptor::from(authority.server_config(NAME)?);
        let (socket, address) = listen(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let state = Arc::new(Mutex::new(State { token, ..State::default() }));
        let shared = Arc::clone(&state);
        let running = Running::on_threads("kubernetes", move || async move {
            match TcpListener::from_std(socket) {
                Ok(listener) => accept(listener, acceptor, shared).await,
                Err(error) => tracing::error!(%error, "cannot use the listening socket"),
            }
        })?;
        Ok(Self { address, state, account, _running: running })
    }

    /// KUBERNETES_SERVICE_HOST.
    #[must_use]
    pub fn host(&self) -> &'static str {
        NAME
    }

    /// KUBERNETES_SERVICE_PORT.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The directory that a pod of the service account finds its token in.
    #[must_use]
    pub fn service_account(&self) -> &Path {
        self.account.path()
    }

    /// Takes all rights from the service account.
    pub fn forbid(&self) {
        self.state.lock().forbidden = true;
    }

    /// Gives them back.
    pub fn permit(&self) {
        self.state.lock().forbidden = false;
    }

    /// Adds or replaces a node with these taints.
    pub fn put_node(&self, name: &str, taints: &Value) {
        let node = json!({ "kind": "Node", "metadata": { "name": name }, "spec": { "taints": taints } });
        self.state.lock().nodes.insert(name.to_owned(), node);
    }

    /// The taints of a node.
    #[must_use]
    pub fn taints(&self, node: &str) -> Value {
        self.state.lock().nodes.get(node).map(|node| node["spec"]["taints"].clone()).unwrap_or_default()
    }

    /// Adds a PersistentVolume, as its manifest has it.
    pub fn add_volume(&self, manifest: Value) {
        self.state.lock().volumes.push(manifest);
    }

    /// Writes a Secret.
    pub fn put_secret(&self, namespace: &str, name: &str, entries: &[(&str, &str)]) {
        let entries = entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        self.state.lock().secrets.insert((namespace.to_owned(), name.to_owned()), entries);
    }

    /// The entries of a Secret.
    #[must_use]
    pub fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        self.state.lock().secrets.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// The events so far.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.state.lock().events.clone()
    }

    /// The requests so far: method and path.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().requests.clone()
    }
}

impl std::fmt::Debug for KubernetesApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KubernetesApi").field("address", &self.address).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, state) = (acceptor.clone(), Arc::clone(&state));
        tokio::spawn(async move {
            if let Err(error) = serve(stream, acceptor, state).await {
                tracing::debug!(error, "a connection to the API server ended early");
            }
        });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, state: Arc<Mutex<State>>) -> Result<(), String> {
    let stream = acceptor.accept(stream).await.map_err(|error| error.to_string())?;
    let handler = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    let server = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), handler);
    server.await.map_err(|error| error.to_string())
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut state = state.lock();
    state.requests.push(format!("{} {}", head.method, head.uri.path()));
    let shown = head.headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (status, body) = if shown != format!("Bearer {}", state.token) {
        refusal(StatusCode::UNAUTHORIZED, "Unauthorized")
    } else if state.forbidden {
        refusal(
            StatusCode::FORBIDDEN,
            "is forbidden: User \"system:serviceaccount:kube-system:csi-blob-node-sa\" cannot do that",
        )
    } else {
        state.answer(&head.method, head.uri.path(), &Query::parse(head.uri.query().unwrap_or_default()), &body)
    };
    let mut response = Response::new(Full::from(body.to_string()));
    *response.status_mut() = status;
    response
}

fn refusal(status: StatusCode, message: &str) -> (StatusCode, Value) {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": status.as_u16(),
    });
    (status, body)
}

/// A JSON Patch of `test` and `replace`, whole or not at all.
fn patch(object: &mut Value, steps: &[Value]) -> (StatusCode, Value) {
    let mut changed = object.clone();
    for step in steps {
        let place = changed.pointer_mut(step["path"].as_str().unwrap_or_default());
        match (step["op"].as_str(), place) {
            (Some("test"), Some(place)) if *place == step["value"] => {}
            (Some("replace"), Some(place)) => *place = step["value"].clone(),
            _ => {
                return refusal(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "the server rejected our request due to an error in our request",
                );
            }
        }
    }
    *object = changed.clone();
    (StatusCode::OK, changed)
}

impl State {
    fn keep(&mut self, namespace: &str, name: &str, secret: Value) -> (StatusCode, Value) {
        let text = |value: &Value| String::from_utf8(STANDARD.decode(value.as_str()?).ok()?).ok();
        let data = secret["data"].as_object().into_iter().flatten();
        let entries = data.filter_map(|(key, value)| Some((key.clone(), text(value)?))).collect();
        self.secrets.insert((namespace.to_owned(), name.to_owned()), entries);
        (StatusCode::CREATED, secret)
    }

    fn answer(&mut self, method: &Method, path: &str, query: &Query, body: &[u8]) -> (StatusCode, Value) {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let missing = || refusal(StatusCode::NOT_FOUND, &format!("{path} not found"));
        match (method, &parts[..]) {
            (&Method::GET, ["api", "v1", "persistentvolumes"]) => {
                let from: usize = query.get("continue").and_then(|text| text.parse().ok()).unwrap_or_default();
                let items: Vec<&Value> = self.volumes.iter().skip(from).take(PAGE).collect();
                let next = if from + items.len() < self.volumes.len() {
                    (from + items.len()).to_string()
                } else {
                    String::new()
                };
                let list = json!({ "kind": "PersistentVolumeList", "metadata": { "continue": next }, "items": items });
                (StatusCode::OK, list)
            }
            (&Method::GET, ["api", "v1", "persistentvolumes", name]) => {
                let found = self.volumes.iter().find(|volume| volume["metadata"]["name"] == *name);
                found.map_or_else(missing, |volume| (StatusCode::OK, volume.clone()))
            }
            (&Method::GET, ["api", "v1", "nodes", name]) => {
                self.nodes.get(*name).map_or_else(missing, |node| (StatusCode::OK, node.clone()))
            }
            (&Method::PATCH, ["api", "v1", "nodes", name]) => {
                let steps: Vec<Value> = serde_json::from_slice(body).unwrap_or_default();
                self.nodes.get_mut(*name).map_or_else(missing, |node| patch(node, &steps))
            }
            (&Method::GET, ["api", "v1", "namespaces", namespace, "secrets", name]) => {
                let found = self.secrets.get(&((*namespace).to_owned(), (*name).to_owned()));
                found.map_or_else(missing, |entries| {
                    let data: BTreeMap<&str, String> =
                        entries.iter().map(|(key, value)| (key.as_str(), STANDARD.encode(value))).collect();
                    (StatusCode::OK, json!({ "kind": "Secret", "metadata": { "name": name }, "data": data }))
                })
            }
            (&Method::POST, ["api", "v1", "namespaces", namespace, "secrets"]) => {
                let secret: Value = serde_json::from_slice(body).unwrap_or_default();
                let name = secret["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                let there = self.secrets.contains_key(&((*namespace).to_owned(), name.clone()));
                match there {
                    true => refusal(StatusCode::CONFLICT, &format!("secrets \"{name}\" already exists")),
                    false => self.keep(namespace, &name, secret),
                }
            }
            (&Method::PUT, ["api", "v1", "namespaces", namespace, "secrets", name]) => {
                let secret = serde_json::from_slice(body).unwrap_or_default();
                self.keep(namespace, name, secret)
            }
            (&Method::POST, ["api", "v1", "namespaces", namespace, "events"]) => {
                match serde_json::from_slice::<Value>(body) {
                    Ok(event) if event["metadata"]["namespace"] == *namespace => {
                        self.events.push(event.clone());
                        (StatusCode::CREATED, event)
                    }
                    _ => refusal(StatusCode::UNPROCESSABLE_ENTITY, "the event is of another namespace, or none"),
                }
            }
            _ => missing(),
        }
    }
}
