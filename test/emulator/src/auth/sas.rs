//! Shared access signatures: of one blob, of a container, of the account; signed with a key of the account or of a user's
//! delegation. Checks signature, time, address, protocol and
//! permission in the service's order. Must not know what the operations do.
//! Rules: REST pages "Create a service SAS" and "Create an account SAS".

use std::net::{IpAddr, Ipv4Addr};

use time::OffsetDateTime;

use crate::{
    auth::{Grant, delegation::KeyFields, failed, is_past, shared_key},
    call::Call,
    date,
    error::{Code, ServiceError},
    operation::Operation,
    settings::Settings,
    state::{AccessPolicy, Account, State},
};

/// Response headers that a service SAS can set, with their parameters.
const OVERRIDES: [(&str, &str); 5] = [
    ("rscc", "cache-control"),
    ("rscd", "content-disposition"),
    ("rsce", "content-encoding"),
    ("rscl", "content-language"),
    ("rsct", "content-type"),
];

/// Verifies the SAS in a request's query.
///
/// # Errors
/// 403 with the code that says what is wrong.
pub(crate) fn verify(
    state: &State,
    settings: &Settings,
    call: &Call,
    account: &Account,
) -> Result<Grant, ServiceError> {
    let get = |name: &str| call.query.get(name).unwrap_or_default();
    if get("sv").is_empty() {
        return Err(failed("A SAS needs sv."));
    }
    let for_account = call.query.get("ss").is_some() || call.query.get("srt").is_some();
    let delegated = KeyFields::of(call);
    if delegated.is_none() && !settings.shared_key_access {
        return Err(Code::KeyBasedAuthenticationNotPermitted.into());
    }
    let policy = stored_policy(call, account)?;
    let text = if for_account { account_string(call)? } else { service_string(call, delegated)? };
    let keys = match &delegated {
        Some(delegated) => vec![delegated.valid_key(state, call)?],
        None => account.keys.to_vec(),
    };
    if !shared_key::matches(&keys, &text, get("sig")) {
        return Err(failed(format!("The signature is not that of this string to sign: {text}")));
    }
    let merged = |own: &str, stored: fn(&AccessPolicy) -> &String| {
        let own = get(own);
        if own.is_empty() { policy.map(|policy| stored(policy).clone()).unwrap_or_default() } else { own.to_owned() }
    };
    check_time(&merged("st", |policy| &policy.start), &merged("se", |policy| &policy.expiry), call.now)?;
    check_origin(get("sip"), get("spr"), call)?;
    let permissions = merged("sp", |policy| &policy.permissions);
    if for_account {
        check_account_scope(get("ss"), get("srt"), call.operation)?;
    } else if !service_allows(get("sr"), call.operation) {
        return Err(Code::AuthorizationFailure.into());
    }
    if !call.operation.permissions().chars().any(|letter| permissions.contains(letter)) {
        return Err(Code::AuthorizationPermissionMismatch.into());
    }
    if let Some(delegated) = delegated {
        delegated.check_roles(state, call)?;
    }
    let overrides =
        OVERRIDES.iter().filter_map(|&(name, header)| Some((header, call.query.get(name)?.to_owned()))).collect();
    Ok(Grant::Sas { permissions, overrides })
}

/// The policy of the container that `si` names.
fn stored_policy<'a>(call: &Call, account: &'a Account) -> Result<Option<&'a AccessPolicy>, ServiceError> {
    let Some(id) = call.query.get("si").filter(|id| !id.is_empty()) else { return Ok(None) };
    let container = account.containers.get(call.container_name());
    container
        .and_then(|container| container.policies.iter().find(|policy| policy.id == id))
        .map(Some)
        .ok_or_else(|| failed("The stored access policy of si does not exist."))
}

/// The string to sign of a service SAS, or of a user-delegation SAS, which names a key in place of a policy.
fn service_string(call: &Call, delegated: Option<KeyFields<'_>>) -> Result<String, ServiceError> {
    let get = |name: &str| call.query.get(name).unwrap_or_default();
    let version = get("sv");
    let resource = match get("sr") {
        "c" => format!("/blob/{}/{}", call.resource.account, call.container_name()),
        "b" => format!("/blob/{}/{}/{}", call.resource.account, call.container_name(), call.blob_name()),
        _ => return Err(failed("sr is mandatory for a service SAS and must be b or c here.")),
    };
    if version < "2015-04-05" {
        return Err(failed("This emulator knows service SAS of version 2015-04-05 and later."));
    }
    let mut fields = vec![get("sp"), get("st"), get("se"), &resource];
    match delegated {
        None => fields.push(get("si")),
        Some(key) => fields.extend(key.list()),
    }
    if delegated.is_some() && version >= "2020-02-10" {
        fields.extend([get("saoid"), get("suoid"), get("scid")]);
    }
    if delegated.is_some() && version >= "2025-07-05" {
        fields.extend([get("skdutid"), get("sduoid")]);
    }
    fields.extend([get("sip"), get("spr"), version]);
    if version >= "2018-11-09" {
        fields.extend([get("sr"), get("snapshot")]);
    }
    if version >= "2020-12-06" {
        fields.push(get("ses"));
    }
    fields.extend(OVERRIDES.iter().map(|(name, _)| get(name)));
    Ok(fields.join("\n"))
}

/// The string to sign of an account SAS, which ends with a line break.
fn account_string(call: &Call) -> Result<String, ServiceError> {
    let get = |name: &str| call.query.get(name).unwrap_or_default();
    if get("ss").is_empty() || get("srt").is_empty() {
        return Err(failed("ss and srt are mandatory for an account SAS."));
    }
    let account = call.resource.account.as_str();
    let mut fields =
        vec![account, get("sp"), get("ss"), get("srt"), get("st"), get("se"), get("sip"), get("spr"), get("sv")];
    if get("sv") >= "2020-12-06" {
        fields.push(get("ses"));
    }
    Ok(fields.join("\n") + "\n")
}

fn check_time(start: &str, expiry: &str, now: OffsetDateTime) -> Result<(), ServiceError> {
    let read = |name: &str, text: &str| {
        date::parse_sas(text).ok_or_else(|| failed(format!("{name} is no valid ISO 8601 time: '{text}'")))
    };
    // The service's own words: clients tell an expired token from a wrong one by them.
    let current = date::http(now);
    let outside = || {
        let frame = format!("Start [{start}] - Expiry [{expiry}] - Current [{current}]");
        failed(format!("Signature not valid in the specified time frame: {frame}"))
    };
    if !start.is_empty() && !is_past(read("st", start)?, now) {
        return Err(outside());
    }
    if is_past(read("se", expiry)?, now) {
        return Err(outside());
    }
    Ok(())
}

fn check_origin(addresses: &str, protocols: &str, call: &Call) -> Result<(), ServiceError> {
    if protocols == "https" && !call.secure {
        return Err(Code::AuthorizationProtocolMismatch.into());
    }
    if addresses.is_empty() {
        return Ok(());
    }
    let (first, last) = addresses.split_once('-').unwrap_or((addresses, addresses));
    let range = first.parse::<Ipv4Addr>().and_then(|first| Ok((first, last.parse::<Ipv4Addr>()?)));
    let Ok((first, last)) = range else { return Err(failed(format!("sip is no address or range: '{addresses}'"))) };
    match call.peer {
        IpAddr::V4(peer) if (first..=last).contains(&peer) => Ok(()),
        _ => Err(Code::AuthorizationSourceIPMismatch.into()),
    }
}

fn check_account_scope(services: &str, types: &str, operation: Operation) -> Result<(), ServiceError> {
    if !services.contains('b') {
        return Err(Code::AuthorizationServiceMismatch.into());
    }
    if operation != Operation::GetAccountInformation && !types.contains(operation.level()) {
        return Err(Code::AuthorizationResourceTypeMismatch.into());
    }
    Ok(())
}

/// A service SAS never reaches the account or the container itself, but for listing.
fn service_allows(signed: &str, operation: Operation) -> bool {
    match operation.level() {
        'o' => true,
        _ => operation == Operation::GetAccountInformation || (operation == Operation::ListBlobs && signed == "c"),
    }
}
