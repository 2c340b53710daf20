//! The locked base as data: what `[tool.mlrails.base]` of `pylock.toml` holds.
//!
//! It owns the shape and the facts that follow from it alone (where Python is in the image). It does not know how a base
//! was chosen, nor where its bytes come from: no host name is in here, so that a lock means the same on every mirror.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// `[tool.mlrails.base]` is not a base.
#[derive(Debug, thiserror::Error)]
#[error("the lock's base cannot be read: {0}")]
pub struct InvalidBase(toml::de::Error);

/// What lies under our layers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Base {
    /// Assembled from Debian's signed archive.
    Debian(Debian),
    /// An image of a registry.
    Registry(Registry),
}

/// A base made of Debian packages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Debian {
    /// The release's codename, `bookworm`.
    pub codename: String,
    /// The newest `Date` of the signed indexes that the packages were chosen from; what the dated snapshots of the archive
    /// are asked for.
    pub date: jiff::Timestamp,
    /// The interpreter's full version, `3.11.2`.
    pub python: String,
    /// `2.36`
    pub glibc: String,
    /// By OCI platform name (`linux/amd64`), sorted by package name.
    pub packages: BTreeMap<String, Vec<Deb>>,
}

/// One package of a Debian base, for one platform.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Deb {
    pub name: String,
    /// Debian's version, `1:1.2.13.dfsg-1`.
    pub version: String,
    /// Debian's architecture, `amd64` or `all`.
    pub architecture: String,
    /// Which archive holds it; the main one is not written.
    #[serde(default, skip_serializing_if = "Pool::is_main")]
    pub archive: Pool,
    /// Relative to the archive's root, `pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb`.
    pub filename: String,
    /// In bytes.
    pub size: u64,
    pub digest: Digest,
    /// Whether the project or a buildpack asked for it by name; only those bring programs into the image.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub asked: bool,
}

/// The two archives that a release lives in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    #[default]
    Main,
    Security,
}

impl Pool {
    fn is_main(&self) -> bool {
        *self == Self::Main
    }
}

/// A base that a registry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Registry {
    /// As the user wrote it: `registry.example/python:3.12-slim`.
    pub reference: String,
    /// The manifest's digest by OCI platform name.
    pub digests: BTreeMap<String, Digest>,
    /// The interpreter's path in the image, `/usr/local/bin/python3.12`.
    pub python_path: String,
    /// The interpreter's version as far as it is known, `3.12` or `3.12.7`.
    pub python: String,
    /// `2.36`; absent where the libc is musl.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub glibc: Option<String>,
}

impl Base {
    /// From `[tool.mlrails.base]`.
    pub fn from_table(table: &toml::Table) -> Result<Self, InvalidBase> {
        let base: Self = table.clone().try_into().map_err(InvalidBase)?;
        if let Self::Debian(debian) = &base {
            for deb in debian.packages.values().flatten() {
                let mut parts = Path::new(&deb.filename).components();
                let stays = parts.all(|part| matches!(part, Component::Normal(_)))
                    && !deb.filename.contains(|c: char| c.is_control() || "\\?#".contains(c))
                    // Encoded, a dot or a slash is one for whoever serves it.
                    && !deb.filename.contains("%2");
                if deb.filename.is_empty() || !stays {
                    let rule = format!("`{}` is no path inside the archive", deb.filename.escape_debug());
                    return Err(InvalidBase(serde::de::Error::custom(rule)));
                }
            }
        }
        Ok(base)
    }

    /// For `[tool.mlrails.base]`.
    pub fn to_table(&self) -> Result<toml::Table, InvalidBase> {
        toml::Table::try_from(self).map_err(|error| InvalidBase(serde::de::Error::custom(error)))
    }

    /// The interpreter's version, `3.11.2`.
    pub fn python(&self) -> &str {
        match self {
            Self::Debian(base) => &base.python,
            Self::Registry(base) => &base.python,
        }
    }

    /// The interpreter's absolute path in the image.
    pub fn python_path(&self) -> String {
        match self {
            Self::Debian(base) => base.python_path(),
            Self::Registry(base) => base.python_path.clone(),
        }
    }

    /// `2.36`; none for a musl base.
    pub fn glibc(&self) -> Option<&str> {
        match self {
            Self::Debian(base) => Some(&base.glibc),
            Self::Registry(base) => base.glibc.as_deref(),
        }
    }

    /// The OCI platform names this base is locked for.
    pub fn platforms(&self) -> Vec<&str> {
        match self {
            Self::Debian(base) => base.packages.keys().map(String::as_str).collect(),
            Self::Registry(base) => base.digests.keys().map(String::as_str).collect(),
        }
    }
}

impl Debian {
    /// `/usr/bin/python3.11`
    pub fn python_path(&self) -> String {
        format!("/usr/bin/python{}", self.python_minor())
    }

    /// `3.11`
    pub fn python_minor(&self) -> String {
        self.python.split('.').take(2).collect::<Vec<_>>().join(".")
    }

    /// The folder of the interpreter's standard library, `/usr/lib/python3.11`; its prefix is `/usr`.
    pub fn stdlib(&self) -> String {
        format!("/usr/lib/python{}", self.python_minor())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Settings {
        base: Base,
    }

    #[test]
    fn a_base_reads_back_as_it_was_written() {
        let base = Settings {
            base: Base::Debian(Debian {
                codename: "bookworm".into(),
                date: "2026-11-21T00:53:02Z".parse().unwrap(),
                python: "3.11.2".into(),
                glibc: "2.36".into(),
                packages: BTreeMap::from([(
                    "linux/amd64".into(),
                    vec![Deb {
                        name: "zlib1g".into(),
                        version: "1:1.2.13.dfsg-1".into(),
                        architecture: "amd64".into(),
                        archive: Pool::Main,
                        filename: "pool/main/z/zlib/zlib1g_1.2.13.dfsg-1_amd64.deb".into(),
                        size: 86684,
                        digest: Digest::of(b"deb"),
                        asked: false,
                    }],
                )]),
            }),
        };
        assert_eq!(
            Base::from_table(&base.base.to_table().unwrap()).unwrap(),
            base.base
        );
        let text = toml::to_string(&base).unwrap();
        assert_eq!(toml::from_str::<Settings>(&text).unwrap(), base);
        assert!(text.contains("date = \"2026-11-21T00:53:02Z\""), "{text}");
        assert!(!text.contains("archive"), "{text}");
        assert_eq!(base.base.python_path(), "/usr/bin/python3.11");
    }
}
