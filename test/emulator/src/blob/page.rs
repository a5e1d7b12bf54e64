//! Page blobs: creation, Put Page (update and clear), Get Page Ranges. Must not know block lists.

use std::ops::Range;

use hyper::StatusCode;

use crate::{
    answer::Answer,
    blob::{Kind, NewBlob, check_write, checksum_headers, read::requested_range, replace, version_headers},
    call::{Call, Payload},
    conditions::{Conditions, Intent},
    data::Data,
    error::{Code, ServiceError},
    state::State,
    xml,
};

/// Bytes of a page: sizes and offsets are multiples of it (REST page "Put Page").
const PAGE_BYTES: u64 = 512;
/// Largest page blob that the emulator accepts: its holes cost a slice a MiB. The service's limit is 8 TiB.
const PAGE_BLOB_BYTES_MAX: u64 = 64 << 30;
/// Largest update in one request (REST page "Put Page").
const UPDATE_BYTES_MAX: u64 = 4 << 20;

/// Put Blob with x-ms-blob-type PageBlob: zeros.
///
/// # Errors
/// `InvalidHeaderValue` for a size that is no multiple of 512 or for a body, and those of every write.
pub(crate) fn create(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    if payload.data.len() > 0 {
        return Err(ServiceError::bad_header("Content-Length", &payload.data.len().to_string()));
    }
    let name = "x-ms-blob-content-length";
    let size = call.number_header(name)?.ok_or_else(|| ServiceError::missing_header(name))?;
    if size % PAGE_BYTES != 0 || size > PAGE_BLOB_BYTES_MAX {
        return Err(ServiceError::bad_header(name, &size.to_string()));
    }
    let sequence = call.number_header("x-ms-blob-sequence-number")?.unwrap_or(0);
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Create)?;
    let new = NewBlob::of(call, Kind::Page(sequence, Vec::new()), Data::zeros(size), true)?;
    Ok(replace(container, stamps, call, new))
}

/// Put Page: update or clear.
///
/// # Errors
/// `InvalidHeaderValue`, `InvalidPageRange`, `SequenceNumberConditionNotMet`, and those of every write.
pub(crate) fn put_page(state: &mut State, call: &Call, payload: &Payload) -> Result<Answer, ServiceError> {
    let (container, stamps) = state.container(call)?;
    check_write(container, call, Intent::Change)?;
    let blob = container.blob_mut(call.blob_name())?;
    let size = blob.data.len();
    let Kind::Page(sequence, written) = &mut blob.kind else { return Err(Code::InvalidBlobType.into()) };
    check_sequence(call, *sequence)?;
    let range = requested_range(call)?.ok_or_else(|| ServiceError::missing_header("x-ms-range"))?;
    if range.start % PAGE_BYTES != 0 || range.end % PAGE_BYTES != 0 || range.end > size {
        return Err(Code::InvalidPageRange.into());
    }
    let action = call.required_header("x-ms-page-write")?.to_ascii_lowercase();
    let bytes = match action.as_str() {
        "update" if payload.data.len() > UPDATE_BYTES_MAX => return Err(Code::RequestBodyTooLarge.into()),
        "update" if payload.data.len() == range.end - range.start => payload.data.clone(),
        "clear" if payload.data.len() == 0 => Data::zeros(range.end - range.start),
        "update" | "clear" => {
            return Err(ServiceError::bad_header("Content-Length", &payload.data.len().to_string()));
        }
        other => return Err(ServiceError::bad_header("x-ms-page-write", other)),
    };
    *written = remove(written, &range);
    if action == "update" {
        *written = insert(std::mem::take(written), range.clone());
    }
    let sequence = *sequence;
    blob.data = blob.data.spliced(range.start, &bytes);
    blob.headers.md5 = None;
    blob.touch(stamps, call.now);
    let answer = version_headers(Answer::new(StatusCode::CREATED), blob)
        .header("x-ms-blob-sequence-number", sequence.to_string())
        .header("x-ms-request-server-encrypted", "true");
    Ok(checksum_headers(answer, payload))
}

fn check_sequence(call: &Call, sequence: u64) -> Result<(), ServiceError> {
    let holds = [
        call.number_header("x-ms-if-sequence-number-le")?.is_none_or(|limit| sequence <= limit),
        call.number_header("x-ms-if-sequence-number-lt")?.is_none_or(|limit| sequence < limit),
        call.number_header("x-ms-if-sequence-number-eq")?.is_none_or(|wanted| sequence == wanted),
    ];
    if holds.contains(&false) { Err(Code::SequenceNumberConditionNotMet.into()) } else { Ok(()) }
}

/// The ranges without one.
fn remove(ranges: &[Range<u64>], gone: &Range<u64>) -> Vec<Range<u64>> {
    ranges
        .iter()
        .flat_map(|range| [range.start..range.end.min(gone.start), range.start.max(gone.end)..range.end])
        .filter(|range| range.start < range.end)
        .collect()
}

/// The ranges with one more, neighbours joined.
fn insert(mut ranges: Vec<Range<u64>>, new: Range<u64>) -> Vec<Range<u64>> {
    ranges.push(new);
    ranges.sort_unstable_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if last.end >= range.start => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// Get Page Ranges.
///
/// # Errors
/// `InvalidBlobType`, `BlobNotFound`, conditions.
pub(crate) fn page_ranges(state: &mut State, call: &Call) -> Result<Answer, ServiceError> {
    let (container, _) = state.container(call)?;
    let blob = container.blob(call.blob_name())?;
    Conditions::of(call)?.check(Some(blob.version()), Intent::Read)?;
    let Kind::Page(_, written) = &blob.kind else { return Err(Code::InvalidBlobType.into()) };
    let asked = requested_range(call)?.unwrap_or(0..u64::MAX);
    let mut document = format!("{}<PageList>", xml::DECLARATION);
    for range in written {
        let (start, end) = (range.start.max(asked.start), range.end.min(asked.end));
        if start < end {
            document.push_str(&format!("<PageRange><Start>{start}</Start><End>{}</End></PageRange>", end - 1));
        }
    }
    document.push_str("</PageList>");
    let answer = version_headers(Answer::xml(document), blob);
    Ok(answer.header("x-ms-blob-content-length", blob.data.len().to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_ranges_join_and_split() {
        let ranges = insert(insert(Vec::new(), 0..512), 1024..1536);
        let ranges = insert(ranges, 512..1024);
        assert_eq!((ranges.len(), ranges[0].clone()), (1, 0..1536));
        assert_eq!(remove(&ranges, &(512..1024)), [0..512, 1024..1536]);
    }
}
