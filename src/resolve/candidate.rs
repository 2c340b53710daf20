//! Which version of a package is taken next, and why others are not.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use pubgrub::Ranges;
use uv_normalize::PackageName;
use uv_pep440::{LowerBound, Operator, Version};
use uv_pep508::MarkerTree;

use super::coverage::{Missing, Required};
use super::fork::{Environment, above, lowest_python};
use super::provider::Reason;
use super::tags;
use super::{ForkStrategy, Inputs, Options, Preferences, Prerelease, Resolution};
use crate::index::{FileId, Listed, Page};
use crate::lock::reach::Scope;
use crate::python::requirement::{Requirement, version_specifiers};

/// What the range of a package comes down to.
#[derive(Debug, Clone)]
pub(super) enum Choice {
    /// Take this version; its dependencies are those of this file.
    Version(Version, FileId),
    /// This version does for the part of the environment where the marker holds only. That part is solved first.
    Split(MarkerTree),
    /// This version cannot be taken.
    Unavailable(Version, Reason),
    /// No version is in range.
    None,
}

/// What decides between versions; the same for all forks.
#[derive(Debug, Clone)]
pub(super) struct Selector {
    options: Options,
    direct: HashSet<PackageName>,
    /// Yanked versions that the project asks for by name.
    pinned: HashMap<PackageName, HashSet<Version>>,
    required: Required,
}

impl Selector {
    pub fn new(
        inputs: &Inputs,
        options: &Options,
        roots: &[(Scope, Requirement)],
        required: &Required,
    ) -> Self {
        let mut pinned: HashMap<PackageName, HashSet<Version>> = HashMap::new();
        for requirement in roots
            .iter()
            .map(|(_, requirement)| requirement)
            .chain(&inputs.constraints)
            .chain(&inputs.overrides)
        {
            for specifier in version_specifiers(requirement)
                .into_iter()
                .flat_map(|specifiers| specifiers.iter())
            {
                if matches!(specifier.operator(), Operator::Equal | Operator::ExactEqual) {
                    pinned
                        .entry(requirement.name.clone())
                        .or_default()
                        .insert(specifier.version().clone());
                }
            }
        }
        Self {
            options: options.clone(),
            direct: roots
                .iter()
                .map(|(_, requirement)| requirement.name.clone())
                .collect(),
            pinned,
            required: required.clone(),
        }
    }

    /// Chooses from `page` a version of `name` in `range` for `environment`.
    pub fn choose(
        &self,
        name: &PackageName,
        page: &Page,
        range: &Ranges<Version>,
        environment: &Environment,
        preferences: &Preferences,
    ) -> Choice {
        // A version whose wheels are all for other machines than the environment's: the last resort, as long as no platform
        // of production is concerned. Markers split environments off that nobody has (Emscripten, the Python after next).
        let mut elsewhere = None;
        for version in preferences.of(name, environment.marker) {
            if !range.contains(version)
                || (version.any_prerelease() && self.options.prerelease == Prerelease::Disallow)
            {
                continue;
            }
            let Some(position) = page.position(version) else {
                continue;
            };
            let version = || page.versions()[position].clone();
            match self.usable(name, page, position, environment, preferences) {
                Ok(file) => {
                    return match self.beyond(page, position, range, environment) {
                        Some(base) => Choice::Split(base.negate()),
                        None => Choice::Version(version(), file),
                    };
                }
                Err(Unusable::Elsewhere(file)) => {
                    elsewhere = elsewhere.or_else(|| Some(Choice::Version(version(), file)));
                }
                Err(_) => {}
            }
        }
        let lowest = match self.options.resolution {
            Resolution::Highest => false,
            Resolution::Lowest => true,
            Resolution::LowestDirect => self.direct.contains(name),
        };
        let count = page.versions().len();
        let mut prerelease = None;
        let mut yanked = None;
        for step in 0..count {
            let position = if lowest { step } else { count - 1 - step };
            let version = &page.versions()[position];
            if !range.contains(version) {
                continue;
            }
            if version.any_prerelease() {
                match self.options.prerelease {
                    Prerelease::Allow => {}
                    Prerelease::Disallow => continue,
                    Prerelease::IfNecessary => {
                        prerelease = prerelease.or(Some(position));
                        continue;
                    }
                }
            }
            match self.judge(name, page, position, environment, preferences) {
                Judged::Final(Choice::Version(version, file)) => {
                    return match self.beyond(page, position, range, environment) {
                        Some(base) => Choice::Split(base.negate()),
                        None => Choice::Version(version, file),
                    };
                }
                Judged::Elsewhere(version, file) => {
                    elsewhere = elsewhere.or(Some(Choice::Version(version, file)));
                }
                // A yanked version says nothing about its neighbours: the next is looked at right away.
                Judged::Final(Choice::Unavailable(
                    version,
                    reason @ (Reason::Yanked(_) | Reason::TooNew),
                )) => {
                    yanked = yanked.or(Some(Choice::Unavailable(version, reason)));
                }
                Judged::Final(choice) => return choice,
            }
        }
        if let Some(choice) = elsewhere {
            return choice;
        }
        if let Some(position) = prerelease {
            return match self.judge(name, page, position, environment, preferences) {
                Judged::Final(choice) => choice,
                Judged::Elsewhere(version, file) => Choice::Version(version, file),
            };
        }
        yanked.unwrap_or(Choice::None)
    }

    /// Whether a file of a chosen version may stand in the lock.
    pub fn allows(&self, name: &PackageName, file: &Listed<'_>) -> bool {
        let new = self
            .options
            .exclude_newer
            .is_some_and(|limit| file.upload_time().is_none_or(|time| time > limit));
        let never = match file.is_wheel() {
            true => self.options.no_binary.holds(name),
            false => self.options.no_build.holds(name),
        };
        !new && !never
    }

    fn judge(
        &self,
        name: &PackageName,
        page: &Page,
        position: usize,
        environment: &Environment,
        preferences: &Preferences,
    ) -> Judged {
        let version = page.versions()[position].clone();
        Judged::Final(
            match self.usable(name, page, position, environment, preferences) {
                Ok(file) => Choice::Version(version, file),
                Err(Unusable::Python(bound, specifiers)) => {
                    let newer = above(&bound).filter(|newer| {
                        self.options.fork_strategy == ForkStrategy::RequiresPython
                            && environment.split(*newer).is_some()
                    });
                    match newer {
                        Some(newer) => Choice::Split(newer),
                        None => Choice::Unavailable(version, Reason::RequiresPython(specifiers)),
                    }
                }
                Err(Unusable::Missing(missing)) => {
                    match missing.apart.filter(|part| environment.split(*part).is_some()) {
                        Some(part) => Choice::Split(part.negate()),
                        None => Choice::Unavailable(version, Reason::MissingWheel(missing.shown)),
                    }
                }
                Err(Unusable::Elsewhere(file)) => return Judged::Elsewhere(version, file),
                Err(Unusable::Other(reason)) => Choice::Unavailable(version, reason),
            },
        )
    }

    /// The file whose metadata stands for the version, if any of its files can be used.
    fn usable(
        &self,
        name: &PackageName,
        page: &Page,
        position: usize,
        environment: &Environment,
        preferences: &Preferences,
    ) -> Result<FileId, Unusable> {
        let version = &page.versions()[position];
        let may_be_yanked = self.pinned.get(name).is_some_and(|pinned| {
            pinned.contains(version) || pinned.contains(&version.clone().without_local())
        }) || preferences.holds(name, version);
        // The file that makes the version usable, and the one whose metadata speaks for it: builds of one version say
        // the same, so that a wheel for another machine beats a source archive that would have to be built.
        let mut usable = false;
        let mut best: Option<(u8, Listed<'_>)> = None;
        let mut why: Option<Unusable> = None;
        let mut blame = |unusable: Unusable| {
            // The reason that stands closest to being usable is the one worth telling.
            if why.as_ref().is_none_or(|known| unusable.rank() > known.rank()) {
                why = Some(unusable);
            }
        };
        let mut has_sdist = false;
        let mut wheels: Vec<Listed<'_>> = Vec::new();
        for file in page.files(position) {
            if let Some(limit) = self.options.exclude_newer
                && file.upload_time().is_none_or(|time| time > limit)
            {
                blame(Unusable::Other(Reason::TooNew));
                continue;
            }
            if let Some(reason) = file.yanked().filter(|_| !may_be_yanked) {
                blame(Unusable::Other(Reason::Yanked(reason.to_owned())));
                continue;
            }
            if file.digest().is_none() {
                blame(Unusable::Other(Reason::NoHash));
                continue;
            }
            let too_old = file
                .requires_python()
                .map(|specifiers| (lowest_python(specifiers), specifiers))
                .filter(|(bound, _)| *bound > environment.floor);
            if let Some((bound, specifiers)) = too_old {
                blame(Unusable::Python(bound, specifiers.to_string()));
                continue;
            }
            if !file.is_wheel() {
                if self.options.no_build.holds(name) {
                    blame(Unusable::Other(Reason::NoBuild));
                } else if file.name().ends_with(".tar.gz")
                    || file.name().ends_with(".tgz")
                    || file.name().ends_with(".zip")
                {
                    has_sdist = true;
                    usable = true;
                    best = better(best, (0, file));
                }
                continue;
            }
            if self.options.no_binary.holds(name) {
                blame(Unusable::Other(Reason::NoBinary));
                continue;
            }
            let Some(implied) = tags::implied(file.name()) else {
                continue;
            };
            let rank = match implied {
                _ if implied.marker.is_true() => 3,
                _ if implied.linux_amd64 => 2,
                _ => 1,
            };
            best = better(best, (rank, file));
            if !implied.ordinary {
                blame(Unusable::Other(Reason::NoUsableWheel));
                continue;
            }
            if implied.marker.is_disjoint(environment.marker) {
                blame(Unusable::Elsewhere(file.id()));
                continue;
            }
            usable = true;
            wheels.push(file);
        }
        let Some((_, file)) = best.filter(|_| usable) else {
            // The file that speaks for the version is the best of all, wherever it installs.
            return Err(match (why, best, self.required.missing(name, environment, &[])) {
                (Some(Unusable::Elsewhere(_)), _, Some(missing)) => Unusable::Missing(missing),
                (Some(Unusable::Elsewhere(_)), Some((_, file)), None) => Unusable::Elsewhere(file.id()),
                (why, ..) => why.unwrap_or(Unusable::Other(Reason::NoUsableWheel)),
            });
        };
        if !has_sdist && let Some(missing) = self.required.missing(name, environment, &wheels) {
            return Err(Unusable::Missing(missing));
        }
        Ok(file.id())
    }

    /// Where the version at `position`, a local one without a source archive, has no wheel and the version that it is a build of has:
    /// `torch 2.9.1+cpu` is for Linux and Windows, and on macOS it is `torch 2.9.1`. `None` where it makes no difference.
    fn beyond(
        &self,
        page: &Page,
        position: usize,
        range: &Ranges<Version>,
        environment: &Environment,
    ) -> Option<MarkerTree> {
        let version = &page.versions()[position];
        if !version.is_local() {
            return None;
        }
        let base = version.clone().without_local();
        if !range.contains(&base) {
            return None;
        }
        let own = self.fits(page, position)?;
        let base = self.fits(page, page.position(&base)?).unwrap_or(MarkerTree::TRUE);
        let mut beyond = base.and(own.negate());
        // A system that the local version has nothing for is left to the other as a whole, whatever its machines and Pythons.
        for system in ["darwin", "linux", "win32"] {
            let system = tags::marker(&format!("sys_platform == '{system}'"));
            if own.is_disjoint(system) && !beyond.is_disjoint(system) {
                beyond = beyond.or(system);
            }
        }
        environment.split(beyond).map(|_| beyond)
    }

    /// The environments that the wheels of a version fit; `None` if it has a source archive, which fits all.
    fn fits(&self, page: &Page, position: usize) -> Option<MarkerTree> {
        let mut fits = MarkerTree::FALSE;
        for file in page.files(position) {
            let too_new = self
                .options
                .exclude_newer
                .is_some_and(|limit| file.upload_time().is_none_or(|time| time > limit));
            if too_new || file.yanked().is_some() {
                continue;
            }
            if !file.is_wheel() {
                return None;
            }
            if let Some(implied) = tags::implied(file.name()).filter(|implied| implied.ordinary) {
                fits = fits.or(implied.marker);
            }
        }
        Some(fits)
    }
}

fn better<'a>(best: Option<(u8, Listed<'a>)>, new: (u8, Listed<'a>)) -> Option<(u8, Listed<'a>)> {
    match best {
        Some(best) if best.0 >= new.0 => Some(best),
        _ => Some(new),
    }
}

/// What one version comes down to.
enum Judged {
    Final(Choice),
    /// It has wheels, and all of them are for other machines.
    Elsewhere(Version, FileId),
}

enum Unusable {
    Python(LowerBound, String),
    /// All its wheels are for other machines; its metadata is this file's.
    Elsewhere(FileId),
    /// It has no wheel where one is demanded.
    Missing(Missing),
    Other(Reason),
}

impl Unusable {
    fn rank(&self) -> u8 {
        match self {
            Self::Python(..) => 5,
            Self::Other(Reason::Yanked(_)) => 4,
            Self::Other(Reason::TooNew) => 1,
            Self::Other(Reason::NoBuild | Reason::NoBinary) => 3,
            Self::Other(_) | Self::Elsewhere(_) | Self::Missing(_) => 2,
        }
    }
}

/// Counts the versions of a name that were tried, to fetch ahead where that goes on.
#[derive(Debug, Default)]
pub(super) struct Tries(Mutex<HashMap<PackageName, HashSet<Version>>>);

impl Tries {
    /// Notes a try; says how many versions to fetch ahead now. Forks that try one version again do not count.
    pub fn count(&self, name: &PackageName, version: &Version) -> usize {
        let mut tries = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let tried = tries.entry(name.clone()).or_default();
        if !tried.insert(version.clone()) {
            return 0;
        }
        match tried.len() {
            5 => 10,
            10 => 20,
            count if count.is_multiple_of(20) => 50,
            _ => 0,
        }
    }
}
