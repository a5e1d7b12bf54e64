//! Kubernetes' quantities (`5Gi`, `1.5G`, `1e3`, `500m`), as bytes. Format: apimachinery, pkg/api/resource/quantity.go.

/// The number of bytes; parts of one count as a whole. `None` for what is no quantity, or more than fits.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits: i128 = format!("{whole}{part}").parse().ok()?;
    let scale = 10_i128.checked_pow(u32::try_from(part.len()).ok()?)?;
    let (factor, divisor) = factor(unit)?;
    let value = digits.checked_mul(factor)?;
    let divisor = scale.checked_mul(divisor)?;
    i64::try_from((value + divisor - 1) / divisor).ok()
}

fn factor(unit: &str) -> Option<(i128, i128)> {
    if let Some(exponent) = unit.strip_prefix(['e', 'E']).filter(|rest| !rest.is_empty()) {
        let exponent: i32 = exponent.parse().ok()?;
        let power = 10_i128.checked_pow(exponent.unsigned_abs())?;
        return Some(if exponent < 0 { (1, power) } else { (power, 1) });
    }
    let decimal = |exponent| Some((10_i128.pow(exponent), 1));
    match unit {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => Some((1 << 10, 1)),
        "Mi" => Some((1 << 20, 1)),
        "Gi" => Some((1 << 30, 1)),
        "Ti" => Some((1 << 40, 1)),
        "Pi" => Some((1 << 50, 1)),
        "Ei" => Some((1 << 60, 1)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        for (text, wanted) in [
            ("5Gi", Some(5 << 30)),
            ("1.5Gi", Some(3 << 29)),
            ("1000", Some(1000)),
            ("1e3", Some(1000)),
            ("2k", Some(2000)),
            ("1500m", Some(2)),
            ("100Ti", Some(100 << 40)),
            ("9Ei", None),
            ("5GB", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(bytes(text), wanted, "{text}");
        }
    }
}
