//! Wheels made on the spot: small real ones, and hostile ones whose every byte can be set.

use std::io::Write;

use base64::Engine as _;
use mlrails::digest::Digest;

/// One member of an archive as it will be written; what is `Some` overrules what follows from the rest.
#[derive(Debug, Clone)]
pub struct Member {
    pub name: Vec<u8>,
    /// The bytes in the archive: for a deflated member, its stream.
    pub raw: Vec<u8>,
    pub method: u16,
    pub crc32: u32,
    pub size: u32,
    pub flags: u16,
    /// Unix mode with the file type.
    pub mode: u32,
    pub extra: Vec<u8>,
    pub local_extra: Vec<u8>,
    pub local_name: Option<Vec<u8>>,
    pub local_method: Option<u16>,
    pub local_crc32: Option<u32>,
    pub local_size: Option<u32>,
    pub before: Vec<u8>,
    /// Data descriptor, or bytes that should not be there.
    pub after: Vec<u8>,
    /// What the central directory says of its place.
    pub offset: Option<u32>,
}

impl Member {
    pub fn stored(name: &str, content: &[u8]) -> Self {
        Self {
            name: name.as_bytes().to_vec(),
            raw: content.to_vec(),
            method: 0,
            crc32: crc32fast::hash(content),
            size: content.len() as u32,
            flags: if name.is_ascii() { 0 } else { 1 << 11 },
            mode: 0o100_644,
            extra: Vec::new(),
            local_extra: Vec::new(),
            local_name: None,
            local_method: None,
            local_crc32: None,
            local_size: None,
            before: Vec::new(),
            after: Vec::new(),
            offset: None,
        }
    }

    pub fn deflated(name: &str, content: &[u8]) -> Self {
        Self {
            raw: deflate(content, 6),
            method: 8,
            ..Self::stored(name, content)
        }
    }
}

/// `content` as a raw deflate stream, by the library that we do not use for layers.
pub fn deflate(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Writes an archive: members, central directory, end record.
pub fn zip(members: &[Member]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut directory = Vec::new();
    for member in members {
        out.extend(&member.before);
        let offset = member.offset.unwrap_or(out.len() as u32);
        let name = member.local_name.as_ref().unwrap_or(&member.name);
        let head = |signature: &[u8], local: bool| {
            let mut head = signature.to_vec();
            if !local {
                head.extend(((3u16 << 8) | 20).to_le_bytes());
            }
            let pick = |over: Option<u32>, value| if local { over.unwrap_or(value) } else { value };
            let method = if local { member.local_method } else { None }.unwrap_or(member.method);
            for half in [20, member.flags, method, 0, 0x21] {
                head.extend(half.to_le_bytes());
            }
            head.extend(pick(member.local_crc32, member.crc32).to_le_bytes());
            head.extend(pick(member.local_size, member.raw.len() as u32).to_le_bytes());
            head.extend(pick(member.local_size, member.size).to_le_bytes());
            head
        };
        let local = head(b"PK\x03\x04", true);
        let central = head(b"PK\x01\x02", false);
        out.extend(local);
        out.extend((name.len() as u16).to_le_bytes());
        out.extend((member.local_extra.len() as u16).to_le_bytes());
        out.extend(name);
        out.extend(&member.local_extra);
        out.extend(&member.raw);
        out.extend(&member.after);
        directory.extend(central);
        directory.extend((member.name.len() as u16).to_le_bytes());
        directory.extend((member.extra.len() as u16).to_le_bytes());
        directory.extend([0; 6]);
        directory.extend((member.mode << 16).to_le_bytes());
        directory.extend(offset.to_le_bytes());
        directory.extend(&member.name);
        directory.extend(&member.extra);
    }
    let (offset, size, count) = (out.len() as u32, directory.len() as u32, members.len() as u16);
    out.extend(directory);
    out.extend(b"PK\x05\x06\0\0\0\0");
    out.extend(count.to_le_bytes());
    out.extend(count.to_le_bytes());
    out.extend(size.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend([0, 0]);
    out
}

type Edit<T> = Box<dyn Fn(&mut T)>;

/// A wheel to be made: sound unless it is told otherwise.
pub struct MakeWheel {
    pub name: String,
    pub version: String,
    files: Vec<(String, Vec<u8>, u32)>,
    about: String,
    record: Option<Edit<String>>,
    members: Option<Edit<Vec<Member>>>,
    bytes: Option<Edit<Vec<u8>>>,
}

impl MakeWheel {
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            files: Vec::new(),
            about: "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
                .to_owned(),
            record: None,
            members: None,
            bytes: None,
        }
    }

    pub fn file_name(&self) -> String {
        format!("{}-{}-py3-none-any.whl", self.name, self.version)
    }

    pub fn dist_info(&self) -> String {
        format!("{}-{}.dist-info", self.name, self.version)
    }

    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.file_with_mode(path, content, 0o100_644)
    }

    pub fn file_with_mode(mut self, path: &str, content: impl AsRef<[u8]>, mode: u32) -> Self {
        self.files
            .push((path.to_owned(), content.as_ref().to_vec(), mode));
        self
    }

    pub fn entry_points(self, text: &str) -> Self {
        let path = format!("{}/entry_points.txt", self.dist_info());
        self.file(&path, text)
    }

    pub fn about(mut self, text: &str) -> Self {
        self.about = text.to_owned();
        self
    }

    /// Changes RECORD before it is written.
    pub fn record(mut self, edit: impl Fn(&mut String) + 'static) -> Self {
        self.record = Some(Box::new(edit));
        self
    }

    /// Changes the members before they are written; RECORD is the last.
    pub fn members(mut self, edit: impl Fn(&mut Vec<Member>) + 'static) -> Self {
        self.members = Some(Box::new(edit));
        self
    }

    /// Changes the archive's bytes.
    pub fn bytes(mut self, edit: impl Fn(&mut Vec<u8>) + 'static) -> Self {
        self.bytes = Some(Box::new(edit));
        self
    }

    pub fn build(&self) -> Vec<u8> {
        let dist_info = self.dist_info();
        let metadata = format!(
            "Metadata-Version: 2.1\nName: {}\nVersion: {}\n",
            self.name, self.version
        );
        let mut files = self.files.clone();
        files.push((format!("{dist_info}/METADATA"), metadata.into_bytes(), 0o100_644));
        files.push((
            format!("{dist_info}/WHEEL"),
            self.about.clone().into_bytes(),
            0o100_644,
        ));
        let mut record = String::new();
        let mut members = Vec::new();
        for (path, content, mode) in &files {
            let mut member = Member::deflated(path, content);
            member.mode = *mode;
            members.push(member);
            record.push_str(&row(path, content));
        }
        record.push_str(&format!("{dist_info}/RECORD,,\n"));
        if let Some(edit) = &self.record {
            edit(&mut record);
        }
        members.push(Member::deflated(
            &format!("{dist_info}/RECORD"),
            record.as_bytes(),
        ));
        if let Some(edit) = &self.members {
            edit(&mut members);
        }
        let mut bytes = zip(&members);
        if let Some(edit) = &self.bytes {
            edit(&mut bytes);
        }
        bytes
    }
}

/// A line of RECORD.
pub fn row(path: &str, content: &[u8]) -> String {
    let hash = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(Digest::of(content).bytes());
    format!("{path},sha256={hash},{}\n", content.len())
}

/// The real wheels that `tests/setup` keeps, in name order; a folder of `MLRAILS_TEST_WHEELS` instead of them. Empty where
/// setup did not run.
pub fn real() -> Vec<std::path::PathBuf> {
    let folder = std::env::var_os("MLRAILS_TEST_WHEELS").map_or_else(
        || super::driver::repository("tests/store/wheels"),
        std::path::PathBuf::from,
    );
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .collect();
    found.sort();
    found
}
