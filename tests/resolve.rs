//! The resolver against an independent oracle: small random worlds, solved by brute force for each environment.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use uv_normalize::PackageName;
use uv_pep508::MarkerEnvironment;

use mlrails::digest::Digest;
use mlrails::index::{FileId, Index, IndexError, Page, Pick, RawFile};
use mlrails::lock::Lock;
use mlrails::python::metadata::Metadata;
use mlrails::python::requirement::{self, Requirement, version_specifiers};
use mlrails::python::target::{Libc, Platform, PythonVersion, Target};
use mlrails::resolve::{Inputs, Options, Preferences, resolve};

use crate::support::store::amount;

/// Names, versions (1 to 3), and each version's requirements as text.
type World = BTreeMap<String, BTreeMap<u8, Vec<String>>>;

/// An index in memory.
struct Memory {
    world: World,
}

impl Index for Memory {
    fn page(&self, name: &PackageName) -> Result<Option<Arc<Page>>, Arc<IndexError>> {
        let Some(versions) = self.world.get(name.as_str()) else {
            return Ok(None);
        };
        let files = versions.keys().map(|version| {
            let file = format!("{name}-{version}-py3-none-any.whl");
            RawFile {
                url: format!("https://h.example/{file}").into(),
                sha256: Some(Digest::of(file.as_bytes())),
                name: file.into(),
                ..RawFile::default()
            }
        });
        Ok(Some(Arc::new(Page::build(
            name,
            "https://h.example/simple",
            files,
        ))))
    }

    fn metadata(
        &self,
        name: &PackageName,
        page: &Arc<Page>,
        file: FileId,
    ) -> Result<Arc<Metadata>, Arc<IndexError>> {
        let version = page.file(file).wheel().unwrap().version.clone();
        let number: u8 = version.to_string().parse().unwrap();
        let requires: String = self.world[name.as_str()][&number]
            .iter()
            .map(|text| format!("Requires-Dist: {text}\n"))
            .collect();
        let text = format!("Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{requires}\n");
        Ok(Arc::new(Metadata::parse(text.as_bytes()).unwrap()))
    }

    fn request_from(&self, _: &PackageName, _: Option<&str>, _: Option<Pick>) {}

    fn request_metadata(&self, _: &PackageName, _: &Arc<Page>, _: FileId) {}
}

const NAMES: [&str; 4] = ["p", "q", "r", "s"];

fn requirement_text() -> impl Strategy<Value = String> {
    let bound = prop_oneof![
        Just(""),
        Just(">=2"),
        Just("<3"),
        Just("==2"),
        Just("!=1"),
        Just("<=1")
    ];
    let marker = prop_oneof![
        4 => Just(""),
        1 => Just(" ; sys_platform == 'linux'"),
        1 => Just(" ; sys_platform != 'linux'"),
        1 => Just(" ; python_version < '3.12'"),
    ];
    (prop::sample::select(&NAMES[..]), bound, marker)
        .prop_map(|(name, bound, marker)| format!("{name}{bound}{marker}"))
}

fn world() -> impl Strategy<Value = World> {
    let versions =
        prop::collection::btree_map(1u8..=3, prop::collection::vec(requirement_text(), 0..3), 1..4);
    prop::collection::vec(versions, NAMES.len())
        .prop_map(|all| NAMES.iter().map(|name| (*name).to_owned()).zip(all).collect())
}

fn environments() -> Vec<MarkerEnvironment> {
    let mut all = Vec::new();
    for platform in [Platform::LinuxAmd64, Platform::WindowsAmd64] {
        for minor in [11, 13] {
            let libc = Libc::Glibc { major: 2, minor: 36 };
            let python = PythonVersion::new(3, minor);
            all.push(
                Target {
                    platform,
                    python,
                    libc,
                }
                .markers(),
            );
        }
    }
    all
}

/// What is wrong with a choice of versions in one environment.
fn fault(
    world: &World,
    roots: &[Requirement],
    markers: &MarkerEnvironment,
    picks: &BTreeMap<String, u8>,
) -> Option<String> {
    let mut todo: Vec<Requirement> = roots.to_vec();
    let mut reached = BTreeMap::new();
    while let Some(requirement) = todo.pop() {
        if !requirement.marker.evaluate(markers, &[]) {
            continue;
        }
        let name = requirement.name.as_str();
        let Some(version) = picks.get(name) else {
            return Some(format!("{requirement} is not met"));
        };
        let fits = version_specifiers(&requirement)
            .is_none_or(|specifiers| specifiers.contains(&version.to_string().parse().unwrap()));
        if !fits {
            return Some(format!("{requirement} got {version}"));
        }
        if reached.insert(name.to_owned(), *version).is_none() {
            let requires = world.get(name)?.get(version)?;
            todo.extend(requires.iter().map(|text| requirement::parse(text).unwrap()));
        }
    }
    (reached != *picks).then(|| "something that nobody asks for is installed".to_owned())
}

/// Whether some choice of versions meets everything, all requirements taken as if they held everywhere: what the
/// resolver promises to solve without any fork.
fn solvable_everywhere(world: &World, roots: &[Requirement]) -> bool {
    let everywhere = |requirement: &Requirement| Requirement {
        marker: uv_pep508::MarkerTree::TRUE,
        ..requirement.clone()
    };
    let choices: Vec<Vec<Option<u8>>> = NAMES
        .iter()
        .map(|name| {
            std::iter::once(None)
                .chain(world[*name].keys().copied().map(Some))
                .collect()
        })
        .collect();
    let bare: World = world
        .iter()
        .map(|(name, versions)| {
            let versions = versions.iter().map(|(version, requires)| {
                let requires = requires
                    .iter()
                    .map(|text| everywhere(&requirement::parse(text).unwrap()).to_string());
                (*version, requires.collect())
            });
            (name.clone(), versions.collect())
        })
        .collect();
    let roots: Vec<Requirement> = roots.iter().map(everywhere).collect();
    let markers = &environments()[0];
    let mut at = vec![0; NAMES.len()];
    loop {
        let picks: BTreeMap<String, u8> = NAMES
            .iter()
            .zip(&at)
            .enumerate()
            .filter_map(|(row, (name, column))| Some(((*name).to_owned(), choices[row][*column]?)))
            .collect();
        if fault(&bare, &roots, markers, &picks).is_none() {
            return true;
        }
        let Some(row) = (0..at.len()).find(|row| at[*row] + 1 < choices[*row].len()) else {
            return false;
        };
        at[row] += 1;
        at[..row].fill(0);
    }
}

fn picks(lock: &Lock, markers: &MarkerEnvironment) -> BTreeMap<String, u8> {
    let mut picks = BTreeMap::new();
    for package in &lock.packages {
        if package.marker.evaluate_pep751(markers, &[], &[]) {
            let version = package.version.as_ref().unwrap().to_string().parse().unwrap();
            let other = picks.insert(package.name.to_string(), version);
            assert!(
                other.is_none(),
                "two versions of {} in one environment",
                package.name
            );
        }
    }
    picks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: amount(300, 20_000), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn locks_hold_in_every_environment_and_are_found_where_there_is_one(
        world in world(),
        roots in prop::collection::vec(requirement_text(), 1..4),
    ) {
        let dependencies: Vec<Requirement> = roots.iter().map(|text| requirement::parse(text).unwrap()).collect();
        let inputs = Inputs {
            requires_python: Some(">=3.11".parse().unwrap()),
            dependencies: dependencies.clone(),
            ..Inputs::default()
        };
        let index = Memory { world: world.clone() };
        let solve = |preferences: &Preferences| resolve(&inputs, &Options::default(), preferences, &index, &[]);
        match solve(&Preferences::default()) {
            Ok(solved) => {
                for markers in environments() {
                    let fault = fault(&world, &dependencies, &markers, &picks(&solved.lock, &markers));
                    prop_assert!(fault.is_none(), "{fault:?}\n{}", solved.lock.to_toml());
                }
                let again = solve(&Preferences::from_lock(&solved.lock, &[])).map_err(|error| TestCaseError::fail(error.to_string()))?;
                prop_assert_eq!(again.lock.to_toml(), solved.lock.to_toml(), "a second solve moves nothing");
            }
            Err(error) => {
                prop_assert!(!solvable_everywhere(&world, &dependencies), "{error}");
            }
        }
    }
}
