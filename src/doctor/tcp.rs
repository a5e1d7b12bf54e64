//! TCP: whether somebody listens, at the endpoint or at the proxy on the way to it.

use std::{io, net::SocketAddr, time::Duration};

use hyper_util::client::proxy::matcher::Matcher;
use tokio::net::TcpStream;

use super::examine::Step;
use crate::{blob::Location, finding::Finding};

/// Time for a connection, the same as a mount gives it.
const WITHIN: Duration = Duration::from_secs(5);

/// Addresses that are tried: more are as far away as these.
const ADDRESSES_MAX: usize = 3;

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The endpoint, as messages have it.
    pub(super) host: String,
    /// Name to look up, of the endpoint or of the proxy.
    pub(super) name: String,
    pub(super) port: u16,
    /// The proxy in between, without its password.
    pub(super) proxy: Option<String>,
}

impl Way {
    /// The way to `location` under the proxies of the environment, by the rules of the HTTP client itself.
    pub(super) fn to(location: &Location) -> Self {
        let scheme = if location.is_https() { "https" } else { "http" };
        let default = if location.is_https() { 443 } else { 80 };
        let host = location.host().to_owned();
        let url = format!("{scheme}://{host}/");
        let proxy = url.parse().ok().and_then(|url| Matcher::from_env().intercept(&url));
        if let Some(proxy) = proxy
            && let Some(name) = proxy.uri().host()
        {
            let secure = proxy.uri().scheme_str() == Some("https");
            let port = proxy.uri().port_u16().unwrap_or(if secure { 443 } else { 80 });
            let name = name.trim_matches(['[', ']']).to_owned();
            return Self { host, proxy: Some(format!("{name}:{port}")), name, port };
        }
        let (name, port) = match host.rsplit_once(':') {
            // The colons of an address without a port end in its bracket.
            Some((name, port)) if !port.ends_with(']') => (name, port.parse().unwrap_or(default)),
            _ => (host.as_str(), default),
        };
        let name = name.trim_matches(['[', ']']).to_owned();
        Self { name, port, host, proxy: None }
    }
}

/// Connects to the first of `addresses` that answers, and lets go again.
pub(super) async fn ask(way: &Way, addresses: &[SocketAddr]) -> Step<SocketAddr> {
    let mut refused = false;
    for address in addresses.iter().take(ADDRESSES_MAX) {
        match tokio::time::timeout(WITHIN, TcpStream::connect(address)).await {
            Ok(Ok(_connection)) => return Step::Done(*address),
            Ok(Err(error)) => refused |= error.kind() == io::ErrorKind::ConnectionRefused,
            Err(_) => {}
        }
    }
    let reason = if refused { "nobody listens there" } else { "it does not answer" };
    Step::Failed(match (&way.proxy, refused) {
        (Some(proxy), _) => Finding::ProxyUnreachable.with(&[("proxy", proxy), ("reason", reason)]),
        (None, true) => Finding::NobodyListens.with(&[("host", &way.host)]),
        (None, false) => Finding::Unreachable.with(&[("host", &way.host)]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::LocationHints;

    #[test]
    fn name_and_port_are_those_of_the_endpoint() {
        for (url, name, port) in [
            ("https://acme.blob.core.windows.net/logs", "acme.blob.core.windows.net", 443),
            ("http://127.0.0.1:10000/devstoreaccount1/logs", "127.0.0.1", 10000),
            ("http://[::1]:10000/devstoreaccount1/logs", "::1", 10000),
            ("http://[::1]/devstoreaccount1/logs", "::1", 80),
        ] {
            let (location, _) = Location::parse(url, &LocationHints::default()).unwrap();
            let way = Way::to(&location);
            // Whoever runs this behind a proxy sees the proxy.
            if way.proxy.is_none() {
                assert_eq!((way.name.as_str(), way.port), (name, port), "{url}");
            }
        }
    }
}
