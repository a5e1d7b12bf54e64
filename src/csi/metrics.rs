//! What Prometheus scrapes: one page of plain text over HTTP. Off unless it is asked for; no secret, no name of a blob.

use std::{
    fmt::Write as _,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    sync::{OwnedSemaphorePermit, Semaphore},
};

use super::error::{Error, ErrorKind, Result};
use crate::volume::Registry;

/// The format of the page.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Who asks and says nothing is not waited for longer.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time: a scraper has one.
const CONNECTIONS_MAX: usize = 8;

/// The page of a node plugin.
pub struct Metrics {
    listener: TcpListener,
    registry: Arc<Registry>,
}

impl Metrics {
    /// Listens on `address` (`HOST:PORT`, or `:PORT` for all addresses).
    ///
    /// # Errors
    /// `Invalid` where nobody can listen.
    pub async fn bind(address: &str, registry: Arc<Registry>) -> Result<Self> {
        let whole = if address.starts_with(':') { format!("0.0.0.0{address}") } else { address.to_owned() };
        let refused = |error: std::io::Error| {
            Error::new(
                ErrorKind::Invalid,
                format!("Cannot serve metrics on {address:?}: give another --metrics-address"),
            )
            .because(error)
        };
        let listener = TcpListener::bind(&whole).await.map_err(refused)?;
        tracing::info!(address = %listener.local_addr().map_err(refused)?, "serving metrics at /metrics");
        Ok(Self { listener, registry })
    }

    /// Answers until it is dropped.
    pub async fn serve(self) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(answer(TokioIo::new(stream), Arc::clone(&self.registry), place));
                }
                // Out of descriptors: it passes, and is no reason to spin.
                Err(error) => {
                    tracing::debug!("no connection for metrics: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

async fn answer(stream: TokioIo<tokio::net::TcpStream>, registry: Arc<Registry>, _place: OwnedSemaphorePermit) {
    let service = service_fn(|request: Request<Incoming>| {
        let page = match (request.method(), request.uri().path()) {
            (&Method::GET, "/metrics") => Ok(page(&registry.credential_ends())),
            _ => Err("metrics are at /metrics\n".to_owned()),
        };
        async move { Ok::<_, std::convert::Infallible>(response(page)) }
    });
    let mut server = http1::Builder::new();
    let served = server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).serve_connection(stream, service);
    if let Err(error) = served.await {
        tracing::debug!("a scraper was not answered: {error}");
    }
}

fn response(page: std::result::Result<String, String>) -> Response<String> {
    let status = if page.is_ok() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let mut response = Response::new(page.unwrap_or_else(|text| text));
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", hyper::header::HeaderValue::from_static(CONTENT_TYPE));
    response
}

/// The whole page. `ends` has every mounted volume, and when its credential ends where that is known.
fn page(ends: &[(String, Option<SystemTime>)]) -> String {
    let mut text = String::new();
    let mut family = |name: &str, help: &str, lines: &[(String, f64)]| {
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (labels, value) in lines {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    };
    let version = format!("{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    family("azblob_csi_build_info", "The running version.", &[(version, 1.0)]);
    family("azblob_csi_volumes", "Volumes that are mounted on this node.", &[(String::new(), ends.len() as f64)]);
    let lines: Vec<_> = ends
        .iter()
        .filter_map(|(volume, end)| {
            let end = end.as_ref()?.duration_since(UNIX_EPOCH).ok()?;
            Some((format!("{{volume=\"{}\"}}", escaped(volume)), end.as_secs_f64()))
        })
        .collect();
    let help = "When the credential in use ends (a SAS says so), in seconds since 1970.";
    family("azblob_csi_credential_expiry_timestamp_seconds", help, &lines);
    text
}

/// A label's value, as the format wants it.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_ends_is_on_the_page_and_one_that_does_not_only_counts() {
        let ends = [
            ("g#acme#\"a\\b\"".to_owned(), Some(UNIX_EPOCH + Duration::from_secs(4_070_908_800))),
            ("other".to_owned(), None),
        ];
        let text = page(&ends);
        let line = "azblob_csi_credential_expiry_timestamp_seconds{volume=\"g#acme#\\\"a\\\\b\\\"\"} 4070908800\n";
        assert!(text.contains(line), "{text}");
        assert!(text.contains("azblob_csi_volumes 2\n") && !text.contains("other"), "{text}");
        assert_eq!(text.matches("# TYPE ").count(), 3);
    }
}
