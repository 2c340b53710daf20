//! Tar headers: ustar, with a PAX record only for what ustar cannot say. Owner 0:0 with no names; nothing of the machine
//! gets in.
//!
//! Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".

use super::Node;

/// The unit of a tar.
pub const BLOCK: usize = 512;
/// Two empty blocks end an archive.
pub const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];
/// The largest size that eleven octal digits hold.
const LARGEST: u64 = 0o77_777_777_777;

/// What one header says.
#[derive(Debug, Clone, Copy)]
pub struct Header<'a> {
    /// Relative, without a slash at its end.
    pub path: &'a str,
    pub kind: Kind<'a>,
    pub mode: u32,
    /// Seconds since 1970.
    pub mtime: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind<'a> {
    /// The content's size in bytes; it follows the header, padded.
    File(u64),
    Directory,
    Symlink(&'a str),
}

impl<'a> Header<'a> {
    pub fn of(path: &'a str, node: &'a Node, mtime: u64) -> Self {
        let (kind, mode) = match node {
            Node::Directory { mode } => (Kind::Directory, *mode),
            Node::File { source, mode } => (Kind::File(source.size()), *mode),
            Node::Symlink { target } => (Kind::Symlink(target), 0o777),
        };
        Self {
            path,
            kind,
            mode,
            mtime,
        }
    }
}

/// The zeros between a content of `size` bytes and the next block.
pub fn padding(size: u64) -> &'static [u8] {
    let over = (size % BLOCK as u64) as usize;
    &END[..(BLOCK - over) % BLOCK]
}

/// Appends the header's blocks to `out`.
pub fn header(header: &Header<'_>, out: &mut Vec<u8>) {
    let (path, flag, size, link) = match header.kind {
        Kind::File(size) => (header.path.to_owned(), b'0', size, ""),
        Kind::Directory => (format!("{}/", header.path), b'5', 0, ""),
        Kind::Symlink(target) => (header.path.to_owned(), b'2', 0, target),
    };
    let mut records = Vec::new();
    let place = place(&path);
    if place.is_none() {
        record("path", &path, &mut records);
    }
    if link.len() > 100 || !link.is_ascii() {
        record("linkpath", link, &mut records);
    }
    if size > LARGEST {
        record("size", &size.to_string(), &mut records);
    }
    if header.mtime > LARGEST {
        record("mtime", &header.mtime.to_string(), &mut records);
    }
    if !records.is_empty() {
        let about = Block {
            prefix: b"",
            name: b"PaxHeaders/x",
            mode: 0o644,
            size: records.len() as u64,
            mtime: header.mtime,
            flag: b'x',
            link: b"",
        };
        about.write(out);
        out.extend(&records);
        out.extend(padding(records.len() as u64));
    }
    let (prefix, name) = place.unwrap_or(("", &path));
    let block = Block {
        prefix: prefix.as_bytes(),
        name: name.as_bytes(),
        mode: header.mode,
        size,
        mtime: header.mtime,
        flag,
        link: link.as_bytes(),
    };
    block.write(out);
}

/// How `path` is divided into ustar's prefix and name; `None` if it does not fit, or is not ASCII (ustar does not say
/// which encoding it is in).
fn place(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some(("", path));
    }
    // The name may not be empty, so the slash that a folder ends in does not divide.
    path[..path.len() - 1]
        .match_indices('/')
        .map(|(at, _)| (&path[..at], &path[at + 1..]))
        .find(|(prefix, name)| name.len() <= 100 && !prefix.is_empty() && prefix.len() <= 155)
}

/// `length key=value\n`, the length counting its own digits.
fn record(key: &str, value: &str, out: &mut Vec<u8>) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while rest + length.to_string().len() != length {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}={value}\n").as_bytes());
}

struct Block<'a> {
    prefix: &'a [u8],
    name: &'a [u8],
    mode: u32,
    size: u64,
    mtime: u64,
    flag: u8,
    link: &'a [u8],
}

impl Block<'_> {
    fn write(&self, out: &mut Vec<u8>) {
        let mut block = [0u8; BLOCK];
        let mut text = |at: usize, room: usize, bytes: &[u8]| {
            // What does not fit is in a PAX record, which readers prefer.
            let bytes = &bytes[..bytes.len().min(room)];
            block[at..at + bytes.len()].copy_from_slice(bytes);
        };
        text(0, 100, self.name);
        text(100, 8, format!("{:07o}", self.mode).as_bytes());
        text(108, 8, b"0000000");
        text(116, 8, b"0000000");
        text(124, 12, format!("{:011o}", self.size.min(LARGEST)).as_bytes());
        text(136, 12, format!("{:011o}", self.mtime.min(LARGEST)).as_bytes());
        text(148, 8, b"        ");
        text(156, 1, &[self.flag]);
        text(157, 100, self.link);
        text(257, 8, b"ustar\x0000");
        text(329, 8, b"0000000");
        text(337, 8, b"0000000");
        text(345, 155, self.prefix);
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        out.extend(block);
    }
}
