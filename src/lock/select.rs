//! What one target installs: the entries of a lock that are active there, and the file of each.

use std::collections::BTreeMap;

use uv_distribution_filename::WheelFilename;
use uv_normalize::{ExtraName, GroupName, PackageName};
use uv_platform_tags::{TagCompatibility, Tags};

use super::{File, Lock, Package};
use crate::python::target::Target;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    #[error("the lock is for Python {requires_python}, and {target} is asked for")]
    Python { requires_python: String, target: String },
    #[error("the lock does not cover {target}")]
    Environment { target: String },
    #[error("{name} has two entries that are both active for {target}: {one} and {other}")]
    Ambiguous {
        name: PackageName,
        target: String,
        one: String,
        other: String,
    },
    #[error("the lock has no dependency group `{0}`")]
    UnknownGroup(GroupName),
    #[error("the lock has no extra `{0}`")]
    UnknownExtra(ExtraName),
}

impl Lock {
    /// The entries that `target` installs, with those groups and extras of the project; the project's own
    /// dependencies always. In the lock's order: by name. Source: PEP 751, "Installation".
    pub fn select(
        &self,
        target: &Target,
        groups: &[GroupName],
        extras: &[ExtraName],
    ) -> Result<Vec<&Package>, SelectError> {
        let markers = target.markers();
        if let Some(specifiers) = &self.requires_python
            && !specifiers.contains(&target.python.full())
        {
            return Err(SelectError::Python {
                requires_python: specifiers.to_string(),
                target: target.to_string(),
            });
        }
        if !self.environments.is_empty()
            && !self
                .environments
                .iter()
                .any(|environment| environment.evaluate(&markers, &[]))
        {
            return Err(SelectError::Environment {
                target: target.to_string(),
            });
        }
        if let Some(unknown) = groups
            .iter()
            .find(|group| !self.dependency_groups.contains(group))
        {
            return Err(SelectError::UnknownGroup(unknown.clone()));
        }
        if let Some(unknown) = extras.iter().find(|extra| !self.extras.contains(extra)) {
            return Err(SelectError::UnknownExtra(unknown.clone()));
        }
        let mut active: BTreeMap<&PackageName, &Package> = BTreeMap::new();
        for package in &self.packages {
            if !package.marker.evaluate_pep751(&markers, extras, groups) {
                continue;
            }
            if let Some(other) = active.insert(&package.name, package) {
                return Err(SelectError::Ambiguous {
                    name: package.name.clone(),
                    target: target.to_string(),
                    one: other.label(),
                    other: package.label(),
                });
            }
        }
        Ok(active.into_values().collect())
    }
}

impl Package {
    /// The wheel that fits `target` best; `None` if none fits. Ties go to the higher build tag, then the name.
    pub fn wheel_for(&self, target: &Target) -> Option<&File> {
        self.wheel_for_tags(&target.tags())
    }

    /// Like [`Package::wheel_for`] with tags made once for many packages.
    pub fn wheel_for_tags(&self, tags: &Tags) -> Option<&File> {
        self.wheels()
            .iter()
            .filter_map(|file| {
                let name: WheelFilename = file.name.parse().ok()?;
                match name.compatibility(tags) {
                    TagCompatibility::Compatible(priority) => {
                        Some((priority, name.build_tag().cloned(), &file.name, file))
                    }
                    TagCompatibility::Incompatible(_) => None,
                }
            })
            .max_by(|one, other| (&one.0, &one.1, &one.2).cmp(&(&other.0, &other.1, &other.2)))
            .map(|(_, _, _, file)| file)
    }
}
