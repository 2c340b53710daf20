//! Which packages a base is made of: a named list of roots, their dependencies, and named cuts.
//!
//! It takes package lists and gives packages; it reads no bytes of them. Of each package the highest version among the
//! release, its updates and its security archive counts, as for apt.
//!
//! The cuts are what makes the base distroless *by construction*: nothing is installed and then removed. A shell, a package
//! manager, Perl and debconf are there for maintainer scripts, which never run here.
//!
//! Source: Debian Policy, chapter 7 (relationships between packages).

use std::cmp::Ordering;
use std::collections::{BTreeMap, HashMap};

use crate::lock::base::{Deb, Pool};

use super::archive::Entry;
use super::version;

/// A release that a base can be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    pub codename: &'static str,
    /// Major and minor version of its one Python.
    pub python: (u64, u64),
}

/// Newest first.
pub const RELEASES: [Release; 2] = [
    Release {
        codename: "trixie",
        python: (3, 13),
    },
    Release {
        codename: "bookworm",
        python: (3, 11),
    },
];

/// The release whose Python has this minor version; none if Debian never had it among those that are supported.
pub fn release_with_python(major: u64, minor: u64) -> Option<&'static Release> {
    RELEASES.iter().find(|release| release.python == (major, minor))
}

/// What every base starts from, besides the interpreter.
const ROOTS: [(&str, &str); 10] = [
    (
        "base-files",
        "os-release for scanners, the licences that copyright files point to",
    ),
    (
        "ca-certificates",
        "the CA certificates that the bundle is made of",
    ),
    ("libc-bin", "its C.UTF-8 locale"),
    ("libc6", "the C library and the loader"),
    ("libgcc-s1", "unwinding: nearly every compiled wheel"),
    ("libstdc++6", "C++ wheels: scikit-learn, pandas, every framework"),
    ("media-types", "the mimetypes module"),
    ("netbase", "service and protocol names of the socket module"),
    ("tzdata", "the zoneinfo module, pandas"),
    ("zlib1g", "wheels may rely on it (PEP 600)"),
];

/// A package that is left out of a base though something depends on it.
#[derive(Debug)]
pub struct Cut {
    pub package: &'static str,
    pub why: &'static str,
    pub scope: Scope,
    /// Extension modules of the standard library that go with it, by module name: `import` then says that there is no such
    /// module, and not that a library is missing.
    pub modules: &'static [&'static str],
}

/// Whose dependency is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Everybody's: such a package can never be in a base.
    Always,
    /// The standard library's: a package that was asked for and links to it brings it, and its modules with it.
    Stdlib,
}

const fn tool(package: &'static str, why: &'static str) -> Cut {
    Cut {
        package,
        why,
        scope: Scope::Always,
        modules: &[],
    }
}

const fn library(package: &'static str, why: &'static str, modules: &'static [&'static str]) -> Cut {
    Cut {
        package,
        why,
        scope: Scope::Stdlib,
        modules,
    }
}

/// Package managers, shells and interpreters of maintainer scripts; libraries behind modules that a server does not use.
pub const CUTS: [Cut; 28] = [
    tool("apt", "a package manager"),
    tool("awk", "a tool of maintainer scripts"),
    tool("bash", "a shell"),
    tool("busybox", "a shell"),
    tool("coreutils", "tools of maintainer scripts"),
    tool("dash", "a shell"),
    tool("debconf", "asks questions while packages are configured"),
    tool("debconf-2.0", "asks questions while packages are configured"),
    tool("debianutils", "tools of maintainer scripts"),
    tool("dpkg", "a package manager"),
    tool("gawk", "a tool of maintainer scripts"),
    tool("install-info", "documentation"),
    library(
        "libdb5.3",
        "unmaintained; only dbm.ndbm uses it, and dbm has others",
        &["_dbm"],
    ),
    library(
        "libdb5.3t64",
        "unmaintained; only dbm.ndbm uses it, and dbm has others",
        &["_dbm"],
    ),
    library("libncursesw6", "for terminals", &["_curses", "_curses_panel"]),
    library("libnsl2", "NIS, and Kerberos behind it", &["nis"]),
    library("libreadline8", "for terminals", &["readline"]),
    library("libreadline8t64", "for terminals", &["readline"]),
    library("libtinfo6", "for terminals", &[]),
    library("libtirpc3", "NIS, and Kerberos behind it", &[]),
    library("libtirpc3t64", "NIS, and Kerberos behind it", &[]),
    tool("mawk", "a tool of maintainer scripts"),
    tool("openssl", "the command; the library is there"),
    tool("perl", "a tool of maintainer scripts"),
    tool("perl-base", "a tool of maintainer scripts"),
    tool("readline-common", "settings for terminals"),
    tool("tar", "a tool of maintainer scripts"),
    tool("ucf", "a tool of maintainer scripts"),
];

/// Whether `package` is left out as a dependency of `dependent`.
fn is_cut(package: &str, dependent: &str) -> bool {
    CUTS.iter().any(|cut| {
        cut.package == package && (cut.scope == Scope::Always || dependent.starts_with("libpython"))
    })
}

#[derive(Debug, thiserror::Error)]
pub enum ClosureError {
    #[error("Debian {codename} has no package `{name}` for {architecture}")]
    Unknown {
        name: String,
        codename: String,
        architecture: String,
        nearest: Option<String>,
    },
    #[error("`{name}` cannot be part of the base: {why}")]
    Refused { name: String, why: &'static str },
    #[error("`{package}` needs `{dependency}`, which Debian {codename} does not have for {architecture}")]
    Unsatisfied {
        package: String,
        dependency: String,
        codename: String,
        architecture: String,
    },
    #[error("Debian {0} is not a release that a base can be made of")]
    Release(String),
}

/// One list of packages, and the archive it describes.
#[derive(Debug)]
pub struct List {
    pub pool: Pool,
    pub entries: Vec<Entry>,
}

/// The packages of a base for one architecture, sorted by name. `asked` are the packages that buildpacks or the project
/// name.
pub fn closure(
    release: &Release,
    architecture: &str,
    lists: &[List],
    asked: &[String],
) -> Result<Vec<Deb>, ClosureError> {
    let world = World::new(release, architecture, lists);
    let (major, minor) = release.python;
    let mut roots: Vec<String> = ROOTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    roots.push(format!("python{major}.{minor}-minimal"));
    roots.push(format!("libpython{major}.{minor}-stdlib"));
    let mut chosen: BTreeMap<&str, Choice<'_>> = BTreeMap::new();
    let mut queue = Vec::new();
    for name in asked {
        if let Some(cut) = CUTS
            .iter()
            .find(|cut| cut.package == *name && cut.scope == Scope::Always)
        {
            return Err(ClosureError::Refused {
                name: name.clone(),
                why: cut.why,
            });
        }
    }
    for name in roots.iter().chain(asked) {
        let choice = world.highest(name).ok_or_else(|| world.unknown(name))?;
        if chosen.insert(&choice.entry.name, choice).is_none() {
            queue.push(choice);
        }
    }
    while let Some(choice) = queue.pop() {
        for group in choice
            .entry
            .depends
            .split(',')
            .map(str::trim)
            .filter(|group| !group.is_empty())
        {
            let alternatives: Vec<Relation<'_>> = group.split('|').filter_map(Relation::parse).collect();
            let settled = alternatives.iter().any(|relation| {
                is_cut(relation.name, &choice.entry.name)
                    || chosen.values().any(|chosen| relation.is_met_by(chosen.entry))
            });
            if settled {
                continue;
            }
            let found = alternatives
                .iter()
                .find_map(|relation| world.provider(relation))
                .ok_or_else(|| ClosureError::Unsatisfied {
                    package: choice.entry.name.clone(),
                    dependency: group.to_owned(),
                    codename: release.codename.to_owned(),
                    architecture: architecture.to_owned(),
                })?;
            if chosen.insert(&found.entry.name, found).is_none() {
                queue.push(found);
            }
        }
    }
    Ok(chosen
        .into_values()
        .map(|choice| Deb {
            name: choice.entry.name.clone(),
            version: choice.entry.version.clone(),
            architecture: choice.entry.architecture.clone(),
            archive: choice.pool,
            filename: choice.entry.filename.clone(),
            size: choice.entry.size,
            digest: choice.entry.digest,
            asked: asked.contains(&choice.entry.name),
        })
        .collect())
}

#[derive(Debug, Clone, Copy)]
struct Choice<'a> {
    entry: &'a Entry,
    pool: Pool,
}

/// Everything that exists for one architecture: by name the highest version, and who provides which other names.
struct World<'a> {
    release: &'a Release,
    architecture: &'a str,
    packages: HashMap<&'a str, Choice<'a>>,
    providers: HashMap<&'a str, Vec<&'a str>>,
}

impl<'a> World<'a> {
    fn new(release: &'a Release, architecture: &'a str, lists: &'a [List]) -> Self {
        let mut packages: HashMap<&str, Choice<'_>> = HashMap::new();
        for list in lists {
            for entry in &list.entries {
                if entry.architecture != architecture && entry.architecture != "all" {
                    continue;
                }
                let choice = Choice {
                    entry,
                    pool: list.pool,
                };
                packages
                    .entry(&entry.name)
                    .and_modify(|known| {
                        // The same version in two archives is the same package; the first list's is kept.
                        if version::compare(&entry.version, &known.entry.version) == Ordering::Greater {
                            *known = choice;
                        }
                    })
                    .or_insert(choice);
            }
        }
        let mut providers: HashMap<&str, Vec<&str>> = HashMap::new();
        for choice in packages.values() {
            for provided in choice.entry.provides.split(',').filter_map(Relation::parse) {
                providers
                    .entry(provided.name)
                    .or_default()
                    .push(&choice.entry.name);
            }
        }
        for names in providers.values_mut() {
            names.sort_unstable();
        }
        Self {
            release,
            architecture,
            packages,
            providers,
        }
    }

    fn highest(&self, name: &str) -> Option<Choice<'a>> {
        self.packages.get(name).copied()
    }

    /// Who meets a relation: the package of that name, else the first by name that provides it.
    fn provider(&self, relation: &Relation<'_>) -> Option<Choice<'a>> {
        let real = self.highest(relation.name);
        real.into_iter()
            .chain(
                self.providers
                    .get(relation.name)
                    .into_iter()
                    .flatten()
                    .filter(|name| !is_cut(name, ""))
                    .filter_map(|name| self.highest(name)),
            )
            .find(|choice| relation.is_met_by(choice.entry))
    }

    fn unknown(&self, name: &str) -> ClosureError {
        let nearest = self
            .packages
            .keys()
            .filter(|other| !name.is_empty() && other.starts_with(&name[..name.floor_char_boundary(2)]))
            .map(|other| (strsim::damerau_levenshtein(name, other), *other))
            .filter(|(distance, _)| *distance <= 3)
            .min();
        ClosureError::Unknown {
            name: name.to_owned(),
            codename: self.release.codename.to_owned(),
            architecture: self.architecture.to_owned(),
            nearest: nearest.map(|(_, other)| other.to_owned()),
        }
    }
}

/// `name:arch (operator version)`; the architecture is ours by the choice of lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Relation<'a> {
    name: &'a str,
    constraint: Option<(&'a str, &'a str)>,
}

impl<'a> Relation<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let text = text.trim();
        let (name, rest) = match text.split_once('(') {
            Some((name, rest)) => (name.trim(), Some(rest)),
            None => (text, None),
        };
        let name = name
            .split([':', ' ', '[', '<'])
            .next()
            .filter(|name| !name.is_empty())?;
        let constraint = rest.and_then(|rest| {
            let inner = rest.split(')').next()?.trim();
            let end = inner.find(|letter: char| !matches!(letter, '<' | '>' | '='))?;
            Some((&inner[..end], inner[end..].trim()))
        });
        Some(Self { name, constraint })
    }

    fn is_met_by(&self, entry: &Entry) -> bool {
        if entry.name == self.name {
            return self.admits(&entry.version);
        }
        entry
            .provides
            .split(',')
            .filter_map(Relation::parse)
            .any(|provided| {
                provided.name == self.name
                    && match (self.constraint, provided.constraint) {
                        (None, _) => true,
                        // An unversioned provision meets no versioned relation (Policy 7.5).
                        (Some(_), None) => false,
                        (Some(_), Some((_, version))) => self.admits(version),
                    }
            })
    }

    fn admits(&self, version: &str) -> bool {
        let Some((operator, wanted)) = self.constraint else {
            return true;
        };
        let order = version::compare(version, wanted);
        match operator {
            "<<" => order.is_lt(),
            "<=" | "<" => order.is_le(),
            "=" => order.is_eq(),
            ">=" | ">" => order.is_ge(),
            ">>" => order.is_gt(),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    const RELEASE: Release = Release {
        codename: "bookworm",
        python: (3, 11),
    };

    fn entry(name: &str, version: &str, depends: &str, provides: &str) -> Entry {
        Entry {
            name: name.into(),
            version: version.into(),
            architecture: "amd64".into(),
            depends: depends.into(),
            provides: provides.into(),
            filename: format!("pool/{name}_{version}.deb"),
            size: 1,
            digest: Digest::of(name.as_bytes()),
        }
    }

    fn base() -> Vec<Entry> {
        let mut entries: Vec<Entry> = ROOTS.iter().map(|(name, _)| entry(name, "1", "", "")).collect();
        entries.push(entry("python3.11-minimal", "3.11.2-6", "libc6 (>= 1), dash", ""));
        entries.push(entry(
            "libpython3.11-stdlib",
            "3.11.2-6",
            "media-types | mime-support, libreadline8 (>= 7), libffi8:any (>= 3)",
            "",
        ));
        entries.push(entry("libffi8", "3.4", "", ""));
        entries.push(entry("libreadline8", "8", "libtinfo6", ""));
        entries
    }

    fn run(main: Vec<Entry>, security: Vec<Entry>, asked: &[&str]) -> Result<Vec<String>, ClosureError> {
        let lists = [
            List {
                pool: Pool::Main,
                entries: main,
            },
            List {
                pool: Pool::Security,
                entries: security,
            },
        ];
        let asked: Vec<String> = asked.iter().map(|name| (*name).to_owned()).collect();
        let debs = closure(&RELEASE, "amd64", &lists, &asked)?;
        Ok(debs
            .into_iter()
            .filter(|deb| !ROOTS.iter().any(|(name, _)| deb.name == *name))
            .map(|deb| {
                format!(
                    "{} {}{}",
                    deb.name,
                    deb.version,
                    if deb.asked { " asked" } else { "" }
                )
            })
            .collect())
    }

    #[test]
    fn dependencies_come_and_cuts_stay_out() {
        assert_eq!(
            run(base(), vec![], &[]).unwrap(),
            [
                "libffi8 3.4",
                "libpython3.11-stdlib 3.11.2-6",
                "python3.11-minimal 3.11.2-6"
            ]
        );
    }

    #[test]
    fn the_highest_version_of_all_archives_counts() {
        let newer = vec![
            entry("libffi8", "3.4+deb12u1", "", ""),
            entry("libpython3.11-stdlib", "3.11.2-5", "", ""),
        ];
        let found = run(base(), newer, &[]).unwrap();
        assert!(found.contains(&"libffi8 3.4+deb12u1".to_owned()), "{found:?}");
        assert!(
            found.contains(&"libpython3.11-stdlib 3.11.2-6".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn virtual_packages_and_alternatives() {
        let mut main = base();
        main.push(entry("tool", "1", "real-gone | virtual-x, virtual-y (>= 2)", ""));
        main.push(entry("b-provides", "1", "", "virtual-x"));
        main.push(entry("a-provides", "1", "", "virtual-x, virtual-y (= 3)"));
        let found = run(main.clone(), vec![], &["tool"]).unwrap();
        assert!(
            found.contains(&"a-provides 1".to_owned()) && found.contains(&"tool 1 asked".to_owned()),
            "{found:?}"
        );
        main.retain(|entry| entry.name != "a-provides");
        let error = run(main, vec![], &["tool"]).unwrap_err();
        assert!(error.to_string().contains("virtual-y (>= 2)"), "{error}");
    }

    #[test]
    fn a_library_that_the_standard_library_does_without_comes_with_who_needs_it() {
        let mut main = base();
        main.push(entry("tool", "1", "libreadline8", ""));
        main.push(entry("libtinfo6", "6", "", ""));
        let found = run(main, vec![], &["tool"]).unwrap();
        assert!(
            found.contains(&"libreadline8 8".to_owned()) && found.contains(&"libtinfo6 6".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn what_is_cut_or_unknown_cannot_be_asked_for() {
        assert!(matches!(
            run(base(), vec![], &["bash"]),
            Err(ClosureError::Refused { .. })
        ));
        match run(base(), vec![], &["libfi8"]) {
            Err(ClosureError::Unknown { nearest, .. }) => assert_eq!(nearest.as_deref(), Some("libffi8")),
            other => panic!("{other:?}"),
        }
    }
}
