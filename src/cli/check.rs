//! `mlrails check`: everything that can be known of a project without running it.

pub(super) mod model;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use uv_normalize::PackageName;

use super::image::decide::modules;
use super::indexes::IndexArgs;
use super::{Exit, Failure, Session};
use crate::lock::{FILE_NAME, Lock};
use crate::project::files::LeftOut;
use crate::project::judgement::Judgement;
use crate::project::source::cut::Request;
use crate::project::source::distributions::Source;
use crate::project::source::graph::{Default, NodeId, Phase};
use crate::project::source::imports::Closure;
use crate::project::source::keys::Stale;
use crate::project::source::named::Unmet;
use crate::project::{self, Mistakes, Project};
use crate::targets::{self, Asked};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "No Python runs: sources, pyproject.toml and mlrails.toml are read. All mistakes are shown in one run, and make the exit code 1.

Examples:
  mlrails check                  nodes by phase, the cut, imports and where they come from
  mlrails check --format json    the same for programs
  mlrails --project churn check  a project elsewhere"
)]
pub struct Args {}

/// What there is to tell, once there are no mistakes.
struct Findings {
    judgement: Judgement,
    closure: Closure,
    left_out: Vec<LeftOut>,
    stale: Vec<Stale>,
    /// What serving names and does not import, of what is declared.
    unmet: Vec<Unmet>,
}

pub fn run(_: Args, session: &Session) -> Result<Exit, Failure> {
    let project = project::load(session.project_folder())?;
    let findings = findings(&project)?;
    // What `lock` and `image` would refuse later: platforms, Python, buildpacks, indexes.
    let targets = targets::choose(&project.manifest, &Asked::default())?;
    super::base::additions(&project.manifest)?;
    super::image::decide::form(&project.manifest, None)?;
    super::indexes::locations(&project.manifest, &IndexArgs::default())?;
    if project.manifest.pyproject.requires_python.is_none() && project.model().is_none() {
        session.printer().warn(&format!(
            "[project] requires-python is missing: `lock` has to find versions for every Python there is (write `requires-python = \">={}\"`)",
            targets.python
        ));
    }
    if session.is_json() {
        session.printer().json(&document(&project, &findings));
    } else {
        session.printer().data(text(&project, &findings).trim_end());
        for stale in &findings.stale {
            session
                .printer()
                .warn(&super::diagnostics::project::stale(&project, stale));
        }
        if let Some(line) = project.model().and_then(model::warning) {
            session.printer().warn(&line);
        }
        warnings(&findings.judgement, session);
        for unmet in &findings.unmet {
            session.printer().warn(&super::diagnostics::project::unmet(unmet));
        }
    }
    Ok(Exit::Done)
}

fn findings(project: &Project) -> Result<Findings, Failure> {
    let lock = Lock::read(&project.root().join(FILE_NAME))?;
    let distributions = match &lock {
        Some(lock) => modules(lock),
        None => project.distributions(),
    };
    let closure = project.closure(&[]);
    let mut mistakes = Vec::new();
    let judgement = project.judge(&closure, &distributions, &mut mistakes);
    project.data_ships(&closure, &mut mistakes);
    project.settings_agree(&mut mistakes);
    let left_out = match project.shipped(&closure) {
        Ok((_, left_out)) => left_out,
        Err(found) => {
            mistakes.extend(found.iter().cloned());
            Vec::new()
        }
    };
    Mistakes::check(mistakes)?;
    let reached = could_reach(project, &judgement, lock.as_ref());
    // What other distributions may bring is known exactly only when an image is planned.
    let unmet = project
        .unmet(&closure, &distributions, &|name| reached.contains(name))
        .into_iter()
        .filter(|unmet| unmet.declared.is_some())
        .collect();
    Ok(Findings {
        unmet,
        judgement,
        closure,
        left_out,
        stale: project.stale()?,
    })
}

/// The distributions that serving may get: what it imports, what is kept, and all that those require under any marker.
fn could_reach(project: &Project, judgement: &Judgement, lock: Option<&Lock>) -> BTreeSet<PackageName> {
    let serving = judgement.imports.iter().filter(|imported| imported.serving);
    let imported = serving.flat_map(|imported| &imported.distributions);
    let kept = project.manifest.config.dependencies.keep.iter();
    let names = imported.chain(kept.map(|kept| &kept.value));
    let mut pending: Vec<PackageName> = names.filter_map(|name| name.parse().ok()).collect();
    let mut reached = BTreeSet::new();
    while let Some(name) = pending.pop() {
        if !reached.insert(name.clone()) {
            continue;
        }
        let packages = lock.iter().flat_map(|lock| &lock.packages);
        for package in packages.filter(|package| package.name == name) {
            pending.extend(
                package
                    .requires
                    .iter()
                    .map(|requirement| requirement.name.clone()),
            );
        }
    }
    reached
}

fn warnings(judgement: &Judgement, session: &Session) {
    let how = match judgement.known_by {
        Source::Locked => "no locked distribution is known to provide it",
        Source::Installed => "nothing in .venv provides it",
        Source::Assumed => "by its name, no declared dependency provides it; `mlrails lock` finds out",
    };
    for module in &judgement.undeclared {
        session.printer().warn(&format!("`{module}` is imported: {how}"));
    }
    for imported in judgement.imports.iter().filter(|imported| !imported.declared) {
        let [distribution] = imported.distributions.as_slice() else {
            continue;
        };
        let (module, place) = (&imported.module, &imported.place);
        let line =
            format!("`{module}` ({place}) comes with another dependency: declare `{distribution}` too");
        session.printer().warn(&line);
    }
}

fn text(project: &Project, findings: &Findings) -> String {
    if let Some(model) = project.model() {
        let mut out = model::text(project, model);
        imports(&mut out, &findings.judgement);
        return out + &left_out(findings);
    }
    let mut out = String::new();
    let pyproject = &project.manifest.pyproject;
    let version = pyproject
        .version
        .as_ref()
        .map(ToString::to_string)
        .unwrap_or_default();
    let _ = writeln!(
        out,
        "{} {version} in {}",
        pyproject.display_name,
        project.package.display()
    );
    for (phase, names) in by_phase(project) {
        let _ = writeln!(out, "  {:<9} {}", phase.name(), names.join(", "));
    }
    let names = |ids: &[NodeId]| -> String {
        let names: Vec<&str> = ids
            .iter()
            .map(|id| project.graph.node(*id).name.as_str())
            .collect();
        if names.is_empty() {
            "nothing".to_owned()
        } else {
            names.join(", ")
        }
    };
    let _ = writeln!(out, "\nOn a request");
    let request = match &project.cut.request {
        Request::Table(node) => {
            let known = if project.graph.plain().is_some() {
                "a table, by its type hint"
            } else if project.table_is_assumed() {
                "assumed a table"
            } else {
                "a table, as recorded"
            };
            format!("stands in for `{}` ({known})", project.graph.node(*node).name)
        }
        Request::Functions(functions) if project.graph.plain().is_some() => {
            let place = &project.graph.node(project.cut.predict).place;
            format!("is taken by {} ({place})", names(functions))
        }
        Request::Functions(functions) => format!("is taken by {} of serve.py", names(functions)),
    };
    let _ = writeln!(out, "  request     {request}");
    let _ = writeln!(out, "  frozen      {}", names(&project.cut.frozen));
    let order: Vec<&str> = project
        .cut
        .recomputed
        .iter()
        .map(|id| project.graph.node(*id).name.as_str())
        .collect();
    let _ = writeln!(out, "  recomputed  {}", order.join(" → "));
    imports(&mut out, &findings.judgement);
    if !findings.judgement.unused.is_empty() {
        let _ = writeln!(
            out,
            "\nDeclared and imported nowhere: {}",
            findings.judgement.unused.join(", ")
        );
    }
    out + &left_out(findings)
}

fn left_out(findings: &Findings) -> String {
    let mut out = String::new();
    if !findings.left_out.is_empty() {
        let _ = writeln!(out, "\nLeft out of what ships");
        for left in &findings.left_out {
            let _ = writeln!(out, "  {}  ({})", left.path.display(), left.reason);
        }
    }
    out
}

fn imports(out: &mut String, judgement: &Judgement) {
    let known_by = match judgement.known_by {
        Source::Locked => "by the lock",
        Source::Installed => "by .venv",
        Source::Assumed => "assumed from names",
    };
    for (serving, title) in [(true, "Serving imports"), (false, "Only training imports")] {
        let found: Vec<_> = judgement
            .imports
            .iter()
            .filter(|imported| imported.serving == serving)
            .collect();
        if found.is_empty() {
            continue;
        }
        let _ = writeln!(out, "\n{title} (distributions {known_by})");
        let width = found
            .iter()
            .map(|imported| imported.module.len())
            .max()
            .unwrap_or(0);
        for imported in found {
            let distributions = match imported.distributions.as_slice() {
                [] => "unknown".to_owned(),
                some => some.join(" or "),
            };
            let _ = writeln!(
                out,
                "  {:<width$}  {distributions}  {}",
                imported.module, imported.place
            );
        }
    }
}

fn by_phase(project: &Project) -> BTreeMap<Phase, Vec<String>> {
    let mut phases: BTreeMap<Phase, Vec<String>> = BTreeMap::new();
    let graph = &project.graph;
    for id in graph.ids() {
        let node = graph.node(id);
        if graph.helpers.contains(&node.name) {
            continue;
        }
        let shadow = if graph.shadowed_by(id).is_some() {
            " (shadow)"
        } else {
            ""
        };
        phases
            .entry(node.phase)
            .or_default()
            .push(format!("{}{shadow}", node.name));
    }
    phases
}

fn document(project: &Project, findings: &Findings) -> Value {
    let mut document = graph_document(project);
    let pyproject = &project.manifest.pyproject;
    document["project"] = json!({
        "name": pyproject.name.to_string(),
        "version": pyproject.version.as_ref().map(ToString::to_string),
        "module": project.module,
        "package": shown(&project.package),
        "python": project.manifest.python_version,
    });
    document["model"] = json!(project.model().map(|model| json!({
        "flavour": model.flavour.name,
        "file": shown(&model.flavour.file),
        "mlflow": model.mlflow,
        "columns": model.signature.columns,
        "golden": model.example.rows().len(),
    })));
    document["imports"] = json!(findings.judgement);
    document["serving"] = json!({
        "modules": findings.closure.modules,
        "imports": findings.closure.imports,
        "opened": findings.closure.opened,
        "unmet": findings.unmet,
    });
    document["left_out"] = json!(findings.left_out);
    document["stale"] = json!(findings.stale);
    document["mistakes"] = json!([]);
    document
}

/// Nodes and the cut, for programs: what `check` and `graph` share.
pub(super) fn graph_document(project: &Project) -> Value {
    let graph = &project.graph;
    let name = |id: &NodeId| graph.node(*id).name.clone();
    let nodes: Vec<Value> = graph
        .ids()
        .filter(|id| !graph.helpers.contains(&graph.node(*id).name))
        .map(|id| {
            let node = graph.node(id);
            let settings: serde_json::Map<String, Value> = node
                .settings
                .iter()
                .map(|setting| {
                    let default = match &setting.default {
                        Default::Literal(value) => value.clone(),
                        Default::Source(text) => json!({ "python": text }),
                        Default::Required => Value::Null,
                    };
                    (setting.name.clone(), default)
                })
                .collect();
            let inputs: Vec<&str> = node.inputs.iter().map(|input| input.parameter.as_str()).collect();
            json!({
                "name": node.name, "phase": node.phase, "module": node.module, "place": node.place,
                "inputs": inputs, "settings": settings, "doc": node.docstring,
                "shadows": graph.shadowed_by(id).map(|shadowed| graph.node(shadowed).phase),
            })
        })
        .collect();
    let request = match &project.cut.request {
        Request::Table(node) => {
            json!({ "kind": "table", "node": name(node), "assumed": project.table_is_assumed() })
        }
        Request::Functions(functions) => {
            json!({ "kind": "functions", "nodes": functions.iter().map(name).collect::<Vec<_>>() })
        }
    };
    json!({
        "nodes": nodes,
        "cut": {
            "frozen": project.cut.frozen.iter().map(name).collect::<Vec<_>>(),
            "recomputed": project.cut.recomputed.iter().map(name).collect::<Vec<_>>(),
            "request": request,
            "predict": name(&project.cut.predict),
        },
    })
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
