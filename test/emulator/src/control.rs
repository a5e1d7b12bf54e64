//! The control API under `/__emulator/`: settings, counters, request log, accounts. Open to whoever can connect: the
//! emulator holds nothing worth protecting. Must not know the Blob protocol.
//!
//! ```text
//! GET    /__emulator/health      "ok"
//! GET    /__emulator/settings    all knobs
//! PUT    /__emulator/settings    {"latency": "10ms"}: changes what it names
//! GET    /__emulator/counters    counts since the start or the last DELETE
//! DELETE /__emulator/counters
//! GET    /__emulator/requests    the last requests, as many as the knob request_log says
//! PUT    /__emulator/accounts    {"account": "name", "key": "base64"}: adds an account or rotates its key
//! ```

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::{Method, Request, Response, StatusCode, body::Incoming};
use serde::Deserialize;

use crate::{
    answer::{Answer, AnswerBody, SendPlan},
    emulator::set_key,
    server::Service,
};

/// Where the control API begins. No account can have this name.
pub(crate) const PREFIX: &str = "/__emulator/";

/// Largest body of a control request: a thousand fault rules fit.
const BODY_BYTES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountRequest {
    account: String,
    key: String,
}

/// Answers a control request.
pub(crate) async fn handle(service: &Arc<Service>, request: Request<Incoming>, send: SendPlan) -> Response<AnswerBody> {
    let method = request.method().clone();
    let what = request.uri().path().strip_prefix(PREFIX).unwrap_or_default().to_owned();
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX).collect().await.map(|body| body.to_bytes());
    let outcome = match body {
        Ok(body) => act(service, &method, &what, &body),
        Err(error) => Err((StatusCode::BAD_REQUEST, format!("cannot read the body: {error}"))),
    };
    let (status, text) = match outcome {
        Ok(text) => (StatusCode::OK, text),
        Err((status, text)) => (status, text),
    };
    let mut answer =
        Answer::new(status).header("content-type", if status.is_success() { "application/json" } else { "text/plain" });
    answer.body.push_back(Bytes::from(text + "\n"));
    answer.into_response(None, "control", send)
}

fn act(service: &Service, method: &Method, what: &str, body: &[u8]) -> Result<String, (StatusCode, String)> {
    let bad = |text: String| (StatusCode::BAD_REQUEST, text);
    let json = |text: Result<String, serde_json::Error>| {
        text.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()))
    };
    match (method.as_str(), what) {
        ("GET", "health") => Ok("\"ok\"".to_owned()),
        ("GET", "settings") => json(serde_json::to_string_pretty(&*service.settings())),
        ("PUT", "settings") => {
            let patch = serde_json::from_slice(body).map_err(|error| bad(format!("the body is no JSON: {error}")))?;
            let settings = service.settings().with_json(&patch).map_err(bad)?;
            service.apply(settings);
            json(serde_json::to_string_pretty(&*service.settings()))
        }
        ("GET", "counters") => json(serde_json::to_string_pretty(&service.counters.view())),
        ("DELETE", "counters") => {
            service.counters.reset();
            Ok("{}".to_owned())
        }
        ("GET", "requests") => json(serde_json::to_string_pretty(&service.counters.log())),
        ("PUT", "accounts") => {
            let request: AccountRequest =
                serde_json::from_slice(body).map_err(|error| bad(format!("cannot read the account: {error}")))?;
            set_key(service, &request.account, &request.key).map_err(|error| bad(error.to_string()))?;
            Ok("{}".to_owned())
        }
        (_, "health" | "settings" | "counters" | "requests" | "accounts") => {
            Err((StatusCode::METHOD_NOT_ALLOWED, format!("{method} is not for {PREFIX}{what}")))
        }
        _ => Err((
            StatusCode::NOT_FOUND,
            format!("{PREFIX}{what} does not exist; there are health, settings, counters, requests and accounts"),
        )),
    }
}
