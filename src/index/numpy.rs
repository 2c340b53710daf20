//! Wheels that numpy 2 breaks: compiled against numpy 1, and published without a bound that would say so.
//!
//! A module that is compiled against numpy asks for its C interface by a name that stands in the binary: with numpy 1's headers
//! `numpy.core._multiarray_umath` alone, with numpy 2's `numpy._core._multiarray_umath` first. Only the latter load with numpy 2
//! (and with 1). So a wheel that is on this machine is read and the answer is certain; of another one its age tells that it may be.
//! It takes a lock and gives findings; nothing is downloaded for them.

use std::io::Read;
use std::os::unix::fs::FileExt;

use serde::{Deserialize, Serialize};
use uv_pep440::Version;

use super::central::{self, Entry};
use crate::lock::{File, Package};
use crate::python::target::Target;
use crate::store::Store;

/// Microseconds since 1970 at 2024-03-01: the first numpy 2 that anything could be built against came eleven days later.
const FIRST_NUMPY_2: i64 = 1_709_251_200_000_000;
/// Wheels beyond this are not read for a warning's sake, in bytes.
const LARGEST: u64 = 512 << 20;

const OLD: &[u8] = b"numpy.core._multiarray_umath";
const NEW: &[u8] = b"numpy._core._multiarray_umath";

/// A wheel that does not go with the locked numpy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// `pandas 2.1.0`
    pub package: String,
    pub name: String,
    pub numpy: Version,
    /// Its binaries were read; otherwise it is only old enough.
    pub certain: bool,
}

/// What a wheel's binaries ask numpy for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Interface {
    None,
    /// Numpy 1's alone.
    One,
    Two,
}

/// The packages among `selected`, which `target` installs together, that are built against numpy 1 where numpy 2 is one of them.
pub fn built_against_1(selected: &[&Package], target: &Target, store: Option<&Store>) -> Vec<Finding> {
    let numpy = selected.iter().find(|package| package.name.as_ref() == "numpy");
    let two = Version::new([2]);
    let Some(numpy) = numpy
        .and_then(|numpy| numpy.version.clone())
        .filter(|version| *version >= two)
    else {
        return Vec::new();
    };
    let (markers, tags) = (target.markers(), target.tags());
    let mut findings = Vec::new();
    for package in selected {
        let needs = package.requires.iter().any(|requirement| {
            requirement.name.as_ref() == "numpy" && requirement.marker.evaluate(&markers, &package.extras)
        });
        let wheel = package
            .wheel_for_tags(&tags)
            .filter(|wheel| !wheel.name.ends_with("-any.whl"));
        let Some(wheel) = wheel.filter(|_| needs) else {
            continue;
        };
        let certain = match store.and_then(|store| interface(wheel, store)) {
            Some(Interface::One) => true,
            Some(_) => continue,
            None if wheel
                .upload_time
                .is_some_and(|time| time.as_microsecond() < FIRST_NUMPY_2) =>
            {
                false
            }
            None => continue,
        };
        findings.push(Finding {
            package: package.label(),
            name: package.name.to_string(),
            numpy: numpy.clone(),
            certain,
        });
    }
    findings
}

/// What the binaries of a wheel in the store ask for; `None` if it is not there, or cannot be read.
fn interface(wheel: &File, store: &Store) -> Option<Interface> {
    let key = wheel.digest.hex();
    if let Some(known) = store.record("numpy-interface", &key) {
        return Some(known);
    }
    if store.blob_size(&wheel.digest)? > LARGEST {
        return None;
    }
    let file = store.verified(&wheel.digest).ok()??;
    let mut found = Interface::None;
    for entry in central::open(&file).ok()? {
        if !is_binary(&entry.name) {
            continue;
        }
        match asked_for(&file, &entry) {
            // One module that does not load is enough.
            Some(Interface::One) => {
                found = Interface::One;
                break;
            }
            Some(Interface::Two) => found = Interface::Two,
            _ => {}
        }
    }
    let _ = store.keep_record("numpy-interface", &key, &found);
    Some(found)
}

fn is_binary(name: &str) -> bool {
    name.ends_with(".so") || name.ends_with(".pyd") || name.ends_with(".dylib")
}

/// Looks for both names in one member.
fn asked_for(file: &std::fs::File, entry: &Entry) -> Option<Interface> {
    let mut header = [0; 30];
    file.read_exact_at(&mut header, entry.offset).ok()?;
    let length = |at: usize| u64::from(u16::from_le_bytes([header[at], header[at + 1]]));
    let start = entry.offset + 30 + length(26) + length(28);
    let raw = Stretch { file, at: start }.take(entry.compressed);
    let (mut stored, mut deflated);
    let content: &mut dyn Read = match entry.method {
        0 => {
            stored = raw;
            &mut stored
        }
        8 => {
            deflated = flate2::read::DeflateDecoder::new(std::io::BufReader::new(raw));
            &mut deflated
        }
        _ => return None,
    };
    let mut limited = content.take(LARGEST);
    let (mut window, mut old) = (Vec::with_capacity(2 << 20), false);
    loop {
        // What a name could begin in stays, so that one that lies across two pieces is found.
        let kept = window.len().min(NEW.len());
        window.drain(..window.len() - kept);
        if (&mut limited).take(1 << 20).read_to_end(&mut window).ok()? == 0 {
            break;
        }
        let has = |name: &[u8]| window.windows(name.len()).any(|piece| piece == name);
        if has(NEW) {
            return Some(Interface::Two);
        }
        old |= has(OLD);
    }
    Some(if old { Interface::One } else { Interface::None })
}

/// A file from a place on.
struct Stretch<'a> {
    file: &'a std::fs::File,
    at: u64,
}

impl Read for Stretch<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buffer, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
