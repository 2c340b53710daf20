//! A tree as a zip: sorted, no times but the given one, compressed by our own encoder, so that the same tree is the same
//! file everywhere.
//!
//! Source: PKWARE APPNOTE 6.3.10, sections 4.3 (structure), 4.5.3 (zip64).

use std::io::Write;

use super::{Node, Source, TreeError};
use crate::deflate;

/// Files larger than this are stored: compressing needs the whole file at hand, and what is this large (a model) does not
/// compress.
const COMPRESSED_UP_TO: u64 = 16 << 20;
/// What 32 bits cannot hold is in a zip64 field; this value says so.
const IN_ZIP64: u32 = u32::MAX;

struct Member {
    name: String,
    method: u16,
    crc32: u32,
    compressed: u64,
    size: u64,
    offset: u64,
    mode: u32,
}

/// Writes `tree`; `mtime` is in seconds since 1970 and shown in UTC, no earlier than 1980.
pub fn write<W: Write>(tree: &super::Tree, mut writer: W, mtime: u64) -> Result<W, TreeError> {
    let fault = |source| TreeError::Write {
        what: "the archive".to_owned(),
        source,
    };
    let (date, time) = dos_time(mtime);
    let mut members = Vec::new();
    let mut offset = 0;
    for (path, node) in tree.iter() {
        let (name, mode, content) = match node {
            Node::Directory { mode } => (
                format!("{path}/"),
                0o040_000 | mode,
                &Source::Bytes(Default::default()),
            ),
            Node::File { source, mode } => (path.to_owned(), 0o100_000 | mode, source),
            // A wheel or a bundle with a link in it is refused by those who read it (ours too).
            Node::Symlink { .. } => {
                return Err(TreeError::Path {
                    path: path.to_owned(),
                    why: "a symbolic link does not go into a zip",
                });
            }
        };
        let mut crc = crc32fast::Hasher::new();
        content.pieces(&mut |piece| {
            crc.update(piece);
            Ok(())
        })?;
        let mut member = Member {
            name,
            method: 0,
            crc32: crc.finalize(),
            compressed: content.size(),
            size: content.size(),
            offset,
            mode,
        };
        let mut packed = None;
        if (1..=COMPRESSED_UP_TO).contains(&member.size) {
            let stream = deflate::compress(&content.read()?);
            if (stream.len() as u64) < member.size {
                member.method = 8;
                member.compressed = stream.len() as u64;
                packed = Some(stream);
            }
        }
        let head = member.local(date, time);
        writer.write_all(&head).map_err(fault)?;
        match packed {
            Some(stream) => writer.write_all(&stream).map_err(fault)?,
            None => content.pieces(&mut |piece| writer.write_all(piece).map_err(fault))?,
        }
        offset += head.len() as u64 + member.compressed;
        members.push(member);
    }
    let mut directory = Vec::new();
    for member in &members {
        member.central(date, time, &mut directory);
    }
    let tail = end(members.len() as u64, directory.len() as u64, offset);
    writer.write_all(&directory).map_err(fault)?;
    writer.write_all(&tail).map_err(fault)?;
    Ok(writer)
}

fn short(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(IN_ZIP64)
}

impl Member {
    fn needs_zip64(&self) -> bool {
        short(self.size) == IN_ZIP64 || short(self.compressed) == IN_ZIP64 || short(self.offset) == IN_ZIP64
    }

    /// What both headers share, from "version needed" to the file name's length.
    fn common(&self, date: u16, time: u16, out: &mut Vec<u8>) {
        let version: u16 = if self.needs_zip64() { 45 } else { 20 };
        // Bit 11: the name is UTF-8.
        let flags: u16 = if self.name.is_ascii() { 0 } else { 1 << 11 };
        for half in [version, flags, self.method, time, date] {
            out.extend(half.to_le_bytes());
        }
        out.extend(self.crc32.to_le_bytes());
        // With a zip64 field both sizes are in it: a local header's has to have both (section 4.5.3).
        let (compressed, size) = if self.needs_zip64() {
            (IN_ZIP64, IN_ZIP64)
        } else {
            (short(self.compressed), short(self.size))
        };
        out.extend(compressed.to_le_bytes());
        out.extend(size.to_le_bytes());
        out.extend((self.name.len() as u16).to_le_bytes());
    }

    fn zip64(&self, with_offset: bool) -> Vec<u8> {
        let mut field = Vec::new();
        if self.needs_zip64() {
            let mut values = vec![self.size, self.compressed];
            if with_offset {
                values.push(self.offset);
            }
            field.extend(1u16.to_le_bytes());
            field.extend((8 * values.len() as u16).to_le_bytes());
            for value in values {
                field.extend(value.to_le_bytes());
            }
        }
        field
    }

    fn local(&self, date: u16, time: u16) -> Vec<u8> {
        let mut out = b"PK\x03\x04".to_vec();
        self.common(date, time, &mut out);
        let extra = self.zip64(false);
        out.extend((extra.len() as u16).to_le_bytes());
        out.extend(self.name.as_bytes());
        out.extend(extra);
        out
    }

    fn central(&self, date: u16, time: u16, out: &mut Vec<u8>) {
        out.extend(b"PK\x01\x02");
        // Made by: Unix, so that the mode means something.
        out.extend(((3u16 << 8) | 20).to_le_bytes());
        self.common(date, time, out);
        let extra = self.zip64(true);
        out.extend((extra.len() as u16).to_le_bytes());
        // Comment length, disk, internal attributes.
        out.extend([0; 6]);
        out.extend((self.mode << 16).to_le_bytes());
        let offset = if self.needs_zip64() {
            IN_ZIP64
        } else {
            short(self.offset)
        };
        out.extend(offset.to_le_bytes());
        out.extend(self.name.as_bytes());
        out.extend(extra);
    }
}

/// The end records; zip64's where the counts need them.
fn end(count: u64, size: u64, offset: u64) -> Vec<u8> {
    let mut out = Vec::new();
    let small_count = u16::try_from(count).unwrap_or(u16::MAX);
    if small_count == u16::MAX || short(size) == IN_ZIP64 || short(offset) == IN_ZIP64 {
        out.extend(b"PK\x06\x06");
        out.extend(44u64.to_le_bytes());
        out.extend(((3u16 << 8) | 45).to_le_bytes());
        out.extend(45u16.to_le_bytes());
        out.extend([0; 8]);
        for value in [count, count, size, offset] {
            out.extend(value.to_le_bytes());
        }
        out.extend(b"PK\x06\x07");
        out.extend([0; 4]);
        out.extend((offset + size).to_le_bytes());
        out.extend(1u32.to_le_bytes());
    }
    out.extend(b"PK\x05\x06");
    out.extend([0; 4]);
    out.extend(small_count.to_le_bytes());
    out.extend(small_count.to_le_bytes());
    out.extend(short(size).to_le_bytes());
    out.extend(short(offset).to_le_bytes());
    out.extend([0; 2]);
    out
}

/// MS-DOS date and time of `mtime` in UTC; 1980 is as early as they go.
fn dos_time(mtime: u64) -> (u16, u16) {
    let earliest = ((1 << 5) | 1, 0);
    let Ok(stamp) = jiff::Timestamp::from_second(i64::try_from(mtime).unwrap_or(0)) else {
        return earliest;
    };
    let at = stamp.to_zoned(jiff::tz::TimeZone::UTC);
    let Ok(years) = u16::try_from(i32::from(at.year()) - 1980) else {
        return earliest;
    };
    if years > 127 {
        return earliest;
    }
    let number = |value: i8| u16::from(value.unsigned_abs());
    let date = (years << 9) | (number(at.month()) << 5) | number(at.day());
    let time = (number(at.hour()) << 11) | (number(at.minute()) << 5) | (number(at.second()) / 2);
    (date, time)
}
