//! Sizes, durations, flags, modes and ids as people write them. Pure; each error says what is right.

use std::time::Duration;

/// Reads a size: a number with B, K/KB/KiB, M, G, T (all powers of 1024), or plain bytes.
///
/// # Errors
/// A sentence saying which forms are right.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || format!("\"{text}\" is not a size; expected a number with a unit, such as 256MiB or 4GiB");
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(expected()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(expected);
    }
    let fraction = number.parse::<f64>().map_err(|_| expected())?;
    let bytes = fraction * (1_u64 << shift) as f64;
    // Beyond 2^53 a float no longer counts bytes; nobody writes fractions of petabytes.
    if bytes.is_finite() && bytes < (1_u64 << 53) as f64 { Ok(bytes as u64) } else { Err(expected()) }
}

/// A size for people: the largest unit that divides it.
#[must_use]
pub fn format_bytes(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes >= 1 << shift && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// Reads a duration: `10s`, `500ms`, `2m 30s`, or plain seconds (`120`, `0`, `1.5`), as libfuse's options have them.
///
/// # Errors
/// A sentence saying which forms are right.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let expected =
        || format!("\"{text}\" is not a duration; expected seconds or a number with a unit, such as 10s or 500ms");
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).map_err(|_| expected());
    }
    humantime::parse_duration(text).map_err(|_| expected())
}

/// Reads a flag's value.
pub(super) fn parse_flag(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Ok(true),
        "false" | "no" | "off" | "0" => Ok(false),
        _ => Err("true or false".to_owned()),
    }
}

/// Reads permission bits in octal, with or without a leading 0 or 0o.
pub(super) fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    u32::from_str_radix(digits, 8)
        .ok()
        .filter(|mode| *mode <= 0o7777)
        .ok_or_else(|| "permission bits in octal, such as 0755".to_owned())
}

/// Reads a user or group number.
pub(super) fn parse_id(text: &str) -> Result<u32, String> {
    // 2^32-1 means "no change" to chown(2): no owner.
    text.parse::<u32>().ok().filter(|id| *id != u32::MAX).ok_or_else(|| "a number, such as 1000".to_owned())
}
