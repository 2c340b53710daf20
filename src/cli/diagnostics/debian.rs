//! Advice for the Debian base.

use super::Failure;
use crate::debian::{ArchiveError, ClosureError, DebianError, KeyError, MirrorError};

const OTHER_MIRROR: &str = "use another mirror: `[image] debian-mirror` or MLRAILS_DEBIAN_MIRROR";

impl From<DebianError> for Failure {
    fn from(error: DebianError) -> Self {
        match error {
            DebianError::Archive(error) => error.into(),
            DebianError::Store(error) => error.into(),
            DebianError::Mirror(MirrorError::Invalid { .. }) => Self::from_error(&error).hint(
                "write `URL`, or `URL SECURITY-URL` where security updates are not beside it as `…-security`",
            ),
            DebianError::Gone { .. } => Self::from_error(&error)
                .temporary()
                .hint("`mlrails lock --upgrade-base` locks the packages that the archive has today"),
            DebianError::NotFetched(_) => Self::from_error(&error)
                .temporary()
                .hint("run the same command again"),
            DebianError::Disagree { .. } => Self::from_error(&error)
                .temporary()
                .hint("the architectures are being updated: try again in some hours"),
            DebianError::NotLocked(ref platform) => {
                let hint =
                    format!("`mlrails lock --upgrade-base` with {platform} in `[image] platforms` locks it");
                Self::from_error(&error).hint(hint)
            }
            DebianError::OlderThanLock { .. } => Self::from_error(&error).hint(OTHER_MIRROR),
            DebianError::Platform(_) => Self::from_error(&error).hint("linux/amd64 and linux/arm64 are"),
            DebianError::Closure(ClosureError::Unknown {
                nearest: Some(ref name),
                ..
            }) => {
                let hint = format!("did you mean `{name}`?");
                Self::from_error(&error).hint(hint)
            }
            DebianError::Closure(ClosureError::Unknown { .. }) => Self::from_error(&error)
                .hint("package names differ between releases of Debian; see `[image] packages`"),
            DebianError::Closure(ClosureError::Refused { .. }) => Self::from_error(&error)
                .hint("the base has no shell and no package manager, whose scripts this package needs"),
            DebianError::Keyring { .. } | DebianError::KeyringFile { .. } => Self::from_error(&error)
                .hint("MLRAILS_DEBIAN_KEYRING names it; without it Debian's own keys are used"),
            DebianError::Closure(_) | DebianError::Package(_) | DebianError::Rootfs(_) => {
                Self::from_error(&error)
            }
        }
    }
}

impl From<ArchiveError> for Failure {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Http(error) => error.into(),
            ArchiveError::Fetch(error) => error.into(),
            ArchiveError::Store(error) => error.into(),
            ArchiveError::Signature {
                source: KeyError::Untrusted(_),
                ..
            } => Self::from_error(&error)
                .hint("if the archive is signed by keys of your own, name them with MLRAILS_DEBIAN_KEYRING")
                .hint("if a key expired, check this machine's clock, or use a newer mlrails"),
            ArchiveError::Signature { .. } | ArchiveError::Codename { .. } => {
                Self::from_error(&error).hint(OTHER_MIRROR)
            }
            ArchiveError::Older { .. } => Self::from_error(&error)
                .hint("the mirror is behind: wait until it has caught up")
                .hint(OTHER_MIRROR),
            ArchiveError::NoSuite { .. } => Self::from_error(&error).hint(
                "a mirror needs the release, its updates and its security archive: \
                 `[image] debian-mirror = \"URL SECURITY-URL\"` where the last is elsewhere",
            ),
            ArchiveError::Read { .. } | ArchiveError::Release { .. } | ArchiveError::Packages { .. } => {
                Self::from_error(&error).hint(OTHER_MIRROR)
            }
        }
    }
}
