//! What a lock costs to ship: the bytes of the wheels that production installs, and which of the project's requirements brings them.
//!
//! It takes a lock and a target and gives sums. It reads no file: sizes are what the index said of them, and a wheel whose index
//! said nothing is counted apart.

use std::collections::{BTreeMap, BTreeSet};

use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_platform_tags::Tags;

use super::reach::Scope;
use super::{Lock, Package, SelectError};
use crate::python::requirement::Requirement;
use crate::python::target::Target;

/// A sum of wheels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Size {
    pub bytes: u64,
    /// Wheels of unknown size, which `bytes` leaves out.
    pub unknown: usize,
}

/// What one target's production weighs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cost {
    pub total: Size,
    /// The largest first.
    pub rows: Vec<Row>,
    /// What more than one requirement brings.
    pub shared: Size,
    /// CUDA's libraries among them, the largest first.
    pub cuda: Vec<Cuda>,
}

/// One of the project's own requirements.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Row {
    pub name: String,
    /// What nothing else brings: what its removal would save.
    pub own: Size,
    /// All that it brings.
    pub with_shared: Size,
}

/// A library that only a GPU uses.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Cuda {
    pub name: String,
    pub size: Size,
    /// The project's requirements that bring it.
    pub by: Vec<String>,
    /// Another build of what brings it would not.
    pub avoidable: bool,
}

impl std::ops::AddAssign for Size {
    fn add_assign(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.unknown += other.unknown;
    }
}

/// Weighs what `roots` bring on `target`. `groups` are those that production installs; `is_built_for_cpus` says whether a package
/// is published once per accelerator, and once without.
pub fn cost(
    lock: &Lock,
    target: &Target,
    groups: &[GroupName],
    roots: &[(Scope, Requirement)],
    is_built_for_cpus: &dyn Fn(&PackageName) -> bool,
) -> Result<Cost, SelectError> {
    let selected = lock.select(target, groups, &[])?;
    let (markers, tags) = (target.markers(), target.tags());
    let mut asked: BTreeMap<&PackageName, Vec<ExtraName>> = BTreeMap::new();
    for (scope, requirement) in roots {
        let installed = match scope {
            Scope::Project => true,
            Scope::Group(group) => groups.contains(group),
            Scope::Extra(_) => false,
        };
        if installed && requirement.marker.evaluate(&markers, &[]) {
            let extras = asked.entry(&requirement.name).or_default();
            extras.extend(requirement.extras.iter().cloned());
        }
    }
    let brought = |from: &[&Package], name: &PackageName| -> BTreeSet<PackageName> {
        let start = asked.get(name).cloned().map(|extras| (name.clone(), extras));
        let reached = Lock::closure(from, &markers, start);
        reached.into_keys().cloned().collect()
    };
    let ways: Vec<(&PackageName, BTreeSet<PackageName>)> = asked
        .keys()
        .map(|name| (*name, brought(&selected, name)))
        .collect();
    // The same without the packages that are built per accelerator: what is left comes from elsewhere.
    let others: Vec<&Package> = selected
        .iter()
        .copied()
        .filter(|package| !is_built_for_cpus(&package.name))
        .collect();
    let elsewhere: BTreeSet<PackageName> = asked.keys().flat_map(|name| brought(&others, name)).collect();
    let mut rows: BTreeMap<&PackageName, Row> = BTreeMap::new();
    for (name, _) in &ways {
        rows.insert(
            name,
            Row {
                name: name.to_string(),
                own: Size::default(),
                with_shared: Size::default(),
            },
        );
    }
    let (mut total, mut shared, mut cuda) = (Size::default(), Size::default(), Vec::new());
    for package in &selected {
        let by: Vec<&PackageName> = ways
            .iter()
            .filter(|(_, reached)| reached.contains(&package.name))
            .map(|(name, _)| *name)
            .collect();
        if by.is_empty() {
            continue;
        }
        let size = size(package, &tags);
        total += size;
        for name in &by {
            if let Some(row) = rows.get_mut(*name) {
                row.with_shared += size;
                if by.len() == 1 {
                    row.own += size;
                }
            }
        }
        if by.len() > 1 {
            shared += size;
        }
        if is_cuda(&package.name) {
            cuda.push(Cuda {
                name: package.name.to_string(),
                size,
                by: by.iter().map(ToString::to_string).collect(),
                avoidable: !elsewhere.contains(&package.name),
            });
        }
    }
    let mut rows: Vec<Row> = rows.into_values().collect();
    rows.sort_by_key(|row| std::cmp::Reverse((row.with_shared.bytes, row.own.bytes)));
    cuda.sort_by_key(|library| std::cmp::Reverse(library.size.bytes));
    Ok(Cost {
        total,
        rows,
        shared,
        cuda,
    })
}

/// What `target` downloads of a package: its wheel, or the archive that one is built from.
fn size(package: &Package, tags: &Tags) -> Size {
    let file = package.wheel_for_tags(tags).or_else(|| package.sdist());
    match file.and_then(|file| file.size) {
        Some(bytes) => Size { bytes, unknown: 0 },
        None => Size { bytes: 0, unknown: 1 },
    }
}

/// Whether a package is of use on a GPU alone: NVIDIA's own wheels, and the compiler that torch runs on one. What only asks a
/// driver how it is (`nvidia-ml-py`) is small and runs anywhere.
fn is_cuda(name: &PackageName) -> bool {
    let name = name.as_str();
    name != "nvidia-ml-py" && (name.starts_with("nvidia-") || name.starts_with("cuda-") || name == "triton")
}
