//! Settings: function default < config/base < the phase's file (train, serve) < `-e` environment < `MLRAILS_SET_*` < `--set`.
//!
//! In config/*.toml a table names a node (`[model]` `C = 0.5`); a key outside of tables sets every node's setting of that name, and
//! yields to the table in the same file. Values that begin with `env:` or `file:` are references: they are carried as they are written, and
//! only what runs the node resolves them, so that no record holds a secret.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use serde_json::Value;

use super::document::{self, Table};
use super::mistake::{Mistake, Mistakes, Rule};
use super::place::{Place, SourceText};
use super::reading;
use super::source::graph::{Default as SettingDefault, Graph, Half, NodeId, Phase, Setting};

/// The files of config/, read and not yet applied.
#[derive(Debug, Clone, Default)]
pub struct SettingsFiles {
    files: BTreeMap<String, Vec<Entry>>,
}

#[derive(Debug, Clone)]
struct Entry {
    /// `None`: every node that has the setting.
    node: Option<String>,
    setting: String,
    value: Value,
    place: Place,
}

/// What overrides the files.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Overrides {
    /// `-e ENV`: config/ENV.toml.
    pub environment: Option<String>,
    /// `--set K=V`: `model.C=0.5`, or `C=0.5` for every node that has it. Later ones win. Values are TOML, else text.
    pub set: Vec<(String, String)>,
    /// The process's environment; those that begin with `MLRAILS_SET_` count: `MLRAILS_SET_model__C`, `MLRAILS_SET_C`. The
    /// upper-case form of a name is accepted where it is unambiguous.
    pub variables: Vec<(String, String)>,
}

impl Overrides {
    /// With the variables of this process.
    pub fn from_process(environment: Option<String>, set: Vec<(String, String)>) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(PREFIX))
            .collect();
        Self {
            environment,
            set,
            variables,
        }
    }
}

const PREFIX: &str = "MLRAILS_SET_";

/// Who gives a setting that nothing sets.
const DEFAULT: &str = "default";

/// The value of every setting of every node, in one half.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    values: BTreeMap<NodeId, Vec<(String, Given)>>,
    /// `[data] url`, by the same order of precedence.
    pub data_url: Option<String>,
}

/// A setting's value and who gave it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Given {
    pub value: SettingValue,
    /// `default`, `config/base.toml:3:1`, `MLRAILS_SET_model__C`, `--set`.
    pub from: String,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SettingValue {
    /// A value, or a reference (`env:NAME`, `file:PATH`), which is a string.
    Json(Value),
    /// The function's default, an expression that only Python evaluates: nothing is passed.
    Source(String),
    /// A query's parameter without a value.
    Missing,
}

impl Given {
    /// Whether nothing sets it: the function's own default holds.
    pub fn is_default(&self) -> bool {
        self.from == DEFAULT
    }
}

impl SettingValue {
    /// Whether it is `env:NAME` or `file:PATH`.
    pub fn is_reference(&self) -> bool {
        matches!(self, Self::Json(Value::String(text)) if text.starts_with("env:") || text.starts_with("file:"))
    }

    /// As it is recorded and hashed: JSON, or the expression's text in an object that no TOML value equals.
    pub fn record(&self) -> Value {
        match self {
            Self::Json(value) => value.clone(),
            Self::Source(text) => serde_json::json!({ "python": text }),
            Self::Missing => Value::Null,
        }
    }

    fn shown(&self) -> String {
        match self {
            Self::Json(value) => value.to_string(),
            Self::Source(text) => text.clone(),
            Self::Missing => "nothing".to_owned(),
        }
    }
}

impl Resolved {
    /// A node's settings in the order of its parameters.
    pub fn of(&self, node: NodeId) -> &[(String, Given)] {
        self.values.get(&node).map_or(&[], Vec::as_slice)
    }
}

/// Reads config/*.toml of the project at `root`.
pub fn read(root: &Path, mistakes: &mut Vec<Mistake>) -> SettingsFiles {
    let mut files = SettingsFiles::default();
    let Ok(folder) = std::fs::read_dir(root.join("config")) else {
        return files;
    };
    let mut names: Vec<String> = folder
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".toml"))
        .collect();
    names.sort();
    for file in names {
        let relative = Path::new("config").join(&file);
        match reading::text(root, &relative, reading::TEXT_LIMIT) {
            Ok(Some(source)) => {
                let name = file.trim_end_matches(".toml").to_owned();
                files.files.insert(name, entries(&source, mistakes));
            }
            Ok(None) => {}
            Err(mistake) => mistakes.push(mistake),
        }
    }
    files
}

fn entries(source: &Arc<SourceText>, mistakes: &mut Vec<Mistake>) -> Vec<Entry> {
    let Some(document) = document::parse(source, mistakes) else {
        return Vec::new();
    };
    let root = Table::root(source, &document);
    let mut found = Vec::new();
    for (key, value) in root.entries() {
        let mut add = |node: Option<String>, setting: &str, value, place: Place| match document::json(value) {
            Some(value) => found.push(Entry {
                node,
                setting: setting.to_owned(),
                value,
                place,
            }),
            None => {
                let what = format!("`{setting}` has a value that is too large, or not finite");
                mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(place));
            }
        };
        match value.get_ref().as_table() {
            Some(table) => {
                for (setting, value) in table {
                    let place = source.place(setting.span());
                    add(
                        Some(key.value.to_owned()),
                        setting.get_ref(),
                        value.get_ref(),
                        place,
                    );
                }
            }
            None => add(None, key.value, value.get_ref(), key.place),
        }
    }
    found
}

impl SettingsFiles {
    pub fn environments(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    /// Notes each entry of the files that sets nothing.
    pub fn check(&self, graph: &Graph, mistakes: &mut Vec<Mistake>) {
        for entry in self.files.values().flatten() {
            if entry.is_data_url(graph) {
                if !entry.value.is_string() {
                    let what = "`url` must be a string".to_owned();
                    mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(entry.place.clone()));
                }
                continue;
            }
            let name = match &entry.node {
                Some(node) => format!("{node}.{}", entry.setting),
                None => entry.setting.clone(),
            };
            let mut hits = 0;
            for (id, setting) in settings(graph) {
                if entry
                    .node
                    .as_ref()
                    .is_none_or(|node| graph.node(id).name == *node)
                    && setting.name == entry.setting
                {
                    hits += 1;
                    fits(graph, id, setting, &entry.value, Some(&entry.place), mistakes);
                }
            }
            if hits == 0 {
                mistakes.push(unknown(graph, name).at(entry.place.clone()));
            }
        }
    }

    /// Every setting's value in `half`.
    pub fn resolve(
        &self,
        graph: &Graph,
        half: Half,
        data_url: Option<&str>,
        overrides: &Overrides,
    ) -> Result<Resolved, Mistakes> {
        let mut mistakes = Vec::new();
        let phase_file = match half {
            Half::Training => "train",
            Half::Serving => "serve",
        };
        let mut layers: Vec<&[Entry]> = Vec::new();
        for file in ["base", phase_file] {
            layers.extend(self.files.get(file).map(Vec::as_slice));
        }
        if let Some(environment) = &overrides.environment {
            match self.files.get(environment) {
                Some(entries) => layers.push(entries),
                None => {
                    let rule = Rule::UnknownEnvironment {
                        name: environment.clone(),
                        known: self.environments(),
                    };
                    mistakes.push(Mistake::new(rule));
                }
            }
        }
        let mut resolved = Resolved {
            data_url: data_url.map(str::to_owned),
            ..Resolved::default()
        };
        for layer in &layers {
            for entry in layer.iter().filter(|entry| entry.is_data_url(graph)) {
                resolved.data_url = entry.value.as_str().map(str::to_owned);
            }
        }
        for (id, setting) in settings(graph) {
            let name = &graph.node(id).name;
            let mut given = Given {
                value: match &setting.default {
                    SettingDefault::Literal(value) => SettingValue::Json(value.clone()),
                    SettingDefault::Source(text) => SettingValue::Source(text.clone()),
                    SettingDefault::Required => SettingValue::Missing,
                },
                from: DEFAULT.to_owned(),
            };
            for layer in &layers {
                // In one file the node's own table wins over a key for all.
                for own in [false, true] {
                    let mut matching = layer.iter().filter(|entry| {
                        entry.setting == setting.name
                            && entry.node.is_some() == own
                            && !entry.is_data_url(graph)
                    });
                    if let Some(entry) =
                        matching.find(|entry| entry.node.as_ref().is_none_or(|node| node == name))
                    {
                        given = Given {
                            value: SettingValue::Json(as_default(setting, entry.value.clone())),
                            from: entry.place.to_string(),
                        };
                    }
                }
            }
            resolved
                .values
                .entry(id)
                .or_default()
                .push((setting.name.clone(), given));
        }
        let variables = overrides.variables.iter().filter_map(|(name, value)| {
            let target = name.strip_prefix(PREFIX)?.replacen("__", ".", 1);
            Some((target, value, name.clone(), true))
        });
        let set = overrides
            .set
            .iter()
            .map(|(name, value)| (name.clone(), value, "--set".to_owned(), false));
        for (target, text, from, any_case) in variables.chain(set) {
            apply(
                graph,
                &mut resolved,
                &target,
                text,
                &from,
                any_case,
                &mut mistakes,
            );
        }
        Mistakes::check(mistakes)?;
        Ok(resolved)
    }
}

impl Entry {
    /// `[data] url`, unless a node is called `data`.
    fn is_data_url(&self, graph: &Graph) -> bool {
        self.node.as_deref() == Some("data") && self.setting == "url" && graph.training_node("data").is_none()
    }
}

/// Every node's every setting; helpers have none that anyone may set.
fn settings(graph: &Graph) -> impl Iterator<Item = (NodeId, &Setting)> {
    graph
        .ids()
        .filter(|id| !graph.helpers.contains(&graph.node(*id).name))
        .flat_map(|id| graph.node(id).settings.iter().map(move |setting| (id, setting)))
}

fn apply(
    graph: &Graph,
    resolved: &mut Resolved,
    target: &str,
    text: &str,
    from: &str,
    any_case: bool,
    mistakes: &mut Vec<Mistake>,
) {
    let (node, setting) = match target.split_once('.') {
        Some((node, setting)) => (Some(node), setting),
        None => (None, target),
    };
    if node == Some("data") && setting.eq_ignore_ascii_case("url") && graph.training_node("data").is_none() {
        resolved.data_url = Some(text.to_owned());
        return;
    }
    let matches = |wanted: &str, name: &str, exact: bool| {
        wanted == name || (!exact && any_case && wanted.eq_ignore_ascii_case(name))
    };
    let find = |exact: bool| -> Vec<(NodeId, &Setting)> {
        settings(graph)
            .filter(|(id, _)| node.is_none_or(|node| matches(node, &graph.node(*id).name, exact)))
            .filter(|(_, found)| matches(setting, &found.name, exact))
            .collect()
    };
    let mut found = find(true);
    if found.is_empty() {
        found = find(false);
    }
    if found.is_empty() {
        mistakes.push(unknown(graph, format!("{from}: {target}")));
        return;
    }
    let value = override_value(text);
    for (id, setting) in found {
        // A word for a setting that is text stays text, though it may read as a number or a truth value.
        let value = match &setting.default {
            SettingDefault::Literal(Value::String(_)) if !value.is_string() => Value::String(text.to_owned()),
            _ => value.clone(),
        };
        fits(graph, id, setting, &value, None, mistakes);
        let slot = resolved.values.entry(id).or_default();
        if let Some((_, given)) = slot.iter_mut().find(|(name, _)| *name == setting.name) {
            *given = Given {
                value: SettingValue::Json(as_default(setting, value)),
                from: from.to_owned(),
            };
        }
    }
}

/// A TOML value; what is none is text. `None` and `null` are null.
fn override_value(text: &str) -> Value {
    if matches!(text, "None" | "null") {
        return Value::Null;
    }
    let line = format!("value = {text}");
    let source = SourceText::new("--set", line);
    let parsed = document::parse(&source, &mut Vec::new());
    parsed
        .and_then(|table| document::json(table.get_ref().get("value")?.get_ref()))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

/// A whole number given to a setting whose default is a fraction is that fraction: `C = 2` and `C = 2.0` are one value.
fn as_default(setting: &Setting, value: Value) -> Value {
    let SettingDefault::Literal(Value::Number(default)) = &setting.default else {
        return value;
    };
    match &value {
        Value::Number(number) if default.is_f64() && !number.is_f64() => number
            .as_f64()
            .and_then(serde_json::Number::from_f64)
            .map_or(value, Value::Number),
        _ => value,
    }
}

/// Notes a value of another kind than the default's. A whole number does for a fraction; `None` as default takes anything.
fn fits(
    graph: &Graph,
    id: NodeId,
    setting: &Setting,
    value: &Value,
    place: Option<&Place>,
    mistakes: &mut Vec<Mistake>,
) {
    let SettingDefault::Literal(default) = &setting.default else {
        return;
    };
    let reference = SettingValue::Json(value.clone()).is_reference();
    let fits = match (default, value) {
        (Value::Null, _) | (_, Value::Null) => true,
        (Value::Number(default), Value::Number(value)) => !default.is_i64() || value.is_i64(),
        _ => std::mem::discriminant(default) == std::mem::discriminant(value),
    };
    if fits || reference {
        return;
    }
    let mut mistake = Mistake::new(Rule::SettingType {
        node: graph.node(id).name.clone(),
        setting: setting.name.clone(),
        expected: kind(default).to_owned(),
        found: value.to_string(),
    });
    mistake = match place {
        Some(place) => mistake
            .at(place.clone())
            .with(setting.place.clone(), "its default is here"),
        None => mistake.at(setting.place.clone()),
    };
    mistakes.push(mistake);
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_i64() => "a whole number",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

fn unknown(graph: &Graph, name: String) -> Mistake {
    let mut known: Vec<String> = settings(graph)
        .map(|(id, setting)| format!("{}.{}", graph.node(id).name, setting.name))
        .collect();
    known.dedup();
    Mistake::new(Rule::UnknownSetting { name, known })
}

/// Nodes that run in both halves must be given the same in both.
pub fn differences(
    graph: &Graph,
    shared: &[NodeId],
    training: &Resolved,
    serving: &Resolved,
) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for id in shared {
        let node = graph.node(*id);
        if node.phase != Phase::Features {
            continue;
        }
        for ((name, trained), (_, served)) in training.of(*id).iter().zip(serving.of(*id)) {
            if trained.value != served.value {
                let rule = Rule::SettingDiffers {
                    node: node.name.clone(),
                    setting: name.clone(),
                    training: format!("{} ({})", trained.value.shown(), trained.from),
                    serving: format!("{} ({})", served.value.shown(), served.from),
                };
                let place = node.settings.iter().find(|setting| setting.name == *name);
                let place = place.map_or(&node.place, |setting| &setting.place);
                mistakes.push(Mistake::new(rule).at(place.clone()));
            }
        }
    }
    mistakes
}
