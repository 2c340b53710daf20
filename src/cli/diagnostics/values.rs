//! Advice for trained values.

use super::{Failure, is_temporary_io};
use crate::project::source::pickle::GlobalProblem;
use crate::project::values::ValueError;

impl From<ValueError> for Failure {
    fn from(error: ValueError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            ValueError::Open { source, .. } if is_temporary_io(&source) => failure.temporary(),
            ValueError::Open { .. } => {
                failure.hint("`mlrails run` trains again and writes it; values need not be committed, but must be there")
            }
            ValueError::Pickle { .. } => {
                failure.hint("`mlrails run` writes it again; a value that comes from elsewhere is saved again by its own library")
            }
            ValueError::Names { problems, .. } => match problems.first() {
                Some(GlobalProblem::Missing(_)) => failure.hint("declare the distribution that has it in [project] dependencies, then `mlrails lock`"),
                Some(GlobalProblem::NoModule(_)) => failure.hint("`mlrails run` trains again with the code as it is now"),
                Some(GlobalProblem::Main(_)) => failure.hint("define it in a module of the project's package, and train again"),
                Some(GlobalProblem::Forbidden(_)) | None => {
                    failure.hint("a value made of data and of classes of the project or its dependencies can be served")
                }
            },
        }
    }
}
