//! What a wheel that was built on this machine asks of the machine that it will run on.
//!
//! A build leaves `linux_x86_64` in a wheel's name, which says nothing of the C library. What its libraries were linked against is in
//! them: the newest `GLIBC_2.x` that they name.
//!
//! Source: PEP 600, "Core definition": a wheel's glibc is that of the newest symbol version it needs.

use crate::layers::{LayerError, wheel_file};
use crate::python::wheel::Wheel;
use crate::store::Store;

/// Libraries larger than this are read no further than to here: a symbol version stands in the first parts of a file.
const LARGEST: u64 = 1 << 30;

/// Whether it fits one kind of machine only.
pub fn is_native(wheel: &Wheel) -> bool {
    wheel.tags.iter().any(|tag| !tag.ends_with("-any"))
}

/// The newest glibc that the wheel's libraries and programs name, as (major, minor); `None` if none does.
pub fn glibc(store: &Store, wheel: &Wheel) -> Result<Option<(u16, u16)>, LayerError> {
    let file = wheel_file(store, wheel)?;
    let mut newest = None;
    for entry in wheel.entries.iter().filter(|entry| entry.size <= LARGEST) {
        let mut head: Option<bool> = None;
        let mut rest: Vec<u8> = Vec::new();
        crate::python::wheel::read_entry(&file, entry, &mut |piece| {
            let is_elf = *head.get_or_insert_with(|| piece.starts_with(b"\x7fELF"));
            if is_elf {
                // A name may lie across two pieces.
                rest.extend_from_slice(piece);
                newest = newest.max(named(&rest));
                let keep = rest.len().saturating_sub(LONGEST);
                rest.drain(..keep);
            }
            Ok(())
        })
        .map_err(|error| {
            LayerError::Wheel(crate::python::wheel::WheelError::Entry {
                wheel: wheel.file_name.clone(),
                entry: entry.name.clone(),
                rule: error.to_string(),
            })
        })?;
    }
    Ok(newest)
}

const PREFIX: &[u8] = b"GLIBC_";
/// `GLIBC_2.123`.
const LONGEST: usize = 16;

/// The newest `GLIBC_<major>.<minor>` in `bytes`.
fn named(bytes: &[u8]) -> Option<(u16, u16)> {
    let mut newest = None;
    let mut at = 0;
    while let Some(found) = bytes[at..]
        .windows(PREFIX.len())
        .position(|window| window == PREFIX)
    {
        at += found + PREFIX.len();
        let text: Vec<u8> = bytes[at..]
            .iter()
            .take(8)
            .copied()
            .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
            .collect();
        let parsed = String::from_utf8(text).ok().and_then(|text| {
            let mut parts = text.split('.');
            Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
        });
        newest = newest.max(parsed);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbol_versions_are_found_and_compared() {
        assert_eq!(named(b"\0GLIBC_2.17\0GLIBC_2.4\0GLIBC_2.34\0"), Some((2, 34)));
        assert_eq!(named(b"GLIBC_2.2.5\0GLIBC_PRIVATE\0"), Some((2, 2)));
        assert_eq!(named(b"nothing"), None);
        assert_eq!(named(b"GLIBC_"), None);
    }
}
