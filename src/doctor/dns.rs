//! DNS: which addresses the endpoint's name has, or the proxy's where one is in between.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use super::{
    examine::{Step, is_private},
    tcp::Way,
};
use crate::{
    blob::Location,
    finding::{Diagnosis, Finding},
};

/// A resolver asks two servers twice, 5 s each (resolv.conf(5)); who waits longer sees no more.
const WITHIN: Duration = Duration::from_secs(10);

/// Time for the look of a mount that has failed, whose caller waits already.
const WITHIN_OF_FAILED: Duration = Duration::from_secs(1);

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

/// The same finding with the address that the endpoint's name has here, where that tells: a private endpoint whose DNS zone is
/// not linked shows as a public address, which network rules refuse, or nobody answers. Takes a second at most.
pub async fn seen_from_here(known: Diagnosis, location: &Location) -> Diagnosis {
    let way = Way::to(location);
    let tells = matches!(known.finding, Finding::Firewall | Finding::Unreachable);
    if !tells || way.proxy.is_some() || way.name.parse::<IpAddr>().is_ok() {
        return known;
    }
    let asked = tokio::net::lookup_host((way.name.as_str(), way.port));
    let Ok(Ok(mut addresses)) = tokio::time::timeout(WITHIN_OF_FAILED, asked).await else { return known };
    let Some(address) = addresses.next().map(|address| address.ip()) else { return known };
    let kind = if is_private(address) { "private" } else { "public" };
    let cause = format!("{} (its name has the {kind} address {address} here)", known.cause);
    Diagnosis { cause, ..known }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blob::LocationHints;

    #[tokio::test]
    async fn an_address_is_told_where_there_is_a_name_and_it_matters() {
        let hints = LocationHints::default();
        let (named, _) = Location::parse("http://localhost:1/devstoreaccount1/logs", &hints).unwrap();
        let (numbered, _) = Location::parse("http://127.0.0.1:1/devstoreaccount1/logs", &hints).unwrap();
        let refused = || Finding::Firewall.with(&[("account", "acme")]);
        // Whoever runs this behind a proxy sees nothing.
        if Way::to(&named).proxy.is_none() {
            let cause = seen_from_here(refused(), &named).await.cause;
            assert!(cause.contains("its name has the private address"), "{cause}");
        }
        assert_eq!(seen_from_here(refused(), &numbered).await, refused());
        let other = || Finding::KeyRefused.with(&[("account", "acme")]);
        assert_eq!(seen_from_here(other(), &named).await, other());
    }
}
