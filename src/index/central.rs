//! A zip's central directory, read from its end: enough to list a wheel's files and find its METADATA without the rest.
//!
//! Nothing is installed from what is read here; a wheel that is installed is validated whole by `python::wheel`.
//! Source: APPNOTE.TXT 6.3.10, sections 4.3.7 to 4.3.16.

use std::io::Read;

/// One entry of the central directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    pub method: u16,
    pub crc32: u32,
    pub compressed: u64,
    pub size: u64,
    /// Where its local header starts.
    pub offset: u64,
}

/// Where the central directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Directory {
    pub offset: u64,
    pub size: u64,
    pub entries: u64,
}

/// More entries than any wheel has: torch's has 12,000.
const MOST_ENTRIES: u64 = 200_000;

/// Finds the end record in `tail`, the last bytes of a file of `length` bytes. Fails with the rule that is broken.
pub fn find(tail: &[u8], length: u64) -> Result<Directory, &'static str> {
    let start = tail
        .windows(4)
        .rposition(|window| window == b"PK\x05\x06")
        .filter(|at| tail.len() - at >= 22)
        .ok_or("it has no end of a zip")?;
    let record = &tail[start..];
    let mut directory = Directory {
        entries: u64::from(u16_at(record, 10)),
        size: u64::from(u32_at(record, 12)),
        offset: u64::from(u32_at(record, 16)),
    };
    if directory.entries == 0xffff || directory.size == 0xffff_ffff || directory.offset == 0xffff_ffff {
        let locator = start
            .checked_sub(20)
            .map(|at| &tail[at..start])
            .filter(|locator| locator.starts_with(b"PK\x06\x07"))
            .ok_or("its zip64 locator is missing")?;
        let at = u64_at(locator, 8)
            .checked_sub(length - tail.len() as u64)
            .and_then(|at| usize::try_from(at).ok())
            .ok_or("its zip64 record is not near its end")?;
        let record = tail
            .get(at..at + 56)
            .filter(|record| record.starts_with(b"PK\x06\x06"))
            .ok_or("its zip64 record is missing")?;
        directory = Directory {
            entries: u64_at(record, 32),
            size: u64_at(record, 40),
            offset: u64_at(record, 48),
        };
    }
    let end = directory.offset.checked_add(directory.size);
    if end.is_none_or(|end| end > length) || directory.entries > MOST_ENTRIES {
        return Err("its central directory is not inside the file");
    }
    Ok(directory)
}

/// Reads the entries of a central directory.
pub fn entries(mut bytes: &[u8], count: u64) -> Result<Vec<Entry>, &'static str> {
    let mut found = Vec::with_capacity(usize::try_from(count.min(MOST_ENTRIES)).unwrap_or_default());
    for _ in 0..count {
        if bytes.len() < 46 || !bytes.starts_with(b"PK\x01\x02") {
            return Err("its central directory is cut short");
        }
        let lengths = [28, 30, 32].map(|at| usize::from(u16_at(bytes, at)));
        let total = 46 + lengths.iter().sum::<usize>();
        if bytes.len() < total {
            return Err("its central directory is cut short");
        }
        let name =
            std::str::from_utf8(&bytes[46..46 + lengths[0]]).map_err(|_| "an entry's name is not UTF-8")?;
        let mut entry = Entry {
            name: name.to_owned(),
            method: u16_at(bytes, 10),
            crc32: u32_at(bytes, 16),
            compressed: u64::from(u32_at(bytes, 20)),
            size: u64::from(u32_at(bytes, 24)),
            offset: u64::from(u32_at(bytes, 42)),
        };
        zip64(&mut entry, &bytes[46 + lengths[0]..46 + lengths[0] + lengths[1]]);
        found.push(entry);
        bytes = &bytes[total..];
    }
    Ok(found)
}

/// The zip64 extra field replaces, in this order, the values that did not fit.
fn zip64(entry: &mut Entry, mut extra: &[u8]) {
    while extra.len() >= 4 {
        let (kind, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(mut field) = extra.get(4..4 + length) else {
            return;
        };
        if kind == 1 {
            for value in [&mut entry.size, &mut entry.compressed, &mut entry.offset] {
                if *value == 0xffff_ffff && field.len() >= 8 {
                    *value = u64_at(field, 0);
                    field = &field[8..];
                }
            }
        }
        extra = &extra[4 + length..];
    }
}

/// The content of `entry`, given the bytes from its local header on. Refuses more than `limit` bytes and a wrong CRC.
pub fn content(entry: &Entry, from_header: &[u8], limit: u64) -> Result<Vec<u8>, &'static str> {
    if from_header.len() < 30 || !from_header.starts_with(b"PK\x03\x04") {
        return Err("a local header is missing");
    }
    let start = 30 + usize::from(u16_at(from_header, 26)) + usize::from(u16_at(from_header, 28));
    let end = usize::try_from(entry.compressed)
        .ok()
        .and_then(|length| start.checked_add(length));
    let data = end
        .and_then(|end| from_header.get(start..end))
        .ok_or("an entry is cut short")?;
    if entry.size > limit {
        return Err("an entry is too large");
    }
    let mut content = Vec::new();
    match entry.method {
        0 => content.extend_from_slice(data),
        8 => {
            flate2::read::DeflateDecoder::new(data)
                .take(limit + 1)
                .read_to_end(&mut content)
                .map_err(|_| "an entry's compressed data is broken")?;
        }
        _ => return Err("an entry uses a compression that wheels may not"),
    }
    if content.len() as u64 != entry.size || crc32fast::hash(&content) != entry.crc32 {
        return Err("an entry's content is not what the directory says");
    }
    Ok(content)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// The directory and entries of a zip that is on this machine, and a way to its bytes.
pub fn open(file: &std::fs::File) -> std::io::Result<Vec<Entry>> {
    use std::io::{Error, ErrorKind};
    use std::os::unix::fs::FileExt;
    let invalid = |rule: &'static str| Error::new(ErrorKind::InvalidData, rule);
    let length = file.metadata()?.len();
    let mut tail = vec![0; usize::try_from(length.min(66 << 10)).unwrap_or_default()];
    let start = length - tail.len() as u64;
    file.read_exact_at(&mut tail, start)?;
    let directory = find(&tail, length).map_err(invalid)?;
    let mut bytes =
        vec![0; usize::try_from(directory.size).map_err(|_| invalid("its directory is too large"))?];
    file.read_exact_at(&mut bytes, directory.offset)?;
    entries(&bytes, directory.entries).map_err(invalid)
}

/// How many bytes from `entry`'s local header on surely hold its content: extra fields there are rarely long.
pub fn span(entry: &Entry) -> u64 {
    30 + entry.name.len() as u64 + 512 + entry.compressed
}

/// The one METADATA of a wheel's entries.
pub fn metadata_entry(entries: &[Entry]) -> Result<&Entry, &'static str> {
    let mut found = entries.iter().filter(|entry| {
        entry
            .name
            .strip_suffix(".dist-info/METADATA")
            .is_some_and(|folder| !folder.contains('/'))
    });
    match (found.next(), found.next()) {
        (Some(entry), None) => Ok(entry),
        (None, _) => Err("it has no METADATA"),
        _ => Err("it has more than one METADATA"),
    }
}
