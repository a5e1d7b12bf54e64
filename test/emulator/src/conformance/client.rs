//! A raw HTTP/1.1 client that sends exactly what a case says, with its own signatures. Knows nothing of the emulator.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::TcpStream,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use sha2::Sha256;
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};

use super::{
    Target,
    step::{Auth, Check, Step},
};

/// Version that requests state unless a case says otherwise. Both servers know it.
const VERSION: &str = "2021-12-02";
/// Longest wait for an answer. Guess: ten times the slowest case on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A key that is no account's.
const OTHER_KEY: &str = "bm90IHRoZSBrZXkgb2YgdGhpcyBhY2NvdW50IGJ1dCBhbnkgb3RoZXI=";

const HTTP_DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const SAS_DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]Z");

/// What came back.
#[derive(Clone, Debug, Default)]
pub(super) struct Reply {
    /// HTTP status.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// Body, without transfer encoding.
    pub body: Vec<u8>,
}

/// One case's container and saved values.
pub(super) struct Session<'a> {
    target: &'a Target,
    container: String,
    saved: BTreeMap<String, String>,
}

fn hmac(key: &str, text: &str) -> String {
    let key = STANDARD.decode(key).unwrap_or_default();
    Hmac::<Sha256>::new_from_slice(&key).map_or_else(
        |_| String::new(),
        |mut mac| {
            mac.update(text.as_bytes());
            STANDARD.encode(mac.finalize().into_bytes())
        },
    )
}

impl<'a> Session<'a> {
    pub(super) fn new(target: &'a Target, container: &str) -> Self {
        let base = format!("http://{}/{}", target.address, target.account);
        let later = OffsetDateTime::now_utc() + time::Duration::days(1);
        let earlier = OffsetDateTime::now_utc() - time::Duration::days(1);
        let saved = BTreeMap::from([
            ("url".to_owned(), format!("{base}/{container}")),
            ("container".to_owned(), container.to_owned()),
            ("tomorrow".to_owned(), later.format(&HTTP_DATE).unwrap_or_default()),
            ("yesterday".to_owned(), earlier.format(&HTTP_DATE).unwrap_or_default()),
        ]);
        Self { target, container: container.to_owned(), saved }
    }

    pub(super) fn create_container(&mut self) -> Result<(), String> {
        self.run(&[super::step::put("?restype=container", 201)])
    }

    pub(super) fn delete_container(&mut self) {
        // Cases may have deleted or leased it; what is left does not disturb the next case.
        let _ = self.run(&[super::step::delete("?restype=container", 202)]);
    }

    /// Runs steps until one does not answer as it must.
    pub(super) fn run(&mut self, steps: &[Step]) -> Result<(), String> {
        for (number, step) in steps.iter().enumerate() {
            let outcome = self.send(step).map_err(|error| format!("no answer: {error}"));
            let reply = outcome.map_err(|why| format!("step {number} ({} {}): {why}", step.method, step.path))?;
            self.judge(step, &reply).map_err(|why| {
                let body = String::from_utf8_lossy(&reply.body[..reply.body.len().min(900)]).into_owned();
                format!(
                    "step {number} ({} {}): {why}\n    status {} {:?}\n    {body}",
                    step.method, step.path, reply.status, reply.headers
                )
            })?;
        }
        Ok(())
    }

    fn judge(&mut self, step: &Step, reply: &Reply) -> Result<(), String> {
        if reply.status != step.status {
            return Err(format!("expected status {}", step.status));
        }
        if reply.status != 304 && !reply.headers.contains_key("x-ms-request-id") {
            return Err("x-ms-request-id is missing".to_owned());
        }
        if reply.status >= 400 && step.method != "HEAD" {
            let code = reply.headers.get("x-ms-error-code").cloned().unwrap_or_default();
            let text = String::from_utf8_lossy(&reply.body).into_owned();
            let forms = [format!("<Code>{code}</Code>"), format!("\"code\":\"{code}\"")];
            if !forms.iter().any(|form| text.contains(form)) {
                return Err(format!("the body does not repeat the code \"{code}\""));
            }
        }
        step.checks.iter().try_for_each(|check| self.check(check, reply))
    }

    fn check(&mut self, check: &Check, reply: &Reply) -> Result<(), String> {
        let header = |name: &str| reply.headers.get(name).cloned();
        let text = || String::from_utf8_lossy(&reply.body).into_owned();
        let holds = match check {
            Check::Header(name, value) => header(name).as_deref() == Some(self.fill(value).as_str()),
            Check::Has(name) => header(name).is_some(),
            Check::Lacks(name) => header(name).is_none(),
            Check::Differs(name, variable) => {
                header(name).is_some_and(|value| Some(&value) != self.saved.get(*variable))
            }
            Check::Body(body) => reply.body == *body,
            Check::Contains(parts) => {
                let text = text();
                let mut from = 0;
                parts.iter().all(|part| match text[from..].find(&self.fill(part)) {
                    Some(at) => {
                        from += at + 1;
                        true
                    }
                    None => false,
                })
            }
            Check::Omits(part) => !text().contains(&self.fill(part)),
            Check::Save(name, variable) => {
                let value = header(name);
                value.map(|value| self.saved.insert((*variable).to_owned(), value)).is_some()
            }
            Check::SaveBetween(before, behind, variable) => {
                let text = text();
                let found = text.split_once(before).and_then(|(_, rest)| rest.split_once(behind));
                found.map(|(value, _)| self.saved.insert((*variable).to_owned(), value.to_owned())).is_some()
            }
        };
        if holds { Ok(()) } else { Err(format!("expected {check:?}")) }
    }

    /// Puts saved values and SAS in place of `{...}`. Braces around anything else stay.
    fn fill(&self, text: &str) -> String {
        let Some((before, rest)) = text.split_once('{') else { return text.to_owned() };
        let Some((name, behind)) = rest.split_once('}') else { return text.to_owned() };
        let value = match name.split(' ').collect::<Vec<_>>()[..] {
            ["sas", resource, permissions, blob] => self.service_sas(resource, permissions, blob, 60),
            ["expired", resource, permissions, blob] => self.service_sas(resource, permissions, blob, -60),
            ["account-sas", services, types, permissions] => self.account_sas(services, types, permissions),
            _ => self.saved.get(name).cloned().unwrap_or_else(|| format!("{{{name}}}")),
        };
        format!("{before}{value}{}", self.fill(behind))
    }

    fn service_sas(&self, resource: &str, permissions: &str, blob: &str, minutes: i64) -> String {
        let expiry = OffsetDateTime::now_utc() + time::Duration::minutes(minutes);
        let expiry = expiry.format(&SAS_DATE).unwrap_or_default();
        let blob = percent_decode_str(blob).decode_utf8_lossy();
        let blob = if resource == "b" { blob.as_ref() } else { "" };
        let canonical = format!("/blob/{}/{}{blob}", self.target.account, self.container);
        // sp st se resource si sip spr sv sr snapshot ses rscc rscd rsce rscl rsct
        let text = format!("{permissions}\n\n{expiry}\n{canonical}\n\n\n\n{VERSION}\n{resource}\n\n\n\n\n\n\n");
        let signature = hmac(&self.target.key, &text);
        let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
        let expiry = expiry.replace(':', "%3A");
        format!("sv={VERSION}&sr={resource}&sp={permissions}&se={expiry}&sig={signature}")
    }

    fn account_sas(&self, services: &str, types: &str, permissions: &str) -> String {
        let expiry = OffsetDateTime::now_utc() + time::Duration::hours(1);
        let expiry = expiry.format(&SAS_DATE).unwrap_or_default();
        let account = &self.target.account;
        let text = format!("{account}\n{permissions}\n{services}\n{types}\n\n{expiry}\n\n\n{VERSION}\n\n");
        let signature = hmac(&self.target.key, &text);
        let signature = utf8_percent_encode(&signature, NON_ALPHANUMERIC);
        let expiry = expiry.replace(':', "%3A");
        format!("sv={VERSION}&ss={services}&srt={types}&sp={permissions}&se={expiry}&sig={signature}")
    }

    fn send(&self, step: &Step) -> io::Result<Reply> {
        let account = &self.target.account;
        let path = self.fill(&step.path);
        let path = match path.strip_prefix('^') {
            Some(rest) => format!("/{account}{rest}"),
            None => format!("/{account}/{}{path}", self.container),
        };
        let mut headers: Vec<(String, String)> = Vec::new();
        for (name, value) in &step.headers {
            headers.push(((*name).to_owned(), self.fill(value)));
        }
        let body = match std::str::from_utf8(&step.body) {
            Ok(text) => self.fill(text).into_bytes(),
            Err(_) => step.body.clone(),
        };
        if !headers.iter().any(|(name, _)| name == "x-ms-version") {
            headers.push(("x-ms-version".to_owned(), VERSION.to_owned()));
        }
        if !step.without_length && (matches!(step.method, "PUT" | "PATCH") || !body.is_empty()) {
            headers.push(("content-length".to_owned(), body.len().to_string()));
        }
        self.authorize(step, &path, &mut headers);
        let mut request =
            format!("{} {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", step.method, self.target.address);
        for (name, value) in &headers {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str("\r\n");
        let mut stream = TcpStream::connect_timeout(&self.target.address, TIMEOUT)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let mut bytes = request.into_bytes();
        bytes.extend_from_slice(&body);
        stream.write_all(&bytes)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        read_reply(&answer).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the answer is no HTTP/1.1"))
    }

    fn authorize(&self, step: &Step, path: &str, headers: &mut Vec<(String, String)>) {
        let (key, minutes, lite) = match step.auth {
            Auth::Nothing => return,
            Auth::Key => (self.target.key.as_str(), 0, false),
            Auth::Lite => (self.target.key.as_str(), 0, true),
            Auth::WrongKey => (OTHER_KEY, 0, false),
            Auth::Skewed(minutes) => (self.target.key.as_str(), minutes, false),
        };
        let date = OffsetDateTime::now_utc() + time::Duration::minutes(minutes);
        headers.push(("x-ms-date".to_owned(), date.format(&HTTP_DATE).unwrap_or_default()));
        let text = string_to_sign(step.method, path, &self.target.account, headers, lite);
        let scheme = if lite { "SharedKeyLite" } else { "SharedKey" };
        let value = format!("{scheme} {}:{}", self.target.account, hmac(key, &text));
        headers.push(("authorization".to_owned(), value));
    }
}

fn string_to_sign(method: &str, target: &str, account: &str, headers: &[(String, String)], lite: bool) -> String {
    let of = |wanted: &str| headers.iter().find(|(name, _)| name == wanted).map_or("", |(_, value)| value.as_str());
    let mut own: Vec<_> = headers.iter().filter(|(name, _)| name.starts_with("x-ms-")).collect();
    own.sort();
    let own: String = own.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut parameters: Vec<(String, String)> = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name).to_lowercase(), decode(value)))
        .collect();
    parameters.sort();
    if lite {
        let comp = parameters.iter().find(|(name, _)| name == "comp");
        let comp = comp.map(|(_, value)| format!("?comp={value}")).unwrap_or_default();
        return format!("{method}\n{}\n{}\n\n{own}/{account}{path}{comp}", of("content-md5"), of("content-type"));
    }
    let length = if of("content-length") == "0" { "" } else { of("content-length") };
    let standard = [
        of("content-encoding"),
        of("content-language"),
        length,
        of("content-md5"),
        of("content-type"),
        "",
        of("if-modified-since"),
        of("if-match"),
        of("if-none-match"),
        of("if-unmodified-since"),
        of("range"),
    ];
    let query: String = parameters.iter().map(|(name, value)| format!("\n{name}:{value}")).collect();
    format!("{method}\n{}\n{own}/{account}{path}{query}", standard.join("\n"))
}

fn read_reply(bytes: &[u8]) -> Option<Reply> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(bytes.get(..end)?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let rest = bytes.get(end + 4..)?;
    let chunked = headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked");
    let body = if chunked && !rest.is_empty() { dechunk(rest)? } else { rest.to_vec() };
    Some(Reply { status, headers, body })
}

fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let length = std::str::from_utf8(bytes.get(..end)?).ok()?;
        let length = usize::from_str_radix(length.split(';').next()?.trim(), 16).ok()?;
        if length == 0 {
            return Some(body);
        }
        body.extend_from_slice(bytes.get(end + 2..end + 2 + length)?);
        bytes = bytes.get(end + 4 + length..)?;
    }
}
