//! What locked packages and their files say of themselves: whose they are, for which interpreters, on which machines.

use std::collections::HashMap;
use std::collections::HashSet;

use uv_pep440::{Operator, Version, VersionSpecifiers};

use super::cover::Place;
use super::fault::{Fault, Found};
use super::{Published, of};
use crate::lock::{Lock, Package};
use crate::python::target::{Libc, Platform, PythonVersion, Target};

/// A file is of the package that it is locked for.
pub(super) fn check_name(package: &Package, published: &Published, found: &mut Found) {
    let Some(version) = &package.version else { return };
    if let Some(metadata) = of(published, package)
        && (metadata.name != package.name || metadata.version != *version)
    {
        let fault = Fault::Mislabelled {
            package: package.label(),
            published: format!("{} {}", metadata.name, metadata.version),
        };
        found.add(fault, "everywhere");
    }
}

/// What a package says of interpreters.
pub(super) fn check_python(package: &Package, place: &Place, published: &Published, found: &mut Found) {
    let metadata = of(published, package).and_then(|metadata| metadata.requires_python.as_ref());
    for specifiers in package.requires_python.iter().chain(metadata) {
        if !reaches(specifiers, &place.python) {
            let fault = Fault::Python {
                package: package.label(),
                specifiers: specifiers.to_string(),
            };
            found.add(fault, place);
        } else if !specifiers.contains(&place.python) {
            found.notes.insert(format!(
                "{} was published for Python {specifiers}, and is locked for later ones too",
                package.label()
            ));
        }
    }
}

/// Whether `python` is not too old for `specifiers`. That it may be newer than what a package was tested with is the resolver's
/// documented choice (docs/decisions/resolver.md), which this check shares.
fn reaches(specifiers: &VersionSpecifiers, python: &Version) -> bool {
    specifiers.iter().all(|specifier| match specifier.operator() {
        Operator::GreaterThan => python > specifier.version(),
        Operator::GreaterThanEqual
        | Operator::TildeEqual
        | Operator::Equal
        | Operator::EqualStar
        | Operator::ExactEqual => python >= specifier.version(),
        _ => true,
    })
}

pub(super) fn is_buildable(package: &Package) -> bool {
    package.has_source()
}

pub(super) type Machine = (Platform, PythonVersion);

/// The packages that have a file for each machine, by position.
pub(super) type Installable = HashMap<Machine, HashSet<usize>>;

pub(super) fn installable(lock: &Lock, (platform, python): Machine) -> HashSet<usize> {
    // Newer than any C library and any macOS there is: markers cannot ask for one, so neither is asked for here.
    let newest = [
        Libc::Glibc { major: 2, minor: 99 },
        Libc::Musl { major: 1, minor: 99 },
    ];
    let tags = newest.map(|libc| {
        let target = Target {
            platform,
            python,
            libc,
        };
        target.tags_of_any_macos()
    });
    let fits = |package: &Package| {
        is_buildable(package) || tags.iter().any(|tags| package.wheel_for_tags(tags).is_some())
    };
    let all = lock.packages.iter().enumerate();
    all.filter(|(_, package)| fits(package))
        .map(|(index, _)| index)
        .collect()
}
