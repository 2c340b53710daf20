//! Advice for builds from source: the end of what they printed, and where the rest is.

use super::{FULL, Failure, is_temporary_io};
use crate::build::process::Excess;
use crate::build::{BuildError, HookError, Log};
use crate::cli::interpreter::advice;

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        (&error).into()
    }
}

/// By reference: an index's error holds it behind a shared pointer.
impl From<&BuildError> for Failure {
    fn from(error: &BuildError) -> Self {
        let failure = Self::from_error(error);
        match error {
            BuildError::Forbidden { name, .. } => failure.hint(format!(
                "allow it (--no-build, --no-build-package, [tool.uv] no-build-package), or choose a version of {name} that has a wheel"
            )),
            BuildError::NoInterpreter { wanted, .. } => {
                failure.hint(advice(wanted.trim().trim_matches(|letter| "=<>~!".contains(letter))))
            }
            BuildError::Missing { .. } => failure
                .temporary()
                .hint("run it again: what is missing is downloaded anew"),
            BuildError::Source(_) | BuildError::Tree { .. } => {
                failure.hint("nothing of it was run; choose another version of it")
            }
            BuildError::Circle { .. } => {
                failure.hint("choose a version of one of them that has a wheel, or drop --no-binary")
            }
            BuildError::Requirements { source, .. } => match source {
                crate::resolve::ResolveError::Index(index) => {
                    let inner: Self = index.clone().into();
                    let code = inner.code();
                    inner
                        .hints()
                        .iter()
                        .fold(failure, |failure, hint| failure.hint(hint.clone()))
                        .with_code(code)
                }
                crate::resolve::ResolveError::NoSolution { hints, .. } => hints
                    .iter()
                    .fold(failure, |failure, hint| failure.hint(hint.clone())),
                _ => failure,
            },
            BuildError::Hook { source, .. } => hook(failure, source),
            BuildError::Download { source, .. } if source.is_temporary() => failure.temporary(),
            BuildError::Wheel { .. } | BuildError::Result { .. } => {
                failure.hint("its build backend made it so; choose another version of it, or tell its authors")
            }
            BuildError::Write { source, .. } if is_temporary_io(source) => failure
                .temporary()
                .hint(FULL),
            _ => failure,
        }
    }
}

fn hook(failure: Failure, error: &HookError) -> Failure {
    match error {
        HookError::Failed { log, .. } => with_log(failure, log).hint(
            "a build may need compilers or libraries of this machine; a version with a wheel needs none",
        ),
        HookError::Stopped { excess, log, .. } => with_log(failure, log).hint(match excess {
            Excess::Time(_) => "MLRAILS_BUILD_SECONDS gives it more time",
            Excess::Memory(_) => "MLRAILS_BUILD_MEMORY_MB gives it more memory",
            Excess::Processes(_) => "MLRAILS_BUILD_PROCESSES lets it start more",
        }),
        HookError::Start(source) if is_temporary_io(source) => failure.temporary(),
        HookError::Start(_) | HookError::Answer { .. } => failure,
    }
}

fn with_log(failure: Failure, log: &Log) -> Failure {
    let place = format!("all that it printed is in {}", log.path.display());
    if log.end.is_empty() {
        return failure;
    }
    let text = format!("{}\n", log.end.trim_end());
    failure.excerpt(text.clone(), text).hint(place)
}
