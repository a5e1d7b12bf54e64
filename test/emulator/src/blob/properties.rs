//! What can be changed about a blob beside its bytes: metadata, content headers, tier, tags, lease; and its deletion.
//! Must not know how bytes are stored.

use hyper::StatusCode;
use percent_encoding::percent_decode_str;

use crate::{
    answer::Answer,
    blob::{Blob, ContentHeaders, Kind, check_write, tier_of, version_headers},
    call::{Call, Payload},
    conditions::{Conditions, Intent},
    error::{Code, ServiceError},
    hierarchy,
    lease::Target,
    state::State,
    xml,
};

/// Tags of one blob (REST page "Set Blob Tags").
const TAGS_MAX: usize = 10;

/// Set Blob Metadata: replaces all of it.
///
/// # Errors
/// Those of every write.
pub(crate) fn set_metadata(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let metadata = call.metadata()?;
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Change)?;
    let blob = container.blob_mut(call.blob_name())?;
    blob.metadata = metadata;
    blob.touch(stamps, call.now);
    Ok(version_headers(Answer::new(StatusCode::OK), blob).header("x-ms-request-server-encrypted", "true"))
}

/// Set Blob Properties: if any content header is sent, all of them are replaced.
///
/// # Errors
/// Those of every write.
pub(crate) fn set_properties(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let headers = ContentHeaders::of(call, false)?;
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Change)?;
    let blob = container.blob_mut(call.blob_name())?;
    if headers != ContentHeaders::default() {
        blob.headers = headers;
    }
    if let Kind::Page(sequence, written) = &mut blob.kind {
        let given = call.number_header("x-ms-blob-sequence-number")?;
        match call.header("x-ms-sequence-number-action")? {
            Some("increment") => *sequence += 1,
            Some("max") => *sequence = (*sequence).max(given.unwrap_or(0)),
            Some("update") => *sequence = given.unwrap_or(0),
            _ => {}
        }
        if let Some(size) = call.number_header("x-ms-blob-content-length")? {
            if size % 512 != 0 {
                return Err(ServiceError::bad_header("x-ms-blob-content-length", &size.to_string()));
            }
            let grown = size.saturating_sub(blob.data.len());
            blob.data = crate::data::Data::concat([&blob.data.sub(0..size), &crate::data::Data::zeros(grown)]);
            written.retain_mut(|range| {
                range.end = range.end.min(size);
                range.start < range.end
            });
        }
    }
    blob.touch(stamps, call.now);
    Ok(version_headers(Answer::new(StatusCode::OK), blob))
}

/// Delete Blob. There are no snapshots here, so x-ms-delete-snapshots only has to be well-formed.
///
/// # Errors
/// Those of every write.
pub(crate) fn delete(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    match call.header("x-ms-delete-snapshots")? {
        None | Some("include" | "only") => {}
        Some(other) => return Err(ServiceError::bad_header("x-ms-delete-snapshots", other)),
    }
    let (container, _) = state.container(call)?;
    check_write(container, call, Intent::Change)?;
    hierarchy::check_delete(container, call)?;
    container.blobs.remove(call.blob_name());
    container.staged.remove(call.blob_name());
    Ok(Answer::new(StatusCode::ACCEPTED).header("x-ms-delete-type-permanent", "true"))
}

/// Lease Blob. Leases are no change: ETag and Last-Modified stay.
///
/// # Errors
/// Those of the lease.
pub(crate) fn lease(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    let blob = container.blob_mut(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Change)?;
    let answer = blob.lease.act(call)?;
    Ok(version_headers(answer, blob))
}

/// Set Blob Tier. Rehydration from the archive takes no time here.
///
/// # Errors
/// `InvalidBlobType`, `MissingRequiredHeader`.
pub(crate) fn set_tier(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let tier = tier_of(call)?.ok_or_else(|| ServiceError::missing_header("x-ms-access-tier"))?;
    let (container, _) = state.container(call)?;
    let blob = container.blob_mut(call.blob_name())?;
    if !matches!(blob.kind, Kind::Block(_)) {
        return Err(Code::InvalidBlobType.into());
    }
    blob.lease.check(call, true, Target::Blob)?;
    let status = if blob.is_archived() && tier != "Archive" { StatusCode::ACCEPTED } else { StatusCode::OK };
    blob.tier = Some(tier);
    blob.tier_changed = Some(call.now);
    Ok(Answer::new(status))
}

/// The tags of x-ms-tags: `name=value&name=value`, percent-encoded.
///
/// # Errors
/// `InvalidHeaderValue`, `TooManyTags`.
pub(crate) fn tags_of(call: &Call) -> Result<Vec<(String, String)>, ServiceError> {
    let Some(text) = call.header("x-ms-tags")? else { return Ok(Vec::new()) };
    check_tags_supported(call)?;
    let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
    let tags = text
        .split('&')
        .map(|pair| pair.split_once('=').map(|(name, value)| (decode(name), decode(value))))
        .collect::<Option<Vec<_>>>()
        .ok_or_else(|| ServiceError::bad_header("x-ms-tags", text))?;
    checked_tags(tags)
}

/// Page "Blob Storage feature support": tags are for flat accounts.
fn check_tags_supported(call: &Call) -> Result<(), ServiceError> {
    if call.hierarchical {
        return Err(Code::FeatureNotYetSupportedForHierarchicalNamespaceAccounts.into());
    }
    Ok(())
}

fn checked_tags(mut tags: Vec<(String, String)>) -> Result<Vec<(String, String)>, ServiceError> {
    if tags.len() > TAGS_MAX {
        return Err(Code::TooManyTags.into());
    }
    let bad = |(name, value): &(String, String)| !(1..=128).contains(&name.len()) || value.len() > 256;
    if tags.iter().any(bad) {
        return Err(Code::InvalidInput.into());
    }
    tags.sort();
    Ok(tags)
}

/// Get Blob Tags.
///
/// # Errors
/// `BlobNotFound`.
pub(crate) fn get_tags(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    check_tags_supported(call)?;
    let (container, _) = state.container(call)?;
    let blob = container.blob(call.blob_name())?;
    Ok(Answer::xml(format!("{}{}", xml::DECLARATION, tags_xml(blob))))
}

/// `<Tags>` as listings and Get Blob Tags show it.
pub(crate) fn tags_xml(blob: &Blob) -> String {
    let mut out = String::from("<Tags><TagSet>");
    for (name, value) in &blob.tags {
        out.push_str("<Tag>");
        xml::element(&mut out, "Key", name);
        xml::element(&mut out, "Value", value);
        out.push_str("</Tag>");
    }
    out.push_str("</TagSet></Tags>");
    out
}

/// Set Blob Tags. Tags are no part of the version: ETag and Last-Modified stay.
///
/// # Errors
/// `InvalidXmlDocument`, `TooManyTags`, lease refusals.
pub(crate) fn set_tags(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let leaves = xml::leaves(&payload.data.to_vec())?;
    let mut tags: Vec<(String, String)> = Vec::new();
    for (path, text) in leaves {
        match (path.last().map(String::as_str), tags.last_mut()) {
            (Some("Key"), _) => tags.push((text, String::new())),
            (Some("Value"), Some(last)) => last.1 = text,
            (Some("Tags" | "TagSet"), _) => {}
            _ => return Err(Code::InvalidXmlDocument.into()),
        }
    }
    let tags = checked_tags(tags)?;
    check_tags_supported(call)?;
    let (container, _) = state.container(call)?;
    let blob = container.blob_mut(call.blob_name())?;
    blob.lease.check(call, true, Target::Blob)?;
    blob.tags = tags;
    Ok(Answer::new(StatusCode::NO_CONTENT))
}
