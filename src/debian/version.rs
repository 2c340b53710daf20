//! Debian's version order.
//!
//! Source: Debian Policy, section 5.6.12 "Version"; deb-version(7).

use std::cmp::Ordering;

/// Compares two versions, `[epoch:]upstream[-revision]`. Total over any text; equal where dpkg says equal.
pub fn compare(one: &str, other: &str) -> Ordering {
    let (one_epoch, one) = epoch(one);
    let (other_epoch, other) = epoch(other);
    let (one_upstream, one_revision) = one.rsplit_once('-').unwrap_or((one, ""));
    let (other_upstream, other_revision) = other.rsplit_once('-').unwrap_or((other, ""));
    one_epoch
        .cmp(&other_epoch)
        .then_with(|| part(one_upstream, other_upstream))
        .then_with(|| part(one_revision, other_revision))
}

/// The upstream part: `2.36` of `2.36-9+deb12u14`, `1.2.13.dfsg` of `1:1.2.13.dfsg-1`.
pub fn upstream(version: &str) -> &str {
    let (_, version) = epoch(version);
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}

/// The version of the source that a package was built from: without the `+b1` of a rebuild on one architecture.
pub fn source(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => {
            source
        }
        _ => version,
    }
}

fn epoch(version: &str) -> (u64, &str) {
    match version.split_once(':') {
        Some((epoch, rest)) => (epoch.parse().unwrap_or(0), rest),
        None => (0, version),
    }
}

/// Text and numbers in turn: text where letters sort before all else and `~` before the end, numbers by value.
fn part(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one.as_bytes(), other.as_bytes());
    while !one.is_empty() || !other.is_empty() {
        let text = |bytes: &[u8]| bytes.iter().position(u8::is_ascii_digit).unwrap_or(bytes.len());
        let (a, b) = (text(one), text(other));
        for index in 0..a.max(b) {
            let weight = |bytes: &[u8], end: usize| match bytes[..end].get(index) {
                None => 0,
                Some(b'~') => -1,
                Some(byte) if byte.is_ascii_alphabetic() => i32::from(*byte),
                Some(byte) => i32::from(*byte) + 256,
            };
            let order = weight(one, a).cmp(&weight(other, b));
            if order.is_ne() {
                return order;
            }
        }
        (one, other) = (&one[a..], &other[b..]);
        let number = |bytes: &[u8]| {
            bytes
                .iter()
                .position(|byte| !byte.is_ascii_digit())
                .unwrap_or(bytes.len())
        };
        let (a, b) = (number(one), number(other));
        let digits = |bytes: &[u8]| {
            let zeros = bytes.iter().take_while(|byte| **byte == b'0').count();
            bytes[zeros..].to_vec()
        };
        let (left, right) = (digits(&one[..a]), digits(&other[..b]));
        // Without leading zeros the longer number is the larger one: no number is too long to compare.
        let order = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
        if order.is_ne() {
            return order;
        }
        (one, other) = (&one[a..], &other[b..]);
    }
    Ordering::Equal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_sort_as_dpkg_sorts_them() {
        // Ascending; each also differs from all the others.
        let sorted = [
            "0~~",
            "0~~a",
            "0~",
            "0",
            "1.0~beta1~svn1245",
            "1.0~beta1",
            "1.0",
            "1.0-1",
            "1.0-1+deb12u1",
            "1.0-1+deb12u9",
            "1.0-1+deb12u10",
            "1.0a",
            "1.0+x",
            "1.0.1",
            "1.2",
            "1.10",
            "20230311+deb12u1",
            "20250419~deb12u2",
            "20250419",
            "99999999999999999999999999",
            "1:0.1",
        ];
        for (index, one) in sorted.iter().enumerate() {
            for (position, other) in sorted.iter().enumerate() {
                assert_eq!(compare(one, other), index.cmp(&position), "{one} against {other}");
            }
        }
        assert_eq!(compare("1.0-0", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
    }

    #[test]
    fn the_upstream_part_is_what_users_know() {
        assert_eq!(upstream("2.36-9+deb12u14"), "2.36");
        assert_eq!(upstream("1:1.2.13.dfsg-1"), "1.2.13.dfsg");
        assert_eq!(upstream("3.11.2-6+deb12u9"), "3.11.2");
        assert_eq!(source("3.11.2-6+deb12u9+b2"), "3.11.2-6+deb12u9");
        assert_eq!(source("1.0+beta"), "1.0+beta");
    }
}
