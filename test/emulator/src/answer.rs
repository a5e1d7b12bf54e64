//! What a handler answers and how it becomes an HTTP response: headers, XML errors, bodies of shared slices that may be
//! cut or stalled on purpose. Must not know why.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    Response, StatusCode,
    body::{Body, Frame, SizeHint},
    header::{HeaderName, HeaderValue},
};
use tokio::time::{Sleep, sleep};

use crate::{call::Call, connection::ConnectionState, counters::Counters, date, error::ServiceError, xml};

/// A body that was cut on purpose: the connection ends with it.
#[derive(Debug)]
pub(crate) struct Cut;

impl std::fmt::Display for Cut {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the body was cut by a fault rule")
    }
}

impl std::error::Error for Cut {}

impl From<Infallible> for Cut {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// What a handler answers.
#[derive(Default)]
pub(crate) struct Answer {
    /// HTTP status.
    pub(crate) status: StatusCode,
    /// Headers beyond those that every answer has.
    pub(crate) headers: Vec<(String, String)>,
    /// The body.
    pub(crate) body: VecDeque<Bytes>,
    /// Content-Length of an answer to HEAD, whose body is empty.
    pub(crate) head_length: Option<u64>,
}

impl Answer {
    /// An answer without body.
    pub(crate) fn new(status: StatusCode) -> Self {
        Self { status, ..Self::default() }
    }

    /// An XML document.
    pub(crate) fn xml(document: String) -> Self {
        let mut answer = Self::new(StatusCode::OK).header("content-type", "application/xml");
        answer.body.push_back(Bytes::from(document));
        answer
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    /// Adds a header where there is a value.
    pub(crate) fn optional(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.header(name, value),
            None => self,
        }
    }

    /// A refusal. Answers to HEAD carry no body, so the code is in the header only.
    /// `json`: the form of the Data Lake endpoint.
    pub(crate) fn refusal(
        error: &ServiceError,
        head: bool,
        json: bool,
        request_id: &str,
        now: time::OffsetDateTime,
    ) -> Self {
        let mut answer = Self::new(error.status).header("x-ms-error-code", error.code.as_ref());
        for (name, value) in &error.headers {
            answer = answer.header(name, value.clone());
        }
        // RFC 9110 15.4.5: 304 has no content.
        if !head && error.status != StatusCode::NOT_MODIFIED {
            let message = format!("{}\nRequestId:{request_id}\nTime:{}", error.message, date::precise(now));
            let (content_type, body) = if json {
                let error = serde_json::json!({ "error": { "code": error.code, "message": message } });
                ("application/json;charset=utf-8", error.to_string())
            } else {
                ("application/xml", xml::error(&error.code, &message, &error.details))
            };
            answer = answer.header("content-type", content_type);
            answer.body.push_back(Bytes::from(body));
        }
        answer
    }

    /// Adds what every answer has and makes the response.
    pub(crate) fn into_response(self, call: Option<&Call>, request_id: &str, send: SendPlan) -> Response<AnswerBody> {
        let length = self.body.iter().map(|part| part.len() as u64).sum();
        let body = AnswerBody { parts: self.body, left: length, sent: 0, send, waiting: None };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        let mut put = |name: &str, value: &str| {
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(value)) {
                headers.append(name, value);
            }
        };
        for (name, value) in &self.headers {
            put(name, value);
        }
        put("server", concat!("blob-emulator/", env!("CARGO_PKG_VERSION")));
        put("x-ms-request-id", request_id);
        if let Some(call) = call {
            put("x-ms-version", call.version());
            if let Ok(Some(id)) = call.header("x-ms-client-request-id") {
                put("x-ms-client-request-id", id);
            }
        }
        if let Some(length) = self.head_length {
            put("content-length", &length.to_string());
        }
        response
    }
}

/// How a body is sent.
#[derive(Clone)]
pub(crate) struct SendPlan {
    /// Cut the connection behind this many bytes of the body.
    pub(crate) cut_after: Option<u64>,
    /// Pause once behind this many bytes of the body.
    pub(crate) stall: Option<(u64, Duration)>,
    /// Where sent bytes are counted.
    pub(crate) counters: Arc<Counters>,
    /// The connection that carries it.
    pub(crate) connection: Arc<ConnectionState>,
}

/// Time between two looks at whether the bytes in front of a cut have left. Short, since a test waits for it.
const CUT_POLL: Duration = Duration::from_millis(3);

/// A body of shared slices.
pub(crate) struct AnswerBody {
    parts: VecDeque<Bytes>,
    left: u64,
    sent: u64,
    send: SendPlan,
    waiting: Option<Waiting>,
}

enum Waiting {
    /// A stall that ends with the timer.
    Stall(Pin<Box<Sleep>>),
    /// Before a cut: until what was handed over has been written, since the HTTP layer drops its buffer at an error.
    Flush(Pin<Box<Sleep>>, u64),
}

impl AnswerBody {
    fn limit(&self) -> u64 {
        let stall = self.send.stall.map_or(u64::MAX, |(after, _)| after);
        self.send.cut_after.unwrap_or(u64::MAX).min(stall).saturating_sub(self.sent)
    }

    fn begin_waiting(&mut self) {
        if let Some((after, pause)) = self.send.stall
            && self.sent >= after
        {
            self.send.stall = None;
            self.waiting = Some(Waiting::Stall(Box::pin(sleep(pause))));
        } else if self.send.cut_after.is_some_and(|after| self.sent >= after) {
            self.waiting = Some(Waiting::Flush(Box::pin(sleep(CUT_POLL)), u64::MAX));
        }
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Cut;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Cut>>> {
        let this = self.get_mut();
        loop {
            match &mut this.waiting {
                Some(Waiting::Stall(timer)) => {
                    std::task::ready!(timer.as_mut().poll(cx));
                    this.waiting = None;
                }
                Some(Waiting::Flush(timer, seen)) => {
                    std::task::ready!(timer.as_mut().poll(cx));
                    let written = this.send.connection.written.load(Ordering::Relaxed);
                    if written == *seen && !this.send.connection.blocked.load(Ordering::Relaxed) {
                        return Poll::Ready(Some(Err(Cut)));
                    }
                    *seen = written;
                    timer.set(sleep(CUT_POLL));
                    continue;
                }
                None => {}
            }
            if this.parts.is_empty() {
                return Poll::Ready(None);
            }
            let limit = this.limit();
            if limit == 0 {
                this.begin_waiting();
                continue;
            }
            let Some(mut part) = this.parts.pop_front() else { return Poll::Ready(None) };
            if part.len() as u64 > limit {
                let rest = part.split_off(limit as usize);
                this.parts.push_front(rest);
            }
            let length = part.len() as u64;
            this.left -= length;
            this.sent += length;
            this.send.counters.sent(length);
            return Poll::Ready(Some(Ok(Frame::data(part))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.parts.is_empty() && self.waiting.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
