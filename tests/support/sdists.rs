//! Source archives made on the spot: projects whose build backend is in their own tree, and tars whose every header can be set.

use std::io::Write;
use std::path::Path;

/// A backend of the tree, in `backend.py`: standard library only. What it does follows from the files beside it.
///
/// `requires.txt` is its Requires-Dist, `needs.txt` what get_requires_for_build_wheel answers; `before.py` runs first in every hook,
/// with `hook` as its name; `tag.txt` is the wheel's tag, and `lib.so` a library in it.
pub const BACKEND: &str = r#"
import base64, hashlib, os, zipfile

NAME, VERSION = open("name.txt").read().split()
TAG = open("tag.txt").read() if os.path.exists("tag.txt") else "py3-none-any"
STEM = "%s-%s" % (NAME.replace("-", "_"), VERSION)


def lines(name):
    return open(name).read().split("\n") if os.path.exists(name) else []


def before(hook):
    if os.path.exists("before.py"):
        exec(open("before.py").read(), {"hook": hook, "__name__": "before"})


def metadata():
    text = "Metadata-Version: 2.1\nName: %s\nVersion: %s\n" % (NAME, VERSION)
    return text + "".join("Requires-Dist: %s\n" % line for line in lines("requires.txt") if line)


def get_requires_for_build_wheel(settings=None):
    before("get_requires")
    return [line for line in lines("needs.txt") if line]


def build_wheel(folder, settings=None, metadata_folder=None):
    before("build_wheel")
    module = NAME.replace("-", "_") + ".py"
    files = {module: open(module).read() if os.path.exists(module) else "VERSION = %r\n" % VERSION}
    files[STEM + ".dist-info/METADATA"] = metadata()
    files[STEM + ".dist-info/WHEEL"] = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: %s\n" % TAG
    if os.path.exists("lib.so"):
        files[module[:-3] + "_lib.so"] = open("lib.so").read()
    record = ""
    name = "%s-%s.whl" % (STEM, TAG)
    with zipfile.ZipFile(os.path.join(folder, name), "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
            record += "%s,sha256=%s,%d\n" % (path, digest, len(text.encode()))
        record += STEM + ".dist-info/RECORD,,\n"
        wheel.writestr(STEM + ".dist-info/RECORD", record)
    return name
"#;

/// Hooks that tell metadata without a build.
pub const PREPARE: &str = r#"

def prepare_metadata_for_build_wheel(folder, settings=None):
    before("prepare")
    name = STEM + ".dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write(metadata())
    return name
"#;

const IN_TREE: &str = "[build-system]\nrequires = []\nbuild-backend = \"backend\"\nbackend-path = [\".\"]\n";

/// A source archive of `name`, built by [`BACKEND`] in its tree, with these files besides.
pub fn in_tree(name: &str, version: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let named = format!("{name} {version}");
    let mut all = vec![
        ("pyproject.toml", IN_TREE),
        ("backend.py", BACKEND),
        ("name.txt", named.as_str()),
    ];
    all.retain(|(path, _)| !files.iter().any(|(other, _)| other == path));
    all.extend(files);
    sdist(name, version, &all)
}

/// A source archive of `name` with exactly these files in its folder.
pub fn sdist(name: &str, version: &str, files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = Tar::default();
    for (path, text) in files {
        tar = tar.file(&format!("{}-{version}/{path}", name.replace('-', "_")), text);
    }
    gzip(&tar.end())
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar, header by header. Nothing is checked: hostile ones are made with it too.
#[derive(Default)]
pub struct Tar(Vec<u8>);

impl Tar {
    pub fn file(self, path: &str, text: &str) -> Self {
        self.entry(b'0', path, "", text.as_bytes())
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(b'5', path, "", b"")
    }

    pub fn link(self, path: &str, target: &str) -> Self {
        self.entry(b'2', path, target, b"")
    }

    pub fn hard_link(self, path: &str, target: &str) -> Self {
        self.entry(b'1', path, target, b"")
    }

    pub fn entry(self, kind: u8, path: &str, target: &str, content: &[u8]) -> Self {
        self.sized(kind, path, target, content, content.len() as u64)
    }

    /// As [`Tar::entry`], with another size in the header than the content has.
    pub fn sized(mut self, kind: u8, path: &str, target: &str, content: &[u8], size: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_mode(0o4644);
        header.set_size(size);
        header.set_mtime(1_000_000_000);
        let fields = header.as_old_mut();
        fields.name[..path.len()].copy_from_slice(path.as_bytes());
        fields.linkname[..target.len()].copy_from_slice(target.as_bytes());
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// A PAX header with these records, for the next entry (`x`) or all (`g`).
    pub fn pax(self, kind: u8, records: &[(&str, &str)]) -> Self {
        let text: String = records.iter().map(|(key, value)| record(key, value)).collect();
        self.entry(kind, "PaxHeader", "", text.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }
}

/// `<length> <key>=<value>\n`, where the length counts itself.
fn record(key: &str, value: &str) -> String {
    let rest = format!(" {key}={value}\n");
    let mut length = rest.len() + 1;
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    format!("{length}{rest}")
}

/// A script that counts its own runs in a file outside of everything.
pub fn count(file: &Path) -> String {
    format!(
        "open({:?}, 'a').write(hook + '\\n')\n",
        file.display().to_string()
    )
}
