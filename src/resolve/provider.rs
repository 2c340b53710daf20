//! The types that pubgrub solves over.

use std::convert::Infallible;
use std::fmt;

use pubgrub::{Dependencies, DependencyProvider, PackageResolutionStatistics, Ranges};
use uv_normalize::{ExtraName, PackageName};
use uv_pep440::Version;

use super::priority::Priority;

/// What a version is decided for. An extra is a package of its own that always has its package's version.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Node {
    Root,
    Package(PackageName),
    Extra(PackageName, ExtraName),
}

impl Node {
    pub fn name(&self) -> Option<&PackageName> {
        match self {
            Self::Root => None,
            Self::Package(name) | Self::Extra(name, _) => Some(name),
        }
    }
}

impl fmt::Display for Node {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => formatter.write_str("the project"),
            Self::Package(name) => write!(formatter, "{name}"),
            Self::Extra(name, extra) => write!(formatter, "{name}[{extra}]"),
        }
    }
}

/// Why versions that exist cannot be chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Reason {
    /// No index has a project of that name.
    NotFound,
    RequiresPython(String),
    Yanked(String),
    TooNew,
    NoHash,
    /// No wheel fits any environment asked for, and there is no source archive.
    NoUsableWheel,
    NoBinary,
    NoBuild,
    NeedsBuild(String),
    /// Its metadata cannot be read.
    Broken(String),
    MissingWheel(String),
    /// It requires another version of itself.
    Itself,
    /// It requires a URL, which only the project itself may.
    Url(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => formatter.write_str("was not found on the index"),
            Self::RequiresPython(specifiers) => write!(formatter, "requires Python {specifiers}"),
            Self::Yanked(reason) if reason.is_empty() => formatter.write_str("was yanked"),
            Self::Yanked(reason) => write!(formatter, "was yanked ({reason})"),
            Self::TooNew => formatter.write_str("was published after --exclude-newer"),
            Self::NoHash => formatter.write_str("has no sha256 on its index"),
            Self::NoUsableWheel => {
                formatter.write_str("has no wheel for the environments asked for, and no source archive")
            }
            Self::NoBinary => formatter.write_str("has only wheels, and --no-binary excludes them"),
            Self::NoBuild => {
                formatter.write_str("has no usable wheel, and --no-build excludes its source archive")
            }
            Self::NeedsBuild(reason) => write!(formatter, "has to be built to know what it needs ({reason})"),
            Self::Broken(rule) => write!(formatter, "has metadata that cannot be used ({rule})"),
            Self::MissingWheel(platform) => {
                write!(formatter, "has no wheel for {platform}, and no source archive")
            }
            Self::Itself => formatter.write_str("requires another version of itself"),
            Self::Url(requirement) => write!(
                formatter,
                "requires a URL (`{requirement}`), which only the project may"
            ),
        }
    }
}

/// Names pubgrub's types; its questions are answered by `solve`, which drives the solver's state itself.
#[derive(Debug, Clone, Copy)]
pub(super) struct Types;

impl DependencyProvider for Types {
    type P = Node;
    type V = Version;
    type VS = Ranges<Version>;
    type Priority = Priority;
    type M = Reason;
    type Err = Infallible;

    fn prioritize(&self, _: &Node, _: &Ranges<Version>, _: &PackageResolutionStatistics) -> Priority {
        Priority::default()
    }

    fn choose_version(&self, _: &Node, _: &Ranges<Version>) -> Result<Option<Version>, Infallible> {
        Ok(None)
    }

    fn get_dependencies(
        &self,
        _: &Node,
        _: &Version,
    ) -> Result<Dependencies<Node, Ranges<Version>, Reason>, Infallible> {
        Ok(Dependencies::Unavailable(Reason::NotFound))
    }
}
