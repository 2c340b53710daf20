//! Checkouts by the machine's own git: a reference becomes a commit, and a commit a folder in the cache.
//!
//! A checkout is made once per repository and commit. git asks nobody for a password, runs no hooks, and reaches only what a
//! package can honestly be at: https, http, ssh and local folders (CVE-2017-1000117 and its like: a reference or a URL that is an option
//! in disguise, `ext::`). Credentials are those that git itself has.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::digest::Digest;
use crate::store::{Store, StoreError};

/// A repository's state, in a folder that nobody writes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkout {
    /// 40 or 64 hexadecimal digits.
    pub commit: String,
    pub folder: PathBuf,
}

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error("`{text}` cannot be a {what}: {rule}")]
    Refused {
        what: &'static str,
        text: String,
        rule: &'static str,
    },
    #[error("cannot run git")]
    Start(#[source] std::io::Error),
    #[error("git cannot get {what} of {url}: {said}")]
    Failed { what: String, url: String, said: String },
    #[error("cannot keep the checkout of {url}")]
    Keep { url: String, source: std::io::Error },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The checkout of `reference` (a branch, a tag, a commit; the default branch without one).
pub fn checkout(store: &Store, url: &url::Url, reference: Option<&str>) -> Result<Checkout, GitError> {
    check(url, reference)?;
    if let Some(commit) = reference.filter(|text| is_commit(text)) {
        let folder = folder(store, url, commit);
        if folder.is_dir() {
            return Ok(Checkout {
                commit: commit.to_owned(),
                folder,
            });
        }
    }
    let _guard = store.lock(&format!("git {url}"))?;
    let scratch = store.temporary_folder()?;
    let at = scratch.path();
    git(at, url, "a repository", &["init", "--quiet"])?;
    let wanted = reference.unwrap_or("HEAD");
    let shallow = [
        "fetch",
        "--quiet",
        "--depth",
        "1",
        "--no-tags",
        "--",
        url.as_str(),
        wanted,
    ];
    if git(at, url, wanted, &shallow).is_err() {
        // Short commits, and servers that give no commit by its name: everything is fetched, and looked through.
        let all = "+refs/*:refs/remotes/origin/*";
        git(
            at,
            url,
            wanted,
            &["fetch", "--quiet", "--tags", "--", url.as_str(), all],
        )?;
        let target = format!("{wanted}^{{commit}}");
        let commit = git(
            at,
            url,
            wanted,
            &["rev-parse", "--verify", "--quiet", "--end-of-options", &target],
        )?;
        git(at, url, wanted, &["update-ref", "FETCH_HEAD", commit.trim()])?;
    }
    let commit = git(at, url, wanted, &["rev-parse", "--verify", "FETCH_HEAD^{commit}"])?;
    let commit = commit.trim().to_owned();
    git(
        at,
        url,
        wanted,
        &["checkout", "--quiet", "--force", "--detach", &commit],
    )?;
    let folder = folder(store, url, &commit);
    if !folder.is_dir() {
        let keep = |source| GitError::Keep {
            url: url.to_string(),
            source,
        };
        std::fs::create_dir_all(folder.parent().unwrap_or(at)).map_err(keep)?;
        std::fs::rename(at, &folder).map_err(keep)?;
    }
    Ok(Checkout { commit, folder })
}

/// Where the checkout of a commit is, or would be.
pub fn folder(store: &Store, url: &url::Url, commit: &str) -> PathBuf {
    let key = Digest::of(format!("{url} {commit}").as_bytes());
    store.folder().join("checkouts").join(key.hex())
}

fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check(url: &url::Url, reference: Option<&str>) -> Result<(), GitError> {
    let refuse = |what, text: &str, rule| {
        Err(GitError::Refused {
            what,
            text: text.chars().take(160).collect(),
            rule,
        })
    };
    if !matches!(url.scheme(), "https" | "http" | "ssh" | "file") {
        return refuse(
            "repository",
            url.as_str(),
            "it is none of https, http, ssh and file",
        );
    }
    if url.host_str().is_some_and(|host| host.starts_with('-')) || url.username().starts_with('-') {
        return refuse("repository", url.as_str(), "its host begins with a dash");
    }
    let Some(reference) = reference else {
        return Ok(());
    };
    let odd = |character: char| character.is_control() || " ~^:?*[\\".contains(character);
    if reference.is_empty()
        || reference.starts_with('-')
        || reference.contains("..")
        || reference.contains(odd)
    {
        return refuse("git reference", reference, "git allows no such name");
    }
    Ok(())
}

fn git(folder: &Path, url: &url::Url, what: &str, arguments: &[&str]) -> Result<String, GitError> {
    let output = Command::new("git")
        .current_dir(folder)
        .args([
            "-c",
            "core.hooksPath=/dev/null",
            "-c",
            "core.fsmonitor=false",
            "-c",
            "protocol.ext.allow=never",
        ])
        .args(["-c", "core.symlinks=true", "-c", "advice.detachedHead=false"])
        .args(arguments)
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ALLOW_PROTOCOL", "https:http:ssh:file")
        .env("GIT_LFS_SKIP_SMUDGE", "1")
        .env_remove("GIT_DIR")
        .env_remove("GIT_WORK_TREE")
        .env_remove("GIT_INDEX_FILE")
        .stdin(Stdio::null())
        .output()
        .map_err(GitError::Start)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let mut said = said.lines().map(str::trim).filter(|line| !line.is_empty());
        return Err(GitError::Failed {
            what: what.to_owned(),
            url: crate::http::Redacted(url).to_string(),
            said: said
                .next_back()
                .unwrap_or("it gave no reason")
                .chars()
                .take(300)
                .collect(),
        });
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {

    #[test]
    fn what_could_be_an_option_or_a_program_is_refused() {
        let check =
            |url: &str, reference: Option<&str>| super::check(&url.parse().unwrap(), reference).is_ok();
        assert!(check("https://h.example/a.git", None));
        assert!(check("ssh://git@h.example/a.git", Some("v1.0")));
        assert!(check("file:///srv/a", Some("feature/x")));
        assert!(!check("ext::sh -c touch% /tmp/x", None));
        assert!(!check("ssh://-oProxyCommand=x/a", None));
        assert!(!check("https://h.example/a.git", Some("--upload-pack=touch x")));
        assert!(!check("https://h.example/a.git", Some("a..b")));
        assert!(!check("https://h.example/a.git", Some("a b")));
        assert!(!check("https://h.example/a.git", Some("")));
    }
}
