//! Sizes and times as people write them.

use std::time::Duration;

/// `2 GiB`, `1.5GB`, `800 MB` in bytes; none where it is no size, or has no unit.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split(text);
    let unit: f64 = match unit {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        "KiB" => f64::from(1u32 << 10),
        "MiB" => f64::from(1u32 << 20),
        "GiB" => f64::from(1u32 << 30),
        "TiB" => 1024.0 * f64::from(1u32 << 30),
        _ => return None,
    };
    let size = number.parse::<f64>().ok()? * unit;
    (size.is_finite() && size < 1e18).then_some(size as u64)
}

/// `30d`, `12 h`, `2w`, `45min`, `10s`; none where it is no time, or has no unit.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = split(text);
    let unit = match unit {
        "s" => 1,
        "min" => 60,
        "h" => 60 * 60,
        "d" => 24 * 60 * 60,
        "w" => 7 * 24 * 60 * 60,
        _ => return None,
    };
    let seconds = number.parse::<u64>().ok()?.checked_mul(unit)?;
    Some(Duration::from_secs(seconds))
}

/// Number and unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("2 GiB"), Some(2 << 30));
        assert_eq!(bytes("1.5GB"), Some(1_500_000_000));
        assert_eq!(bytes(" 800 MB "), Some(800_000_000));
        for wrong in [
            "",
            "2",
            "GB",
            "-1 GB",
            "1.2.3 MB",
            "1 gb",
            "1e3 MB",
            "99999999999 TB",
        ] {
            assert_eq!(bytes(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn times_have_units() {
        assert_eq!(duration("30d"), Some(Duration::from_secs(30 * 86_400)));
        assert_eq!(duration("2 w"), Some(Duration::from_secs(14 * 86_400)));
        for wrong in ["", "30", "d", "1.5d", "-1d", "3 months", "99999999999999999999d"] {
            assert_eq!(duration(wrong), None, "{wrong}");
        }
    }
}
