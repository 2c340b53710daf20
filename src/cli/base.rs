//! The base's part in `lock` and `image`: resolved when the lock has none that fits, and otherwise left alone.

use std::collections::BTreeMap;

use super::{Failure, Session};
use crate::base_image;
use crate::debian::{self, Archive, Wanted};
use crate::lock::Lock;
use crate::lock::base::Base;
use crate::project::{Manifest, record};
use crate::python::target::{Platform, PythonVersion};
use crate::registry::{Keychain, Registry};
use crate::targets::buildpack::{self, Additions, Facts};
use crate::targets::{BaseChoice, BaseReason, Targets};

/// Whether the locked base is reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Upgrade {
    Keep,
    /// `lock --upgrade-base`
    Newest,
}

/// The base for `targets`: the locked one where it still is what the project asks for, else a newly resolved one.
/// `packages` are the Debian packages that it needs besides what every base has.
fn base(
    session: &Session,
    manifest: &Manifest,
    targets: &Targets,
    locked: Option<&Base>,
    packages: &[String],
    upgrade: Upgrade,
    insecure: &[String],
) -> Result<Base, Failure> {
    if let Some(base) = locked
        && upgrade == Upgrade::Keep
        && fits(base, targets, packages)
    {
        return Ok(base.clone());
    }
    match &targets.base {
        BaseChoice::Debian(release) => {
            let archive = archive(manifest)?;
            let names: Vec<&str> = targets.platforms.iter().map(|platform| platform.name()).collect();
            let date = match locked {
                Some(Base::Debian(base)) if base.codename == release.codename => Some(base.date),
                _ => None,
            };
            let wanted = Wanted {
                release,
                platforms: &names,
                packages,
                locked: date,
            };
            let (client, store, reporter) = (session.client(&[])?, session.store()?, session.reporter());
            let base =
                session.block_on(debian::resolve(&client, &store, &archive, &wanted, &*reporter))??;
            Ok(Base::Debian(base))
        }
        BaseChoice::Registry {
            reference,
            python_path,
            glibc,
            reason,
        } => {
            if let Some(package) = packages.first() {
                return Err(Failure::new(format!(
                    "the Debian package {package} is asked for, and the base {reference} is an image of a registry: nothing is installed in one"
                ))
                .hint("take a base that has it, or leave it out of `[image] packages`"));
            }
            if *reason == BaseReason::NoRelease {
                session.printer().say(&format!(
                    "no Debian release has Python {}: the base is {reference}, from its registry",
                    targets.python
                ));
            }
            let names: Vec<&str> = targets.platforms.iter().map(|platform| platform.name()).collect();
            let wanted = base_image::Wanted {
                reference,
                platforms: &names,
                python: targets.python,
                python_path: python_path.as_deref(),
                glibc: glibc.as_deref(),
            };
            let registry = Registry::new(session.client(insecure)?, Keychain::from_environment());
            let (store, reporter) = (session.store()?, session.reporter());
            let base = session.block_on(base_image::resolve(&registry, &store, &wanted, &*reporter))??;
            Ok(Base::Registry(base))
        }
    }
}

/// Puts the base for `targets` into `lock`, where it is not there already. `insecure` are the registries that plain http is allowed for.
pub fn attach(
    session: &Session,
    manifest: &Manifest,
    targets: &Targets,
    lock: &mut Lock,
    upgrade: Upgrade,
    insecure: &[String],
) -> Result<(), Failure> {
    let locked = lock.mlrails.base.as_ref().map(Base::from_table).transpose()?;
    let packages = packages(manifest)?;
    let base = base(
        session,
        manifest,
        targets,
        locked.as_ref(),
        &packages,
        upgrade,
        insecure,
    )?;
    lock.mlrails.base = Some(base.to_table()?);
    Ok(())
}

/// The Debian packages that the project and its buildpacks name besides what every base has.
pub fn packages(manifest: &Manifest) -> Result<Vec<String>, Failure> {
    let mut names = additions(manifest)?.debian;
    let named = manifest.config.image.packages.iter();
    names.extend(named.map(|package| package.value.clone()));
    Ok(names.into_iter().collect())
}

/// What buildpacks add for what is declared, and for what was trained: a framework may come with another dependency.
pub fn additions(manifest: &Manifest) -> Result<Additions, Failure> {
    let declared = manifest.pyproject.dependencies.iter();
    let formats = match &manifest.model {
        // `xgboost.XGBClassifier` is a format of XGBoost's.
        Some(model) => vec![model.flavour.name.to_owned()],
        None => {
            let trained = record::files(&manifest.root)?.unwrap_or_default();
            trained.values.into_values().map(|value| value.format).collect()
        }
    };
    let facts = Facts {
        formats: formats.into_iter().collect(),
        distributions: declared
            .map(|declared| declared.requirement.name.clone())
            .collect(),
        has_entry: manifest.config.serve.entry.is_some(),
        root: Some(&manifest.root),
    };
    applying(manifest, &facts)
}

/// What the buildpacks that apply to `facts` add, the project's own folder of them included.
pub fn applying(manifest: &Manifest, facts: &Facts<'_>) -> Result<Additions, Failure> {
    let own = manifest.config.image.buildpacks.as_ref();
    let folder = own.map(|folder| manifest.root.join(&folder.value));
    let all = buildpack::all(folder.as_deref())?;
    Ok(buildpack::merge(&buildpack::detect(&all, facts))?)
}

/// Every variable that some buildpack sets, the project's own folder of them included; values are of no account.
pub fn variables(manifest: &Manifest) -> Result<BTreeMap<String, String>, Failure> {
    let own = manifest.config.image.buildpacks.as_ref();
    let folder = own.map(|folder| manifest.root.join(&folder.value));
    let all = buildpack::all(folder.as_deref())?;
    Ok(all.into_iter().flat_map(|one| one.launch.environment).collect())
}

/// Where Debian packages come from for this project.
pub fn archive(manifest: &Manifest) -> Result<Archive, Failure> {
    let mirror = manifest
        .config
        .image
        .debian_mirror
        .as_ref()
        .map(|mirror| mirror.value.as_str());
    Ok(Archive::choose(mirror)?)
}

/// Whether a locked base is what the project asks for now.
pub fn fits(base: &Base, targets: &Targets, packages: &[String]) -> bool {
    let covered = |platform: &Platform| base.platforms().contains(&platform.name());
    if !targets.platforms.iter().all(covered) {
        return false;
    }
    match (base, &targets.base) {
        (Base::Debian(base), BaseChoice::Debian(release)) => {
            base.codename == release.codename
                && base.packages.values().all(|debs| {
                    packages
                        .iter()
                        .all(|name| debs.iter().any(|deb| deb.name == *name))
                })
        }
        (
            Base::Registry(base),
            BaseChoice::Registry {
                reference,
                python_path,
                glibc,
                ..
            },
        ) => {
            let python: Option<PythonVersion> = base.python.parse().ok();
            base.reference == *reference
                && python.is_some_and(|python| python.minor_only() == targets.python.minor_only())
                && python_path.as_ref().is_none_or(|path| *path == base.python_path)
                && glibc
                    .as_deref()
                    .is_none_or(|libc| libc == base.glibc.as_deref().unwrap_or("musl"))
        }
        _ => false,
    }
}
