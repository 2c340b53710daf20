//! Advice for lock files.

use super::{Failure, is_temporary_io};
use crate::lock::prove::Proof;
use crate::lock::{LockError, SelectError};

impl From<LockError> for Failure {
    fn from(error: LockError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            LockError::Read { source, .. } | LockError::Write { source, .. } if is_temporary_io(source) => {
                failure.temporary()
            }
            LockError::Syntax { .. } | LockError::Refused { .. } => {
                failure.hint("restore the file from version control, or remove it and run `mlrails lock`")
            }
            _ => failure,
        }
    }
}

impl From<SelectError> for Failure {
    fn from(error: SelectError) -> Self {
        let failure = Self::from_error(&error);
        match &error {
            SelectError::Python { .. } | SelectError::Environment { .. } => failure
                .hint("change requires-python or `environments` in pyproject.toml, then run `mlrails lock`"),
            SelectError::UnknownGroup(_) | SelectError::UnknownExtra(_) => {
                failure.hint("run `mlrails lock` if pyproject.toml has it")
            }
            SelectError::Ambiguous { .. } => {
                failure.hint("run `mlrails lock --upgrade` to write the lock anew")
            }
        }
    }
}

impl From<crate::lock::base::InvalidBase> for Failure {
    fn from(error: crate::lock::base::InvalidBase) -> Self {
        Self::from_error(&error).hint("`mlrails lock --upgrade-base` writes it anew")
    }
}

/// The most violations that are told one by one.
const MOST: usize = 20;

/// What a lock does not keep, worst first as far as the rules say: what is missing makes other things look wrong.
pub(in crate::cli) fn unproven(name: &str, proof: &Proof) -> Failure {
    let mut message = format!("{name} does not hold");
    for violation in proof.violations.iter().take(MOST) {
        let more = match violation.places {
            1 => String::new(),
            places => format!(", and {} more", places - 1),
        };
        message.push_str(&format!("\n  - {} ({}{more})", violation.fault, violation.place));
    }
    if let Some(hidden) = proof
        .violations
        .len()
        .checked_sub(MOST)
        .filter(|hidden| *hidden > 0)
    {
        message.push_str(&format!("\n  - and {hidden} more of the kind"));
    }
    Failure::new(message)
        .hint("if the lock was edited or merged by hand, restore it from version control, or remove it and run `mlrails lock`")
        .hint("if `mlrails lock` wrote it like that, it is a mistake of mlrails: please report it with the project's pyproject.toml")
}
