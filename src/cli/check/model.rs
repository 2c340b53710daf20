//! What `check` tells of a model that MLflow saved: which flavour answers and from what, the signature's columns, its golden rows.

use std::fmt::Write as _;

use crate::project::Project;
use crate::project::mlflow::{self, Example, Model, Shape};
use crate::project::source::schema::{Column, ColumnType};

/// More columns than this are counted and not listed.
const SHOWN: usize = 12;

/// In place of phases and nodes.
pub fn text(project: &Project, model: &Model) -> String {
    let pyproject = &project.manifest.pyproject;
    let version = pyproject.version.iter().map(|version| format!(" {version}"));
    let by = model.mlflow.iter().map(|version| format!(" {version}"));
    let mut out = format!(
        "{}{}, a model that MLflow{} saved\n",
        pyproject.display_name,
        version.collect::<String>(),
        by.collect::<String>()
    );
    let flavour = &model.flavour;
    let answers = match flavour.is_whole() {
        true => "loaded and asked by MLflow itself".to_owned(),
        false => format!(
            "{}, loaded by the framework itself and asked by `{}`: MLflow is not in the image",
            flavour.file.display(),
            flavour.method.as_deref().unwrap_or("predict")
        ),
    };
    let _ = writeln!(out, "  flavour   {}: {answers}", flavour.name);
    if let Some(code) = &flavour.code {
        let modules: Vec<&str> = project
            .sources
            .iter()
            .map(|module| module.name.as_str())
            .collect();
        let _ = writeln!(out, "  code      {}/: {}", code.display(), modules.join(", "));
    }
    let _ = writeln!(out, "  request   {}", request(model));
    let _ = writeln!(out, "  golden    {}", golden(project, model));
    let names: Vec<String> = pyproject
        .dependencies
        .iter()
        .map(|declared| declared.requirement.to_string())
        .collect();
    let _ = writeln!(out, "  requires  {}", names.join(", "));
    out
}

fn request(model: &Model) -> String {
    let columns = &model.signature.columns;
    let described: Vec<String> = columns.iter().take(SHOWN).map(column).collect();
    let more = match columns.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let how = match &model.signature.shape {
        Shape::Table => "a table of",
        Shape::Array { .. } => "an array of",
        Shape::Values | Shape::Unnamed => "one value a row,",
        Shape::Records => "records of",
    };
    format!("{how} {}{more}", described.join(", "))
}

fn column(column: &Column) -> String {
    let kind = match column.kind {
        ColumnType::String => "text",
        ColumnType::Datetime => "time",
        ColumnType::Object => "any JSON",
        _ => column.dtype.as_str(),
    };
    let optional = if column.required { "" } else { ", optional" };
    format!("{} ({kind}{optional})", column.name)
}

fn golden(project: &Project, model: &Model) -> String {
    match &model.example {
        Example::Rows { file, rows } => {
            let count = rows.len();
            match project.run.as_ref().is_some_and(mlflow::is_recorded) {
                true => format!("{count} rows of {file}, with the answers that `mlrails run` recorded"),
                false => format!("{count} rows of {file}; `mlrails run` records what the model answers"),
            }
        }
        Example::Unusable { file, why } => format!("none: {file} cannot be used: {why}"),
        Example::None => "none: the model was saved without an input example".to_owned(),
    }
}

/// What is weaker without an example, in one line.
pub fn warning(model: &Model) -> Option<String> {
    let why = match &model.example {
        Example::Rows { .. } => return None,
        Example::Unusable { file, why } => format!("{file} cannot be used: {why}"),
        Example::None => "the model was saved without an input example".to_owned(),
    };
    Some(format!(
        "no golden rows: {why}; nothing proves that the image answers (save it with `input_example=X.head()`, or name a file of records in \
         [golden] rows of mlrails.toml)"
    ))
}
