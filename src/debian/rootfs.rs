//! The base's files: what of each package an image gets, and what is generated instead of installed.
//!
//! It takes packages in memory and gives one sorted set of paths with their content and modes; owner and times are nobody's
//! business here (root, and zero). Maintainer scripts never run: the CA bundle, passwd, group and the usr-merge links, which
//! they would make, are made here. It knows no layers.
//!
//! Programs enter only from packages that were asked for by name; of the base's own, the interpreter alone does.
//!
//! Source: Debian Policy chapter 9 and 12.5 (copyright files stay), FHS 3.0; the `status.d` convention of distroless images.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::closure::CUTS;
use super::package::{Entry, Package};

/// Part of the recipe of a base layer: raise it whenever the same packages give other files.
pub const LAYOUT: u32 = 1;

/// The files of an image, by path relative to its root, parents included.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rootfs {
    pub entries: BTreeMap<String, Node>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node {
    Directory { mode: u32 },
    File { content: Bytes, mode: u32 },
    Symlink { target: String },
}

#[derive(Debug, thiserror::Error)]
pub enum RootfsError {
    #[error("the packages {one} and {other} both hold {path}, with different content")]
    Conflict {
        path: String,
        one: String,
        other: String,
    },
    #[error("{path} of the package {package} lies below {above}, which is not a folder")]
    Below {
        path: String,
        package: String,
        above: String,
    },
    #[error("the packages of the base hold no {0}")]
    Missing(String),
}

/// Of everybody's packages: never in an image, by path prefix. What lies under no kept top folder is out anyway.
const OUT: [(&str, &str); 34] = [
    ("etc/cron", "no such daemon"),
    ("etc/default/", "for daemons"),
    ("etc/dpkg/", "no package manager"),
    ("etc/init.d/", "no such daemon"),
    ("etc/issue", "no login"),
    (
        "etc/ld.so.conf",
        "the default search path is enough; there is no ldconfig",
    ),
    ("etc/logrotate.d/", "no such daemon"),
    ("etc/profile", "no shell"),
    ("etc/python3", "a hook of crash reports"),
    ("etc/skel/", "no login"),
    ("etc/update-motd.d/", "no login"),
    ("usr/games/", "games"),
    ("usr/include/", "no compiler"),
    ("usr/lib/binfmt.d/", "no such daemon"),
    ("usr/lib/systemd/", "no such daemon"),
    ("usr/lib/tmpfiles.d/", "no such daemon"),
    ("usr/lib/valgrind/", "no debugger"),
    ("usr/share/apport/", "crash reports"),
    ("usr/share/applications/", "no desktop"),
    ("usr/share/base-files/", "templates of maintainer scripts"),
    ("usr/share/bash-completion/", "no shell"),
    ("usr/share/binfmts/", "no such daemon"),
    ("usr/share/bug/", "bug reports"),
    ("usr/share/ca-certificates/", "the bundle holds them"),
    ("usr/share/doc-base/", "documentation"),
    ("usr/share/gdb/", "no debugger"),
    ("usr/share/info/", "documentation"),
    ("usr/share/libc-bin/", "templates of maintainer scripts"),
    ("usr/share/lintian/", "for packagers"),
    ("usr/share/locale/", "translations"),
    ("usr/share/man/", "documentation"),
    ("usr/share/pixmaps/", "no desktop"),
    ("usr/share/zoneinfo/posix/", "the same zones again"),
    (
        "usr/share/zoneinfo/right/",
        "zones with leap seconds, which nobody asks for",
    ),
];

/// Of the standard library's folder.
const STDLIB_OUT: [(&str, &str); 13] = [
    ("EXTERNALLY-MANAGED", "no pip here"),
    ("__phello__/", "a joke"),
    ("__hello__.py", "a joke"),
    ("config-", "for building extensions"),
    ("distutils/tests/", "tests"),
    ("ensurepip/", "no pip here"),
    ("idlelib/", "an editor"),
    ("lib2to3/", "translates Python 2"),
    ("pydoc_data/", "texts of interactive help"),
    ("sitecustomize.py", "a hook of crash reports"),
    ("test/", "tests"),
    ("turtle", "draws"),
    ("venv/", "makes environments"),
];

/// Character sets that the C library converts, besides Unicode's own which are built in. Python brings all of its own.
const CHARACTER_SETS: [&str; 9] = [
    "gconv-modules",
    "CP1252.so",
    "ISO8859-1.so",
    "ISO8859-15.so",
    "ISO8859-2.so",
    "UNICODE.so",
    "UTF-16.so",
    "UTF-32.so",
    "UTF-7.so",
];

const FOLDERS: [(&str, u32); 19] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("home/nonroot", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run", 0o755),
    ("srv", 0o755),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/lib", 0o755),
    ("usr/sbin", 0o755),
    ("var", 0o755),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];

const LINKS: [(&str, &str); 9] = [
    ("bin", "usr/bin"),
    ("etc/localtime", "/usr/share/zoneinfo/Etc/UTC"),
    ("etc/os-release", "../usr/lib/os-release"),
    ("lib", "usr/lib"),
    ("sbin", "usr/sbin"),
    // OpenSSL's compiled-in folder is /usr/lib/ssl: with these two, TLS works without any variable being set.
    ("usr/lib/ssl/cert.pem", "/etc/ssl/certs/ca-certificates.crt"),
    ("usr/lib/ssl/certs", "/etc/ssl/certs"),
    ("var/lock", "/run/lock"),
    ("var/run", "/run"),
];

const TEXTS: [(&str, &str); 4] = [
    (
        "etc/group",
        "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nnonroot:x:65532:\n",
    ),
    ("etc/host.conf", "multi on\n"),
    (
        "etc/nsswitch.conf",
        "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n",
    ),
    (
        "etc/passwd",
        "root:x:0:0:root:/root:/sbin/nologin\n\
         nobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
         nonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n",
    ),
];

/// A package, and whether its programs were asked for.
pub struct Part {
    pub name: String,
    pub asked: bool,
    pub package: Package,
}

/// Where a package's path is in a merged `/usr`.
fn merged(path: &str) -> String {
    for top in ["bin", "sbin", "lib", "lib64"] {
        if let Some(rest) = path.strip_prefix(top)
            && rest.starts_with('/')
        {
            return format!("usr/{path}");
        }
    }
    path.to_owned()
}

/// Whether a file of a package may matter to an image or to what is generated from it; asked before it is unpacked.
pub fn is_wanted(path: &str) -> bool {
    let path = merged(path);
    path.starts_with("usr/share/ca-certificates/") || !OUT.iter().any(|(prefix, _)| path.starts_with(prefix))
}

/// Puts a base together. `python` is its minor version, `3.11`; `parts` are sorted by name.
pub fn assemble(python: &str, parts: &[Part]) -> Result<Rootfs, RootfsError> {
    let interpreter = format!("usr/bin/python{python}");
    let stdlib = format!("usr/lib/python{python}/");
    let names: BTreeSet<&str> = parts.iter().map(|part| part.name.as_str()).collect();
    let absent = absent_modules(&names);
    let keeps = |part: &Part, path: &str| {
        if OUT.iter().any(|(prefix, _)| path.starts_with(prefix)) {
            return false;
        }
        if path.starts_with("usr/bin/") || path.starts_with("usr/sbin/") {
            return path == interpreter || part.asked;
        }
        if let Some(rest) = path.strip_prefix(&stdlib) {
            let module = rest
                .strip_prefix("lib-dynload/")
                .map(|file| file.split('.').next().unwrap_or(file));
            return !STDLIB_OUT.iter().any(|(prefix, _)| rest.starts_with(prefix))
                && !rest.ends_with(".rst")
                && !module.is_some_and(|module| absent.contains(module));
        }
        if let Some(rest) = path.strip_prefix("usr/share/doc/") {
            // The licence's text, or the link to the folder of the package that holds it.
            return !rest.contains('/') || rest.ends_with("/copyright");
        }
        if let Some((_, file)) = path.split_once("/gconv/") {
            return CHARACTER_SETS.iter().any(|kept| file.starts_with(kept));
        }
        let built = path.ends_with(".a")
            || path.ends_with(".o")
            || path.ends_with(".la")
            || path.contains("/pkgconfig/");
        let top = path.split('/').next().unwrap_or(path);
        matches!(top, "usr" | "etc" | "opt" | "var") && !built
    };

    let mut builder = Builder::default();
    for part in parts {
        let mut kept = BTreeSet::new();
        for (path, entry) in &part.package.entries {
            let path = merged(path);
            if matches!(entry, Entry::Directory) || !keeps(part, &path) {
                continue;
            }
            let node = match entry {
                Entry::Directory => continue,
                Entry::File { content, executable } => Node::File {
                    content: content.clone(),
                    mode: if *executable { 0o755 } else { 0o644 },
                },
                Entry::Symlink(target) => Node::Symlink {
                    target: target.clone(),
                },
            };
            builder.insert(&path, node, &part.name)?;
            kept.insert(path);
        }
        let folder = "var/lib/dpkg/status.d";
        builder.text(&format!("{folder}/{}", part.name), &status(&part.package.control))?;
        let sums: String = part
            .package
            .checksums
            .lines()
            .filter(|line| {
                line.split_once("  ")
                    .is_some_and(|(_, path)| kept.contains(&merged(path)))
            })
            .map(|line| format!("{line}\n"))
            .collect();
        builder.text(&format!("{folder}/{}.md5sums", part.name), &sums)?;
    }
    builder.text("etc/ssl/certs/ca-certificates.crt", &bundle(parts)?)?;
    for (path, text) in TEXTS {
        builder.text(path, text)?;
    }
    for (path, target) in LINKS {
        builder.link(path, target)?;
    }
    // The loader's name in programs is /lib64/… on amd64, and /lib/… on arm64.
    if builder.entries.keys().any(|path| path.starts_with("usr/lib64/")) {
        builder.link("lib64", "usr/lib64")?;
    }
    if !builder.entries.contains_key(&interpreter) {
        return Err(RootfsError::Missing(interpreter));
    }
    builder.link("usr/bin/python3", &format!("python{python}"))?;
    builder.link("usr/bin/python", &format!("python{python}"))?;
    builder.finish()
}

/// The modules that nothing in the base can serve: named by a cut whose library did not come in either.
fn absent_modules(names: &BTreeSet<&str>) -> BTreeSet<&'static str> {
    let mut absent = BTreeSet::new();
    let mut present = BTreeSet::new();
    for cut in &CUTS {
        let set = if names.contains(cut.package) {
            &mut present
        } else {
            &mut absent
        };
        set.extend(cut.modules.iter().copied());
    }
    absent.difference(&present).copied().collect()
}

/// A package's paragraph as scanners read it: its control file, marked installed.
fn status(control: &str) -> String {
    let mut text = String::new();
    for line in control.lines().filter(|line| !line.trim().is_empty()) {
        text.push_str(line);
        text.push('\n');
        if line.starts_with("Package:") {
            text.push_str("Status: install ok installed\n");
        }
    }
    text
}

/// All certificates, one after the other, sorted by file name: what `update-ca-certificates` would write.
fn bundle(parts: &[Part]) -> Result<String, RootfsError> {
    let mut text = String::new();
    for part in parts.iter().filter(|part| part.name == "ca-certificates") {
        for (path, entry) in &part.package.entries {
            if let (true, Entry::File { content, .. }) = (path.ends_with(".crt"), entry)
                && path.starts_with("usr/share/ca-certificates/")
            {
                text.push_str(String::from_utf8_lossy(content).trim());
                text.push('\n');
            }
        }
    }
    if text.is_empty() {
        return Err(RootfsError::Missing("CA certificates".to_owned()));
    }
    Ok(text)
}

/// Paths with who brought them.
#[derive(Default)]
struct Builder {
    entries: BTreeMap<String, (Node, String)>,
}

impl Builder {
    fn insert(&mut self, path: &str, node: Node, by: &str) -> Result<(), RootfsError> {
        if let Some((known, other)) = self.entries.get(path) {
            if *known != node {
                return Err(RootfsError::Conflict {
                    path: path.to_owned(),
                    one: other.clone(),
                    other: by.to_owned(),
                });
            }
            return Ok(());
        }
        self.entries.insert(path.to_owned(), (node, by.to_owned()));
        Ok(())
    }

    fn text(&mut self, path: &str, text: &str) -> Result<(), RootfsError> {
        let node = Node::File {
            content: Bytes::copy_from_slice(text.as_bytes()),
            mode: 0o644,
        };
        self.replace(path, node)
    }

    fn link(&mut self, path: &str, target: &str) -> Result<(), RootfsError> {
        self.replace(
            path,
            Node::Symlink {
                target: target.to_owned(),
            },
        )
    }

    /// What is generated goes before what a package ships at the same path.
    fn replace(&mut self, path: &str, node: Node) -> Result<(), RootfsError> {
        self.entries.remove(path);
        self.insert(path, node, "mlrails")
    }

    /// Adds parents, and refuses what lies below a link or a file.
    fn finish(mut self) -> Result<Rootfs, RootfsError> {
        let mut folders: BTreeMap<String, u32> = FOLDERS
            .iter()
            .map(|(path, mode)| ((*path).to_owned(), *mode))
            .collect();
        for (path, (_, by)) in &self.entries {
            let mut above = path.as_str();
            while let Some((parent, _)) = above.rsplit_once('/') {
                if self.entries.contains_key(parent) {
                    return Err(RootfsError::Below {
                        path: path.clone(),
                        package: by.clone(),
                        above: parent.to_owned(),
                    });
                }
                folders.entry(parent.to_owned()).or_insert(0o755);
                above = parent;
            }
        }
        let mut entries: BTreeMap<String, Node> = folders
            .into_iter()
            .map(|(path, mode)| (path, Node::Directory { mode }))
            .collect();
        for (path, (node, _)) in std::mem::take(&mut self.entries) {
            if entries.insert(path.clone(), node).is_some() {
                return Err(RootfsError::Below {
                    path: path.clone(),
                    package: "mlrails".to_owned(),
                    above: path,
                });
            }
        }
        Ok(Rootfs { entries })
    }
}
