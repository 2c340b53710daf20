//! Advice for what stands between a lock and an image.

use super::{FULL, Failure, is_temporary_io};
use crate::layers::base::BaseError;
use crate::layers::kept::KeepError;
use crate::layers::pipeline::PipelineError;
use crate::layers::reuse::ReuseError;
use crate::layers::sums::SumError;
use crate::layers::unpack::UnpackError;
use crate::plan::PlanError;
use crate::wheel::WheelError;

impl From<Vec<PlanError>> for Failure {
    fn from(errors: Vec<PlanError>) -> Self {
        let lines: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let failure = Self::new(lines.join("\n       "));
        match errors.first() {
            Some(PlanError::UnknownModule { .. }) => failure.hint(
                "declare the distribution that provides it in [project] dependencies, then `mlrails lock`",
            ),
            Some(PlanError::NotLocked { .. }) => failure.hint("`mlrails lock` adds it"),
            Some(PlanError::NoWheel { .. }) => {
                failure.hint("`mlrails lock --platform` with this platform finds versions that have a wheel")
            }
            Some(PlanError::Select(_)) => failure.hint("`mlrails lock` with this platform and Python"),
            None => failure,
        }
    }
}

impl From<SumError> for Failure {
    fn from(error: SumError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            SumError::Io { .. } => failure,
            SumError::Malformed { .. } => failure.hint("restore mlrails.sum from version control, or delete it and build from the wheels once"),
            SumError::Differs { .. } => failure.hint(
                "one of the two was tampered with, or another version of mlrails made them: `mlrails cache verify`, and look at mlrails.sum's history",
            ),
        }
    }
}

impl From<ReuseError> for Failure {
    fn from(error: ReuseError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            ReuseError::Contradicted { .. } => failure.hint(
                "somebody put another layer in its place, or mlrails.sum was altered: find out who; --no-reuse makes all layers here",
            ),
            _ => failure.hint(
                "the image was changed after it was made: find out who pushed it; --no-reuse builds without reading it",
            ),
        }
    }
}

impl From<PipelineError> for Failure {
    fn from(error: PipelineError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            PipelineError::Missing { .. } => failure.hint("`mlrails run` writes it"),
            PipelineError::Differs { .. } | PipelineError::Size { .. } | PipelineError::Irregular { .. } => {
                failure.hint("restore it from version control, or `mlrails run` again")
            }
            _ => failure,
        }
    }
}

impl From<BaseError> for Failure {
    fn from(error: BaseError) -> Self {
        match error {
            BaseError::Debian(error) => error.into(),
            BaseError::Layer(error) => error.into(),
            BaseError::Tree(error) => error.into(),
            BaseError::Keep(error) => error.into(),
        }
    }
}

impl From<KeepError> for Failure {
    fn from(error: KeepError) -> Self {
        match error {
            KeepError::Store(error) => error.into(),
            KeepError::Write(ref source) if is_temporary_io(source) => {
                Self::from_error(&error).temporary().hint(FULL)
            }
            KeepError::Write(_) => Self::from_error(&error),
        }
    }
}

impl From<crate::oci::image::ConfigError> for Failure {
    fn from(error: crate::oci::image::ConfigError) -> Self {
        Self::from_error(&error)
    }
}

impl From<crate::layers::bytecode::BytecodeError> for Failure {
    fn from(error: crate::layers::bytecode::BytecodeError) -> Self {
        match error {
            crate::layers::bytecode::BytecodeError::Debian(error) => error.into(),
            crate::layers::bytecode::BytecodeError::Store(error) => error.into(),
            crate::layers::bytecode::BytecodeError::Image(
                ref source @ (UnpackError::Corrupt { .. } | UnpackError::Read { .. }),
            ) => Self::from_error(source).of_cache(),
            other => Self::from_error(&other).hint("--no-bytecode builds without that layer"),
        }
    }
}

impl From<WheelError> for Failure {
    fn from(error: WheelError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            WheelError::ModelTaken { .. } => {
                failure.hint("call the project's own something else: the wheel's users import `Model`")
            }
            WheelError::OursTaken { .. } => {
                failure.hint("rename it: `_mlrails` is where the wheel keeps what is generated")
            }
            WheelError::Compiled { .. } => failure
                .hint("put it into a distribution of its own, with a wheel per platform, and depend on that"),
            WheelError::Outside { .. } => {
                failure.hint("move it into the package: what [image] include names has no place in a wheel")
            }
            WheelError::Read { source, .. } if is_temporary_io(&source) => failure.temporary(),
            WheelError::Read { .. } | WheelError::Tree(_) => failure,
        }
    }
}
