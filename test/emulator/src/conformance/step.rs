//! One request of a case and what must come back, as data. Knows nothing of sockets.
//!
//! `{name}` in a path, header, body or expectation stands for a saved value, and `{sas b r /blob}` for a SAS of the
//! case's container (`b` or `c`), with these permissions, for this blob.

/// How a request is authorised.
#[derive(Clone, Debug)]
pub(super) enum Auth {
    /// SharedKey.
    Key,
    /// SharedKeyLite.
    Lite,
    /// SharedKey under another key.
    WrongKey,
    /// SharedKey with a date so many minutes off.
    Skewed(i64),
    /// Nothing: anonymous, or by a SAS in the path.
    Nothing,
}

/// What must hold of an answer beside its status.
#[derive(Clone, Debug)]
pub(super) enum Check {
    Header(&'static str, String),
    Has(&'static str),
    Lacks(&'static str),
    /// A header that differs from a saved value.
    Differs(&'static str, &'static str),
    Body(Vec<u8>),
    /// These texts, in this order.
    Contains(Vec<String>),
    Omits(String),
    Save(&'static str, &'static str),
    /// Saves what stands between two texts of the body.
    SaveBetween(&'static str, &'static str, &'static str),
}

/// One request.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) method: &'static str,
    /// Behind the container, or behind the account if it begins with `^`.
    pub(super) path: String,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Vec<u8>,
    pub(super) auth: Auth,
    pub(super) without_length: bool,
    pub(super) status: u16,
    pub(super) checks: Vec<Check>,
}

fn step(method: &'static str, path: &str, status: u16) -> Step {
    Step {
        method,
        path: path.to_owned(),
        headers: Vec::new(),
        body: Vec::new(),
        auth: Auth::Key,
        without_length: false,
        status,
        checks: Vec::new(),
    }
}

/// GET that must answer `status`.
pub(super) fn get(path: &str, status: u16) -> Step {
    step("GET", path, status)
}

/// HEAD that must answer `status`.
pub(super) fn head(path: &str, status: u16) -> Step {
    step("HEAD", path, status)
}

/// PUT that must answer `status`.
pub(super) fn put(path: &str, status: u16) -> Step {
    step("PUT", path, status)
}

/// PATCH that must answer `status`.
pub(super) fn patch(path: &str, status: u16) -> Step {
    step("PATCH", path, status)
}

/// DELETE that must answer `status`.
pub(super) fn delete(path: &str, status: u16) -> Step {
    step("DELETE", path, status)
}

/// Put Blob of a block blob.
pub(super) fn put_blob(path: &str, body: &str) -> Step {
    put(path, 201).header("x-ms-blob-type", "BlockBlob").body(body)
}

/// Put Block; the id is in base64.
pub(super) fn put_block(path: &str, id: &str, body: &str) -> Step {
    put(&format!("{path}?comp=block&blockid={}", id.replace('+', "%2B").replace('=', "%3D")), 201).body(body)
}

/// Put Block List of latest blocks.
pub(super) fn put_list(path: &str, ids: &[&str]) -> Step {
    let ids: String = ids.iter().map(|id| format!("<Latest>{id}</Latest>")).collect();
    put(&format!("{path}?comp=blocklist"), 201).body(&format!("<BlockList>{ids}</BlockList>"))
}

impl Step {
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(super) fn body(mut self, body: &str) -> Self {
        self.body = body.as_bytes().to_vec();
        self
    }

    pub(super) fn auth(mut self, auth: Auth) -> Self {
        self.auth = auth;
        self
    }

    pub(super) fn anonymous(self) -> Self {
        self.auth(Auth::Nothing)
    }

    pub(super) fn without_length(mut self) -> Self {
        self.without_length = true;
        self
    }

    /// Another status than the builder's own.
    pub(super) fn status(mut self, status: u16) -> Self {
        self.status = status;
        self
    }

    fn check(mut self, check: Check) -> Self {
        self.checks.push(check);
        self
    }

    /// Refused with this status and code.
    pub(super) fn refused(self, status: u16, code: &str) -> Self {
        self.status(status).has("x-ms-error-code", code)
    }

    pub(super) fn has(self, name: &'static str, value: &str) -> Self {
        self.check(Check::Header(name, value.to_owned()))
    }

    pub(super) fn some(self, name: &'static str) -> Self {
        self.check(Check::Has(name))
    }

    pub(super) fn none(self, name: &'static str) -> Self {
        self.check(Check::Lacks(name))
    }

    pub(super) fn differs(self, name: &'static str, variable: &'static str) -> Self {
        self.check(Check::Differs(name, variable))
    }

    pub(super) fn answers(self, body: &str) -> Self {
        self.check(Check::Body(body.as_bytes().to_vec()))
    }

    pub(super) fn contains(self, texts: &[&str]) -> Self {
        self.check(Check::Contains(texts.iter().map(|&text| text.to_owned()).collect()))
    }

    pub(super) fn omits(self, text: &str) -> Self {
        self.check(Check::Omits(text.to_owned()))
    }

    pub(super) fn save(self, header: &'static str, variable: &'static str) -> Self {
        self.check(Check::Save(header, variable))
    }

    pub(super) fn save_between(self, before: &'static str, behind: &'static str, variable: &'static str) -> Self {
        self.check(Check::SaveBetween(before, behind, variable))
    }
}
