//! `mlrails serve`: the trained pipeline over HTTP, on this machine, from the project's own environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, SystemTime};

use clap::Args as ClapArgs;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

use super::{Exit, Failure, Session, signals};
use crate::project::record::FilesRecord;
use crate::project::settings::Overrides;
use crate::project::source::graph::Half;
use crate::project::{self, Project};
use crate::serving::{self, render, runtime};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "What answers here is what answers in the image: the same app and the same runtime, run by the project's .venv. It starts again \
when a file of the project changes. The app is plain Python; read it in .mlrails/serve/app.py.

Examples:
  mlrails serve                       http://127.0.0.1:8080, a form at /docs
  mlrails serve --port 9000           another port
  mlrails serve -e staging            with the settings of config/staging.toml
  mlrails serve --set predict.limit=5 with one setting changed
  curl localhost:8080/predict -H 'content-type: application/json' -d '{\"age\": 40}'"
)]
pub struct Args {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on
    #[arg(long, default_value_t = 8080)]
    port: u16,
    /// Processes; the image starts one per core
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    workers: u16,
    /// Settings of config/ENV.toml as well
    #[arg(short, long, value_name = "ENV")]
    environment: Option<String>,
    /// A setting's value, over all files
    #[arg(long, value_name = "NODE.SETTING=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Do not start again when files change
    #[arg(long)]
    no_reload: bool,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text
        .split_once('=')
        .filter(|(name, _)| !name.is_empty())
        .ok_or("expected NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// How long a server that was told to stop may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often files are looked at. A change is noticed before a person has changed windows.
const LOOK: Duration = Duration::from_millis(250);

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let mut served = prepare(&args, session)?;
    port_is_free(&args)?;
    session.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::from_serving_io)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::from_serving_io)?;
        // From here on the loop below hears them.
        signals::answer(|| ());
        let mut child = Some(start(&args, &served)?);
        session.printer().say(&format!(
            "serving on http://{}:{}  (try it: /docs)",
            args.host, args.port
        ));
        let mut seen = fingerprint(&served.watched);
        loop {
            tokio::select! {
                _ = interrupt.recv() => {
                    // At a terminal the child was interrupted as well; elsewhere it is told here. Either way it is waited for.
                    stop(child.take()).await?;
                    return Ok(Exit::Interrupted);
                }
                _ = terminate.recv() => {
                    stop(child.take()).await?;
                    return Ok(Exit::Done);
                }
                ended = wait(&mut child) => {
                    let status = ended.map_err(Failure::from_serving_io)?;
                    child = None;
                    if args.no_reload {
                        return Err(stopped(status));
                    }
                    session.printer().warn("the server stopped; it starts again when a file changes");
                }
                () = tokio::time::sleep(LOOK), if !args.no_reload => {
                    let now = fingerprint(&served.watched);
                    if now == seen {
                        continue;
                    }
                    seen = now;
                    session.printer().say("a file changed: starting again");
                    match prepare(&args, session) {
                        Ok(fresh) => {
                            stop(child.take()).await?;
                            served = fresh;
                            seen = fingerprint(&served.watched);
                            child = Some(start(&args, &served)?);
                        }
                        // What was served before is better than nothing while a mistake is being mended.
                        Err(failure) => session.printer().failure(&failure),
                    }
                }
            }
        }
    })?
}

/// What is needed to start: everything was read and written already.
struct Served {
    python: PathBuf,
    root: PathBuf,
    /// Folder of app.py and service.json.
    app: PathBuf,
    /// For PYTHONPATH: the runtime, then what holds the project's package.
    path: Vec<PathBuf>,
    watched: Vec<PathBuf>,
}

fn prepare(args: &Args, session: &Session) -> Result<Served, Failure> {
    let project = project::load(session.project_folder())?;
    let python = environment(&project)?;
    for stale in project.stale()? {
        session
            .printer()
            .warn(&super::diagnostics::project::stale(&project, &stale));
    }
    let overrides = Overrides::from_process(args.environment.clone(), args.set.clone());
    let settings = project.resolve(Half::Serving, &overrides)?;
    let files = project.trained()?.unwrap_or_default();
    let app = serving::app(&project, &settings, &files, serving::openapi::of(&project))?;
    let folder = session.state_folder(&project.manifest, "serve")?;
    let artifacts = project.root().join(project.values_folder());
    let rendered = render::files(&app, &artifacts.to_string_lossy());
    let package = runtime::FILES
        .iter()
        .map(|(path, text)| (format!("runtime/{path}"), text.as_bytes().to_vec()));
    write(&folder, rendered.into_iter().chain(package).collect()).map_err(Failure::from_serving_io)?;
    let root = project.root().to_path_buf();
    let holder = project.source_folder();
    let mut watched = watched(&project, &files);
    watched.sort();
    Ok(Served {
        python,
        app: folder.clone(),
        path: vec![folder.join("runtime"), holder],
        watched,
        root,
    })
}

/// What a change of begins anew: the code, the settings, the values, what says so.
fn watched(project: &Project, files: &FilesRecord) -> Vec<PathBuf> {
    let root = project.root();
    let mut watched: Vec<PathBuf> = ["pyproject.toml", "mlrails.toml"]
        .map(|name| root.join(name))
        .into();
    if project.model().is_some() {
        // Not its folder: the environment lies in it.
        let values = files.values.values().map(|value| root.join(&value.file));
        watched.extend(values.chain([root.join("MLmodel"), root.join(project.run_file())]));
        if !project.package.as_os_str().is_empty() {
            watched.push(root.join(&project.package));
        }
    } else {
        watched.push(root.join(&project.package));
        watched.extend(["config", "sql", "artifacts"].map(|name| root.join(name)));
    }
    watched
}

/// The interpreter of .venv, once what the runtime imports is there.
fn environment(project: &Project) -> Result<PathBuf, Failure> {
    let venv = project.root().join(".venv");
    let python = venv.join("bin/python");
    let hint = "`mlrails sync` installs what pylock.toml has, the serving runtime's packages among it";
    if !python.exists() {
        return Err(Failure::new("the project has no environment: .venv/bin/python is missing").hint(hint));
    }
    let lib = std::fs::read_dir(venv.join("lib"))
        .into_iter()
        .flatten()
        .flatten();
    let site: Vec<PathBuf> = lib.map(|entry| entry.path().join("site-packages")).collect();
    for needed in ["granian", "msgspec"] {
        if !site.iter().any(|folder| folder.join(needed).is_dir()) {
            return Err(Failure::new(format!(
                "`{needed}` is not installed in .venv, and serving needs it"
            ))
            .hint(hint));
        }
    }
    Ok(python)
}

/// Writes what differs, so that a folder that is up to date is left alone.
fn write(folder: &Path, files: BTreeMap<String, Vec<u8>>) -> std::io::Result<()> {
    for (path, content) in files {
        let target = folder.join(path);
        if std::fs::read(&target).is_ok_and(|there| there == content) {
            continue;
        }
        if let Some(parent) = target.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(&target, content)?;
    }
    Ok(())
}

/// Two servers may share a port by SO_REUSEPORT, and would answer in turns: a taken port is an error here.
fn port_is_free(args: &Args) -> Result<(), Failure> {
    match std::net::TcpListener::bind((args.host.as_str(), args.port)) {
        Ok(_) => Ok(()),
        Err(error) => Err(
            Failure::new(format!("cannot listen on {}:{}: {error}", args.host, args.port))
                .hint("choose another with --port"),
        ),
    }
}

fn start(args: &Args, served: &Served) -> Result<Child, Failure> {
    let path = std::env::join_paths(&served.path).map_err(|error| {
        Failure::new(format!(
            "the project's folder cannot be on Python's path: {error}"
        ))
    })?;
    Command::new(&served.python)
        .args(["-m", "mlrails_runtime", "serve"])
        .current_dir(&served.root)
        .env("PYTHONPATH", path)
        // The folder the command was started in is no place to import from.
        .env("PYTHONSAFEPATH", "1")
        .env("MLRAILS_APP", &served.app)
        .env("MLRAILS_HOST", &args.host)
        .env("MLRAILS_PORT", args.port.to_string())
        .env("MLRAILS_WORKERS", args.workers.to_string())
        .env("MLRAILS_DRAIN", "0")
        // Who edits predict, or sets a setting, means to change answers; the image refuses.
        .env("MLRAILS_GOLDEN", "warn")
        .env("MLRAILS_LOG_FORMAT", "text")
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| Failure::new(format!("cannot start {}: {error}", served.python.display())))
}

/// Waits for a child that runs; for ever if none does.
async fn wait(child: &mut Option<Child>) -> std::io::Result<ExitStatus> {
    match child {
        Some(child) => child.wait().await,
        None => std::future::pending().await,
    }
}

async fn stop(child: Option<Child>) -> Result<(), Failure> {
    let Some(mut child) = child else {
        return Ok(());
    };
    let running = child
        .id()
        .and_then(|id| rustix::process::Pid::from_raw(id.cast_signed()));
    if let Some(process) = running {
        // It may have ended by itself in this moment, which is what is wanted.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::TERM);
    }
    // It finishes the requests it has, within its own limit; one that hangs is not waited for.
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        child.kill().await.map_err(Failure::from_serving_io)?;
    }
    Ok(())
}

fn stopped(status: ExitStatus) -> Failure {
    Failure::new(format!("the server stopped ({status})")).hint("its last lines above say why")
}

/// Size and time of each file that serving may depend on. Bytecode and hidden files are not looked at.
fn fingerprint(watched: &[PathBuf]) -> BTreeMap<PathBuf, (u64, Option<SystemTime>)> {
    let mut seen = BTreeMap::new();
    let mut open: Vec<PathBuf> = watched.to_vec();
    while let Some(path) = open.pop() {
        let Ok(facts) = std::fs::symlink_metadata(&path) else {
            continue;
        };
        if facts.is_dir() {
            let entries = std::fs::read_dir(&path).into_iter().flatten().flatten();
            open.extend(
                entries
                    .filter(|entry| is_watched(&entry.file_name()))
                    .map(|entry| entry.path()),
            );
        } else {
            seen.insert(path, (facts.len(), facts.modified().ok()));
        }
    }
    seen
}

fn is_watched(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    !name.starts_with('.') && name != "__pycache__"
}
