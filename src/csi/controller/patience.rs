//! How long a caller waits, as its call says (`grpc-timeout`, "gRPC over HTTP2"): who answers in time can say how far the work is.

use std::time::Duration;

use tonic::metadata::MetadataMap;

/// For callers that do not say. An external-provisioner says, ten minutes or more by its manifests.
const UNSAID: Duration = Duration::from_secs(60);
/// Before the caller's end: for the answer, and what leads to the waiting.
const MARGIN: Duration = Duration::from_secs(3);
/// At most: a caller that lost its connection calls again.
const MAX: Duration = Duration::from_secs(5 * 60);

/// How long its work may be waited for.
pub(super) fn patience(call: &MetadataMap) -> Duration {
    let said = call.get("grpc-timeout").and_then(|value| value.to_str().ok()).and_then(parse);
    // Of a short time half is left for the answer.
    said.map_or(UNSAID, |said| said.saturating_sub(MARGIN).max(said / 2)).min(MAX)
}

fn parse(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(number.saturating_mul(3600)),
        "M" => Duration::from_secs(number.saturating_mul(60)),
        "S" => Duration::from_secs(number),
        "m" => Duration::from_millis(number),
        "u" => Duration::from_micros(number),
        "n" => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_comes_before_the_caller_goes() {
        let of = |text: &str| {
            let mut call = MetadataMap::new();
            call.insert("grpc-timeout", text.parse().unwrap());
            patience(&call)
        };
        assert_eq!(of("10S"), Duration::from_secs(7));
        assert_eq!(of("2000m"), Duration::from_secs(1));
        assert_eq!(of("1H"), MAX);
        assert_eq!(of("9999999n"), Duration::from_nanos(9_999_999 / 2));
        assert_eq!(of("ü"), UNSAID);
        assert_eq!(patience(&MetadataMap::new()), UNSAID);
    }
}
