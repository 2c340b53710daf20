//! What one invocation has at hand: options, printer, reporter, and the machine's parts, each opened when first needed.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::diagnostics::Failure;
use super::printer::Printer;
use super::progress::Progress;
use super::{Format, Global};
use crate::http::{Client, Options};
use crate::project::Manifest;
use crate::reporter::Reporter;
use crate::store::Store;

/// One invocation. A command that needs no network starts none.
pub struct Session {
    global: Global,
    printer: Printer,
    reporter: Arc<Progress>,
    runtime: OnceLock<tokio::runtime::Runtime>,
    store: OnceLock<Arc<Store>>,
}

impl Session {
    pub fn new(global: Global) -> Self {
        let printer = Printer::new(&global);
        Self {
            global,
            printer,
            reporter: Arc::new(Progress::new(printer)),
            runtime: OnceLock::new(),
            store: OnceLock::new(),
        }
    }

    pub fn printer(&self) -> &Printer {
        &self.printer
    }

    pub fn reporter(&self) -> Arc<dyn Reporter> {
        self.reporter.clone()
    }

    /// The project's folder as given; not yet known to be one.
    pub fn project_folder(&self) -> &Path {
        &self.global.project
    }

    pub fn format(&self) -> Format {
        self.global.format
    }

    pub fn is_json(&self) -> bool {
        self.global.format == Format::Json
    }

    pub fn offline(&self) -> bool {
        self.global.offline
    }

    /// The cache shared by all of this user's projects.
    pub fn store(&self) -> Result<Arc<Store>, Failure> {
        if let Some(store) = self.store.get() {
            return Ok(store.clone());
        }
        let store = Arc::new(Store::open(&Store::default_folder()?)?);
        Ok(self.store.get_or_init(|| store).clone())
    }

    /// A network client. `insecure_hosts` are those that `--insecure-registry` named.
    pub fn client(&self, insecure_hosts: &[String]) -> Result<Client, Failure> {
        let mut options = Options {
            offline: self.global.offline,
            insecure_hosts: insecure_hosts.to_vec(),
            ..Options::default()
        };
        // Documented in docs/configuration.md; tests of broken servers set it to 0 instead of sleeping.
        if let Some(pause) = milliseconds("MLRAILS_HTTP_PAUSE_MS") {
            options.pause = pause;
        }
        if let Some(stall) = milliseconds("MLRAILS_HTTP_STALL_MS") {
            options.stall = stall;
        }
        Ok(Client::new(options))
    }

    /// Runs async work to its end on this invocation's runtime.
    pub fn block_on<F: Future>(&self, work: F) -> Result<F::Output, Failure> {
        Ok(self.runtime()?.block_on(work))
    }

    /// Runs async work beside what comes next.
    pub fn spawn<F>(&self, work: F) -> Result<tokio::task::JoinHandle<F::Output>, Failure>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        Ok(self.runtime()?.spawn(work))
    }

    fn runtime(&self) -> Result<&tokio::runtime::Runtime, Failure> {
        if let Some(runtime) = self.runtime.get() {
            return Ok(runtime);
        }
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::new(format!("cannot start the network runtime: {error}")))?;
        Ok(self.runtime.get_or_init(|| runtime))
    }

    /// A folder of the project's own state, `.mlrails/<name>`, which git is told to leave alone.
    pub fn state_folder(&self, manifest: &Manifest, name: &str) -> Result<PathBuf, Failure> {
        let folder = manifest.folder(&format!(".mlrails/{name}"))?;
        let state = folder.parent().unwrap_or(&manifest.root);
        let ignore = state.join(".gitignore");
        // Where nothing can be written, whoever writes next says so.
        if std::fs::create_dir_all(state).is_ok() && !ignore.exists() {
            let _ = std::fs::write(&ignore, "*\n");
        }
        Ok(folder)
    }
}

impl Drop for Session {
    /// What is still under way when a command has its answer (a prefetch, a name look-up) is not waited for.
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn milliseconds(variable: &str) -> Option<std::time::Duration> {
    let value = std::env::var(variable).ok()?.parse().ok()?;
    Some(std::time::Duration::from_millis(value))
}
