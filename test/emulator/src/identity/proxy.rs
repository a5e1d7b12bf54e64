//! The proxy and the TLS port in front of all services: CONNECT to any of Azure's host names, TLS ended here, the rest
//! routed by name. Must not know what a service does with a request.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_rustls::LazyConfigAcceptor;

use crate::{
    answer::{AnswerBody, Cut},
    connection::{Connection, ConnectionState},
    identity::{
        cloud::{Cloud, IdentityService},
        door::Door,
        message::without_port,
        services::{Destination, Services},
    },
    server::{self, Arrival},
};

/// The name that a client without SNI is taken to mean: it has connected to an address.
const DEFAULT_NAME: &str = "127.0.0.1";

type Body = Either<Full<Bytes>, AnswerBody>;

/// Accepts connections of clients that speak to a proxy, until the task is dropped.
pub(crate) async fn serve_proxy(listener: TcpListener, services: Arc<Services>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(ConnectionState::default());
        let stream = Connection::new(stream, Arc::clone(&services.storage.rates), Arc::clone(&connection));
        let door = Door { records: Arc::clone(&services.records), secure: false, sni: None, proxied: true };
        let arrival = Arrival { peer: peer.ip(), connection, door: Some(door) };
        let services = Arc::clone(&services);
        let handler = service_fn(move |request| {
            let (services, arrival) = (Arc::clone(&services), arrival.clone());
            async move { forward(services, arrival, request).await }
        });
        tokio::spawn(async move {
            let served = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), handler)
                .with_upgrades();
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection to the proxy ended early");
            }
        });
    }
}

/// Accepts TLS connections without a proxy, until the task is dropped.
pub(crate) async fn serve_tls(listener: TcpListener, services: Arc<Services>) {
    while let Ok((stream, peer)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let connection = Arc::new(ConnectionState::default());
        let stream = Connection::new(stream, Arc::clone(&services.storage.rates), Arc::clone(&connection));
        let door = Door { records: Arc::clone(&services.records), secure: true, sni: None, proxied: false };
        let arrival = Arrival { peer: peer.ip(), connection, door: Some(door) };
        tokio::spawn(end_tls(stream, DEFAULT_NAME.to_owned(), arrival, Arc::clone(&services)));
    }
}

/// Accepts plain connections to the endpoints of managed identities, until the task is dropped.
pub(crate) async fn serve_local(listener: TcpListener, services: Arc<Services>) {
    let destination = Destination { service: IdentityService::ManagedIdentity, cloud: Cloud::Public };
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        tokio::spawn(serve(stream, destination, None, Arc::clone(&services)));
    }
}

/// One request to the proxy: CONNECT, or a plain request under an absolute URL.
async fn forward(
    services: Arc<Services>,
    mut arrival: Arrival,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Cut> {
    let host = request.uri().host().unwrap_or_default().to_ascii_lowercase();
    let Some(destination) = services.destination(&host) else {
        let text = format!("the proxy cannot resolve {host}\n");
        return Ok(plain(StatusCode::BAD_GATEWAY, text));
    };
    if request.method() != Method::CONNECT {
        return match destination {
            Destination { service: IdentityService::Storage, .. } => {
                Ok(server::answer(Arc::clone(&services.storage), arrival, request).await?.map(Either::Right))
            }
            destination => Ok(services.answer(destination, arrival.door, request).await?.map(Either::Left)),
        };
    }
    let upgrade = hyper::upgrade::on(&mut request);
    if let Some(door) = &mut arrival.door {
        door.secure = true;
    }
    tokio::spawn(async move {
        match upgrade.await {
            Ok(stream) => end_tls(TokioIo::new(stream), host, arrival, services).await,
            Err(error) => tracing::debug!(%error, "a tunnel ended before it began"),
        }
    });
    Ok(plain(StatusCode::OK, String::new()))
}

fn plain(status: StatusCode, text: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::from(text)));
    *response.status_mut() = status;
    response
}

/// Ends TLS with a certificate for the name that the client asks for (else `name`), and serves what is under it.
async fn end_tls<S>(stream: S, name: String, mut arrival: Arrival, services: Arc<Services>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake = match LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await {
        Ok(handshake) => handshake,
        Err(error) => return tracing::debug!(%error, "no TLS handshake began"),
    };
    let sni = handshake.client_hello().server_name().map(str::to_ascii_lowercase);
    let name = sni.clone().unwrap_or_else(|| without_port(&name).to_owned());
    let Some(destination) = services.destination(&name) else {
        return tracing::debug!(name, "nothing is served under this name");
    };
    let config = match services.authority.server_config(&name) {
        Ok(config) => config,
        Err(error) => return tracing::warn!(%error, name, "cannot make a certificate"),
    };
    let stream = match handshake.into_stream(config).await {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, name, "the TLS handshake failed"),
    };
    if let Some(door) = &mut arrival.door {
        door.sni = sni;
    }
    if destination.service == IdentityService::Storage {
        server::serve_connection(stream, arrival, Arc::clone(&services.storage)).await;
    } else {
        serve(stream, destination, arrival.door, services).await;
    }
}

/// Serves the requests of a connection to an identity service until it ends.
pub(crate) async fn serve<S>(stream: S, destination: Destination, door: Option<Door>, services: Arc<Services>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handler = service_fn(move |request| {
        let (services, door) = (Arc::clone(&services), door.clone());
        async move { services.answer(destination, door, request).await }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), handler)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to an identity service ended early");
    }
}
