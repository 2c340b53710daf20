//! Advice. Facts live in the rooms' typed errors; what to do about them is said here, and nowhere else.
//!
//! Each room's errors become a [`Failure`] in a file of the same name in this folder, by `impl From<RoomError>`.

mod base_image;
mod build;
mod debian;
mod destination;
mod fetch;
mod http;
mod image;
mod index;
mod layers;
pub(in crate::cli) mod lock;
pub(crate) mod project;
mod registry;
mod resolve;
mod run;
mod serving;
mod store;
mod targets;
mod values;
mod verify;
mod wheel;

use serde_json::json;

/// An error as people meet it: what failed and why, what would help, and the exit code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    message: Option<String>,
    /// Already laid out: source excerpts with carets, in plain text and in colour.
    rendered: Option<(String, String)>,
    hints: Vec<String>,
    /// More facts for `--format json`, merged into the answer.
    details: Option<Box<serde_json::Value>>,
    code: u8,
    /// Something that this machine's cache holds is not what it was.
    is_of_cache: bool,
}

impl Failure {
    /// Refused (exit 1), with `message`: what was attempted, on what, why.
    pub fn new(message: impl Into<String>) -> Self {
        Self {
            message: Some(message.into()),
            rendered: None,
            hints: Vec::new(),
            details: None,
            code: 1,
            is_of_cache: false,
        }
    }

    /// From an error and its causes, in one line.
    pub fn from_error(error: &dyn std::error::Error) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            source = cause.source();
        }
        Self::new(message)
    }

    /// Wrong use of the command line (exit 2).
    pub fn usage(message: impl Into<String>) -> Self {
        Self {
            code: 2,
            ..Self::new(message)
        }
    }

    /// Something that may pass by itself (exit 3): unreachable, 5xx, disk full.
    pub fn temporary(mut self) -> Self {
        self.code = 3;
        self
    }

    /// It is this machine's cache that is damaged: checked, it may do.
    pub fn of_cache(mut self) -> Self {
        self.is_of_cache = true;
        self
    }

    pub fn is_of_cache(&self) -> bool {
        self.is_of_cache
    }

    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Text that is already laid out, shown before the message.
    pub fn excerpt(mut self, plain: String, colored: String) -> Self {
        self.rendered = Some((plain, colored));
        self
    }

    /// Facts that `--format json` shows beside the message: an object.
    pub fn details(mut self, details: serde_json::Value) -> Self {
        self.details = Some(Box::new(details));
        self
    }

    pub fn code(&self) -> u8 {
        self.code
    }

    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    pub fn hints(&self) -> &[String] {
        &self.hints
    }

    pub(super) fn rendered(&self, color: bool) -> Option<&str> {
        self.rendered
            .as_ref()
            .map(|(plain, colored)| if color { colored.as_str() } else { plain.as_str() })
    }

    pub(super) fn to_json(&self) -> serde_json::Value {
        let mut shown =
            json!({ "error": { "message": self.message, "hints": self.hints, "code": self.code } });
        if let (Some(serde_json::Value::Object(details)), Some(object)) =
            (self.details.as_deref(), shown.as_object_mut())
        {
            object.extend(details.clone());
        }
        shown
    }
}

/// What helps where the cache's disk is full or fails.
pub(super) const FULL: &str =
    "free some space, or set MLRAILS_CACHE_DIR to a larger disk; `mlrails cache clean` helps";

/// Whether an I/O error is the disk's or the machine's bad day rather than a mistake: exit 3.
pub(crate) fn is_temporary_io(error: &std::io::Error) -> bool {
    use std::io::ErrorKind as Kind;
    let broken = std::io::Error::from(rustix::io::Errno::IO);
    matches!(
        error.kind(),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge | Kind::ResourceBusy | Kind::TimedOut
    ) || error.raw_os_error() == broken.raw_os_error()
        // Where tempfile has added a path to an error, its number is lost, and its words are not.
        || (error.get_ref().is_some() && error.to_string().contains(&broken.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_that_fails_may_do_better_next_time() {
        let broken = || std::io::Error::from(rustix::io::Errno::IO);
        assert!(is_temporary_io(&broken()));
        let with_path = std::io::Error::new(broken().kind(), format!("{} at path \"x\"", broken()));
        assert!(is_temporary_io(&with_path));
        assert!(!is_temporary_io(&std::io::ErrorKind::PermissionDenied.into()));
    }
}
