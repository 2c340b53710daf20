//! Mistakes of a project, as people meet them: an excerpt with a caret, what is wrong, what would help.

use std::borrow::Cow;
use std::collections::BTreeSet;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};
use serde_json::{Value, json};

use super::Failure;
use crate::project::mistake::{EntryFault, NotSupplied};
use crate::project::source::keys::Stale;
use crate::project::source::named::Unmet;
use crate::project::{Mistake, Mistakes, Place, Project, Rule};

/// Texts above this size, or with longer lines, are named and not shown.
const SHOWN_TEXT: usize = 1 << 20;
const SHOWN_LINE: usize = 2_000;

impl From<Mistakes> for Failure {
    fn from(mistakes: Mistakes) -> Self {
        let render = |renderer: Renderer| -> String {
            let shown: Vec<String> = mistakes
                .iter()
                .map(|mistake| render(mistake, &renderer))
                .collect();
            shown.join("\n\n")
        };
        let plain = render(Renderer::plain());
        let colored = render(Renderer::styled());
        let count = mistakes.iter().count();
        let total = if count == 1 {
            "1 mistake".to_owned()
        } else {
            format!("{count} mistakes")
        };
        Self::new(format!("the project has {total}"))
            .excerpt(plain + "\n", colored + "\n")
            .details(to_json(&mistakes))
    }
}

impl From<Mistake> for Failure {
    fn from(mistake: Mistake) -> Self {
        Mistakes::from(mistake).into()
    }
}

/// `{"mistakes": [{rule, facts…, message, hint, place}]}`.
pub(crate) fn to_json(mistakes: &Mistakes) -> Value {
    let each: Vec<Value> = mistakes
        .iter()
        .map(|mistake| {
            let mut value = serde_json::to_value(mistake).unwrap_or_default();
            value["message"] = mistake.rule.to_string().into();
            value["hint"] = hint(&mistake.rule).into();
            value
        })
        .collect();
    json!({ "mistakes": each })
}

fn render(mistake: &Mistake, renderer: &Renderer) -> String {
    let renderer = renderer.clone().decor_style(DecorStyle::Ascii).term_width(120);
    let title = Level::ERROR.primary_title(mistake.rule.to_string());
    if mistake.place.is_none() && !mistake.related.iter().any(|(place, _)| showable(place)) {
        // Without an excerpt there is nothing to draw lines beside.
        let hint = hint(&mistake.rule);
        let hint = hint.map(|hint| Level::HELP.with_name("hint").primary_title(hint));
        let lines = std::iter::once(title).chain(hint);
        let lines: Vec<String> = lines
            .map(|line| renderer.render(&[Group::with_title(line)]))
            .collect();
        return lines.join("\n");
    }
    let mut group = Group::with_title(title);
    let mut used = BTreeSet::new();
    if let Some(place) = &mistake.place {
        group = match annotated(place, &mistake.related, &mut used) {
            Some(snippet) => group.element(snippet),
            None => group.element(origin(place)),
        };
    }
    for (at, (place, label)) in mistake.related.iter().enumerate() {
        if used.contains(&at) {
            continue;
        }
        if showable(place) {
            let snippet = Snippet::source(masked(place.text()))
                .path(path(place))
                .annotation(AnnotationKind::Context.span(span(place)).label(label.as_str()));
            group = group.element(snippet);
        }
    }
    if let Some(hint) = hint(&mistake.rule) {
        group = group.element(Level::HELP.with_name("hint").message(hint));
    }
    renderer.render(&[group])
}

/// The excerpt at `place`, with those related places that lie in the same file.
fn annotated<'a>(
    place: &'a Place,
    related: &'a [(Place, String)],
    used: &mut BTreeSet<usize>,
) -> Option<Snippet<'a, annotate_snippets::Annotation<'a>>> {
    if !showable(place) {
        return None;
    }
    let mut snippet = Snippet::source(masked(place.text()))
        .path(path(place))
        .annotation(AnnotationKind::Primary.span(span(place)));
    for (at, (other, label)) in related.iter().enumerate() {
        if other.file() == place.file() {
            used.insert(at);
            snippet = snippet.annotation(AnnotationKind::Context.span(span(other)).label(label.as_str()));
        }
    }
    Some(snippet)
}

/// The text with each URL's user name and password replaced, byte for byte, so that places stay where they are.
fn masked(text: &str) -> Cow<'_, str> {
    if !text.contains("://") {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        let ends = |c: char| c == '/' || c == '"' || c == '\'' || c.is_whitespace();
        let authority = &after[..after.find(ends).unwrap_or(after.len())];
        let secret = authority.rfind('@').unwrap_or(0);
        shown.push_str(&"*".repeat(secret));
        rest = &after[secret..];
    }
    shown.push_str(rest);
    Cow::Owned(shown)
}

fn origin(place: &Place) -> Origin<'static> {
    Origin::path(path(place))
        .line(place.line())
        .char_column(place.column())
}

fn path(place: &Place) -> Cow<'static, str> {
    Cow::Owned(place.file().display().to_string())
}

fn showable(place: &Place) -> bool {
    let text = place.text();
    !text.is_empty() && text.len() <= SHOWN_TEXT && text.split('\n').all(|line| line.len() <= SHOWN_LINE)
}

/// The place's bytes up to the end of its first line, and at least one character where there is one.
fn span(place: &Place) -> std::ops::Range<usize> {
    let range = place.range();
    let text = place.text();
    let line_end = text[range.start..]
        .find('\n')
        .map_or(text.len(), |at| range.start + at);
    let mut end = range.end.min(line_end);
    if end == range.start {
        end += text[end..]
            .chars()
            .next()
            .filter(|c| *c != '\n')
            .map_or(0, char::len_utf8);
    }
    range.start..end
}

/// What would help.
pub(crate) fn hint(rule: &Rule) -> Option<String> {
    let did_you_mean =
        |name: &str, known: &[String]| similar(name, known).map(|found| format!("did you mean `{found}`?"));
    let text = match rule {
        Rule::NotAProject { .. } => "run this in a project's folder, or name one with --project DIR".to_owned(),
        Rule::TooLarge { .. } | Rule::TooManyFiles { .. } | Rule::TooDeep { .. } => {
            "keep data outside of the package, and name what must ship in [image] include of mlrails.toml".to_owned()
        }
        Rule::NotAFolder { .. } => "remove it, or make it a folder".to_owned(),
        Rule::NotAFile { .. } => "remove it, or move it out of the package".to_owned(),
        Rule::Symlink { .. } => "replace the link by what it leads to: a package ships as it is, and links lead elsewhere there".to_owned(),
        Rule::OutsideProject { .. } => "only files inside the project's folder can be named".to_owned(),
        Rule::ReservedFileName { .. } => "in an image, a name that begins with `.wh.` deletes a file: rename it".to_owned(),
        Rule::FileName { .. } => "rename the file".to_owned(),
        Rule::NotUtf8 => "save the file as UTF-8".to_owned(),
        Rule::UnknownKey { key, known, .. } => return did_you_mean(key, known).or_else(|| known_list(known)),
        Rule::MissingKey { table, key } => format!("add `{key}` to {table}"),
        Rule::ProjectName { .. } => "letters, digits, `-`, `_` and `.`; it begins and ends with a letter or digit (PEP 508)".to_owned(),
        Rule::ConfiguredTwice => "keep one: move [tool.mlrails] into mlrails.toml, or the other way round".to_owned(),
        Rule::GroupCycle { .. } => "take one of the includes away".to_owned(),
        Rule::UnknownGroup { name, known } => return did_you_mean(name, known).or_else(|| known_list(known)),
        Rule::NoPackage { module, others, .. } if !others.is_empty() => format!(
            "{} exists, and the project is called `{module}`: rename one of them, or name another entry in [serve] entry of mlrails.toml",
            others.iter().take(3).cloned().collect::<Vec<_>>().join(" and ")
        ),
        Rule::NoPackage { module, .. } => {
            format!("put the pipeline into src/{module}/, with data.py, features.py, train.py and serve.py in it")
        }
        Rule::TwoPackages { .. } => "keep one of them".to_owned(),
        Rule::PhaseTwice { phase } => format!("Python would import {phase}/ and ignore {phase}.py: keep one of them"),
        Rule::SourceTooDeep { .. } => "break it into several statements, or read it from a data file".to_owned(),
        Rule::DuplicateNode { name } => {
            format!("rename one of them, or call it `_{name}` if it is a helper; only serve.py may stand in for another phase's node")
        }
        Rule::RequestNode => "rename it; a function of serve.py receives the request as its parameter `request`".to_owned(),
        Rule::RequestOutsideServe { .. } => {
            "shadow the data node in serve.py instead: def customers(request): …".to_owned()
        }
        Rule::UnknownParameter { parameter, known, .. } => match similar(parameter, known) {
            Some(found) => format!("did you mean `{found}`?"),
            None => format!("write a node `{parameter}`, or give the parameter a default to make it a setting"),
        },
        Rule::UnknownNode { name, known } | Rule::UnknownSetting { name, known } => {
            let bare = name.rsplit(' ').next().unwrap_or(name);
            return did_you_mean(bare, known).or_else(|| known_list(known));
        }
        Rule::UnknownEnvironment { name, known } => return did_you_mean(name, known).or_else(|| known_list(known)),
        Rule::VariableParameters { .. } => "name each parameter; a helper may take anything when its name begins with `_`".to_owned(),
        Rule::Cycle { .. } => "let one of them be computed without the other, or make one node of them".to_owned(),
        Rule::PredictMissing { known } => match similar("predict", known) {
            Some(found) => format!("did you mean `{found}` to be called `predict`?"),
            None => "write `def predict(model, X): …` in serve.py, or name a function in [serve] entry of mlrails.toml".to_owned(),
        },
        Rule::Entry { entry, why } => return Some(entry_hint(entry, why)),
        Rule::NothingSaysRequest { parameter, .. } => format!(
            "write `def examples(): return [{{…}}, …]` beside it, whose rows become the schema and the golden rows; or hint `{parameter}: list[Row]` \
             with a TypedDict, dataclass or pydantic model `Row`"
        ),
        Rule::NotSupplied { node, path, why } => not_supplied(node, path, why),
        Rule::NothingServed => {
            "let `predict` take a feature, a data node, or `request`; else every answer is the same".to_owned()
        }
        Rule::SettingDiffers { setting, .. } => {
            format!("set `{setting}` once, in config/base.toml: a feature must be computed alike in both, or predictions skew")
        }
        Rule::SettingType { .. } => return None,
        Rule::QueryParameter { node, parameter } => {
            format!("set it in config/base.toml: a table [{node}] with `{parameter} = …`")
        }
        Rule::UndeclaredImport { module, known } => {
            let likely = crate::project::source::distributions::Distributions::likely(module);
            match similar(module, known) {
                Some(found) => format!("did you mean `{found}`? else add `{likely}` to dependencies in pyproject.toml and run `mlrails lock`"),
                None => format!("add `{likely}` to dependencies in pyproject.toml and run `mlrails lock`"),
            }
        }
        Rule::UnknownModule { module, known } => return did_you_mean(module, known),
        Rule::DataNotShipped { path } => {
            let name = path.rsplit('/').next().unwrap_or(path);
            format!("put {name} beside the module and open it as Path(__file__).with_name(\"{name}\"), or add \"{path}\" to [image] include in mlrails.toml")
        }
        Rule::Stale { .. } => "run `mlrails run`; --allow-stale ships it all the same, and the image's label says so".to_owned(),
        Rule::RunRecord { .. } => "restore it from version control, or delete artifacts/ and `mlrails run`".to_owned(),
        Rule::YamlLimit { .. } => "MLflow writes no such file: save the model again with mlflow.<flavour>.save_model(...)".to_owned(),
        Rule::NoSignature => {
            "save it with `signature=mlflow.models.infer_signature(X, model.predict(X))`, or add one to the folder: \
             mlflow.models.set_signature(\"this/folder\", signature)"
                .to_owned()
        }
        Rule::NoFlavour { .. } => {
            "served are sklearn, xgboost, lightgbm and pyfunc; wrap anything else in a mlflow.pyfunc.PythonModel".to_owned()
        }
        Rule::UnservedType { .. } => {
            "save the model with a signature of named columns, for example infer_signature(X, y) of a DataFrame X".to_owned()
        }
        Rule::ModelFile { .. } => {
            "copy the whole folder that MLflow saved, for example with mlflow.artifacts.download_artifacts".to_owned()
        }
        Rule::RequirementOption { .. } => {
            "take the line away; where packages come from is said by --index-url, UV_INDEX, pip.conf, or [image] accelerator for torch".to_owned()
        }
        Rule::EntryAndModel => "take `entry` away, or put the function into a project of its own, beside the model's folder".to_owned(),
        Rule::Unreadable { .. }
        | Rule::Yaml { .. }
        | Rule::NulByte
        | Rule::Toml { .. }
        | Rule::TomlTooDeep { .. }
        | Rule::WrongType { .. }
        | Rule::InvalidValue { .. }
        | Rule::TooMany { .. }
        | Rule::DuplicateGroup { .. }
        | Rule::More { .. }
        | Rule::Syntax { .. } => return None,
    };
    Some(text)
}

/// What was trained from other code, or answered by another model, in one line.
pub(crate) fn stale(project: &Project, stale: &Stale) -> String {
    let Stale { node, why } = stale;
    match project.model() {
        Some(_) => format!("the recorded answers are stale: {why} (`mlrails run` records them again)"),
        None => format!("artifacts are stale: `{node}`: {why} (`mlrails run` trains again)"),
    }
}

/// What serving names and does not get, in one line.
pub(crate) fn unmet(unmet: &Unmet) -> String {
    let (by, place) = (&unmet.by, &unmet.place);
    match &unmet.declared {
        Some(declared) => format!(
            "{place}: {by} needs `{declared}`, which is declared and left out, for nothing that serves imports it: add it to \
             [dependencies] keep in mlrails.toml"
        ),
        None => {
            let needs: Vec<String> = unmet.needs.iter().map(|name| format!("`{name}`")).collect();
            format!(
                "{place}: {by} needs {}, and the image has none: declare it, and add it to [dependencies] keep in mlrails.toml",
                needs.join(" or ")
            )
        }
    }
}

fn entry_hint(entry: &str, why: &EntryFault) -> String {
    let (module, function) = entry.split_once(':').unwrap_or((entry, "predict"));
    match why {
        EntryFault::NoModule { known } => match similar(module, known) {
            Some(found) => format!("did you mean `{found}:{function}`?"),
            None => known_list(known).unwrap_or_else(|| "it is `package.module:function`, a module of the project's package".to_owned()),
        },
        EntryFault::Nothing { known } => match similar(function, known) {
            Some(found) => format!("did you mean `{module}:{found}`?"),
            None => known_list(known).unwrap_or_else(|| format!("write `def {function}(rows): …` in {module}")),
        },
        EntryFault::Class => format!(
            "write a function that asks it: `MODEL = {function}()` and `def predict(rows): return MODEL.predict(rows)`, and name that"
        ),
        EntryFault::Value => {
            format!("name the module that defines it, or wrap it: `def predict(rows): return {function}(rows)`")
        }
        EntryFault::Unnamed { .. } => "name each parameter: `def predict(rows, limit: float = 0.5): …`".to_owned(),
        EntryFault::Parameters { parameters } if parameters.is_empty() => {
            "let it take the rows: `def predict(rows): …`".to_owned()
        }
        EntryFault::Parameters { .. } => {
            "let one parameter take the rows (`def predict(rows): …`, each a dict with a field per column), and give the others defaults".to_owned()
        }
        EntryFault::OneRow { kind, .. } => {
            format!("take a list, and answer a list: `def {function}(rows: list[{kind}]): return [… for row in rows]`")
        }
        EntryFault::RequestIsRecords { .. } => "give the parameter another name, such as `rows`".to_owned(),
    }
}

fn not_supplied(node: &str, path: &[String], why: &NotSupplied) -> String {
    let asker = path
        .len()
        .checked_sub(2)
        .and_then(|at| path.get(at))
        .map_or("predict", String::as_str);
    match why {
        NotSupplied::Several { others } => format!(
            "a request is one table, and serving also reads {}: write `def {node}(request): …` in serve.py, or learn what `{asker}` needs from \
             `{node}` in train.py, so that it is frozen",
            others.join(" and ")
        ),
        NotSupplied::RequestTaken { by } => format!(
            "`{by}` already takes the request: write `def {node}(request): …` in serve.py too, or learn what `{asker}` needs from `{node}` in \
             train.py, so that it is frozen"
        ),
        NotSupplied::NotATable { kind } => {
            format!(
                "it is {kind}, and mlrails makes tables of requests: write `def {node}(request): …` in serve.py"
            )
        }
    }
}

fn known_list(known: &[String]) -> Option<String> {
    if known.is_empty() {
        return None;
    }
    let shown: Vec<&str> = known.iter().take(12).map(String::as_str).collect();
    let more = if known.len() > 12 { " …" } else { "" };
    Some(format!("there are: {}{more}", shown.join(", ")))
}

/// The known name that is nearest to `name`, if one is near.
pub(crate) fn similar<'a>(name: &str, known: &'a [String]) -> Option<&'a str> {
    known
        .iter()
        .filter(|candidate| *candidate != name)
        .map(|candidate| {
            let nearness =
                strsim::normalized_damerau_levenshtein(&name.to_lowercase(), &candidate.to_lowercase());
            (nearness, candidate.as_str())
        })
        .filter(|(nearness, _)| *nearness >= 0.6)
        .max_by(|one, other| one.0.total_cmp(&other.0))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::project::SourceText;

    #[test]
    fn an_excerpt_with_a_caret_and_a_hint() {
        let source = SourceText::new("src/churn/features.py", "def X(custmers):\n    return custmers\n");
        let rule = Rule::UnknownParameter {
            node: "X".into(),
            parameter: "custmers".into(),
            known: vec!["X".into(), "customers".into()],
        };
        let mistake = Mistake::new(rule).at(source.place(6..14));
        let failure = Failure::from(mistake);
        assert_eq!(
            failure.rendered(false).unwrap(),
            "error: nothing is called `custmers`, which `X` takes\n --> src/churn/features.py:1:7\n  |\n1 | def X(custmers):\n  |       ^^^^^^^^\n  |\n  = hint: did you mean `customers`?\n"
        );
    }

    #[test]
    fn huge_lines_are_named_and_not_shown() {
        let source = SourceText::new("a.toml", format!("a = \"{}\"", "x".repeat(100_000)));
        let mistake = Mistake::new(Rule::NotUtf8).at(source.place(50_000..50_001));
        let shown = render(&mistake, &Renderer::plain());
        assert!(
            shown.contains("--> a.toml:1:50001") && shown.len() < 200,
            "{shown}"
        );
    }
}
