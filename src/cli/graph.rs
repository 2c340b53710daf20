//! `mlrails graph`: the pipeline as a tree, as JSON, as Mermaid, or drawn.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::drawing::{self, Box, Edge};
use super::{Exit, Failure, Session, check};
use crate::project::source::cut::Request;
use crate::project::source::graph::{Given, Half, NodeId, Phase};
use crate::project::{self, Project};

#[derive(Debug, ClapArgs)]
#[command(after_help = "Examples:
  mlrails graph                      a tree, walked back from `predict`
  mlrails graph --output graph.svg   drawn: left to right, coloured by phase
  mlrails graph --mermaid            for a README on a forge that draws it
  mlrails graph --format json        nodes, edges and the cut for programs")]
pub struct Args {
    /// Print a Mermaid flowchart
    #[arg(long)]
    mermaid: bool,
    /// Draw into FILE, which ends in .svg
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    if let Some(output) = &args.output
        && output.extension().is_none_or(|extension| extension != "svg")
    {
        return Err(Failure::usage(format!(
            "cannot draw into `{}`: only .svg files are drawn",
            output.display()
        )));
    }
    let project = project::load(session.project_folder())?;
    let edges = edges(&project);
    if let Some(output) = &args.output {
        let drawn = drawing::svg(&boxes(&project), &edges);
        std::fs::write(output, drawn)
            .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", output.display())))?;
        session.printer().say(&format!("drawn: {}", output.display()));
    }
    if session.is_json() {
        let mut document = check::graph_document(&project);
        let name = |at: usize| project.graph.node(NodeId(at)).name.clone();
        document["edges"] = edges
            .iter()
            .map(|edge| json!({ "from": name(edge.from), "to": name(edge.to), "stands_in": edge.dashed }))
            .collect();
        session.printer().json(&document);
    } else if args.mermaid {
        session.printer().data(mermaid(&project, &edges).trim_end());
    } else if args.output.is_none() {
        session.printer().data(tree(&project).trim_end());
    }
    Ok(Exit::Done)
}

/// What a node is in serving, in one word.
fn role(project: &Project, id: NodeId) -> &'static str {
    let cut = &project.cut;
    if id == cut.predict {
        "answers"
    } else if cut.frozen.contains(&id) {
        "frozen"
    } else if cut.request == Request::Table(id) {
        "supplied by the request"
    } else if project.graph.shadowed_by(id).is_some() {
        "stands in for training's"
    } else if cut.recomputed.contains(&id) {
        "recomputed"
    } else {
        "training only"
    }
}

/// Nodes that `predict` or a target of training reaches; helpers and what nothing needs are not drawn.
fn drawn(project: &Project) -> BTreeSet<NodeId> {
    let plan = project.graph.training_plan(&[], &mut Vec::new());
    let mut drawn: BTreeSet<NodeId> = plan.steps.iter().map(|step| step.node).collect();
    drawn.extend(project.cut.recomputed.iter().chain(&project.cut.frozen));
    drawn
}

/// From inputs to users. A feature is drawn as training feeds it; a shadow points at what it stands in for.
fn edges(project: &Project) -> Vec<Edge> {
    let graph = &project.graph;
    let drawn = drawn(project);
    let mut edges = Vec::new();
    for id in &drawn {
        let node = graph.node(*id);
        let half = if node.phase == Phase::Serve {
            Half::Serving
        } else {
            Half::Training
        };
        for input in &node.inputs {
            if let Some(Given::Node(from)) = graph.given(*id, &input.parameter, half)
                && drawn.contains(&from)
            {
                edges.push(Edge {
                    from: from.0,
                    to: id.0,
                    dashed: false,
                });
            }
        }
        if let Some(shadowed) = graph.shadowed_by(*id).filter(|shadowed| drawn.contains(shadowed)) {
            edges.push(Edge {
                from: shadowed.0,
                to: id.0,
                dashed: true,
            });
        }
    }
    edges
}

fn boxes(project: &Project) -> Vec<Box> {
    drawn(project)
        .into_iter()
        .map(|id| {
            let node = project.graph.node(id);
            Box {
                id: id.0,
                title: node.name.clone(),
                subtitle: format!("{} · {}", node.phase, role(project, id)),
                phase: node.phase,
                bold: project.cut.frozen.contains(&id),
            }
        })
        .collect()
}

fn mermaid(project: &Project, edges: &[Edge]) -> String {
    let mut out = String::from("flowchart LR\n");
    for shown in boxes(project) {
        let _ = writeln!(
            out,
            "    n{}[\"{}<br/><small>{}</small>\"]:::{}",
            shown.id, shown.title, shown.subtitle, shown.phase
        );
    }
    for edge in edges {
        let arrow = if edge.dashed { "-.->|stands in|" } else { "-->" };
        let _ = writeln!(out, "    n{} {arrow} n{}", edge.from, edge.to);
    }
    for phase in [
        Phase::Sql,
        Phase::Data,
        Phase::Features,
        Phase::Train,
        Phase::Serve,
    ] {
        let (fill, line) = drawing::colours(phase);
        let _ = writeln!(
            out,
            "    classDef {phase} fill:{fill},stroke:{line},color:#1b1f24"
        );
    }
    out
}

/// Walked back from `predict` as it serves, then each target of training that it does not reach.
fn tree(project: &Project) -> String {
    let mut out = String::new();
    let mut shown = BTreeSet::new();
    branch(
        project,
        project.cut.predict,
        Half::Serving,
        "",
        "",
        &mut shown,
        &mut out,
    );
    let plan = project.graph.training_plan(&[], &mut Vec::new());
    for target in plan.targets {
        if !shown.iter().any(|(id, _)| *id == target) {
            out.push('\n');
            branch(project, target, Half::Training, "", "", &mut shown, &mut out);
        }
    }
    out
}

/// The deepest branch that is drawn; beyond it the tree says so.
const DEEPEST: usize = 60;

fn branch(
    project: &Project,
    id: NodeId,
    half: Half,
    head: &str,
    indent: &str,
    shown: &mut BTreeSet<(NodeId, Half)>,
    out: &mut String,
) {
    let graph = &project.graph;
    let node = graph.node(id);
    let again = !shown.insert((id, half));
    // What a frozen node was made from is training's.
    let half = if node.phase == Phase::Train {
        Half::Training
    } else {
        half
    };
    let supplied = half == Half::Serving && matches!(node.phase, Phase::Data | Phase::Sql);
    let role = match half {
        Half::Serving => role(project, id),
        Half::Training if project.cut.frozen.contains(&id) => "frozen",
        Half::Training => "training",
    };
    let inputs: Vec<&str> = node.inputs.iter().map(|input| input.parameter.as_str()).collect();
    let more = if again && !inputs.is_empty() {
        "  (above)"
    } else {
        ""
    };
    let place = format!("{}:{}", node.place.file().display(), node.place.line());
    let _ = writeln!(out, "{head}{}  {role}  {place}{more}", node.name);
    if again || supplied {
        return;
    }
    if indent.chars().count() > 3 * DEEPEST {
        let _ = writeln!(out, "{indent}└─ …");
        return;
    }
    for (at, parameter) in inputs.iter().enumerate() {
        let last = at + 1 == inputs.len();
        let head = format!("{indent}{}", if last { "└─ " } else { "├─ " });
        let inner = format!("{indent}{}", if last { "   " } else { "│  " });
        match graph.given(id, parameter, half) {
            Some(Given::Node(input)) => branch(project, input, half, &head, &inner, shown, out),
            Some(Given::Request) => {
                let _ = writeln!(out, "{head}request");
            }
            None => {}
        }
    }
}
