//! Dates as the Blob service writes and reads them. Knows nothing of requests.

use time::{
    OffsetDateTime, PrimitiveDateTime, format_description::BorrowedFormatItem, format_description::well_known::Rfc3339,
    macros::format_description,
};

const HTTP: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");
const PRECISE: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:7]Z");
const DAY: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
const MINUTE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]T[hour]:[minute]Z");

/// `Sat, 21 Nov 2026 04:18:14 GMT`.
pub(crate) fn http(at: OffsetDateTime) -> String {
    at.format(&HTTP).unwrap_or_default()
}

/// The form of error bodies: `2026-11-21T04:18:14.0000000Z`.
pub(crate) fn precise(at: OffsetDateTime) -> String {
    at.format(&PRECISE).unwrap_or_default()
}

/// Reads the HTTP form.
pub(crate) fn parse_http(text: &str) -> Option<OffsetDateTime> {
    PrimitiveDateTime::parse(text.trim(), &HTTP).ok().map(PrimitiveDateTime::assume_utc)
}

/// Reads the ISO 8601 forms that a SAS may hold: a day, a day with minutes, with seconds or with fractions of them.
pub(crate) fn parse_sas(text: &str) -> Option<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339)
        .ok()
        .or_else(|| PrimitiveDateTime::parse(text, &MINUTE).ok().map(PrimitiveDateTime::assume_utc))
        .or_else(|| time::Date::parse(text, &DAY).ok().map(|day| day.midnight().assume_utc()))
}

/// Cut to whole seconds, the resolution of Last-Modified.
pub(crate) fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at.replace_nanosecond(0).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_of_a_sas_are_read_and_others_refused() {
        let day = parse_sas("2026-11-21").unwrap();
        assert_eq!(parse_sas("2026-11-21T00:00Z"), Some(day));
        assert_eq!(parse_sas("2026-11-21T00:00:00Z"), Some(day));
        assert_eq!(parse_sas("2026-11-21T00:00:00.0000000Z"), Some(day));
        assert_eq!(parse_sas("21.11.2026"), None);
        assert_eq!(parse_http(&http(day)), Some(day));
    }
}
