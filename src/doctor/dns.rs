//! DNS: which addresses the endpoint's name has, or the proxy's where one is in between.

use std::{net::SocketAddr, time::Duration};

use super::{examine::Step, tcp::Way};
use crate::finding::Finding;

/// A resolver asks two servers twice, 5 s each (resolv.conf(5)); who waits longer sees no more.
const WITHIN: Duration = Duration::from_secs(10);

pub(super) async fn ask(way: &Way) -> Step<Vec<SocketAddr>> {
    let found = tokio::time::timeout(WITHIN, tokio::net::lookup_host((way.name.as_str(), way.port))).await;
    let addresses: Vec<SocketAddr> = match found {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(_)) | Err(_) => Vec::new(),
    };
    match (&way.proxy, addresses.is_empty()) {
        (_, false) => Step::Done(addresses),
        (None, true) => Step::Failed(Finding::NameUnknown.with(&[("host", &way.host)])),
        (Some(proxy), true) => {
            let facts = [("proxy", proxy.as_str()), ("reason", "its name does not resolve")];
            Step::Failed(Finding::ProxyUnreachable.with(&facts))
        }
    }
}
