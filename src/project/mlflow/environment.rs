//! What a model was made with: its distributions and its Python, from requirements.txt, else conda.yaml.
//!
//! Takes the model's folder. Gives requirements with their places, as pyproject.toml would have them. Source: pip's "Requirements File
//! Format", conda's "Package match specifications", MLflow's "Managing dependencies in MLflow models".

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::yaml::{self, Kind, Yaml};
use crate::project::document::Placed;
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::SourceText;
use crate::project::pyproject::{Declared, parse_one};
use crate::project::reading;

const REQUIREMENTS: &str = "requirements.txt";
const CONDA: &str = "conda.yaml";
const PYTHON: &str = "python_env.yaml";
/// How deep files of requirements may name each other.
const DEEPEST: usize = 4;
/// The most lines of all of them.
const MOST: usize = 10_000;

#[derive(Debug, Clone, Default)]
pub struct Environment {
    pub dependencies: Vec<Declared>,
    pub constraints: Vec<Declared>,
    /// `3.11.7`, with where it stands.
    pub python: Option<Placed<String>>,
}

/// Reads what there is; a model without any of the files depends on nothing that it says.
pub fn read(root: &Path, mistakes: &mut Vec<Mistake>) -> Environment {
    let mut environment = Environment::default();
    let conda = file(root, CONDA, mistakes);
    let has_requirements = text(root, Path::new(REQUIREMENTS), mistakes).is_some_and(|source| {
        lines(root, &source, List::Dependencies, 0, &mut environment, mistakes);
        true
    });
    if let Some(conda) = &conda {
        conda_dependencies(conda, !has_requirements, &mut environment, mistakes);
    }
    if let Some(python) = file(root, PYTHON, mistakes)
        .as_ref()
        .and_then(|file| file.get("python"))
        && let Some(version) = python.text()
    {
        environment.python = Some(Placed {
            value: version.to_owned(),
            place: python.place.clone(),
        });
    }
    environment
}

fn text(root: &Path, path: &Path, mistakes: &mut Vec<Mistake>) -> Option<Arc<SourceText>> {
    match reading::text(root, path, reading::TEXT_LIMIT) {
        Ok(source) => source,
        Err(mistake) => {
            mistakes.push(mistake);
            None
        }
    }
}

fn file(root: &Path, name: &str, mistakes: &mut Vec<Mistake>) -> Option<Yaml> {
    let source = text(root, Path::new(name), mistakes)?;
    yaml::parse(&source)
        .map_err(|mistake| mistakes.push(mistake))
        .ok()
}

/// Where the lines of a file belong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum List {
    Dependencies,
    Constraints,
}

fn lines(
    root: &Path,
    source: &Arc<SourceText>,
    list: List,
    depth: usize,
    environment: &mut Environment,
    mistakes: &mut Vec<Mistake>,
) {
    let mut at = 0;
    for line in source.text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let code = match line.trim_start().starts_with('#') {
            true => "",
            // A `#` inside a URL is a fragment: only one after a space begins a comment.
            false => line.split(" #").next().unwrap_or_default(),
        };
        let text = code.trim().trim_end_matches('\\').trim();
        if text.is_empty() || text.starts_with("--hash") {
            continue;
        }
        let begin = start + line.find(text).unwrap_or(0);
        let place = source.place(begin..begin + text.len());
        if environment.dependencies.len() + environment.constraints.len() >= MOST {
            let rule = Rule::TooMany {
                table: source.path.display().to_string(),
                limit: MOST,
            };
            mistakes.push(Mistake::new(rule).at(place));
            return;
        }
        if text.starts_with('-') {
            let (option, value) = text.split_once([' ', '=']).unwrap_or((text, ""));
            let inner = match option {
                "-r" | "--requirement" => list,
                "-c" | "--constraint" => List::Constraints,
                _ => {
                    let rule = Rule::RequirementOption {
                        option: option.to_owned(),
                    };
                    mistakes.push(Mistake::new(rule).at(place));
                    continue;
                }
            };
            let path = PathBuf::from(value.trim());
            if depth == DEEPEST {
                let what = format!("files of requirements name each other more than {DEEPEST} deep");
                mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place));
                return;
            }
            match reading::text(root, &path, reading::TEXT_LIMIT) {
                Ok(Some(source)) => lines(root, &source, inner, depth + 1, environment, mistakes),
                Ok(None) => {
                    let rule = Rule::ModelFile {
                        path: path.display().to_string(),
                        key: option.to_owned(),
                    };
                    mistakes.push(Mistake::new(rule).at(place));
                }
                Err(mistake) => mistakes.push(mistake.at(place)),
            }
            continue;
        }
        let requirement = text.split(" --").next().unwrap_or(text).trim();
        let placed = Placed {
            value: requirement.to_owned(),
            place,
        };
        if let Some(declared) = parse_one(&placed, mistakes) {
            match list {
                List::Dependencies => environment.dependencies.push(declared),
                List::Constraints => environment.constraints.push(declared),
            }
        }
    }
}

/// conda.yaml's Python, and, where `all`, what it installs: conda's packages by their names on the index, then pip's.
fn conda_dependencies(conda: &Yaml, all: bool, environment: &mut Environment, mistakes: &mut Vec<Mistake>) {
    for item in conda.get("dependencies").map_or(&[][..], Yaml::items) {
        match &item.kind {
            Kind::Text(spec) => {
                let (name, version) = conda_spec(spec);
                if name == "python" {
                    environment.python = Some(Placed {
                        value: version.trim_start_matches('=').to_owned(),
                        place: item.place.clone(),
                    });
                } else if all && name != "pip" {
                    requirement(item, format!("{name}{version}"), environment, mistakes);
                }
            }
            Kind::Map(_) if all => {
                for one in item.get("pip").map_or(&[][..], Yaml::items) {
                    if let Some(text) = one.text() {
                        requirement(one, text.to_owned(), environment, mistakes);
                    }
                }
            }
            _ => {}
        }
    }
}

fn requirement(item: &Yaml, text: String, environment: &mut Environment, mistakes: &mut Vec<Mistake>) {
    if text.starts_with('-') {
        let option = text.split([' ', '=']).next().unwrap_or_default().to_owned();
        let rule = Rule::RequirementOption { option };
        mistakes.push(Mistake::new(rule).at(item.place.clone()));
        return;
    }
    let placed = Placed {
        value: text,
        place: item.place.clone(),
    };
    environment.dependencies.extend(parse_one(&placed, mistakes));
}

/// `conda-forge::scikit-learn=1.0.2=py39_0` as `scikit-learn` and `==1.0.2`.
fn conda_spec(spec: &str) -> (String, String) {
    let spec = spec.rsplit("::").next().unwrap_or(spec).trim();
    let end = spec.find(['=', '<', '>', '!', '~', ' ']).unwrap_or(spec.len());
    let (name, rest) = spec.split_at(end);
    let rest = rest.trim();
    let version = match rest.strip_prefix('=') {
        // One `=` may be followed by a build.
        Some(version) if !version.starts_with('=') => {
            let version = version.split('=').next().unwrap_or_default();
            format!("=={version}")
        }
        _ => rest.to_owned(),
    };
    (name.to_owned(), version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conda_specs_are_requirements() {
        let cases = [
            ("scikit-learn=1.0.2", "scikit-learn", "==1.0.2"),
            ("conda-forge::numpy=1.26=py311_0", "numpy", "==1.26"),
            ("python=3.11.7", "python", "==3.11.7"),
            ("pip<=23.2.1", "pip", "<=23.2.1"),
            ("pandas==2.1", "pandas", "==2.1"),
            ("scipy", "scipy", ""),
        ];
        for (spec, name, version) in cases {
            assert_eq!(conda_spec(spec), (name.to_owned(), version.to_owned()));
        }
    }
}
