//! Whose credentials go to which registry: environment, Docker's and Podman's files, credential helpers.
//!
//! Gives at most one login per reference and never a near miss: hosts are compared whole, never by prefix. It reads
//! files and runs helpers; it sends nothing.
//!
//! Sources: Docker CLI `config.json` (auths, credsStore, credHelpers) and the credential-helper protocol;
//! containers-auth.json(5) for `REGISTRY_AUTH_FILE`, `auth.json` and repository-path keys.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;

use crate::oci::Reference;
use crate::oci::reference::HUB;

/// What a registry or its token server may be shown. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq)]
pub enum Login {
    Password {
        user: String,
        password: String,
    },
    /// An OAuth2 refresh token (Docker's "identity token").
    Identity(String),
    /// A ready bearer token.
    Bearer(String),
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Login(****)")
    }
}

/// The places where logins are, in order. Nothing is read before it is asked.
#[derive(Debug, Clone, Default)]
pub struct Keychain {
    /// For exactly this registry, from the environment.
    fixed: Option<(String, Login)>,
    files: Vec<PathBuf>,
}

/// A credential file or a helper that is there and cannot be used. Absence is no error.
#[derive(Debug, Clone, thiserror::Error)]
pub enum KeychainError {
    #[error("cannot read the credentials in {path}: {reason}")]
    File { path: String, reason: String },
    #[error("the credential helper `{helper}` failed for {registry}: {reason}")]
    Helper {
        helper: String,
        registry: String,
        reason: String,
    },
}

/// Docker Hub's key in config.json, older than the registry protocol.
const HUB_KEY: &str = "https://index.docker.io/v1/";

#[derive(Debug, Default, Deserialize)]
struct AuthFile {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    #[serde(default, rename = "credsStore")]
    store: Option<String>,
    #[serde(default, rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Debug, Default, Deserialize)]
struct Entry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    identity: Option<String>,
    #[serde(rename = "registrytoken")]
    bearer: Option<String>,
}

#[derive(Deserialize)]
struct HelperAnswer {
    #[serde(rename = "Username")]
    user: String,
    #[serde(rename = "Secret")]
    secret: String,
}

impl Keychain {
    /// No logins at all: everything is asked for anonymously.
    pub fn empty() -> Self {
        Self::default()
    }

    /// `MLRAILS_REGISTRY` with `MLRAILS_REGISTRY_USER` and `MLRAILS_REGISTRY_PASSWORD` (or `MLRAILS_REGISTRY_TOKEN`), then
    /// `REGISTRY_AUTH_FILE`, Docker's config.json, Podman's auth.json.
    pub fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let path = |name: &str| text(name).map(PathBuf::from);
        let login = match (
            text("MLRAILS_REGISTRY_TOKEN"),
            text("MLRAILS_REGISTRY_USER"),
            text("MLRAILS_REGISTRY_PASSWORD"),
        ) {
            (Some(token), _, _) => Some(Login::Bearer(token)),
            (None, Some(user), Some(password)) => Some(Login::Password { user, password }),
            _ => None,
        };
        // Without a registry they would go to whichever host is asked first, the base image's among them.
        let fixed = text("MLRAILS_REGISTRY").zip(login);
        let home = path("HOME");
        let docker = path("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let configured = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let files = [
            path("REGISTRY_AUTH_FILE"),
            docker.map(|folder| folder.join("config.json")),
            path("XDG_RUNTIME_DIR").map(|folder| folder.join("containers/auth.json")),
            configured.map(|folder| folder.join("containers/auth.json")),
        ];
        Self {
            fixed,
            files: files.into_iter().flatten().collect(),
        }
    }

    /// Only these files, in this order.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { fixed: None, files }
    }

    /// The login for `reference`'s repository, if there is one.
    pub async fn login(&self, reference: &Reference) -> Result<Option<Login>, KeychainError> {
        self.find(reference.registry(), Some(reference.repository()))
            .await
    }

    /// The login for a host alone (a token server).
    pub async fn login_of_host(&self, host: &str) -> Result<Option<Login>, KeychainError> {
        self.find(host, None).await
    }

    async fn find(&self, registry: &str, repository: Option<&str>) -> Result<Option<Login>, KeychainError> {
        if let Some((host, login)) = &self.fixed
            && key(host) == registry
        {
            return Ok(Some(login.clone()));
        }
        let keys = keys(registry, repository);
        for path in &self.files {
            if let Some(login) = read(path)?.find(path, registry, &keys).await? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

fn read(path: &Path) -> Result<AuthFile, KeychainError> {
    let fault = |reason: String| KeychainError::File {
        path: path.display().to_string(),
        reason,
    };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            // serde's message would quote what it stumbled on, which may be a password.
            .map_err(|error| {
                fault(format!(
                    "not the expected JSON at {}:{}",
                    error.line(),
                    error.column()
                ))
            }),
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(AuthFile::default())
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

/// The keys under which a login may stand, the most particular first: `host/a/b`, `host/a`, `host`.
fn keys(registry: &str, repository: Option<&str>) -> Vec<String> {
    let mut keys = Vec::new();
    let mut path = repository;
    while let Some(part) = path {
        keys.push(format!("{registry}/{part}"));
        path = part.rsplit_once('/').map(|(parent, _)| parent);
    }
    keys.push(registry.to_owned());
    keys
}

/// A file's key as `host` or `host/path`: Docker writes URLs, and a version path for v1 and v2 registries.
fn key(written: &str) -> String {
    let bare = written
        .strip_prefix("https://")
        .or_else(|| written.strip_prefix("http://"))
        .unwrap_or(written)
        .trim_end_matches('/');
    let bare = bare
        .strip_suffix("/v1")
        .or_else(|| bare.strip_suffix("/v2"))
        .unwrap_or(bare);
    let (host, path) = match bare.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (bare, None),
    };
    let host = match host.to_ascii_lowercase().as_str() {
        "index.docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        other => other.to_owned(),
    };
    path.map_or(host.clone(), |path| format!("{host}/{path}"))
}

impl AuthFile {
    async fn find(
        &self,
        path: &Path,
        registry: &str,
        keys: &[String],
    ) -> Result<Option<Login>, KeychainError> {
        for wanted in keys {
            if let Some(helper) = self.helpers.iter().find(|(name, _)| key(name) == *wanted) {
                if let Some(login) = ask(helper.1, helper.0, registry).await? {
                    return Ok(Some(login));
                }
                continue;
            }
            for (name, entry) in self.auths.iter().filter(|(name, _)| key(name) == *wanted) {
                if let Some(login) = entry.login(path, name)? {
                    return Ok(Some(login));
                }
            }
        }
        let Some(store) = &self.store else { return Ok(None) };
        // A store is asked under the key that `docker login` wrote, else under the host's.
        let written = keys
            .iter()
            .find_map(|wanted| self.auths.keys().find(|name| key(name) == *wanted))
            .map(String::as_str);
        let asked = written.unwrap_or(if registry == HUB { HUB_KEY } else { registry });
        ask(store, asked, registry).await
    }
}

impl Entry {
    fn login(&self, path: &Path, name: &str) -> Result<Option<Login>, KeychainError> {
        let filled = |value: &Option<String>| value.clone().filter(|text| !text.is_empty());
        if let Some(token) = filled(&self.identity) {
            return Ok(Some(Login::Identity(token)));
        }
        if let Some(token) = filled(&self.bearer) {
            return Ok(Some(Login::Bearer(token)));
        }
        if let Some(auth) = filled(&self.auth) {
            let fault = || KeychainError::File {
                path: path.display().to_string(),
                reason: format!("the `auth` of {name} is not base64 of user:password"),
            };
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(auth.trim())
                .map_err(|_| fault())?;
            let text = String::from_utf8(bytes).map_err(|_| fault())?;
            let (user, password) = text.split_once(':').ok_or_else(fault)?;
            return Ok(Some(Login::Password {
                user: user.to_owned(),
                // Some writers pad with NUL.
                password: password.trim_end_matches('\0').to_owned(),
            }));
        }
        let pair = filled(&self.username).zip(filled(&self.password));
        Ok(pair.map(|(user, password)| Login::Password { user, password }))
    }
}

/// Asks `docker-credential-<helper> get`. One that knows no login is no error.
async fn ask(helper: &str, server: &str, registry: &str) -> Result<Option<Login>, KeychainError> {
    let fault = |reason: String| KeychainError::Helper {
        helper: helper.to_owned(),
        registry: registry.to_owned(),
        reason,
    };
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if helper.is_empty() || !helper.bytes().all(named) {
        return Err(fault("it is not the name of a helper".to_owned()));
    }
    let work = async {
        let mut child = tokio::process::Command::new(format!("docker-credential-{helper}"))
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that answers without reading is fine.
            let _ = stdin.write_all(server.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = tokio::time::timeout(Duration::from_secs(60), work)
        .await
        .map_err(|_| fault("no answer in 60 s".to_owned()))?
        .map_err(|error| fault(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stdout).to_ascii_lowercase();
        if said.contains("not found") || said.contains("no credentials") {
            return Ok(None);
        }
        return Err(fault(format!("it ended with {}", output.status)));
    }
    let answer: HelperAnswer = serde_json::from_slice(&output.stdout)
        .map_err(|_| fault("its answer is not the expected JSON".to_owned()))?;
    Ok(match answer.user.as_str() {
        "" if answer.secret.is_empty() => None,
        "<token>" => Some(Login::Identity(answer.secret)),
        _ => Some(Login::Password {
            user: answer.user,
            password: answer.secret,
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn encoded(pair: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(pair)
    }

    fn login_of(file: &str, reference: &str) -> Result<Option<String>, KeychainError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        std::fs::write(&path, file).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let found = runtime.block_on(Keychain::from_files(vec![path]).login(&reference.parse().unwrap()))?;
        Ok(found.map(|login| match login {
            Login::Password { user, password } => format!("{user}:{password}"),
            Login::Identity(token) => format!("identity {token}"),
            Login::Bearer(token) => format!("bearer {token}"),
        }))
    }

    #[test]
    fn the_most_particular_key_wins_and_none_matches_by_prefix() {
        let file = format!(
            r#"{{"auths": {{"h.example": {{"auth": "{}"}}, "h.example/team": {{"auth": "{}"}},
                "https://index.docker.io/v1/": {{"auth": "{}"}}, "https://q.example/v2/": {{"username": "u", "password": "p"}},
                "i.example": {{"identitytoken": "t", "auth": "{}"}}}}}}"#,
            encoded("host:1"),
            encoded("team:2"),
            encoded("hub:a:b"),
            encoded("x:")
        );
        let check = |reference: &str, login: Option<&str>| {
            assert_eq!(
                login_of(&file, reference).unwrap().as_deref(),
                login,
                "{reference}"
            );
        };
        check("h.example/other/x", Some("host:1"));
        check("h.example/team/x", Some("team:2"));
        check("h.example/teamwork/x", Some("host:1"));
        check("h.example.evil.example/x", None);
        check("h.exampl/x", None);
        check("h.example:443/x", None);
        check("churn", Some("hub:a:b"));
        check("q.example/x", Some("u:p"));
        check("i.example/x", Some("identity t"));
    }

    #[test]
    fn broken_files_are_named_without_their_content() {
        let error = login_of(r#"{"auths": {"h.example": {"auth": "hunter2"}}}"#, "h.example/x").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = login_of(r#"{"auths": "hunter2"}"#, "h.example/x").unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
        let error = login_of(r#"{"credHelpers": {"h.example": "../../bin/sh"}}"#, "h.example/x").unwrap_err();
        assert!(error.to_string().contains("not the name of a helper"), "{error}");
    }

    #[test]
    fn helpers_answer_for_their_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let helper = folder.path().join("docker-credential-mlrails-test");
        let script = "#!/bin/sh\nread host\ncase $host in\nh.example) echo '{\"Username\":\"<token>\",\"Secret\":\"s\"}';;\n\
                      *) echo 'credentials not found in native keychain'; exit 1;;\nesac\n";
        std::fs::write(&helper, script).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        // Only a path can name a helper that is not installed; the public way in refuses paths, so PATH is extended.
        let path = format!(
            "{}:{}",
            folder.path().display(),
            std::env::var("PATH").unwrap_or_default()
        );
        // SAFETY: no other test of this binary changes or depends on the absence of these directories in PATH.
        unsafe { std::env::set_var("PATH", path) };
        let file = r#"{"credHelpers": {"h.example": "mlrails-test"}, "credsStore": "mlrails-test"}"#;
        assert_eq!(
            login_of(file, "h.example/x").unwrap().as_deref(),
            Some("identity s")
        );
        assert_eq!(login_of(file, "other.example/x").unwrap(), None);
    }
}
