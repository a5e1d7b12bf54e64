//! The HTTP endpoint of a running process: `/metrics` for Prometheus, `/healthz` and `/readyz` for probes. Off unless it is
//! asked for, and read-only; no secret and no name of a blob. Knows nothing of what is counted.
//!
//! `/healthz` says that the process answers, and nothing of any mount: a kubelet that kills the plugin since a *container* is
//! away would end all mounts of the node. `/readyz` says that it can be used.

use std::{convert::Infallible, io, sync::Arc, time::Duration};

use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, UnixListener},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
};

use super::metrics::{Page, page::CONTENT_TYPE};

/// Who asks and says nothing is not waited for longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time: a scraper, the kubelet's probes, `azblob-csi stats`, and as many again.
const CONNECTIONS_MAX: usize = 8;
/// Out of descriptors: it passes, and is no reason to spin.
const REFUSED_PAUSE: Duration = Duration::from_secs(1);

/// How addresses begin that are paths.
pub const UNIX: &str = "unix:";

/// What the endpoint tells.
pub trait Subject: Send + Sync + 'static {
    /// Writes all numbers. Must not wait for anything.
    fn write(&self, page: &mut Page);

    /// Why the process cannot be used yet; `None` where it can.
    fn unready(&self) -> Option<String> {
        None
    }
}

/// A listening endpoint.
#[derive(Debug)]
pub struct Endpoint(Listener);

#[derive(Debug)]
enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Endpoint {
    /// Listens on `address` (`HOST:PORT`, or `:PORT` for all addresses, or `unix:PATH` for a socket in the file system, whose
    /// directory says who may ask).
    ///
    /// # Errors
    /// Where nobody can listen.
    pub async fn bind(address: &str) -> io::Result<Self> {
        if let Some(path) = address.strip_prefix(UNIX) {
            // Of an earlier process: two of one node never have the same path.
            std::fs::remove_file(path).or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Ok(()),
                _ => Err(error),
            })?;
            tracing::info!(path, "serving metrics at /metrics");
            return Ok(Self(Listener::Unix(UnixListener::bind(path)?)));
        }
        let whole = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
        let listener = TcpListener::bind(&whole).await?;
        tracing::info!(address = %listener.local_addr()?, "serving metrics at /metrics");
        Ok(Self(Listener::Tcp(listener)))
    }

    /// Tells what `subject` says, until the returned guard is dropped.
    pub fn serve(self, subject: impl Subject) -> Serving {
        Serving(tokio::spawn(self.accept(Arc::new(subject))))
    }

    async fn accept(self, subject: Arc<dyn Subject>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            let subject = Arc::clone(&subject);
            let refused = match &self.0 {
                Listener::Tcp(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(answer(stream, subject, place))).err()
                }
                Listener::Unix(listener) => {
                    listener.accept().await.map(|(stream, _)| tokio::spawn(answer(stream, subject, place))).err()
                }
            };
            if let Some(error) = refused {
                tracing::debug!("no connection for metrics: {error}");
                tokio::time::sleep(REFUSED_PAUSE).await;
            }
        }
    }
}

/// An endpoint that answers, until this is dropped.
#[derive(Debug)]
pub struct Serving(JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn answer(
    stream: impl AsyncRead + AsyncWrite + Unpin + 'static,
    subject: Arc<dyn Subject>,
    _place: OwnedSemaphorePermit,
) {
    let stream = TokioIo::new(stream);
    let service = service_fn(|request: Request<Incoming>| {
        let response = respond(request.method(), request.uri().path(), &*subject);
        async move { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    let served = server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).serve_connection(stream, service);
    if let Err(error) = served.await {
        tracing::debug!("a scraper was not answered: {error}");
    }
}

fn respond(method: &Method, path: &str, subject: &dyn Subject) -> Response<String> {
    let (status, text) = match (method, path) {
        (&Method::GET, "/metrics") => {
            let mut page = Page::default();
            super::metrics::process::write(&mut page);
            subject.write(&mut page);
            (StatusCode::OK, page.text())
        }
        (&Method::GET, "/healthz") => (StatusCode::OK, "ok\n".to_owned()),
        (&Method::GET, "/readyz") => match subject.unready() {
            None => (StatusCode::OK, "ok\n".to_owned()),
            Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")),
        },
        _ => (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n".to_owned()),
    };
    let mut response = Response::new(text);
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fresh;

    impl Subject for Fresh {
        fn write(&self, _page: &mut Page) {}

        fn unready(&self) -> Option<String> {
            Some("not registered yet".to_owned())
        }
    }

    #[test]
    fn who_is_not_ready_is_healthy_all_the_same() {
        let ask = |path| respond(&Method::GET, path, &Fresh);
        assert_eq!(ask("/healthz").status(), StatusCode::OK);
        assert_eq!(ask("/readyz").status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(ask("/readyz").body(), "not registered yet\n");
        assert_eq!(ask("/").status(), StatusCode::NOT_FOUND);
        assert!(ask("/metrics").body().contains("azblob_csi_build_info{version="));
        assert_eq!(respond(&Method::POST, "/metrics", &Fresh).status(), StatusCode::NOT_FOUND);
    }
}
