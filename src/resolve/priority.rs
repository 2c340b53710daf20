//! In which order packages are decided: it changes nothing about what is a solution, and everything about the time.

use std::cmp::Reverse;
use std::collections::HashMap;

use pubgrub::Ranges;
use uv_normalize::PackageName;
use uv_pep440::Version;

use super::provider::Node;

/// Greater is decided earlier. Names that were met earlier come first; a package before its extras.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Priority(Kind, Reverse<u32>, Reverse<u32>);

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// Was the culprit of conflicts: decided when everything else has had its say.
    ConflictLate,
    #[default]
    Unspecified,
    /// Was hit by conflicts: decided before what it conflicted with.
    ConflictEarly,
    /// One version only.
    Pinned,
    Root,
}

/// After so many conflicts a name's place changes.
const CONFLICTS: u32 = 5;

/// Places and conflict counts, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct Priorities {
    places: HashMap<PackageName, (Kind, u32)>,
    affected: HashMap<PackageName, u32>,
    culprit: HashMap<PackageName, u32>,
}

impl Priorities {
    /// Notes a name when a requirement of it is met.
    pub fn meet(&mut self, name: &PackageName, range: &Ranges<Version>) {
        let next = self.places.len() as u32;
        let place = self
            .places
            .entry(name.clone())
            .or_insert((Kind::Unspecified, next));
        if range.as_singleton().is_some() && place.0 == Kind::Unspecified {
            place.0 = Kind::Pinned;
        }
    }

    pub fn of(&self, node: &Node) -> Priority {
        let Some(name) = node.name() else {
            return Priority(Kind::Root, Reverse(0), Reverse(0));
        };
        let (kind, place) = self
            .places
            .get(name)
            .copied()
            .unwrap_or((Kind::Unspecified, u32::MAX));
        let virtually = u32::from(matches!(node, Node::Extra(..)));
        Priority(kind, Reverse(place), Reverse(virtually))
    }

    /// Counts a conflict that hit `affected` because of `culprits`.
    pub fn conflict<'a>(&mut self, affected: &Node, culprits: impl IntoIterator<Item = &'a Node>) {
        let Some(affected) = affected.name() else { return };
        *self.affected.entry(affected.clone()).or_default() += 1;
        for culprit in culprits.into_iter().filter_map(Node::name) {
            if culprit != affected {
                *self.culprit.entry(culprit.clone()).or_default() += 1;
            }
        }
    }

    /// Moves names that had enough conflicts; answers with those that moved back, to which the solver returns.
    pub fn reorder(&mut self) -> Vec<PackageName> {
        let over = |counts: &mut HashMap<PackageName, u32>| -> Vec<PackageName> {
            let mut names: Vec<PackageName> = counts
                .iter()
                .filter(|(_, count)| **count >= CONFLICTS)
                .map(|(name, _)| name.clone())
                .collect();
            names.sort();
            names.iter().for_each(|name| {
                counts.remove(name);
            });
            names
        };
        let next = self.places.len() as u32;
        let mut moved_back = Vec::new();
        for name in over(&mut self.affected) {
            let place = self.places.entry(name).or_insert((Kind::Unspecified, next));
            if matches!(place.0, Kind::Unspecified | Kind::ConflictLate) {
                place.0 = Kind::ConflictEarly;
            }
        }
        for name in over(&mut self.culprit) {
            let place = self
                .places
                .entry(name.clone())
                .or_insert((Kind::Unspecified, next));
            if place.0 == Kind::Unspecified {
                place.0 = Kind::ConflictLate;
                moved_back.push(name);
            }
        }
        moved_back
    }
}
