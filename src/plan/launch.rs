//! How the image is started: the part of its config that this project, and never a base, decides.

use std::collections::BTreeMap;

/// What becomes the config's `Env`, `Entrypoint`, `Cmd`, `User` and `WorkingDir`. Nothing of it is inherited: a base
/// that says otherwise is overruled, and a previous image is not asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launch {
    /// Sorted by name: the config must not depend on the order in which things were decided.
    pub environment: BTreeMap<String, String>,
    /// Exec form: the process is PID 1's and gets SIGTERM itself, with no shell in between.
    pub entrypoint: Vec<String>,
    /// The default verb.
    pub command: Vec<String>,
    pub user: String,
    pub folder: String,
    /// TCP ports, as in the config's `ExposedPorts`.
    pub ports: Vec<u16>,
}

/// The user of every image: distroless' `nonroot`, above all that a host hands out.
pub const USER: &str = "65532:65532";

impl Launch {
    /// The launch of a served pipeline; `additions` are what buildpacks want set (they win over the defaults).
    pub fn serving(additions: &BTreeMap<String, String>) -> Self {
        let mut environment: BTreeMap<String, String> = [
            ("PATH", "/opt/venv/bin:/usr/local/bin:/usr/bin:/bin"),
            ("VIRTUAL_ENV", "/opt/venv"),
            ("PYTHONPATH", "/app"),
            // The image is read-only for its user; a failed attempt per module costs start-up time.
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("PYTHONUNBUFFERED", "1"),
            ("LANG", "C.UTF-8"),
            ("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt"),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
        environment.extend(additions.clone());
        Self {
            environment,
            entrypoint: ["/opt/venv/bin/python", "-m", "mlrails_runtime"]
                .map(str::to_owned)
                .to_vec(),
            command: vec!["serve".to_owned()],
            user: USER.to_owned(),
            folder: "/app".to_owned(),
            ports: vec![8080],
        }
    }
}
