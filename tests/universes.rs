//! The resolver on small random universes, against an oracle that solves each environment by itself, by trying everything. Every
//! lock goes through the verifier of `lock --check --prove`.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io::Write as _;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngAlgorithm, TestRng, TestRunner};
use uv_normalize::{ExtraName, PackageName};
use uv_pep440::Version;
use uv_pep508::{MarkerEnvironment, MarkerTree};

use mlrails::digest::Digest;
use mlrails::index::{FileId, Index, IndexError, Page, Pick, RawFile};
use mlrails::lock::Lock;
use mlrails::lock::prove::{Asked, Published, prove};
use mlrails::python::metadata::Metadata;
use mlrails::python::requirement::{self, Requirement, version_specifiers};
use mlrails::python::target::{Libc, Platform, PythonVersion, Target};
use mlrails::resolve::{Conflicts, Inputs, Options, Preferences, ResolveError, resolve};

use crate::support::store::amount;

const NAMES: [&str; 6] = ["p", "q", "r", "s", "t", "u"];
const VERSIONS: [&str; 4] = ["1", "2", "3rc1", "4"];

/// One version of a package.
#[derive(Debug, Clone)]
struct Release {
    requires: Vec<String>,
    /// The lowest Python minor, and whether the index says so (or only the metadata).
    python: Option<(u8, bool)>,
    yanked: bool,
}

/// An index, and a project that asks it.
#[derive(Debug, Clone)]
struct Universe {
    packages: BTreeMap<&'static str, BTreeMap<&'static str, Release>>,
    roots: Vec<String>,
    group: Vec<String>,
    constraints: Vec<String>,
    overrides: Vec<String>,
}

impl Universe {
    fn inputs(&self) -> Inputs {
        let parsed = |list: &[String]| -> Vec<Requirement> {
            list.iter()
                .map(|text| requirement::parse(text).unwrap())
                .collect()
        };
        let mut inputs = Inputs {
            requires_python: Some(">=3.11".parse().unwrap()),
            dependencies: parsed(&self.roots),
            constraints: parsed(&self.constraints),
            overrides: parsed(&self.overrides),
            ..Inputs::default()
        };
        if !self.group.is_empty() {
            inputs.groups.insert("dev".parse().unwrap(), parsed(&self.group));
        }
        inputs
    }

    fn metadata(&self, name: &str, version: &str) -> Metadata {
        let release = &self.packages[name][version];
        let mut text =
            format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\nProvides-Extra: x\n");
        if let Some((minor, _)) = release.python {
            text.push_str(&format!("Requires-Python: >=3.{minor}\n"));
        }
        for requires in &release.requires {
            text.push_str(&format!("Requires-Dist: {requires}\n"));
        }
        Metadata::parse(text.as_bytes()).unwrap()
    }

    fn published(&self) -> Published {
        let mut all = Published::new();
        for (name, versions) in &self.packages {
            for version in versions.keys() {
                let index = Some(INDEX.to_owned());
                let key = (name.parse().unwrap(), version.parse().unwrap(), index);
                all.insert(key, Arc::new(self.metadata(name, version)));
            }
        }
        all
    }
}

/// The one index's address.
const INDEX: &str = "https://h.example/simple";

/// The universe as an index.
struct Memory<'a>(&'a Universe);

impl Index for Memory<'_> {
    fn page(&self, name: &PackageName) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        let Some(versions) = self.0.packages.get(name.as_str()).filter(|all| !all.is_empty()) else {
            return Ok(None);
        };
        let files = versions.iter().map(|(version, release)| {
            let file = format!("{name}-{version}-py3-none-any.whl");
            let listed = release.python.filter(|(_, listed)| *listed);
            RawFile {
                url: format!("https://h.example/{file}").into(),
                sha256: Some(Digest::of(file.as_bytes())),
                name: file.into(),
                requires_python: listed.map(|(minor, _)| format!(">=3.{minor}").into()),
                yanked: release.yanked.then(|| "broken".into()),
                ..RawFile::default()
            }
        });
        let page = Page::build(name, INDEX, files);
        Ok(Some(Arc::new(page)))
    }

    fn metadata(
        &self,
        name: &PackageName,
        page: &Arc<Page>,
        file: FileId,
    ) -> Result<Arc<Metadata>, Arc<IndexError>> {
        let version = page.file(file).wheel().unwrap().version.to_string();
        Ok(Arc::new(self.0.metadata(name.as_str(), &version)))
    }

    fn request_from(&self, _: &PackageName, _: Option<&str>, _: Option<Pick>) {}

    fn request_metadata(&self, _: &PackageName, _: &Arc<Page>, _: FileId) {}
}

fn marker() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        4 => Just(""),
        1 => Just("sys_platform == 'linux'"),
        1 => Just("sys_platform != 'linux'"),
        1 => Just("sys_platform == 'win32'"),
        1 => Just("python_version < '3.12'"),
        1 => Just("python_version >= '3.13'"),
    ]
}

fn requirement_text() -> impl Strategy<Value = String> {
    let bound = prop_oneof![
        14 => Just(""),
        5 => Just(">=2"),
        2 => Just("<4"),
        1 => Just("==2"),
        1 => Just("!=1"),
        1 => Just("<=1"),
        1 => Just(">=4"),
        1 => Just(">2,<4"),
    ];
    let extra = prop_oneof![5 => Just(""), 1 => Just("[x]")];
    (prop::sample::select(&NAMES[..]), extra, bound, marker()).prop_map(|(name, extra, bound, marker)| {
        match marker {
            "" => format!("{name}{extra}{bound}"),
            _ => format!("{name}{extra}{bound} ; {marker}"),
        }
    })
}

/// A requirement of a package: now and then only of its extra.
fn dependency() -> impl Strategy<Value = String> {
    (requirement_text(), prop::bool::weighted(0.2)).prop_map(|(text, of_extra)| {
        match (of_extra, text.split_once(" ; ")) {
            (false, _) => text,
            (true, None) => format!("{text} ; extra == 'x'"),
            (true, Some((left, marker))) => format!("{left} ; {marker} and extra == 'x'"),
        }
    })
}

fn release() -> impl Strategy<Value = Release> {
    let python = prop_oneof![
        9 => Just(None),
        1 => Just(Some((12, true))),
        1 => Just(Some((13, true))),
        1 => Just(Some((13, false))),
    ];
    let requires = prop::collection::vec(dependency(), 0..3);
    (requires, python, prop::bool::weighted(0.05)).prop_map(|(requires, python, yanked)| Release {
        requires,
        python,
        yanked,
    })
}

fn universe() -> impl Strategy<Value = Universe> {
    let some = |range| prop::collection::btree_map(prop::sample::select(&VERSIONS[..]), release(), range);
    // Now and then a name that no index has.
    let versions = prop_oneof![1 => some(0..1), 20 => some(2..5)];
    let packages = prop::collection::vec(versions, NAMES.len());
    let list = |most| prop::collection::vec(requirement_text(), 0..most);
    let overrides = prop_oneof![9 => Just(Vec::new()), 1 => prop::collection::vec(requirement_text(), 1..2)];
    let roots = prop::collection::vec(requirement_text(), 1..4);
    let plain = |list: Vec<String>| list.iter().map(|text| text.replace("[x]", "")).collect();
    (packages, roots, list(2), list(2), overrides).prop_map(
        move |(packages, roots, group, constraints, overrides)| Universe {
            packages: NAMES.into_iter().zip(packages).collect(),
            roots,
            group,
            constraints: plain(constraints),
            overrides,
        },
    )
}

fn environments() -> Vec<MarkerEnvironment> {
    let mut all = Vec::new();
    for platform in [
        Platform::LinuxAmd64,
        Platform::WindowsAmd64,
        Platform::DarwinArm64,
    ] {
        for minor in [11, 12, 13] {
            let target = Target {
                platform,
                python: PythonVersion::new(3, minor),
                libc: Libc::Glibc { major: 2, minor: 36 },
            };
            all.push(target.markers());
        }
    }
    all
}

/// Tries everything in one environment.
struct Oracle<'a> {
    universe: &'a Universe,
    markers: &'a MarkerEnvironment,
    constraints: &'a [Requirement],
    /// Versions that some requirement of the project names exactly: those may be yanked.
    pinned: &'a BTreeSet<(String, Version)>,
    requires: &'a HashMap<(&'static str, &'static str), Vec<Requirement>>,
}

type Node = (&'static str, Option<ExtraName>);

impl Oracle<'_> {
    /// Whether what is still to be met can be met beside what was chosen.
    fn solve(
        &self,
        mut todo: Vec<Requirement>,
        picks: &BTreeMap<&'static str, &'static str>,
        reached: &BTreeSet<Node>,
    ) -> bool {
        let Some(next) = todo.pop() else { return true };
        let (name, versions) = (self.universe.packages)
            .get_key_value(next.name.as_str())
            .expect("all names are known");
        let allows = |version: &str| {
            let version: Version = version.parse().unwrap();
            let fits = |requirement: &Requirement| {
                version_specifiers(requirement).is_none_or(|specifiers| specifiers.contains(&version))
            };
            fits(&next)
                && self.constraints.iter().all(|constraint| {
                    constraint.name != next.name
                        || !constraint.marker.evaluate(self.markers, &[])
                        || fits(constraint)
                })
        };
        if let Some(version) = picks.get(name) {
            return allows(version) && self.follow(todo, &next, name, version, picks, reached);
        }
        versions.iter().any(|(version, release)| {
            if !allows(version) || !self.is_usable(name, version, release) {
                return false;
            }
            let mut picks = picks.clone();
            picks.insert(name, version);
            self.follow(todo.clone(), &next, name, version, &picks, reached)
        })
    }

    fn is_usable(&self, name: &str, version: &str, release: &Release) -> bool {
        let minor = release.python.map_or(0, |(minor, _)| minor);
        let new_enough = self.markers.python_version().release()[1] >= u64::from(minor);
        let pinned = || self.pinned.contains(&(name.to_owned(), version.parse().unwrap()));
        new_enough && (!release.yanked || pinned())
    }

    fn follow(
        &self,
        mut todo: Vec<Requirement>,
        by: &Requirement,
        name: &'static str,
        version: &'static str,
        picks: &BTreeMap<&'static str, &'static str>,
        reached: &BTreeSet<Node>,
    ) -> bool {
        let mut reached = reached.clone();
        let extras = by.extras.iter().cloned().map(Some);
        for extra in std::iter::once(None).chain(extras) {
            if !reached.insert((name, extra.clone())) {
                continue;
            }
            let extras: Vec<ExtraName> = extra.into_iter().collect();
            let requires = self.requires[&(name, version)].iter();
            todo.extend(
                requires
                    .filter(|one| one.marker.evaluate(self.markers, &extras))
                    .cloned(),
            );
        }
        self.solve(todo, picks, &reached)
    }
}

/// The first environment without a solution, if there is one.
fn unsolvable(universe: &Universe, inputs: &Inputs) -> Option<String> {
    let roots = inputs.roots().unwrap();
    let named = roots.iter().map(|(_, root)| root);
    let named = named.chain(&inputs.constraints).chain(&inputs.overrides);
    let mut pinned = BTreeSet::new();
    for requirement in named {
        for specifier in version_specifiers(requirement)
            .into_iter()
            .flat_map(|all| all.iter())
        {
            if specifier.operator() == &uv_pep440::Operator::Equal {
                pinned.insert((requirement.name.to_string(), specifier.version().clone()));
            }
        }
    }
    // An override replaces what any line of its name says, but not that a line is of an extra.
    let overridden = |text: &String| -> Vec<Requirement> {
        let of_extra = text.contains("extra == 'x'");
        let same: Vec<&String> = (universe.overrides.iter())
            .filter(|by| by[..1] == text[..1])
            .collect();
        let texts = match same.is_empty() {
            true => vec![text.clone()],
            false if !of_extra => same.into_iter().cloned().collect(),
            false => (same.iter())
                .map(|by| format!("{by} {} extra == 'x'", if by.contains(';') { "and" } else { ";" }))
                .collect(),
        };
        texts
            .iter()
            .map(|text| requirement::parse(text).unwrap())
            .collect()
    };
    let mut requires = HashMap::new();
    for (name, versions) in &universe.packages {
        for (version, release) in versions {
            let parsed = release.requires.iter().flat_map(overridden);
            requires.insert((*name, *version), parsed.collect());
        }
    }
    let is_unsolvable = |markers: &MarkerEnvironment| {
        let oracle = Oracle {
            universe,
            markers,
            constraints: &inputs.constraints,
            pinned: &pinned,
            requires: &requires,
        };
        let here = (universe.roots.iter().chain(&universe.group)).flat_map(overridden);
        let here = here.filter(|root| root.marker.evaluate(markers, &[])).collect();
        !oracle.solve(here, &BTreeMap::new(), &BTreeSet::new())
    };
    environments()
        .into_iter()
        .find(is_unsolvable)
        .map(|markers| format!("{} on {}", markers.python_full_version(), markers.sys_platform()))
}

/// How many universes came out how.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Counts {
    universes: u32,
    unsolvable: u32,
    forking: u32,
    needing_splits: u32,
    moving: u32,
}

fn is_forking(lock: &Lock) -> bool {
    lock.mlrails.forks.len() > 1
        || lock
            .packages
            .iter()
            .any(|package| package.fork != MarkerTree::TRUE)
}

/// What is counted of a universe that has a lock.
struct Lockable {
    forks: bool,
    /// Whether `--split-conflicts` is what finds it.
    needs_splitting: bool,
    /// Whether a second solve, which starts from the first one's lock, ends elsewhere.
    moves: bool,
}

/// Solves and compares; `None`: there is no solution, and none was found.
fn check(universe: &Universe) -> Result<Option<Lockable>, TestCaseError> {
    let inputs = universe.inputs();
    let index = Memory(universe);
    let options = Options {
        conflicts: Conflicts::Split,
        ..Options::default()
    };
    let solve = |preferences: &Preferences| resolve(&inputs, &options, preferences, &index, &[]);
    // Without splitting, whatever is found holds as well; what is not found for the lack of it is counted.
    let plain = resolve(&inputs, &Options::default(), &Preferences::default(), &index, &[]);
    let nowhere = unsolvable(universe, &inputs);
    let solved = match (solve(&Preferences::default()), nowhere) {
        (Ok(solved), None) => solved,
        (Err(ResolveError::NoSolution { .. }), Some(_)) => return Ok(None),
        (Ok(solved), Some(place)) => {
            let why = format!(
                "{place} has no solution, and there is a lock:\n{}",
                solved.lock.to_toml()
            );
            return Err(TestCaseError::fail(why));
        }
        (Err(error), _) => {
            return Err(TestCaseError::fail(format!(
                "there is a solution everywhere: {error}"
            )));
        }
    };
    let asked = Asked {
        wanted: inputs.wanted(&options, &[]).unwrap(),
        constraints: inputs.constraints.clone(),
        overrides: inputs.overrides.clone(),
        ..Asked::default()
    };
    let proof = prove(&solved.lock, &asked, &universe.published());
    prop_assert!(proof.environments > 0, "nothing was tried");
    prop_assert!(
        proof.holds(),
        "{:#?}\n{}",
        proof.violations,
        solved.lock.to_toml()
    );
    let needs_splitting = match plain {
        Ok(plain) => {
            let proof = prove(&plain.lock, &asked, &universe.published());
            prop_assert!(proof.holds(), "{:#?}\n{}", proof.violations, plain.lock.to_toml());
            false
        }
        Err(ResolveError::NoSolution { hints, .. }) => {
            let is_said = hints.iter().any(|hint| hint.contains("--split-conflicts"));
            prop_assert!(is_said, "{hints:?}");
            true
        }
        Err(error) => return Err(TestCaseError::fail(error.to_string())),
    };
    // A lock is where the next solve starts, and stays there.
    let again = solve(&Preferences::from_lock(&solved.lock, &[]));
    let again = again.map_err(|error| TestCaseError::fail(format!("the second time: {error}")))?;
    let proof = prove(&again.lock, &asked, &universe.published());
    prop_assert!(proof.holds(), "{:#?}\n{}", proof.violations, again.lock.to_toml());
    Ok(Some(Lockable {
        forks: is_forking(&solved.lock),
        needs_splitting,
        moves: again.lock.to_toml() != solved.lock.to_toml(),
    }))
}

#[test]
fn locks_are_found_exactly_where_there_are_solutions() {
    let counts = RefCell::new(Counts::default());
    let config = ProptestConfig {
        cases: amount(200, 2_000),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(
            "tests/universes.regressions",
        ))),
        ..ProptestConfig::default()
    };
    // The same universes every time; `MLRAILS_SEED=7` tries others. What fails is kept in the file.
    let seed = std::env::var("MLRAILS_SEED").map_or(0, |text| text.parse().expect("a seed is a number"));
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[seed; 32]);
    let outcome = TestRunner::new_with_rng(config, rng).run(&universe(), |universe| {
        let outcome = check(&universe)?;
        let mut counts = counts.borrow_mut();
        counts.universes += 1;
        counts.unsolvable += u32::from(outcome.is_none());
        if let Some(found) = outcome {
            counts.forking += u32::from(found.forks);
            counts.needing_splits += u32::from(found.needs_splitting);
            counts.moving += u32::from(found.moves);
        }
        Ok(())
    });
    let counts = counts.into_inner();
    // Past the test harness, so that it is seen of a test that passes.
    let _ = writeln!(std::io::stderr(), "{counts:?}");
    if let Err(error) = outcome {
        panic!("{error}");
    }
    assert!(counts.unsolvable * 10 >= counts.universes * 3, "{counts:?}");
    // A choice that nothing reaches in the end can still have decided another: that is rare, and not worth a second search.
    assert!(counts.moving * 100 <= counts.universes, "{counts:?}");
    assert!(counts.forking * 10 >= counts.universes * 3, "{counts:?}");
}

/// `packages`: one version a line, `p 1 >=3.12: q>=2, r ; sys_platform == 'linux'`.
#[track_caller]
fn once_failed(packages: &'static [&'static str], roots: &[&str], group: &[&str], constraints: &[&str]) {
    let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect();
    let mut universe = Universe {
        packages: NAMES.iter().map(|name| (*name, BTreeMap::new())).collect(),
        roots: owned(roots),
        group: owned(group),
        constraints: owned(constraints),
        overrides: Vec::new(),
    };
    for line in packages {
        let (head, requires) = line.split_once(':').unwrap();
        let mut words = head.split(' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let python = words.next().map(|word| match word.split_once(".") {
            Some((">=3", minor)) => (minor.parse().unwrap(), true),
            // Only the metadata says so.
            _ => (word.strip_prefix("metadata>=3-").unwrap().parse().unwrap(), false),
        });
        let requires = requires.split(',').map(str::trim).filter(|text| !text.is_empty());
        let release = Release {
            requires: requires.map(ToOwned::to_owned).collect(),
            python,
            yanked: false,
        };
        universe.packages.get_mut(name).unwrap().insert(version, release);
    }
    let found = check(&universe).unwrap_or_else(|error| panic!("{error}"));
    assert!(found.is_some_and(|found| !found.moves));
}

/// What the random ones found, in its smallest form: a seed means another universe when the generator changes.
#[test]
fn what_failed_once_stays_solved() {
    // A fork inherits `s` from the part where it is asked for, and `s` cannot be had in the fork.
    once_failed(
        &[
            "r 1:",
            "s 1: r ; python_version < '3.12', p ; sys_platform == 'linux'",
        ],
        &["s<4 ; sys_platform != 'linux'"],
        &[],
        &["r ; sys_platform == 'linux'"],
    );
    // The lock told of a fork that has `p` without asking for it.
    once_failed(
        &["p 1 >=3.12:", "p 3rc1:", "q 1:", "q 2:"],
        &["p ; sys_platform == 'win32'", "q"],
        &[],
        &["q ; sys_platform != 'linux'"],
    );
    // A Python that the index does not tell, and that a narrower fork has.
    once_failed(
        &["q 1 metadata>=3-13:", "q 3rc1: t>=2 ; python_version >= '3.13'"],
        &["q"],
        &[],
        &[],
    );
    // A version that contradicts itself, elsewhere.
    once_failed(
        &[
            "p 1: p==2 ; python_version >= '3.13'",
            "p 3rc1 >=3.12:",
            "r 1:",
            "r 2:",
        ],
        &["r"],
        &["p"],
        &[],
    );
}
