//! What can be wrong with a lock, and where it was met.

use std::collections::{BTreeMap, BTreeSet};

use uv_normalize::{ExtraName, PackageName};

use super::Proof;

/// One thing that does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub fault: Fault,
    /// An environment in which it does not hold.
    pub place: String,
    /// How many environments there are in which it does not.
    pub places: usize,
}

/// What can be wrong with a lock.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
pub enum Fault {
    #[error("the lock does not cover it")]
    NotCovered,
    #[error("{name} is locked twice: {one} and {other}")]
    Twice {
        name: PackageName,
        one: String,
        other: String,
    },
    #[error("{by} needs `{requirement}`, and it is not locked")]
    Missing { by: String, requirement: String },
    #[error("{by} needs `{requirement}`, and {locked} is locked")]
    Unmet {
        by: String,
        requirement: String,
        locked: String,
    },
    #[error("{by} needs `{requirement}`, and the lock has it without the extra `{extra}`")]
    Extra {
        by: String,
        requirement: String,
        extra: ExtraName,
    },
    #[error("the constraint `{requirement}` is not kept: {locked} is locked")]
    Constraint { requirement: String, locked: String },
    #[error("nothing needs {0}")]
    Unreachable(String),
    #[error("{package} is for Python {specifiers}")]
    Python { package: String, specifiers: String },
    #[error("{package} has no file that fits {place}")]
    NoFile { package: String, place: String },
    #[error("{package} has no file that can be installed where it is locked")]
    Useless { package: String },
    #[error("the file of {package} says that it is {published}")]
    Mislabelled { package: String, published: String },
    #[error("its markers tell {0} environments apart, which is more than are tried")]
    TooMany(usize),
}

impl Fault {
    /// The rule that is broken, as a word for machines.
    pub fn rule(&self) -> &'static str {
        match self {
            Self::NotCovered => "not-covered",
            Self::Twice { .. } => "twice",
            Self::Missing { .. } => "missing",
            Self::Unmet { .. } => "unmet",
            Self::Extra { .. } => "extra",
            Self::Constraint { .. } => "constraint",
            Self::Unreachable(_) => "unreachable",
            Self::Python { .. } => "python",
            Self::NoFile { .. } => "no-file",
            Self::Useless { .. } => "useless",
            Self::Mislabelled { .. } => "mislabelled",
            Self::TooMany(_) => "too-many",
        }
    }
}

/// Faults with where they were met, each once.
#[derive(Debug, Default)]
pub(super) struct Found {
    faults: BTreeMap<Fault, (String, usize)>,
    /// Those of the environment that is being tried: another choice that meets the same fault there counts once.
    here: BTreeSet<(Fault, String)>,
    pub notes: BTreeSet<String>,
}

impl Found {
    pub fn add(&mut self, fault: Fault, place: impl ToString) {
        let place = place.to_string();
        if self.here.insert((fault.clone(), place.clone())) {
            self.faults.entry(fault).or_insert((place, 0)).1 += 1;
        }
    }

    pub fn join(&mut self, other: Self) {
        for (fault, (place, count)) in other.faults {
            self.faults.entry(fault).or_insert((place, 0)).1 += count;
        }
        self.notes.extend(other.notes);
    }

    pub fn proof(self, environments: usize, choices: usize) -> Proof {
        Proof {
            environments,
            choices,
            violations: (self.faults.into_iter())
                .map(|(fault, (place, places))| Violation { fault, place, places })
                .collect(),
            notes: self.notes.into_iter().collect(),
        }
    }
}
