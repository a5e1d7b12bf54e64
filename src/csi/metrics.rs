//! CSI calls counted, under the names of the Azure Blob CSI driver: `node_stage_volume`, `controller_create_volume`.
//!
//! [`Measured`] stands in front of a gRPC service and times each call, whatever it ends with. What a call is about (the
//! protocol, the account) only its handler knows, which says so with [`describe`]. Knows nothing of volumes.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    convert::Infallible,
    future::Future,
    sync::Arc,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures::future::BoxFuture;
use hyper::{Request, Response};
use parking_lot::Mutex;
use tonic::{body::Body, codegen::Service, server::NamedService};

use super::parameters::Parameters;
use crate::telemetry::metrics::{CALL_BOUNDS, Histogram, Labels, Page, table};

/// Calls of a driver's services so far. Cloning shares it.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    /// By labels: there are as many as calls, times two, times the kinds of volumes a cluster has. Nothing awaits inside.
    seen: Arc<Mutex<BTreeMap<Key, Histogram>>>,
}

/// Name of the call, whether it succeeded, and what was described.
type Key = (String, bool, Option<Described>);

/// What the handler of a call says about the volume. What StorageClasses leave open is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Described {
    protocol: String,
    account_type: String,
    hierarchical: String,
}

tokio::task_local! {
    /// Of the call that this task answers.
    static DESCRIBED: RefCell<Option<Described>>;
}

/// Says what the call that is being answered is about. Without a [`Measured`] around it, it does nothing.
pub fn describe(parameters: &Parameters) {
    let get = |keys: &[&str]| keys.iter().find_map(|key| parameters.get(key)).unwrap_or_default().to_owned();
    let described = Described {
        protocol: get(&["protocol"]),
        account_type: get(&["skuname", "storageaccounttype"]),
        hierarchical: get(&["ishnsenabled"]),
    };
    // Outside of a measured call there is nobody to tell.
    DESCRIBED.try_with(|slot| *slot.borrow_mut() = Some(described)).ok();
}

impl Calls {
    fn note(&self, name: &str, success: bool, described: Option<Described>, duration: Duration) {
        let mut seen = self.seen.lock();
        let of = |key: Key, seen: &mut BTreeMap<Key, Histogram>| {
            seen.entry(key).or_insert_with(|| Histogram::new(CALL_BOUNDS)).observe(duration);
        };
        of((name.to_owned(), success, None), &mut seen);
        if described.is_some() {
            of((name.to_owned(), success, described), &mut seen);
        }
    }

    /// Adds what was counted.
    pub fn write(&self, page: &mut Page) {
        for ((name, success, described), histogram) in self.seen.lock().iter() {
            let labels = Labels::default().with("operation", name.as_str()).with("success", success.to_string());
            let seen = histogram.snapshot();
            match described {
                None => {
                    page.distribution(&table::CALL_DURATION, &labels, &seen);
                    page.count(&table::CALLS, &labels, seen.count());
                }
                Some(described) => {
                    let labels = labels
                        .with("protocol", described.protocol.as_str())
                        .with("storage_account_type", described.account_type.as_str())
                        .with("is_hns_enabled", described.hierarchical.as_str());
                    page.distribution(&table::CALL_DURATION_LABELED, &labels, &seen);
                }
            }
        }
    }
}

/// A gRPC service whose calls are counted.
#[derive(Clone, Debug)]
pub struct Measured<S> {
    service: S,
    calls: Calls,
}

impl<S> Measured<S> {
    /// Counts the calls of `service` in `calls`.
    pub fn new(service: S, calls: &Calls) -> Self {
        Self { service, calls: calls.clone() }
    }
}

impl<S: NamedService> NamedService for Measured<S> {
    const NAME: &'static str = S::NAME;
}

impl<S> Service<Request<Body>> for Measured<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Body>, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let name = name_of(request.uri().path());
        let answered = self.service.call(request);
        let Some(name) = name else { return Box::pin(answered) };
        Box::pin(time(name, answered, self.calls.clone()))
    }
}

async fn time(
    name: String,
    answered: impl Future<Output = Result<Response<Body>, Infallible>>,
    calls: Calls,
) -> Result<Response<Body>, Infallible> {
    let began = Instant::now();
    let (answer, described) = DESCRIBED
        .scope(RefCell::default(), async {
            let answer = answered.await;
            (answer, DESCRIBED.with(RefCell::take))
        })
        .await;
    // gRPC: an error is told ahead of a body that is not there; an answer's status comes behind it, and is 0.
    let success =
        answer.as_ref().is_ok_and(|answer| answer.headers().get("grpc-status").is_none_or(|told| told == "0"));
    calls.note(&name, success, described, began.elapsed());
    answer
}

/// `/csi.v1.Node/NodeStageVolume` is `node_stage_volume`, `/csi.v1.Controller/CreateVolume` `controller_create_volume`. What
/// only asks for abilities is not counted, as there.
fn name_of(path: &str) -> Option<String> {
    let (service, call) = path.strip_prefix("/csi.v1.")?.split_once('/')?;
    if call.ends_with("GetCapabilities") {
        return None;
    }
    let mut name = match (service, call.strip_prefix(service)) {
        (_, Some(_)) => String::new(),
        (service, None) => service.to_ascii_lowercase(),
    };
    for letter in call.chars() {
        if letter.is_ascii_uppercase() && !name.is_empty() {
            name.push('_');
        }
        name.push(letter.to_ascii_lowercase());
    }
    Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_have_the_names_of_the_other_driver() {
        for (path, name) in [
            ("/csi.v1.Node/NodeStageVolume", "node_stage_volume"),
            ("/csi.v1.Node/NodeGetVolumeStats", "node_get_volume_stats"),
            ("/csi.v1.Node/NodeGetInfo", "node_get_info"),
            ("/csi.v1.Controller/CreateVolume", "controller_create_volume"),
            ("/csi.v1.Controller/ValidateVolumeCapabilities", "controller_validate_volume_capabilities"),
            ("/csi.v1.Controller/ControllerExpandVolume", "controller_expand_volume"),
        ] {
            assert_eq!(name_of(path).as_deref(), Some(name));
        }
        assert_eq!(name_of("/csi.v1.Node/NodeGetCapabilities"), None);
        assert_eq!(name_of("/grpc.health.v1.Health/Check"), None);
    }

    #[tokio::test]
    async fn a_call_is_counted_by_its_end_and_by_what_it_is_about() {
        let calls = Calls::default();
        let refused = async {
            let volume = Parameters::of_volume(&[("protocol".to_owned(), "fuse2".to_owned())].into()).unwrap();
            describe(&volume);
            Ok(tonic::Status::not_found("no").into_http())
        };
        time("node_stage_volume".to_owned(), refused, calls.clone()).await.unwrap();
        let done = async { Ok(Response::new(Body::empty())) };
        time("node_unstage_volume".to_owned(), done, calls.clone()).await.unwrap();
        let mut page = Page::default();
        calls.write(&mut page);
        let text = page.text();
        for line in [
            "blob_csi_driver_operations_total{operation=\"node_stage_volume\",success=\"false\"} 1\n",
            "blob_csi_driver_operations_total{operation=\"node_unstage_volume\",success=\"true\"} 1\n",
            "seconds_labeled_count{operation=\"node_stage_volume\",success=\"false\",protocol=\"fuse2\"} 1\n",
            "blob_csi_driver_operation_duration_seconds_bucket{operation=\"node_unstage_volume\",success=\"true\",le=\"0.1\"} 1\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
