//! Advice for training runs: tracebacks as people need them, and what skew comes from.

use serde_json::{Value, json};

use super::{Failure, is_temporary_io};
use crate::run::{Failed, RunError};

impl From<RunError> for Failure {
    fn from(error: RunError) -> Self {
        let failure = Self::from_error(&error);
        match error {
            RunError::Mistakes(mistakes) => mistakes.into(),
            RunError::Stopped => failure.with_code(130),
            RunError::NoEnvironment { .. } => {
                failure.hint("`mlrails lock` and `mlrails sync` make it from the project's dependencies")
            }
            RunError::Start { .. } => {
                failure.hint("the interpreter that .venv was made with may be gone: `mlrails sync` makes it again")
            }
            RunError::Died { .. } => failure
                .hint("it may have run out of memory: fewer nodes at a time (`--jobs 1`) need less of it"),
            RunError::Node { ref failed, .. }
            | RunError::Freeze { ref failed }
            | RunError::Golden { ref failed }
            | RunError::Replay { ref failed } => raised(failure, failed),
            RunError::Skew { ref failed } => skew(failure, failed),
            RunError::NotReloaded { ref failed } => details(failure, failed).hint(
                "an open file, a lambda or a cache does not survive being saved: return plain data, or give its class `__getstate__`",
            ),
            RunError::NoValue { ref node, ref parameter } => failure.hint(format!(
                "set it in config/base.toml: [{node}] {parameter} = …, or with --set {node}.{parameter}=…"
            )),
            RunError::NothingToReplay { .. } => failure.hint("`mlrails run` trains, and records golden rows"),
            RunError::Files { ref source, .. } if is_temporary_io(source) => failure.temporary(),
            RunError::Files { .. } => failure,
        }
    }
}

fn details(failure: Failure, failed: &Failed) -> Failure {
    failure.details(json!({ "failed": failed }))
}

fn raised(failure: Failure, failed: &Failed) -> Failure {
    let mut failure = details(failure, failed);
    if !failed.traceback.is_empty() {
        let text: String = failed
            .traceback
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect();
        failure = failure.excerpt(text.clone(), text);
    }
    let hint = match failed.kind.as_str() {
        "unpicklable" => {
            "return data, not something that is connected to this process: rows instead of a cursor, text instead of a file"
        }
        "no_data_url" => "say which one in mlrails.toml: [data] url = \"env:DATABASE_URL\"",
        "no_sqlalchemy" => {
            "add sqlalchemy and the database's driver to [project] dependencies, then `mlrails lock` and `mlrails sync`"
        }
        "not_a_table" => {
            "let serve.py stand in for it: `def NAME(request: list[dict])`, which returns what the rest of serving takes"
        }
        "not_per_row" => {
            "serving answers many rows at once: return a list, an array or a Series as long as the input"
        }
        "group_too_large" | "no_group" => {
            "[golden] group in mlrails.toml names the column whose rows belong together"
        }
        "unknown_redacted" => "[golden] redact in mlrails.toml names columns whose values are not recorded",
        "missing_columns" => {
            "golden rows are taken from the columns of that name; give serve.py an `examples()` that returns records instead"
        }
        "raised" if failed.missing_module.is_some() && failed.hidden.is_empty() => {
            "if it is a package, add it to [project] dependencies, then `mlrails lock` and `mlrails sync`"
        }
        "raised" if failed.during.is_some() => {
            "training gave the whole table at once; a request may have one row, and no column that only training reads"
        }
        _ => return failure,
    };
    failure.hint(hint)
}

fn skew(failure: Failure, failed: &Failed) -> Failure {
    let fact = |name: &str| failed.facts.get(name).cloned().unwrap_or_default();
    let mut text = format!(
        "  in training:  {}\n  replayed {}:  {}\n",
        fact("expected"),
        fact("how").as_str().unwrap_or_default(),
        fact("got")
    );
    let inputs: Vec<String> = match fact("inputs") {
        Value::Array(names) => names
            .iter()
            .filter_map(Value::as_str)
            .map(|name| format!("`{name}`"))
            .collect(),
        _ => Vec::new(),
    };
    if !inputs.is_empty() {
        text.push_str(&format!(
            "  it depends on {}: the same in both\n",
            inputs.join(", ")
        ));
    }
    details(failure, failed)
        .excerpt(text.clone(), text)
        .hint("a feature may use nothing of the other rows: what it needs of all rows (a mean, a ranking, categories) is learned in train.py and given to it")
        .hint("rows that belong together in a request are replayed together with [golden] group = \"column\" in mlrails.toml")
}
