//! What a build needs: solved like a project's own requirements, for this machine alone, and installed by the same installer.
//!
//! Source: PEP 517, "Build environment": nothing but what was asked for, and the standard library.

use std::path::Path;

use super::{BuildError, Builder, Stack};
use crate::index::WithSources;
use crate::layers::environment::Environment;
use crate::layers::environment::interpreter::Interpreter;
use crate::layers::open_wheel;
use crate::lock::{File, Package};
use crate::python::requirement::Requirement;
use crate::python::target::Target;
use crate::python::wheel::Wheel;
use crate::resolve::{self, Inputs, Options, Preferences};

/// The distributions of one build environment.
pub struct Solved {
    packages: Vec<Package>,
    target: Target,
    interpreter: Interpreter,
}

impl Solved {
    /// `name==version` of each, sorted: they name the environment.
    pub fn pins(&self) -> Vec<String> {
        self.packages
            .iter()
            .map(|package| match &package.version {
                Some(version) => format!("{}=={version}", package.name),
                None => package.name.to_string(),
            })
            .collect()
    }
}

/// Solves `requires` for `interpreter`. Versions in `known` (`name==version`) are taken again where they fit.
pub fn solve(
    builder: &Builder,
    interpreter: &Interpreter,
    requires: &[Requirement],
    known: &[String],
    stack: &Stack<'_>,
) -> Result<Solved, BuildError> {
    let fault = |source| BuildError::Requirements {
        tree: stack.shown(),
        source,
    };
    let target = target(interpreter, &stack.shown())?;
    let mut solved = Solved {
        packages: Vec::new(),
        target,
        interpreter: interpreter.clone(),
    };
    if requires.is_empty() {
        return Ok(solved);
    }
    let python = target.python;
    let here = format!("python_full_version == '{python}' and platform_python_implementation == 'CPython'");
    let inputs = Inputs {
        dependencies: requires.to_vec(),
        requires_python: format!("=={python}").parse().ok(),
        environments: vec![
            target
                .platform
                .marker()
                .and(here.parse().unwrap_or(uv_pep508::MarkerTree::TRUE)),
        ],
        ..Inputs::default()
    };
    let options = Options {
        exclude_newer: builder.settings.exclude_newer,
        no_build: builder.settings.no_build.clone(),
        platforms: vec![(target.platform, target.libc)],
        python: Some(python.minor_only()),
        ..Options::default()
    };
    let mut preferences = Preferences::default();
    for pin in known {
        if let Some((name, version)) = pin.split_once("==")
            && let (Ok(name), Ok(version)) = (name.parse(), version.parse())
        {
            preferences.add(name, version, uv_pep508::MarkerTree::TRUE);
        }
    }
    let sources = super::Within { builder, stack };
    let index = WithSources {
        index: &builder.network,
        sources: &sources,
    };
    let resolved = resolve::resolve(&inputs, &options, &preferences, &index, &[]).map_err(fault)?;
    let selected = resolved
        .lock
        .select(&target, &[], &[])
        .map_err(|error| BuildError::Tree {
            tree: stack.shown(),
            rule: format!("what its build needs cannot be selected: {error}"),
        })?;
    solved.packages = selected.into_iter().cloned().collect();
    Ok(solved)
}

/// What an interpreter builds for.
pub fn target(interpreter: &Interpreter, tree: &str) -> Result<Target, BuildError> {
    interpreter.target().ok_or_else(|| BuildError::Tree {
        tree: tree.to_owned(),
        rule: "this machine's platform is not one that wheels are built for".to_owned(),
    })
}

/// Brings the environment at `root` to exactly these distributions; source archives among them are built first.
pub fn install(builder: &Builder, solved: &Solved, root: &Path, stack: &Stack<'_>) -> Result<(), BuildError> {
    let tags = solved.target.tags();
    let mut files: Vec<File> = Vec::new();
    for package in &solved.packages {
        match package.wheel_for_tags(&tags) {
            Some(file) => files.push(file.clone()),
            None => files.push(built(builder, package, stack)?),
        }
    }
    let missing: Vec<&File> = files
        .iter()
        .filter(|file| builder.store.blob_size(&file.digest).is_none())
        .collect();
    builder.download(&missing)?;
    let wheels: Vec<Wheel> = files
        .iter()
        .map(|file| open_wheel(&builder.store, &file.name, &file.digest))
        .collect::<Result<_, _>>()
        .map_err(|source| BuildError::Installed {
            tree: stack.shown(),
            source,
        })?;
    let environment = Environment::at(root.to_owned());
    environment.make(&solved.interpreter)?;
    environment.install(&builder.store, &solved.interpreter, &wheels, &|_| ())?;
    Ok(())
}

fn built(builder: &Builder, package: &Package, stack: &Stack<'_>) -> Result<File, BuildError> {
    let Some(sdist) = package.sdist() else {
        return Err(BuildError::Tree {
            tree: stack.shown(),
            rule: format!(
                "its build needs {}, which has no wheel for this machine",
                package.label()
            ),
        });
    };
    builder.download(&[sdist])?;
    let tree = crate::index::SourceTree::archive(&package.name, &sdist.name, sdist.digest);
    Ok(builder.wheel_within(&tree, Some(stack))?.file)
}
