//! `pylock.toml` read and written (PEP 751).
//!
//! `read` refuses what could install something else than was locked; `write` is deterministic: the same lock gives the same
//! bytes, and reading them gives the same lock.

mod lines;
mod read;
mod write;

use std::path::Path;

use super::Lock;
use crate::regular::{self, Irregular};
use crate::whole;
use read::Fault;

/// The largest lock that is read; one with 2,000 packages and all their wheels is 20 MB.
const LARGEST: u64 = 64 << 20;

#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("cannot read {path}")]
    Read { path: String, source: std::io::Error },
    #[error("cannot write {path}")]
    Write { path: String, source: std::io::Error },
    #[error("{path} is larger than {LARGEST} bytes")]
    TooLarge { path: String },
    #[error("{path} is not TOML: {reason}")]
    Syntax { path: String, reason: String },
    #[error("{path}: {rule}")]
    Refused { path: String, rule: String },
}

impl Lock {
    /// Reads the lock at `path`. `Ok(None)` if there is no such file.
    pub fn read(path: &Path) -> Result<Option<Self>, LockError> {
        Self::text(path)?
            .map(|text| Self::parse(&text, &path.display().to_string()))
            .transpose()
    }

    /// The text of the lock at `path`, unread. `Ok(None)` if there is no such file.
    pub fn text(path: &Path) -> Result<Option<String>, LockError> {
        let shown = path.display().to_string();
        regular::text_beside(path, LARGEST).map_err(|irregular| match irregular {
            Irregular::TooLarge { .. } => LockError::TooLarge { path: shown },
            Irregular::Io(source) => LockError::Read { path: shown, source },
            irregular => LockError::Refused {
                path: shown,
                rule: irregular.to_string(),
            },
        })
    }

    /// Parses a lock's text; `path` names it in errors.
    pub fn parse(text: &str, path: &str) -> Result<Self, LockError> {
        read::parse(text).map_err(|fault| match fault {
            Fault::Syntax(reason) => LockError::Syntax {
                path: path.to_owned(),
                reason,
            },
            Fault::Rule(rule) => LockError::Refused {
                path: path.to_owned(),
                rule,
            },
        })
    }

    /// Writes the lock to `path`, whole or not at all.
    pub fn write(&self, path: &Path) -> Result<(), LockError> {
        use std::io::Write as _;
        whole::write(path, 0o644, |file| {
            file.write_all(self.to_toml().as_bytes())?;
            // A lock is not remade by itself as the cache's objects are: it must be on the disk before it has its name.
            file.sync_all()
        })
        .map_err(|source| LockError::Write {
            path: path.display().to_string(),
            source,
        })
    }

    /// The lock as TOML text.
    pub fn to_toml(&self) -> String {
        write::text(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f";

    fn text(package: &str) -> String {
        format!("lock-version = \"1.0\"\ncreated-by = \"t\"\n\n[[packages]]\n{package}\n").replace("SHA", SHA)
    }

    fn refusal(package: &str) -> String {
        Lock::parse(&text(package), "pylock.toml")
            .unwrap_err()
            .to_string()
    }

    const WHEEL: &str =
        r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#;

    #[test]
    fn round_trips() {
        let source = text(&format!(
            "name = \"a\"\nversion = \"1.0\"\nmarker = \"sys_platform == 'linux' or 'dev' in dependency_groups\"\n\
             requires-python = \">=3.8\"\nindex = \"https://h.example/simple\"\n\
             sdist = {{ name = \"a-1.0.tar.gz\", upload-time = 2024-03-24T00:00:00.5Z, path = \"./w/x.tar.gz\", size = 3, hashes = {{ sha256 = \"SHA\" }} }}\n\
             {WHEEL}\n[packages.tool.mlrails]\nrequires = [\"b[x] >=1 ; extra == 'y'\"]\nimports = [\"a\"]\n\
             [tool.mlrails]\npython = \"3.11\"\nplatforms = [\"linux/amd64\"]\ninputs = [\"a\", \"b \\\"c\\\"\"]\n\
             [tool.mlrails.base]\nname = \"bookworm\"\n[[tool.mlrails.base.packages]]\nname = \"libc6\"\n"
        ));
        let lock = Lock::parse(&source, "x").unwrap();
        let written = lock.to_toml();
        let again = Lock::parse(&written, "x").unwrap();
        assert_eq!(again, lock, "{written}");
        assert_eq!(again.to_toml(), written);
        assert_eq!(lock.packages[0].sdist().unwrap().name, "a-1.0.tar.gz");
        assert_eq!(
            lock.mlrails.base.unwrap()["packages"].as_array().unwrap().len(),
            1
        );
    }

    #[test]
    fn what_could_install_something_else_is_refused() {
        let head = "name = \"a\"\nversion = \"1.0\"\n";
        for (package, rule) in [
            (
                r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = {} }]"#,
                "no sha256",
            ),
            (
                r#"wheels = [{ url = "https://h.example/a-1.0-py3-none-any.whl", hashes = { md5 = "00" } }]"#,
                "no sha256",
            ),
            (
                r#"wheels = [{ url = "https://h.example/b-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "not a file of a",
            ),
            (
                r#"wheels = [{ url = "https://h.example/a-2.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "is not a 1.0",
            ),
            (
                r#"wheels = [{ url = "https://h.example/..%252fa-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "no usable name",
            ),
            (
                r#"wheels = [{ path = "../a-1.0-py3-none-any.whl", hashes = { sha256 = "SHA" } }]"#,
                "leaves the lock's folder",
            ),
            (
                r#"sdist = { path = "/a-1.0.tar.gz", hashes = { sha256 = "SHA" } }"#,
                "leaves the lock's folder",
            ),
            ("directory = { path = \"..\" }", "leaves the lock's folder"),
            ("", "has no wheel"),
            (
                "directory = { path = \"a\" }\nvcs = { type = \"git\", url = \"https://h.example/\", commit-id = \"0\" }",
                "more than one kind",
            ),
        ] {
            let message = refusal(&format!("{head}{package}"));
            assert!(message.contains(rule), "{package}\n{message}");
        }
        let twice = format!("{head}{WHEEL}\n[[packages]]\n{head}{WHEEL}");
        assert!(refusal(&twice).contains("listed twice"));
        assert!(refusal(&format!("name = \"../a\"\n{WHEEL}")).contains("packages.name is invalid"));
        let bare = "lock-version = \"1.0\"\ncreated-by = \"t\"\n";
        assert!(
            Lock::parse(bare, "x")
                .unwrap_err()
                .to_string()
                .contains("packages")
        );
        let newer = "lock-version = \"2.0\"\ncreated-by = \"t\"\npackages = []\n";
        assert!(Lock::parse(newer, "x").unwrap_err().to_string().contains("2.0"));
        let nested = format!("a = {}", "[".repeat(100_000));
        assert!(matches!(Lock::parse(&nested, "x"), Err(LockError::Syntax { .. })));
    }
}
