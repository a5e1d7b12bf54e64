//! Keys for user-delegation SAS: made for a principal of the fake Entra ID, good for as long as it says and for what its
//! roles contain. A key is the hash of what it is for, so none has to be kept. Must not know what the operations do.
//! Rules: REST pages "Get User Delegation Key" and "Create a user delegation SAS".

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, Mac};
use serde_json::json;
use sha2::Sha256;
use time::Duration;

use crate::{
    answer::Answer,
    auth::{Grant, bearer, failed, is_past},
    call::{Call, Payload},
    date,
    error::{Code, ServiceError},
    state::State,
    xml,
};

/// Longest life of a key.
const LIFE_MAX: Duration = Duration::days(7);

/// What a key is for: the fields `skoid` to `skv` of a SAS.
#[derive(Clone, Copy)]
pub(crate) struct KeyFields<'a> {
    pub(crate) object_id: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) start: &'a str,
    pub(crate) expiry: &'a str,
    pub(crate) service: &'a str,
    pub(crate) version: &'a str,
}

impl<'a> KeyFields<'a> {
    /// The fields of a SAS in a query, if it is one of this kind.
    pub(crate) fn of(call: &'a Call) -> Option<Self> {
        let get = |name: &str| call.query.get(name).unwrap_or_default();
        let object_id = call.query.get("skoid")?;
        let (tenant, service, version) = (get("sktid"), get("sks"), get("skv"));
        Some(Self { object_id, tenant, start: get("skt"), expiry: get("ske"), service, version })
    }

    /// In the order of the string to sign.
    pub(crate) fn list(&self) -> [&'a str; 6] {
        [self.object_id, self.tenant, self.start, self.expiry, self.service, self.version]
    }

    /// The key, in base64.
    fn key(&self, state: &State) -> Option<String> {
        let directory = state.directory.as_ref()?;
        let mut mac = Hmac::<Sha256>::new_from_slice(&directory.delegation_secret).ok()?;
        mac.update(self.list().join("\n").as_bytes());
        Some(STANDARD.encode(mac.finalize().into_bytes()))
    }

    /// The key, if it holds now.
    ///
    /// # Errors
    /// `AuthenticationFailed`.
    pub(crate) fn valid_key(&self, state: &State, call: &Call) -> Result<String, ServiceError> {
        let time =
            |text: &str| date::parse_sas(text).ok_or_else(|| failed(format!("no valid ISO 8601 time: '{text}'")));
        if !is_past(time(self.start)?, call.now) || is_past(time(self.expiry)?, call.now) {
            let (start, expiry, now) = (self.start, self.expiry, date::http(call.now));
            return Err(failed(format!(
                "Signature not valid in the specified key time frame: Key start [{start}] - Key expiry [{expiry}] - Current [{now}]"
            )));
        }
        self.key(state).ok_or_else(|| failed("No key of this principal is known."))
    }

    /// Whether the principal may do what the request asks for, at this moment.
    ///
    /// # Errors
    /// `AuthorizationPermissionMismatch`.
    pub(crate) fn check_roles(&self, state: &State, call: &Call) -> Result<(), ServiceError> {
        let claims = json!({ "oid": self.object_id });
        let container = call.resource.container.as_deref();
        let roles = state.directory.as_ref().map(|directory| directory.lock().roles(&claims, container));
        let allowed = roles.unwrap_or_default().iter().any(|role| bearer::allows(*role, call.operation));
        if allowed { Ok(()) } else { Err(Code::AuthorizationPermissionMismatch.into()) }
    }
}

/// Get User Delegation Key.
///
/// # Errors
/// `AuthorizationPermissionMismatch` for any credential but a bearer token, `InvalidXmlDocument`, `InvalidInput` for a time
/// that is wrong or too far away.
pub(crate) fn get_key(state: &State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let Grant::Bearer { object_id, tenant } = &call.grant else {
        return Err(Code::AuthorizationPermissionMismatch.into());
    };
    let leaves = xml::leaves(&payload.data.to_vec())?;
    let text = |name: &str| leaves.iter().find(|(path, _)| path.last().is_some_and(|last| last == name));
    let start = text("Start").map_or_else(|| date::precise(call.now), |(_, text)| text.clone());
    let expiry = text("Expiry").map(|(_, text)| text.clone()).ok_or(Code::InvalidXmlDocument)?;
    let end = date::parse_sas(&expiry).ok_or(Code::InvalidInput)?;
    if date::parse_sas(&start).is_none() || end <= call.now || end > call.now + LIFE_MAX {
        return Err(Code::InvalidInput.into());
    }
    let version = call.version();
    let fields = KeyFields { object_id, tenant, start: &start, expiry: &expiry, service: "b", version };
    let key = fields.key(state).ok_or(Code::AuthorizationPermissionMismatch)?;
    let mut document = format!("{}<UserDelegationKey>", xml::DECLARATION);
    let names = ["SignedOid", "SignedTid", "SignedStart", "SignedExpiry", "SignedService", "SignedVersion"];
    for (name, text) in names.into_iter().zip(fields.list()) {
        xml::element(&mut document, name, text);
    }
    xml::element(&mut document, "Value", &key);
    document.push_str("</UserDelegationKey>");
    Ok(Answer::xml(document))
}
