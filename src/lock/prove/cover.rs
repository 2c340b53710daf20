//! Environments to try: finitely many that stand for all that a lock's markers can tell apart.
//!
//! Every value that a marker compares with is tried, and one beside it; every system is tried as a whole, since no machine runs
//! `os_name == 'nt'` on `sys_platform == 'linux'`. What no marker asks for is not varied. It knows no lock and no resolver.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::ops::Bound;

use uv_distribution_filename::WheelFilename;
use uv_pep440::{Version, VersionSpecifiers};
use uv_pep508::{
    CanonicalMarkerValueString as Text, CanonicalMarkerValueVersion, MarkerEnvironment,
    MarkerEnvironmentBuilder, MarkerTree, MarkerTreeKind,
};
use uv_platform_tags::{LanguageTag, PlatformTag};

use crate::python::target::{Platform, PythonVersion};

/// More environments than this are not tried: real locks need a few hundred.
const MOST: usize = 50_000;

/// One machine with one interpreter.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub markers: MarkerEnvironment,
    /// The full version: `3.12.1`.
    pub python: Version,
    /// Which of the known platforms it is, where it runs CPython on one.
    pub platform: Option<Platform>,
}

impl Place {
    /// What wheels are told apart by: the platform and the interpreter's minor, where they are known.
    pub fn machine(&self) -> Option<(Platform, PythonVersion)> {
        let minor = u8::try_from(*self.python.release().get(1)?).ok()?;
        Some((self.platform?, PythonVersion::new(3, minor)))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} {} on {} {}",
            self.markers.platform_python_implementation(),
            self.python,
            self.markers.sys_platform(),
            self.markers.platform_machine()
        )
    }
}

/// What markers and Requires-Python compare with.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pythons: BTreeSet<Version>,
    /// Minors that wheels are built for.
    minors: BTreeSet<u64>,
    implementations: BTreeSet<Version>,
    texts: BTreeMap<Text, BTreeSet<String>>,
    seen: HashSet<MarkerTree>,
}

impl Compared {
    /// Notes what `marker` compares with.
    pub fn marker(&mut self, marker: MarkerTree) {
        let mut todo = vec![marker];
        while let Some(tree) = todo.pop() {
            // Markers share their parts, and a part is read once.
            if !self.seen.insert(tree) {
                continue;
            }
            match tree.kind() {
                MarkerTreeKind::True | MarkerTreeKind::False => {}
                MarkerTreeKind::Version(node) => {
                    let known = match node.key() {
                        CanonicalMarkerValueVersion::PythonFullVersion => &mut self.pythons,
                        CanonicalMarkerValueVersion::ImplementationVersion => &mut self.implementations,
                    };
                    for (range, child) in node.edges() {
                        for (lower, upper) in range.iter() {
                            known.extend([lower, upper].into_iter().filter_map(bound).cloned());
                        }
                        todo.push(child);
                    }
                }
                MarkerTreeKind::String(node) => {
                    let known = self.texts.entry(node.key()).or_default();
                    for (range, child) in node.children() {
                        for (lower, upper) in range.iter() {
                            let texts = [lower, upper].into_iter().filter_map(bound);
                            known.extend(texts.map(ToString::to_string));
                        }
                        todo.push(child);
                    }
                }
                MarkerTreeKind::In(node) => {
                    self.substrings(node.key(), tree);
                    todo.extend(node.children().map(|(_, child)| child));
                }
                MarkerTreeKind::Contains(node) => {
                    self.substrings(node.key(), tree);
                    todo.extend(node.children().map(|(_, child)| child));
                }
                MarkerTreeKind::List(node) => todo.extend(node.children().map(|(_, child)| child)),
                MarkerTreeKind::Extra(node) => todo.extend(node.children().map(|(_, child)| child)),
            }
        }
    }

    /// Notes the bounds of a Requires-Python.
    pub fn specifiers(&mut self, specifiers: &VersionSpecifiers) {
        for specifier in specifiers.iter() {
            self.pythons.insert(specifier.version().only_release());
            if specifier.operator().is_star() || specifier.operator() == &uv_pep440::Operator::TildeEqual {
                // The first version after `==3.11.*`; after `~=3.11.2` it is the same, after `~=3.11` there is none.
                let release = specifier.version().release();
                if let (Some(major), Some(minor)) = (release.first(), release.get(1)) {
                    self.pythons.insert(Version::new([*major, minor + 1]));
                }
            }
        }
    }

    /// Notes what a wheel is built for.
    pub fn wheel(&mut self, wheel: &WheelFilename) {
        for tag in wheel.python_tags() {
            if let LanguageTag::CPython {
                python_version: (3, minor),
            } = tag
            {
                self.minors.insert(u64::from(*minor));
            }
        }
        if wheel.platform_tags().iter().any(|tag| *tag != PlatformTag::Any) {
            self.texts.entry(Text::SysPlatform).or_default();
            self.texts.entry(Text::PlatformMachine).or_default();
        }
    }

    /// `in` asks for parts of a text: its words are tried, and the whole of it. The words are read from the marker's text, since
    /// the parsed form keeps them to itself.
    fn substrings(&mut self, key: Text, tree: MarkerTree) {
        let known = self.texts.entry(key).or_default();
        let written = tree.try_to_string().unwrap_or_default();
        for quoted in written.split('\'').skip(1).step_by(2) {
            known.insert(quoted.to_owned());
            known.extend(quoted.split([' ', ',']).map(ToOwned::to_owned));
        }
    }

    /// The environments that stand for all; `Err`: how many those would be, where they are too many.
    pub fn places(&self) -> Result<Vec<Place>, usize> {
        let pythons = pythons(&self.pythons, &self.minors);
        let systems = self.systems();
        let interpreters = self.interpreters();
        let releases = self.values(Text::PlatformRelease);
        let versions = self.values(Text::PlatformVersion);
        let count = [
            pythons.len(),
            systems.len(),
            interpreters.len(),
            releases.len(),
            versions.len(),
        ]
        .into_iter()
        .fold(1, usize::saturating_mul);
        if count > MOST {
            return Err(count);
        }
        let mut places = Vec::with_capacity(count);
        for python in &pythons {
            for system in &systems {
                for interpreter in &interpreters {
                    for release in &releases {
                        for version in &versions {
                            places.extend(place(python, system, interpreter, release, version));
                        }
                    }
                }
            }
        }
        Ok(places)
    }

    fn is_compared(&self, key: Text) -> bool {
        self.texts.contains_key(&key)
    }

    fn constants(&self, key: Text) -> impl Iterator<Item = &String> {
        self.texts.get(&key).into_iter().flatten()
    }

    /// What a text may be that nothing else depends on: each constant, and none of them.
    fn values(&self, key: Text) -> Vec<String> {
        let mut values: Vec<String> = vec![String::new()];
        values.extend(self.constants(key).filter(|text| !text.is_empty()).cloned());
        values
    }

    /// The systems that differ in something that is compared.
    fn systems(&self) -> Vec<System> {
        let mut all: Vec<System> = SYSTEMS
            .iter()
            .map(|(os, sys, system, machine)| System::new(os, sys, system, machine))
            .collect();
        let machines: BTreeSet<&str> = SYSTEMS.iter().map(|row| row.3).collect();
        for machine in self.constants(Text::PlatformMachine) {
            if !machines.contains(machine.as_str()) {
                all.push(System::new("posix", "linux", "Linux", machine));
                all.push(System::new("nt", "win32", "Windows", machine));
                all.push(System::new("posix", "darwin", "Darwin", machine));
            }
        }
        let unknown = |key: Text, column: fn(&Row) -> &'static str| {
            self.constants(key)
                .filter(move |text| !SYSTEMS.iter().any(|row| column(row) == *text))
                .cloned()
        };
        for text in unknown(Text::SysPlatform, |row| row.1) {
            all.push(System::new("posix", &text, &text, "x86_64"));
        }
        for text in unknown(Text::PlatformSystem, |row| row.2) {
            all.push(System::new("posix", &text.to_lowercase(), &text, "x86_64"));
        }
        for text in unknown(Text::OsName, |row| row.0) {
            all.push(System::new(&text, &text, &text, "x86_64"));
        }
        let mut seen = HashSet::new();
        all.retain(|system| {
            let asked: Vec<Option<String>> = [
                (Text::OsName, &system.os_name),
                (Text::SysPlatform, &system.sys_platform),
                (Text::PlatformSystem, &system.platform_system),
                (Text::PlatformMachine, &system.machine),
            ]
            .into_iter()
            .map(|(key, value)| self.is_compared(key).then(|| value.clone()))
            .collect();
            seen.insert(asked)
        });
        all
    }

    fn interpreters(&self) -> Vec<Interpreter> {
        let known = |name: &str, shown: &str, version: Option<Version>| Interpreter {
            name: name.to_owned(),
            shown: shown.to_owned(),
            version,
        };
        let mut all = vec![known("cpython", "CPython", None)];
        let compared = self.is_compared(Text::ImplementationName)
            || self.is_compared(Text::PlatformPythonImplementation);
        if compared || !self.implementations.is_empty() {
            all.push(known("pypy", "PyPy", Some(Version::new([7, 3, 17]))));
        }
        for version in &self.implementations {
            all.push(known("pypy", "PyPy", Some(version.clone())));
        }
        for name in self.constants(Text::ImplementationName) {
            if !all.iter().any(|one| one.name == *name) {
                all.push(known(name, name, None));
            }
        }
        for shown in self.constants(Text::PlatformPythonImplementation) {
            if !all.iter().any(|one| one.shown == *shown) {
                all.push(known(&shown.to_lowercase(), shown, None));
            }
        }
        all
    }
}

type Row = (&'static str, &'static str, &'static str, &'static str);

/// `os_name`, `sys_platform`, `platform_system`, `platform_machine` of machines that exist.
const SYSTEMS: &[Row] = &[
    ("posix", "linux", "Linux", "x86_64"),
    ("posix", "linux", "Linux", "aarch64"),
    ("posix", "linux", "Linux", "armv7l"),
    ("posix", "linux", "Linux", "ppc64le"),
    ("posix", "linux", "Linux", "s390x"),
    ("posix", "linux", "Linux", "riscv64"),
    ("posix", "linux", "Linux", "i686"),
    ("posix", "darwin", "Darwin", "x86_64"),
    ("posix", "darwin", "Darwin", "arm64"),
    ("nt", "win32", "Windows", "AMD64"),
    ("nt", "win32", "Windows", "ARM64"),
    ("nt", "win32", "Windows", "x86"),
    ("posix", "cygwin", "CYGWIN_NT-10.0", "x86_64"),
    ("posix", "freebsd14", "FreeBSD", "amd64"),
    ("posix", "emscripten", "Emscripten", "wasm32"),
];

#[derive(Debug)]
struct System {
    os_name: String,
    sys_platform: String,
    platform_system: String,
    machine: String,
}

impl System {
    fn new(os_name: &str, sys_platform: &str, platform_system: &str, machine: &str) -> Self {
        Self {
            os_name: os_name.to_owned(),
            sys_platform: sys_platform.to_owned(),
            platform_system: platform_system.to_owned(),
            machine: machine.to_owned(),
        }
    }

    fn platform(&self) -> Option<Platform> {
        let os = match self.sys_platform.as_str() {
            "win32" => "windows",
            other => other,
        };
        Platform::ALL.into_iter().find(|platform| {
            platform.machine() == self.machine && platform.name().split('/').next() == Some(os)
        })
    }
}

#[derive(Debug)]
struct Interpreter {
    name: String,
    shown: String,
    /// Where it is not Python's own.
    version: Option<Version>,
}

fn place(
    python: &Version,
    system: &System,
    interpreter: &Interpreter,
    release: &str,
    version: &str,
) -> Option<Place> {
    let full = python.to_string();
    let minor = python.release().iter().take(2).copied().collect::<Vec<u64>>();
    let implementation = interpreter.version.as_ref().unwrap_or(python).to_string();
    let markers = MarkerEnvironment::try_from(MarkerEnvironmentBuilder {
        implementation_name: &interpreter.name,
        implementation_version: &implementation,
        os_name: &system.os_name,
        platform_machine: &system.machine,
        platform_python_implementation: &interpreter.shown,
        platform_release: release,
        platform_system: &system.platform_system,
        platform_version: version,
        python_full_version: &full,
        python_version: &Version::new(minor).to_string(),
        sys_platform: &system.sys_platform,
    })
    .ok()?;
    Some(Place {
        markers,
        python: python.clone(),
        platform: system.platform().filter(|_| interpreter.name == "cpython"),
    })
}

/// One interpreter at every bound, one after it, and one before the first: between two bounds all are alike.
fn pythons(bounds: &BTreeSet<Version>, minors: &BTreeSet<u64>) -> Vec<Version> {
    let mut found: BTreeSet<(u64, u64)> = minors.iter().map(|minor| (*minor, 0)).collect();
    for bound in bounds {
        let release = bound.release();
        let part = |at: usize| release.get(at).copied().unwrap_or(0);
        let (major, minor, patch) = (part(0), part(1), part(2));
        if major != 3 {
            continue;
        }
        found.insert((minor, patch));
        found.insert((minor, patch + 1));
        match (minor, patch) {
            (0, 0) => {}
            (_, 0) => drop(found.insert((minor - 1, 20))),
            _ => drop(found.insert((minor, patch - 1))),
        }
    }
    if found.is_empty() {
        found.insert((12, 0));
    }
    found
        .into_iter()
        .map(|(minor, patch)| Version::new([3, minor, patch]))
        .collect()
}

fn bound<T>(bound: Bound<T>) -> Option<T> {
    match bound {
        Bound::Included(value) | Bound::Excluded(value) => Some(value),
        Bound::Unbounded => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(markers: &[&str]) -> Vec<String> {
        let mut compared = Compared::default();
        for text in markers {
            compared.marker(text.parse().unwrap());
        }
        compared
            .places()
            .unwrap()
            .iter()
            .map(ToString::to_string)
            .collect()
    }

    #[test]
    fn what_no_marker_asks_for_is_not_varied() {
        assert_eq!(check(&[]), ["CPython 3.12.0 on linux x86_64"]);
        assert_eq!(
            check(&["os_name == 'nt'"]),
            ["CPython 3.12.0 on linux x86_64", "CPython 3.12.0 on win32 AMD64"]
        );
    }

    #[test]
    fn bounds_are_tried_on_both_sides() {
        let found = check(&["python_full_version < '3.11.4'"]);
        assert_eq!(
            found,
            ["3.11.3", "3.11.4", "3.11.5"].map(|version| format!("CPython {version} on linux x86_64"))
        );
        let found = check(&["python_version >= '3.11' and implementation_name == 'graalpy'"]);
        assert!(
            found.contains(&"graalpy 3.10.20 on linux x86_64".to_owned()),
            "{found:?}"
        );
        assert_eq!(found.len(), 9);
    }

    #[test]
    fn unknown_values_are_machines_too() {
        let found = check(&["sys_platform == 'sunos5' or platform_machine == 'sparc'"]);
        assert!(found.contains(&"CPython 3.12.0 on sunos5 x86_64".to_owned()));
        assert!(found.contains(&"CPython 3.12.0 on linux sparc".to_owned()));
        let found = check(&["sys_platform in 'plan9 inferno'"]);
        assert!(
            found.contains(&"CPython 3.12.0 on inferno x86_64".to_owned()),
            "{found:?}"
        );
    }

    #[test]
    fn more_than_can_be_tried_is_said() {
        let mut compared = Compared::default();
        for at in 0..60 {
            for key in ["platform_release", "platform_version", "platform_machine"] {
                compared.marker(format!("{key} == 'v{at}'").parse().unwrap());
            }
        }
        assert!(compared.places().unwrap_err() > MOST);
    }
}
