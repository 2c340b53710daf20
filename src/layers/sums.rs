//! `mlrails.sum`: every layer that this project ever made from bytes, by recipe. Committed, like go.sum.
//!
//! It is what makes a layer found in a registry more than a claim: a previous image says "this recipe became that
//! digest", and only this file, under the project's own version control, can vouch for it. Lines are sorted and never
//! rewritten, so branches merge line by line.
//!
//! ```text
//! <recipe key> <blob digest> <diff_id> <blob size in bytes> <tar size in bytes> <what it holds>
//! ```

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::digest::Digest;
use crate::regular;
use crate::whole;

/// The largest file that is read, in bytes: a line has 250, and a project makes a few layers a week.
const LARGEST: u64 = 64 << 20;

/// What a recipe became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sum {
    pub digest: Digest,
    pub diff_id: Digest,
    /// Of the blob, in bytes.
    pub size: u64,
    /// Of the uncompressed tar, in bytes.
    pub uncompressed_size: u64,
    /// For whoever reads the file: the layer's contents in a few words.
    pub title: String,
}

impl Sum {
    /// Whether both are of the same bytes; what they are called may change.
    fn is_same(&self, other: &Self) -> bool {
        (self.digest, self.diff_id) == (other.digest, other.diff_id)
    }
}

/// The file, read.
#[derive(Debug, Default)]
pub struct Sums {
    path: PathBuf,
    known: BTreeMap<Digest, Sum>,
    changed: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum SumError {
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: String,
        source: std::io::Error,
    },
    #[error("{path}:{line}: not a line of mlrails.sum: {why}")]
    Malformed { path: String, line: usize, why: String },
    /// A recipe gave other bytes than it once did: one of the two was tampered with, or a layer's making has a bug.
    #[error("the layer {title} ({key}) is {made}, and mlrails.sum says {vouched}")]
    Differs {
        title: String,
        key: Digest,
        made: Digest,
        vouched: Digest,
    },
}

impl Sums {
    /// Reads the file of `project`; a missing one vouches for nothing.
    pub fn read(project: &Path) -> Result<Self, SumError> {
        let path = project.join("mlrails.sum");
        let shown = path.display().to_string();
        let text = regular::text_beside(&path, LARGEST).map_err(|irregular| SumError::Io {
            action: "read",
            path: shown.clone(),
            source: irregular.into(),
        })?;
        let text = text.unwrap_or_default();
        let mut known = BTreeMap::new();
        for (index, line) in text.lines().enumerate() {
            let malformed = |why: &str| SumError::Malformed {
                path: shown.clone(),
                line: index + 1,
                why: why.to_owned(),
            };
            let mut words = line.splitn(6, ' ');
            let mut digest = |name: &str| -> Result<Digest, SumError> {
                words
                    .next()
                    .and_then(|word| word.parse().ok())
                    .ok_or_else(|| malformed(&format!("the {name} is not a sha256 digest")))
            };
            let (key, blob, diff_id) = (digest("key")?, digest("digest")?, digest("diff_id")?);
            let mut number = || {
                let number = words.next().and_then(|word| word.parse().ok());
                number.ok_or_else(|| malformed("a size is not a number"))
            };
            let (size, uncompressed_size) = (number()?, number()?);
            let title = words.next().unwrap_or_default().to_owned();
            let sum = Sum {
                digest: blob,
                diff_id,
                size,
                uncompressed_size,
                title,
            };
            if let Some(other) = known.insert(key, sum.clone())
                && !other.is_same(&sum)
            {
                return Err(malformed("the same key stands above with another digest"));
            }
        }
        Ok(Self {
            path,
            known,
            changed: false,
        })
    }

    /// What `key` became, if this project ever made it.
    pub fn vouched(&self, key: &Digest) -> Option<&Sum> {
        self.known.get(key)
    }

    /// Adds a layer that was made from bytes just now, or that this store made before.
    pub fn add(&mut self, key: Digest, sum: Sum) -> Result<(), SumError> {
        match self.known.get(&key) {
            Some(known) if known.is_same(&sum) => Ok(()),
            Some(known) => Err(SumError::Differs {
                title: sum.title,
                key,
                made: sum.digest,
                vouched: known.digest,
            }),
            None => {
                self.known.insert(key, sum);
                self.changed = true;
                Ok(())
            }
        }
    }

    /// Writes the file if something was added; whole or not at all.
    pub fn write(&self) -> Result<(), SumError> {
        if !self.changed {
            return Ok(());
        }
        let mut text = String::new();
        for (key, sum) in &self.known {
            let _ = writeln!(
                text,
                "{key} {} {} {} {} {}",
                sum.digest, sum.diff_id, sum.size, sum.uncompressed_size, sum.title
            );
        }
        whole::write(&self.path, 0o644, |file| {
            std::io::Write::write_all(file, text.as_bytes())
        })
        .map_err(|source| SumError::Io {
            action: "write",
            path: self.path.display().to_string(),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(text: &str) -> Sum {
        let digest = Digest::of(text.as_bytes());
        Sum {
            digest,
            diff_id: digest,
            size: 3,
            uncompressed_size: 5,
            title: text.to_owned(),
        }
    }

    #[test]
    fn round_trips_and_refuses_another_answer() {
        let folder = tempfile::tempdir().unwrap();
        let mut sums = Sums::read(folder.path()).unwrap();
        sums.add(Digest::of(b"b"), sum("numpy 2.0 and 3 more")).unwrap();
        sums.add(Digest::of(b"a"), sum("pandas")).unwrap();
        sums.write().unwrap();
        let mut again = Sums::read(folder.path()).unwrap();
        assert_eq!(
            again.vouched(&Digest::of(b"b")),
            Some(&sum("numpy 2.0 and 3 more"))
        );
        assert!(matches!(
            again.add(Digest::of(b"a"), sum("other")),
            Err(SumError::Differs { .. })
        ));
    }

    #[test]
    fn a_line_that_is_not_one_is_named() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("mlrails.sum"), "sha256:../../x y z\n").unwrap();
        let error = Sums::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("mlrails.sum:1"), "{error}");
    }
}
