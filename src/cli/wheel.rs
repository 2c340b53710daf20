//! `mlrails wheel`: Project → Lock → the production set → a wheel, or a zip of it with what pins everything.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args as ClapArgs;
use serde_json::json;

use super::build::BuildArgs;
use super::image::decide;
use super::{Exit, Failure, Session, lock};
use crate::digest::Digest;
use crate::layers::pipeline;
use crate::project::settings::Overrides;
use crate::project::source::graph::Half;
use crate::project::{self, Project};
use crate::serving::{self, render};
use crate::targets::{self, Asked};
use crate::tree::{PLAIN, Tree};
use crate::wheel::{self, Parts};
use crate::whole;

/// What a manylinux wheel of the last years runs on; the wheel itself is for every platform.
const GLIBC: &str = "2.36";

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "The wheel holds the project's package, what training learned, and a class `Model` that answers as the service does:

  pip install dist/churn-0.1.0-py3-none-any.whl
  python -c 'from churn import Model; print(Model().predict([{\"age\": 44, ...}]))'

Examples:
  mlrails wheel                     dist/<name>-<version>-py3-none-any.whl
  pip install 'x.whl[locked]'       with exactly the versions that the lock has
  mlrails wheel --bundle            a zip of the wheel and a requirements.txt with hashes, for pip install -r
  python -m churn._mlrails batch    where it is installed: score files, on a cluster as well (batch --help)
  mlrails wheel --output /tmp       somewhere else"
)]
pub struct Args {
    /// Write a zip of the wheel and of a requirements file with hashes
    #[arg(long)]
    bundle: bool,
    /// The folder to write to [default: dist in the project]
    #[arg(long, short, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Build although the artifacts are older than the code
    #[arg(long)]
    allow_stale: bool,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let project = project::load(session.project_folder())?;
    let pyproject = &project.manifest.pyproject;
    let version = pyproject.version.as_ref().ok_or_else(|| {
        Failure::new("a wheel has a version, and [project] of pyproject.toml has none")
            .hint("add `version = \"0.1.0\"` to [project]")
    })?;
    if project.package.extension().is_some() && project.model().is_none() {
        return Err(Failure::new(format!(
            "a wheel holds a package, and {} is a module by itself",
            project.package.display()
        ))
        .hint(format!(
            "move it to src/{0}/__init__.py: `{0}` is imported as before",
            project.module
        )));
    }
    decide::freshness(&project, args.allow_stale, session)?;
    let locked = lock::current(&project.manifest)?;
    let targets = targets::choose(&project.manifest, &Asked::default())?;
    let platform = targets.platforms[0];
    let target = targets::target(platform, &targets.python.to_string(), Some(GLIBC))
        .ok_or_else(|| Failure::new(format!("no wheels are known for Python {}", targets.python)))?;
    let reached = decide::reached(
        &project,
        &locked,
        &target,
        &wheel::decoder(),
        &BuildArgs::default(),
        session,
    )?;
    decide::named(
        &project,
        &locked,
        (&reached.production, &reached.closure),
        session,
    );
    pipeline::check_values(&project, &reached.files, &reached.frozen)?;
    let settings = project.resolve(Half::Serving, &Overrides::from_process(None, Vec::new()))?;
    let mut app = serving::app(
        &project,
        &settings,
        &reached.files,
        serving::openapi::of(&project),
    )?;
    app.locked = reached.locked.clone();
    let declared: Vec<_> = pyproject
        .dependencies
        .iter()
        .map(|declared| declared.requirement.clone())
        .collect();
    let included: Vec<_> = reached
        .production
        .included
        .iter()
        .map(|one| &one.package)
        .collect();
    let parts = Parts {
        name: &pyproject.name,
        display_name: &pyproject.display_name,
        version,
        summary: pyproject.description.as_deref(),
        requires_python: pyproject.requires_python.as_ref(),
        module: &project.module,
        sources: &project.sources,
        shipped: &project.shipped(&reached.closure)?.0,
        app: &render::files(&app, "artifacts"),
        values: &pipeline::values(&project, &reached.files, &reached.frozen)?,
        values_folder: &format!("{}/artifacts", pipeline::APP),
        run: pipeline::shipped_run(&project)?,
        declared: &declared,
        included: &included,
    };
    let bytes = wheel::tree(&parts)?.to_zip(Vec::new(), 0)?;
    let name = wheel::file_name(&parts);
    let (name, bytes) = match args.bundle {
        false => (name, bytes),
        true => bundle(&parts, name, bytes)?,
    };
    let folder = match args.output {
        Some(folder) => folder,
        None => project.manifest.folder("dist")?,
    };
    let path = write(&folder, &name, &bytes)?;
    summary(&project, &path, &bytes, &args_next(args.bundle, &path), session);
    Ok(Exit::Done)
}

/// A zip of the wheel and of what pins all that it needs.
fn bundle(parts: &Parts<'_>, wheel_name: String, wheel: Vec<u8>) -> Result<(String, Vec<u8>), Failure> {
    let requirements = wheel::requirements(parts, &Digest::of(&wheel));
    let name = wheel_name.replace("-py3-none-any.whl", "-bundle.zip");
    let mut tree = Tree::new();
    tree.insert_file(&wheel_name, wheel, PLAIN)?;
    tree.insert_file("requirements.txt", requirements.into_bytes(), PLAIN)?;
    Ok((name, tree.to_zip(Vec::new(), 0)?))
}

/// Whole or not at all: an earlier wheel is replaced only by a finished one.
fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<PathBuf, Failure> {
    let path = folder.join(name);
    let fault = |error: std::io::Error| {
        let failure = Failure::new(format!("cannot write {}: {error}", path.display()));
        if super::diagnostics::is_temporary_io(&error) {
            failure.temporary()
        } else {
            failure
        }
    };
    fs::create_dir_all(folder).map_err(fault)?;
    whole::write(&path, 0o644, |file| file.write_all(bytes)).map_err(fault)?;
    Ok(path)
}

fn args_next(bundle: bool, path: &Path) -> String {
    match bundle {
        true => "unpack it there, and `pip install --no-deps -r requirements.txt` in its folder".to_owned(),
        false => format!("pip install {}", path.display()),
    }
}

fn summary(project: &Project, path: &Path, bytes: &[u8], next: &str, session: &Session) {
    let digest = Digest::of(bytes);
    if session.is_json() {
        session.printer().json(&json!({
            "path": path,
            "digest": digest,
            "size": bytes.len(),
        }));
        return;
    }
    let printer = session.printer();
    printer.say(&format!("size      {:.1} KB, {digest}", bytes.len() as f64 / 1e3));
    printer.say(&format!("use       from {} import Model", project.module));
    printer.say(&format!("next      {next}"));
    printer.data(&path.display().to_string());
}
