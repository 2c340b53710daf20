//! Advice for requirements that cannot be met.

use super::Failure;
use crate::resolve::ResolveError;

impl From<ResolveError> for Failure {
    fn from(error: ResolveError) -> Self {
        let message = error.to_string();
        match error {
            ResolveError::Index(error) => error.into(),
            ResolveError::NoSolution { hints, .. } => hints
                .into_iter()
                .fold(Self::new(message), |failure, hint| failure.hint(hint)),
            ResolveError::NoWheel {
                platform,
                nearest,
                hints,
                ..
            } => {
                let drop = format!("drop {platform} from [image] platforms");
                let failure = match nearest {
                    Some(version) => Self::new(message).hint(format!("{version} has one; or {drop}")),
                    None => Self::new(message).hint(drop),
                };
                hints.into_iter().fold(failure, Self::hint)
            }
            ResolveError::Unsupported { .. } | ResolveError::OutOfTime => Self::new(message),
            ResolveError::Unsound(_) => Self::new(message)
                .hint("this is a mistake of mlrails: please report it with the project's pyproject.toml"),
        }
    }
}
