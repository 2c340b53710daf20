//! The base image from Debian's signed archive, without any registry.
//!
//! The road: `mirror` says which server is asked · `archive` reads its indexes by the word of `keys` · `closure` chooses packages
//! from them, which the lock keeps · `package` takes a `.deb` apart · `rootfs` puts the base's files together. With a lock, the
//! first three are not needed again: packages are known by their SHA-256, and neither signatures nor the clock matter.
//!
//! It gives files, not layers, and knows neither wheels nor images. docs/decisions/debian-base.md says why it is so.

pub mod archive;
pub mod closure;
pub mod keys;
pub mod mirror;
pub mod package;
pub mod rootfs;
mod version;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures::stream::{FuturesUnordered, TryStreamExt};
use rayon::prelude::*;

use crate::fetch::Expected;
use crate::http::Client;
use crate::lock::base::{Deb, Debian, Pool};
use crate::reporter::{Reporter, Unit};
use crate::store::{Store, StoreError};

pub use archive::ArchiveError;
pub use closure::{ClosureError, RELEASES, Release, release_with_python};
pub use keys::{KeyError, Keyring};
pub use mirror::{Mirror, MirrorError};
pub use package::PackageError;
pub use rootfs::{Node, Rootfs, RootfsError};

/// How many downloads run at once.
const PARALLEL: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    #[error(transparent)]
    Mirror(#[from] MirrorError),
    #[error("cannot read the keyring {path}")]
    KeyringFile { path: PathBuf, source: std::io::Error },
    #[error("cannot use the keyring {path}")]
    Keyring { path: PathBuf, source: KeyError },
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Closure(#[from] ClosureError),
    #[error(transparent)]
    Package(#[from] PackageError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("Debian does not serve the platform {0}")]
    Platform(String),
    #[error("the base is not locked for {0}")]
    NotLocked(String),
    /// Debian's architectures are built one after the other; for some hours they may differ.
    #[error("the archive has {what} {one} for {platform} and {other} for {other_platform}")]
    Disagree {
        what: &'static str,
        one: String,
        platform: String,
        other: String,
        other_platform: String,
    },
    #[error("{name} {version} is gone from the mirror, and from the archive's snapshot of {date}: {reason}")]
    Gone {
        name: String,
        version: String,
        date: jiff::Timestamp,
        reason: String,
    },
    #[error("the package {0} is not in the cache")]
    NotFetched(String),
    #[error(
        "the archive's indexes are from {found}, and the lock's base is from {locked}: a mirror must not go back"
    )]
    OlderThanLock {
        found: jiff::Timestamp,
        locked: jiff::Timestamp,
    },
}

/// Where packages come from and whose word counts.
#[derive(Debug, Clone)]
pub struct Archive {
    pub mirror: Mirror,
    pub keys: Keyring,
}

impl Archive {
    /// The mirror as `mirror` decides (`configured` is `[image] debian-mirror`); Debian's own keys, or those of the file that
    /// `MLRAILS_DEBIAN_KEYRING` names, for archives that a company signs itself.
    pub fn choose(configured: Option<&str>) -> Result<Self, DebianError> {
        let keys = match std::env::var_os("MLRAILS_DEBIAN_KEYRING").filter(|value| !value.is_empty()) {
            None => Keyring::embedded(),
            Some(path) => {
                let path = PathBuf::from(path);
                let bytes = std::fs::read(&path).map_err(|source| DebianError::KeyringFile {
                    path: path.clone(),
                    source,
                })?;
                Keyring::read(&bytes).map_err(|source| DebianError::Keyring { path, source })?
            }
        };
        Ok(Self {
            mirror: Mirror::choose(configured)?,
            keys,
        })
    }
}

/// What a base should be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    pub release: &'a Release,
    /// OCI platform names, `linux/amd64`.
    pub platforms: &'a [&'a str],
    /// Packages that buildpacks or the project name, `libgomp1`.
    pub packages: &'a [String],
    /// The date of the base that the lock holds now: indexes older than it are refused, on a machine that never saw any too.
    pub locked: Option<jiff::Timestamp>,
}

/// Debian's name of an OCI platform's architecture.
pub fn architecture(platform: &str) -> Result<&'static str, DebianError> {
    match platform {
        "linux/amd64" => Ok("amd64"),
        "linux/arm64" | "linux/arm64/v8" => Ok("arm64"),
        other => Err(DebianError::Platform(other.to_owned())),
    }
}

/// Chooses a base's packages from the archive's signed indexes. Network only; no package is downloaded.
pub async fn resolve(
    client: &Client,
    store: &Store,
    from: &Archive,
    wanted: &Wanted<'_>,
    reporter: &dyn Reporter,
) -> Result<Debian, DebianError> {
    let now = jiff::Timestamp::now().as_second();
    let codename = wanted.release.codename;
    let suites = [
        (Pool::Main, codename.to_owned()),
        (Pool::Main, format!("{codename}-updates")),
        (Pool::Security, format!("{codename}-security")),
    ];
    let suites: Vec<(Pool, archive::Suite)> = suites
        .into_iter()
        .map(|(pool, name)| {
            let root = from.mirror.root(pool).clone();
            (pool, archive::Suite { name, root })
        })
        .collect();
    let releases = futures::future::try_join_all(
        suites
            .iter()
            .map(|(_, suite)| archive::release(client, store, &from.keys, suite, now, reporter)),
    )
    .await?;
    let date = releases
        .iter()
        .map(|release| release.date)
        .max()
        .unwrap_or_default();
    if let Some(locked) = wanted.locked.filter(|locked| date < *locked) {
        return Err(DebianError::OlderThanLock { found: date, locked });
    }

    let of_platform = async |platform: &str| {
        let architecture = architecture(platform)?;
        let lists: Vec<closure::List> = futures::future::try_join_all(suites.iter().zip(&releases).map(
            async |((pool, suite), release)| {
                let entries =
                    archive::packages(client, store, suite, release, architecture, reporter).await?;
                Ok::<_, ArchiveError>(closure::List { pool: *pool, entries })
            },
        ))
        .await?;
        Ok::<_, DebianError>(closure::closure(
            wanted.release,
            architecture,
            &lists,
            wanted.packages,
        )?)
    };
    // All of them to their end: which one fails first in time must not decide what is said.
    let found =
        futures::future::join_all(wanted.platforms.iter().map(|platform| of_platform(platform))).await;
    let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
    let mut packages = BTreeMap::new();
    let mut facts: Option<(&str, Facts)> = None;
    for (platform, debs) in wanted.platforms.iter().zip(found) {
        let here = Facts::of(wanted.release, &debs)?;
        match &facts {
            None => facts = Some((platform, here)),
            Some((first, known)) => known.agrees(first, &here, platform)?,
        }
        packages.insert((*platform).to_owned(), debs);
    }
    let (_, facts) = facts.ok_or_else(|| DebianError::Platform("(none)".to_owned()))?;
    Ok(Debian {
        codename: codename.to_owned(),
        date,
        python: facts.python,
        glibc: facts.glibc,
        packages,
    })
}

/// What follows from the packages' versions.
struct Facts {
    python: String,
    glibc: String,
    /// Of the sources that both were built from, with all of Debian's patches.
    sources: [String; 2],
}

impl Facts {
    fn of(release: &Release, debs: &[Deb]) -> Result<Self, DebianError> {
        let version = |name: &str| {
            debs.iter()
                .find(|deb| deb.name == name)
                .map(|deb| deb.version.as_str())
                .ok_or_else(|| RootfsError::Missing(name.to_owned()))
        };
        let (major, minor) = release.python;
        let python = version(&format!("python{major}.{minor}-minimal"))?;
        let glibc = version("libc6")?;
        Ok(Self {
            python: version::upstream(python).to_owned(),
            glibc: version::upstream(glibc).to_owned(),
            sources: [python, glibc].map(|version| version::source(version).to_owned()),
        })
    }

    /// One platform's interpreter compiles for all, and one lock serves all: they must be of the same source.
    fn agrees(&self, platform: &str, other: &Self, other_platform: &str) -> Result<(), DebianError> {
        for (index, what) in ["Python", "the C library"].into_iter().enumerate() {
            let (one, other) = (&self.sources[index], &other.sources[index]);
            if one != other {
                return Err(DebianError::Disagree {
                    what,
                    one: one.clone(),
                    platform: platform.to_owned(),
                    other: other.clone(),
                    other_platform: other_platform.to_owned(),
                });
            }
        }
        Ok(())
    }
}

/// The packages of a base for one platform.
pub fn debs<'a>(base: &'a Debian, platform: &str) -> Result<&'a [Deb], DebianError> {
    base.packages
        .get(platform)
        .map(Vec::as_slice)
        .ok_or_else(|| DebianError::NotLocked(platform.to_owned()))
}

/// Brings a platform's packages into the store, from the mirror or, where they are gone, from the dated snapshots.
pub async fn fetch(
    client: &Client,
    store: &Store,
    mirror: &Mirror,
    base: &Debian,
    platform: &str,
    reporter: &dyn Reporter,
) -> Result<(), DebianError> {
    let missing: Vec<&Deb> = debs(base, platform)?
        .iter()
        .filter(|deb| store.blob_size(&deb.digest) != Some(deb.size))
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let task = reporter.start(
        &format!("Debian {} packages for {platform}", base.codename),
        Unit::Bytes,
        Some(missing.iter().map(|deb| deb.size).sum()),
    );
    let mut running = FuturesUnordered::new();
    let mut waiting = missing.into_iter();
    let quiet = crate::reporter::Silent;
    let outcome = async {
        loop {
            while running.len() < PARALLEL
                && let Some(deb) = waiting.next()
            {
                running.push(async move {
                    fetch_one(client, store, mirror, base.date, deb, &quiet).await?;
                    Ok::<u64, DebianError>(deb.size)
                });
            }
            match running.try_next().await? {
                Some(size) => reporter.advance(task, size),
                None => return Ok(()),
            }
        }
    }
    .await;
    reporter.finish(task);
    outcome
}

async fn fetch_one(
    client: &Client,
    store: &Store,
    mirror: &Mirror,
    date: jiff::Timestamp,
    deb: &Deb,
    reporter: &dyn Reporter,
) -> Result<(), DebianError> {
    let what = format!("{} {}", deb.name, deb.version);
    let expected = Expected {
        digest: deb.digest,
        size: Some(deb.size),
    };
    // A lock is a file that people edit and tools merge: its paths are checked like an index's.
    if !archive::is_relative_path(&deb.filename) || !archive::is_name(&deb.name) {
        return Err(ArchiveError::Packages {
            suite: "the lock".to_owned(),
            architecture: deb.architecture.clone(),
            rule: format!("`{:.200}` lies outside the archive", deb.filename),
        }
        .into());
    }
    let gone = |reason: String| DebianError::Gone {
        name: deb.name.clone(),
        version: deb.version.clone(),
        date,
        reason,
    };
    let url = mirror
        .root(deb.archive)
        .join(&deb.filename)
        .map_err(|error| gone(error.to_string()))?;
    match archive::obtain(client, store, &url, &what, expected, reporter).await {
        Err(error) if archive::is_gone(&error) => {}
        other => return Ok(other?),
    }
    let mut reason = "no snapshots are configured".to_owned();
    for url in mirror.snapshots(deb.archive, date, &deb.filename) {
        match archive::obtain(client, store, &url, &what, expected, reporter).await {
            Ok(()) => return Ok(()),
            // Bytes that are not what the lock says are an attack or a broken proxy, not a reason to look on.
            Err(error @ ArchiveError::Fetch(crate::fetch::FetchError::Corrupt { .. })) => {
                return Err(error.into());
            }
            Err(error) => reason = error.to_string(),
        }
    }
    Err(gone(reason))
}

/// One platform's files of a base, decoded when they are first asked for, and once: the base's layer and the interpreter that
/// compiles bytecode are made of the same packages.
pub struct BaseFiles<'a> {
    pub store: &'a Store,
    pub base: &'a Debian,
    pub platform: &'a str,
    decoded: Mutex<Option<Arc<Rootfs>>>,
}

impl<'a> BaseFiles<'a> {
    /// The packages must be in the store when the files are asked for.
    pub fn new(store: &'a Store, base: &'a Debian, platform: &'a str) -> Self {
        Self {
            store,
            base,
            platform,
            decoded: Mutex::new(None),
        }
    }

    /// CPU work: call it from blocking code.
    pub fn get(&self) -> Result<Arc<Rootfs>, DebianError> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(rootfs) = &*decoded {
            return Ok(rootfs.clone());
        }
        let rootfs = Arc::new(rootfs(self.store, self.base, self.platform)?);
        Ok(decoded.insert(rootfs).clone())
    }
}

/// The base's files for one platform, from packages that are in the store. CPU work: call it from blocking code.
pub fn rootfs(store: &Store, base: &Debian, platform: &str) -> Result<Rootfs, DebianError> {
    let parts = debs(base, platform)?
        .par_iter()
        .map(|deb| {
            let bytes = store
                .read(&deb.digest)?
                .ok_or_else(|| DebianError::NotFetched(deb.name.clone()))?;
            Ok(rootfs::Part {
                name: deb.name.clone(),
                asked: deb.asked,
                package: package::read(&deb.name, &bytes, rootfs::is_wanted)?,
            })
        })
        .collect::<Result<Vec<_>, DebianError>>()?;
    Ok(rootfs::assemble(&base.python_minor(), &parts)?)
}
