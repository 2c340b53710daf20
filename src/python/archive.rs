//! A zip archive as two readers would agree on: every fact that stands in it twice must be the same twice.
//!
//! It takes random access to bytes and gives members with checked extents. What two parsers could read differently
//! (a central directory that disagrees with the local headers, overlapping members, bytes that belong to nothing, a
//! second end record) is refused, not interpreted. It does not know wheels.
//!
//! Source: PKWARE APPNOTE 6.3.10.

use std::collections::HashMap;
use std::io;

/// Random access to bytes that do not change: a slice, a file, a window of a download.
pub trait ReadAt {
    /// Fills `buffer` from `offset`, or fails.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    /// In bytes.
    fn length(&self) -> io::Result<u64>;
}

impl ReadAt for [u8] {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let part = usize::try_from(offset)
            .ok()
            .and_then(|start| self.get(start..)?.get(..buffer.len()))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(part);
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl ReadAt for std::fs::File {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(self, buffer, offset)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

/// How a member's bytes are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    Stored,
    Deflated,
}

/// One member, folders included (their names end in `/`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub method: Method,
    pub crc32: u32,
    pub compressed_size: u64,
    pub size: u64,
    /// Where its compressed bytes start in the archive.
    pub data_offset: u64,
    /// Unix mode with the file type, 0 where the archive was not made on Unix.
    pub mode: u32,
}

/// The most members an archive may have. The largest real wheels have under 30,000.
pub const MOST_MEMBERS: u64 = 200_000;
/// The largest central directory that is read, in bytes.
const LARGEST_DIRECTORY: u64 = 64 << 20;
/// The longest member name, in bytes: Linux' PATH_MAX.
const LONGEST_NAME: usize = 4096;
/// A file may expand to this many times its size, plus [`EXPANSION_FREE`]. Real wheels stay below 20.
pub const EXPANSION: u64 = 100;
/// What any archive may expand to, in bytes.
pub const EXPANSION_FREE: u64 = 256 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    #[error("it is not a zip archive: {0}")]
    NotZip(&'static str),
    #[error("{0}")]
    Structure(&'static str),
    /// `entry` is shortened and escaped: it may hold anything.
    #[error("entry `{entry}`: {rule}")]
    Member { entry: String, rule: &'static str },
    #[error("{what} is over the limit of {limit}")]
    Limit { what: &'static str, limit: u64 },
}

use ArchiveError::{NotZip, Structure};

/// A name as it may be shown.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    let mut short: String = text.chars().take(120).flat_map(char::escape_debug).collect();
    if text.chars().nth(120).is_some() {
        short.push('…');
    }
    short
}

/// Reads little-endian numbers off the front of a slice.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_le_bytes)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }
}

fn read<S: ReadAt + ?Sized>(source: &S, offset: u64, count: usize) -> Result<Vec<u8>, ArchiveError> {
    let mut buffer = vec![0; count];
    source
        .read_exact_at(&mut buffer, offset)
        .map_err(ArchiveError::Read)?;
    Ok(buffer)
}

/// All members, in the order of their bytes in the archive, each checked against its local header.
pub fn members<S: ReadAt + ?Sized>(source: &S) -> Result<Vec<Member>, ArchiveError> {
    let length = source.length().map_err(ArchiveError::Read)?;
    let directory = find_directory(source, length)?;
    let mut found = read_directory(source, &directory)?;
    found.sort_by_key(|central| central.offset);

    // Every byte before the directory belongs to exactly one member: nothing in front, between, behind or twice.
    let mut members = Vec::with_capacity(found.len());
    let mut at = 0;
    let ends: Vec<u64> = found
        .iter()
        .skip(1)
        .map(|central| central.offset)
        .chain([directory.offset])
        .collect();
    let mut expanded = 0u64;
    for (central, end) in found.into_iter().zip(ends) {
        let refuse = |rule| ArchiveError::Member {
            entry: shown(&central.name),
            rule,
        };
        if central.offset < at {
            return Err(refuse("it overlaps another entry"));
        }
        if central.offset > at {
            return Err(refuse("bytes that belong to no entry stand before it"));
        }
        let data_offset = check_local(source, &central, end)?;
        at = end;
        expanded = expanded.saturating_add(central.size);
        let name = String::from_utf8(central.name.clone()).map_err(|_| refuse("its name is not UTF-8"))?;
        members.push(Member {
            name,
            method: central.method,
            crc32: central.crc32,
            compressed_size: central.compressed_size,
            size: central.size,
            data_offset,
            mode: central.mode,
        });
    }
    if at != directory.offset {
        return Err(Structure(
            "bytes that belong to no entry stand before the central directory",
        ));
    }
    let limit = length.saturating_mul(EXPANSION).saturating_add(EXPANSION_FREE);
    if expanded > limit {
        return Err(ArchiveError::Limit {
            what: "the size that it expands to",
            limit,
        });
    }
    let mut seen: HashMap<&str, &Member> = HashMap::with_capacity(members.len());
    for member in &members {
        if let Some(other) = seen.insert(&member.name, member)
            && (other.crc32, other.size) != (member.crc32, member.size)
        {
            return Err(ArchiveError::Member {
                entry: shown(member.name.as_bytes()),
                rule: "the name is there twice, with different content",
            });
        }
    }
    Ok(members)
}

/// Where the central directory is.
struct Directory {
    offset: u64,
    size: u64,
    count: u64,
}

const END_SIZE: u64 = 22;

fn find_directory<S: ReadAt + ?Sized>(source: &S, length: u64) -> Result<Directory, ArchiveError> {
    if length < END_SIZE {
        return Err(NotZip("it is too short"));
    }
    // The end record, a comment of at most 65,535 bytes, the end of the file.
    let tail_size = length.min(END_SIZE + 0xffff);
    let tail_offset = length - tail_size;
    let tail = read(source, tail_offset, tail_size as usize)?;
    let mut ends = (0..=tail.len() - END_SIZE as usize).filter(|at| {
        let comment = u16::from_le_bytes([tail[at + 20], tail[at + 21]]);
        tail[*at..].starts_with(b"PK\x05\x06") && at + END_SIZE as usize + usize::from(comment) == tail.len()
    });
    let at = ends
        .next()
        .ok_or(NotZip("no end record ends where the file does"))?;
    if ends.next().is_some() {
        return Err(Structure(
            "two end records fit: readers would see different archives",
        ));
    }
    // A reader that stops at the last signature would start inside the comment.
    let comment = &tail[at + END_SIZE as usize..];
    if comment
        .windows(4)
        .any(|window| window.starts_with(b"PK") && window[2] <= 8)
    {
        return Err(Structure("its comment contains zip records"));
    }
    let end_offset = tail_offset + at as u64;
    let mut fields = Fields(&tail[at + 4..]);
    let mut short = || fields.u16().unwrap_or(0);
    let (disk, directory_disk, count_here, count) = (short(), short(), short(), short());
    let (size, offset) = (fields.u32().unwrap_or(0), fields.u32().unwrap_or(0));
    if (disk, directory_disk) != (0, 0) || count_here != count {
        return Err(Structure("it is one part of a divided archive"));
    }

    let mut directory = Directory {
        offset: offset.into(),
        size: size.into(),
        count: count.into(),
    };
    let mut directory_end = end_offset;
    let has_locator = end_offset >= 20 && read(source, end_offset - 20, 4)? == b"PK\x06\x07";
    if has_locator {
        let (wide, wide_offset) = find_wide_directory(source, end_offset - 20)?;
        let agrees = |narrow: u64, most: u64, wide: u64| narrow == wide || narrow == most;
        if !agrees(directory.offset, u32::MAX.into(), wide.offset)
            || !agrees(directory.size, u32::MAX.into(), wide.size)
            || !agrees(directory.count, u16::MAX.into(), wide.count)
        {
            return Err(Structure("its end record and its zip64 end record disagree"));
        }
        directory = wide;
        directory_end = wide_offset;
    }
    if directory.count > MOST_MEMBERS {
        return Err(ArchiveError::Limit {
            what: "its number of entries",
            limit: MOST_MEMBERS,
        });
    }
    if directory.size > LARGEST_DIRECTORY {
        return Err(ArchiveError::Limit {
            what: "its central directory's size in bytes",
            limit: LARGEST_DIRECTORY,
        });
    }
    if directory.offset.checked_add(directory.size) != Some(directory_end) {
        return Err(Structure(
            "its central directory is not where the end record says",
        ));
    }
    Ok(directory)
}

/// The zip64 end record that the locator at `locator` points to, and where it is (sections 4.3.14, 4.3.15).
fn find_wide_directory<S: ReadAt + ?Sized>(
    source: &S,
    locator: u64,
) -> Result<(Directory, u64), ArchiveError> {
    let broken = || Structure("its zip64 end record is broken");
    let bytes = read(source, locator, 20)?;
    let mut fields = Fields(&bytes[4..]);
    let disk = fields.u32().ok_or_else(broken)?;
    let offset = fields.u64().ok_or_else(broken)?;
    let disks = fields.u32().ok_or_else(broken)?;
    // Nothing stands between the record and its locator.
    if disk != 0 || disks > 1 || offset.checked_add(56) != Some(locator) {
        return Err(broken());
    }
    let bytes = read(source, offset, 56)?;
    let mut fields = Fields(&bytes);
    if fields.take(4) != Some(b"PK\x06\x06") || fields.u64() != Some(44) {
        return Err(broken());
    }
    fields.take(4);
    let disks = (fields.u32(), fields.u32());
    let mut long = || fields.u64().ok_or_else(broken);
    let (count_here, count, size, directory_offset) = (long()?, long()?, long()?, long()?);
    if disks != (Some(0), Some(0)) || count_here != count {
        return Err(broken());
    }
    let directory = Directory {
        offset: directory_offset,
        size,
        count,
    };
    Ok((directory, offset))
}

/// What the central directory says of a member.
struct Central {
    name: Vec<u8>,
    flags: u16,
    method: Method,
    raw_method: u16,
    crc32: u32,
    compressed_size: u64,
    size: u64,
    offset: u64,
    mode: u32,
}

const ENCRYPTED: u16 = 1 | 1 << 6 | 1 << 13;
const DESCRIPTOR: u16 = 1 << 3;
const UTF8: u16 = 1 << 11;

fn read_directory<S: ReadAt + ?Sized>(
    source: &S,
    directory: &Directory,
) -> Result<Vec<Central>, ArchiveError> {
    let bytes = read(source, directory.offset, directory.size as usize)?;
    let mut fields = Fields(&bytes);
    let mut found = Vec::new();
    while !fields.0.is_empty() {
        if found.len() as u64 == directory.count {
            return Err(Structure(
                "its central directory is longer than its number of entries",
            ));
        }
        found.push(read_central(&mut fields)?);
    }
    if (found.len() as u64) < directory.count {
        return Err(Structure(
            "its central directory has fewer entries than the end record says",
        ));
    }
    Ok(found)
}

fn read_central(fields: &mut Fields<'_>) -> Result<Central, ArchiveError> {
    let cut = || Structure("its central directory is cut off");
    if fields.take(4) != Some(b"PK\x01\x02") {
        return Err(Structure("its central directory holds something else"));
    }
    let made_by = fields.u16().ok_or_else(cut)?;
    fields.u16().ok_or_else(cut)?;
    let flags = fields.u16().ok_or_else(cut)?;
    let raw_method = fields.u16().ok_or_else(cut)?;
    fields.u32().ok_or_else(cut)?;
    let crc32 = fields.u32().ok_or_else(cut)?;
    let (compressed, size) = (fields.u32().ok_or_else(cut)?, fields.u32().ok_or_else(cut)?);
    let lengths = (fields.u16(), fields.u16(), fields.u16(), fields.u16());
    let (Some(name_length), Some(extra_length), Some(comment_length), Some(disk)) = lengths else {
        return Err(cut());
    };
    fields.u16().ok_or_else(cut)?;
    let attributes = fields.u32().ok_or_else(cut)?;
    let offset = fields.u32().ok_or_else(cut)?;
    let name = fields.take(name_length.into()).ok_or_else(cut)?;
    let extra = fields.take(extra_length.into()).ok_or_else(cut)?;
    fields.take(comment_length.into()).ok_or_else(cut)?;

    let refuse = |rule| ArchiveError::Member {
        entry: shown(name),
        rule,
    };
    if name.is_empty() {
        return Err(refuse("its name is empty"));
    }
    if name.len() > LONGEST_NAME {
        return Err(refuse("its name is longer than 4096 bytes"));
    }
    if std::str::from_utf8(name).is_err() || (!name.is_ascii() && flags & UTF8 == 0) {
        return Err(refuse("its name is not marked as UTF-8, or is not"));
    }
    if flags & ENCRYPTED != 0 {
        return Err(refuse("it is encrypted"));
    }
    let method = match raw_method {
        0 => Method::Stored,
        8 => Method::Deflated,
        _ => {
            return Err(refuse(
                "it is neither stored nor deflated (bzip2, LZMA and others are not allowed in wheels)",
            ));
        }
    };
    if disk != 0 && disk != u16::MAX {
        return Err(refuse("it is on another part of a divided archive"));
    }
    let wide = wide_fields(
        extra,
        name,
        [size == u32::MAX, compressed == u32::MAX, offset == u32::MAX],
    )?;
    let central = Central {
        name: name.to_vec(),
        flags,
        method,
        raw_method,
        crc32,
        size: wide[0].unwrap_or(size.into()),
        compressed_size: wide[1].unwrap_or(compressed.into()),
        offset: wide[2].unwrap_or(offset.into()),
        mode: if made_by >> 8 == 3 { attributes >> 16 } else { 0 },
    };
    if method == Method::Stored && central.size != central.compressed_size {
        return Err(refuse("it is stored, and has two sizes"));
    }
    Ok(central)
}

/// The zip64 values that `extra` holds for those of size, compressed size, offset that are `wanted` (section 4.5.3). An
/// extra field that gives the member another name is refused (Info-ZIP Unicode Path).
fn wide_fields(extra: &[u8], name: &[u8], wanted: [bool; 3]) -> Result<[Option<u64>; 3], ArchiveError> {
    let refuse = |rule| ArchiveError::Member {
        entry: shown(name),
        rule,
    };
    let mut values = [None; 3];
    let mut seen = false;
    let mut fields = Fields(extra);
    // Fewer than four bytes at the end are padding: alignment tools write it.
    while fields.0.len() >= 4 {
        let (Some(id), Some(length)) = (fields.u16(), fields.u16()) else {
            break;
        };
        let Some(body) = fields.take(length.into()) else {
            return Err(refuse("its extra fields are cut off"));
        };
        match id {
            0x0001 => {
                if std::mem::replace(&mut seen, true) {
                    return Err(refuse("it has two zip64 fields"));
                }
                let mut body = Fields(body);
                for (value, wanted) in values.iter_mut().zip(wanted) {
                    if wanted {
                        *value = Some(
                            body.u64()
                                .ok_or_else(|| refuse("its zip64 field lacks a value"))?,
                        );
                    }
                }
            }
            0x7075 if body.get(5..) != Some(name) => {
                return Err(refuse("an extra field gives it another name"));
            }
            _ => {}
        }
    }
    if wanted.contains(&true) && !seen {
        return Err(refuse("its size needs a zip64 field, and there is none"));
    }
    Ok(values)
}

/// Compares a local header with the directory's entry and finds the data; all bytes up to `end` must be the member's.
fn check_local<S: ReadAt + ?Sized>(source: &S, central: &Central, end: u64) -> Result<u64, ArchiveError> {
    let refuse = |rule| ArchiveError::Member {
        entry: shown(&central.name),
        rule,
    };
    const DIFFERS: &str = "its local header and the central directory disagree";
    let outside = || refuse("it reaches past its place in the archive");
    let head_end = central.offset.checked_add(30).filter(|at| *at <= end);
    let head_end = head_end.ok_or_else(outside)?;
    let head = read(source, central.offset, 30)?;
    let mut fields = Fields(&head);
    if fields.take(4) != Some(b"PK\x03\x04") {
        return Err(refuse(
            "there is no local header where the central directory says",
        ));
    }
    fields.take(2);
    let (flags, method) = (fields.u16().unwrap_or(0), fields.u16().unwrap_or(0));
    fields.take(4);
    let mut long = || fields.u32().unwrap_or(0);
    let (crc32, compressed, size) = (long(), long(), long());
    let name_length = u64::from(fields.u16().unwrap_or(0));
    let extra_length = u64::from(fields.u16().unwrap_or(0));
    let data = head_end + name_length + extra_length;
    let data_end = data.checked_add(central.compressed_size).filter(|at| *at <= end);
    let data_end = data_end.ok_or_else(outside)?;
    let rest = read(source, head_end, (name_length + extra_length) as usize)?;
    let (name, extra) = rest.split_at(name_length as usize);
    if name != central.name || method != central.raw_method {
        return Err(refuse(DIFFERS));
    }
    let compared = ENCRYPTED | DESCRIPTOR | UTF8;
    if flags & compared != central.flags & compared {
        return Err(refuse(DIFFERS));
    }
    let wide = wide_fields(extra, name, [size == u32::MAX, compressed == u32::MAX, false])?;
    let told = (
        crc32,
        wide[1].unwrap_or(compressed.into()),
        wide[0].unwrap_or(size.into()),
    );
    let expected = (central.crc32, central.compressed_size, central.size);
    let descriptor = end - data_end;
    if central.flags & DESCRIPTOR == 0 {
        if told != expected {
            return Err(refuse(DIFFERS));
        }
        if descriptor != 0 {
            return Err(refuse("bytes that belong to no entry stand behind it"));
        }
        return Ok(data);
    }
    // The values follow the data; here they may be absent, and not different (section 4.4.4).
    if told != expected && (told.0, told.1, told.2) != (0, 0, 0) {
        return Err(refuse(DIFFERS));
    }
    if !(12..=24).contains(&descriptor)
        || !is_descriptor(&read(source, data_end, descriptor as usize)?, central)
    {
        return Err(refuse(
            "its data descriptor is missing or disagrees with the central directory",
        ));
    }
    Ok(data)
}

/// Whether `bytes` are exactly the member's data descriptor: with or without signature, sizes of 4 or 8 bytes
/// (section 4.3.9).
fn is_descriptor(bytes: &[u8], central: &Central) -> bool {
    [false, true].into_iter().any(|wide| {
        let mut body = central.crc32.to_le_bytes().to_vec();
        for value in [central.compressed_size, central.size] {
            let value = value.to_le_bytes();
            if !wide && value[4..] != [0; 4] {
                return false;
            }
            body.extend(if wide { &value[..] } else { &value[..4] });
        }
        bytes == body || bytes.strip_prefix(b"PK\x07\x08") == Some(&body)
    })
}
