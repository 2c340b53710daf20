//! The pipeline as a graph: every public top-level function of a phase, every query, and how their parameters name each other.
//!
//! Takes parsed modules and queries. Gives nodes with their inputs and settings, and the two views of them: *training*, where data
//! comes from data.py and sql/, and *serving*, where functions of serve.py stand in for nodes of the same name. The cut is made in
//! `cut`. Source: design of the convention, docs/decisions/conventions.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use ruff_python_ast::{Expr, ParameterWithDefault, Stmt, StmtFunctionDef};
use serde::Serialize;

use super::entry::{self, Entry};
use super::names::{self, Uses};
use super::reach::{self, Index, Question, Unit};
use super::{Module, Sources, literal, sql};
use crate::project::document::Placed;
use crate::project::mistake::{Mistake, Rule};
use crate::project::place::{Place, SourceText};

/// Where a node lives, which decides when it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// `sql/*.sql`: training only.
    Sql,
    /// `data.py`: training only.
    Data,
    /// `features.py`: training and serving.
    Features,
    /// `train.py`: training; its values are frozen.
    Train,
    /// `serve.py`: serving.
    Serve,
}

impl Phase {
    /// The phases that are Python modules, by the module's name.
    pub const MODULES: [(Self, &'static str); 4] = [
        (Self::Data, "data"),
        (Self::Features, "features"),
        (Self::Train, "train"),
        (Self::Serve, "serve"),
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sql => "sql",
            Self::Data => "data",
            Self::Features => "features",
            Self::Train => "train",
            Self::Serve => "serve",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// Which of the two runs of the graph is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Half {
    Training,
    Serving,
}

/// A node's index in its [`Graph`]. A shadow and what it shadows share a name, so names are no identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// One node.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    pub name: String,
    pub phase: Phase,
    /// Dotted: `churn.features`. Empty for a query.
    pub module: String,
    /// The function's name, which is the node's. Empty for a query.
    pub function: String,
    /// Where its name stands; the start of the file for a query.
    pub place: Place,
    /// Parameters without a default, in order: each names a node, or is `request`.
    pub inputs: Vec<Input>,
    /// Parameters with a default, in order; `:name` parameters of a query, without one.
    pub settings: Vec<Setting>,
    pub docstring: Option<String>,
    /// The source of the return annotation.
    pub returns: Option<String>,
    pub is_async: bool,
    /// `*args`, `**kwargs` or positional-only parameters, which name no node.
    pub unnamed_parameters: Option<&'static str>,
}

impl Node {
    /// The class of a record in `request: list[Customer]`; `None` for builtins and dotted names, whose records are dicts.
    pub fn request_class(&self) -> Option<&str> {
        let request = self.inputs.iter().find(|input| input.is_request)?;
        let annotation = request.annotation.as_deref()?.trim().trim_matches(['"', '\'']);
        let (container, item) = annotation.strip_suffix(']')?.split_once('[')?;
        let known = ["list", "List", "Sequence", "Iterable", "tuple"];
        let plain = !item.is_empty() && item.chars().all(|c| c.is_alphanumeric() || c == '_');
        let builtin = ["dict", "Any", "object", "list", "str", "int", "float"].contains(&item);
        let last = container.rsplit('.').next().unwrap_or(container);
        (known.contains(&last) && plain && !builtin).then_some(item)
    }
}

/// A parameter that names a node.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    pub parameter: String,
    pub annotation: Option<String>,
    pub place: Place,
    /// It is given the request's records: it is called `request`, or is the one parameter of `[serve] entry`.
    pub is_request: bool,
}

/// A parameter with a default.
#[derive(Debug, Clone, PartialEq)]
pub struct Setting {
    pub name: String,
    pub default: Default,
    pub place: Place,
}

/// The value of a setting that nothing sets.
#[derive(Debug, Clone, PartialEq)]
pub enum Default {
    Literal(serde_json::Value),
    /// An expression that is no literal, as it is written: Python knows its value.
    Source(String),
    /// None: a query's parameter must be set.
    Required,
}

/// What a parameter is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Given {
    Node(NodeId),
    Request,
}

/// All nodes of a project. Which are checked depends on what reaches them: see [`super::cut`].
#[derive(Debug, Clone, Default)]
pub struct Graph {
    /// By phase, then file, then line.
    pub nodes: Vec<Node>,
    /// Functions that project code calls and no parameter names.
    pub helpers: BTreeSet<String>,
    /// Whether serve.py, or the entry's module, has `examples()`, which golden rows may come from.
    pub examples: Option<Place>,
    /// `[serve] entry`, where it is no function of a phase.
    pub entry: Option<Entry>,
    /// `predict` of serve.py, or what `[serve] entry` names.
    pub predict: Option<NodeId>,
    by_name: BTreeMap<String, Vec<NodeId>>,
}

impl Graph {
    pub fn node(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }

    pub fn ids(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }

    /// A graph that no source was read for: `nodes`, of which `predict` answers.
    pub fn of_nodes(nodes: Vec<Node>, predict: NodeId) -> Self {
        let mut graph = Self {
            nodes,
            predict: Some(predict),
            ..Self::default()
        };
        for id in graph.ids() {
            let name = graph.node(id).name.clone();
            graph.by_name.entry(name).or_default().push(id);
        }
        graph
    }

    fn named(&self, name: &str) -> &[NodeId] {
        self.by_name.get(name).map_or(&[], Vec::as_slice)
    }

    /// The function that stands for the whole pipeline: a request's rows are all it takes.
    pub fn plain(&self) -> Option<&Entry> {
        self.entry.as_ref().filter(|entry| entry.parameter.is_some())
    }

    /// The node that `name` means while training: never one of serve.py.
    pub fn training_node(&self, name: &str) -> Option<NodeId> {
        self.named(name)
            .iter()
            .copied()
            .find(|id| self.node(*id).phase != Phase::Serve)
    }

    /// The node of serve.py that is called `name`.
    pub fn serve_node(&self, name: &str) -> Option<NodeId> {
        self.named(name)
            .iter()
            .copied()
            .find(|id| self.node(*id).phase == Phase::Serve)
    }

    /// What a node of serve.py stands in for, if it does.
    pub fn shadowed_by(&self, id: NodeId) -> Option<NodeId> {
        let node = self.node(id);
        (node.phase == Phase::Serve)
            .then(|| self.training_node(&node.name))
            .flatten()
    }

    /// What `parameter` of `node` is given in `half`. `None` if nothing has that name.
    pub fn given(&self, node: NodeId, parameter: &str, half: Half) -> Option<Given> {
        let inputs = &self.node(node).inputs;
        if inputs
            .iter()
            .any(|input| input.is_request && input.parameter == parameter)
        {
            return Some(Given::Request);
        }
        let from_serve = self.node(node).phase == Phase::Serve;
        let training = self.training_node(parameter);
        // A node outside serve.py may meet a shadow, and never a node that only serving has.
        let serve = self
            .serve_node(parameter)
            .filter(|_| from_serve || training.is_some());
        match half {
            Half::Training => training.or(serve),
            Half::Serving => serve.or(training),
        }
        .map(Given::Node)
    }

    /// Names that a parameter may have, for suggestions.
    pub fn names(&self) -> Vec<String> {
        let names: BTreeSet<&String> = self.nodes.iter().map(|node| &node.name).collect();
        names.into_iter().cloned().collect()
    }
}

/// Finds the nodes of the phase modules in `sources` and of `queries` (name, text).
pub fn find(
    sources: &Sources,
    queries: &[(String, Arc<SourceText>)],
    entry: Option<&Placed<String>>,
    mistakes: &mut Vec<Mistake>,
) -> Graph {
    let mut graph = Graph::default();
    for (name, source) in queries {
        graph.nodes.push(query(name, source));
    }
    let mut found: Vec<Node> = Vec::new();
    for module in sources.iter() {
        let Some(phase) = phase_of(sources.root(), &module.name) else {
            continue;
        };
        for statement in module.body() {
            let Stmt::FunctionDef(function) = statement else {
                continue;
            };
            let name = function.name.as_str();
            if name.starts_with('_') || is_overload(function) {
                continue;
            }
            if phase == Phase::Serve && name == "examples" {
                graph.examples = Some(module.place(&function.name));
                continue;
            }
            found.push(node(module, phase, function));
        }
    }
    if let Some(entry) = entry {
        let is_phase = |module: &str| phase_of(sources.root(), module).is_some();
        graph.entry = entry::add(&mut found, sources, entry, &is_phase, mistakes);
        if let Some(entry) = &graph.entry {
            graph.examples = entry.examples.clone();
        }
    }
    found.sort_by_key(|node| (node.phase, node.module.clone(), node.place.range().start));
    graph.nodes.extend(found);
    for id in graph.ids() {
        let name = graph.node(id).name.clone();
        graph.by_name.entry(name).or_default().push(id);
    }
    graph.predict = predict(&graph, entry.map(|entry| entry.value.as_str()));
    graph.helpers = helpers(sources, &graph);
    names_are_unique(&mut graph, mistakes);
    graph
}

/// The phase that a module belongs to: `churn.data` and all below it. A module whose name starts with `_` is none's.
fn phase_of(root: &str, module: &str) -> Option<Phase> {
    let mut parts = module.strip_prefix(root)?.strip_prefix('.')?.split('.');
    let first = parts.next()?;
    let (phase, _) = Phase::MODULES.iter().find(|(_, name)| *name == first)?;
    parts.all(|part| !part.starts_with('_')).then_some(*phase)
}

fn query(name: &str, source: &Arc<SourceText>) -> Node {
    let settings = sql::parameters(&source.text)
        .into_iter()
        .map(|(name, range)| Setting {
            name,
            default: Default::Required,
            place: source.place(range),
        })
        .collect();
    Node {
        name: name.to_owned(),
        phase: Phase::Sql,
        module: String::new(),
        function: String::new(),
        place: source.place(0..0),
        inputs: Vec::new(),
        settings,
        docstring: None,
        returns: None,
        is_async: false,
        unnamed_parameters: None,
    }
}

pub(super) fn node(module: &Module, phase: Phase, function: &StmtFunctionDef) -> Node {
    let parameters = &function.parameters;
    let mut inputs = Vec::new();
    let mut settings = Vec::new();
    let by_name = parameters.args.iter().chain(&parameters.kwonlyargs);
    for parameter in parameters.posonlyargs.iter().chain(by_name) {
        let ParameterWithDefault {
            parameter, default, ..
        } = parameter;
        let name = parameter.name.as_str().to_owned();
        let place = module.place(&parameter.name);
        match default {
            None => inputs.push(Input {
                is_request: name == "request",
                parameter: name,
                annotation: parameter
                    .annotation
                    .as_ref()
                    .map(|text| module.text(&**text).to_owned()),
                place,
            }),
            Some(default) => settings.push(Setting {
                name,
                default: literal::json(default).map_or_else(
                    || Default::Source(module.text(&**default).to_owned()),
                    Default::Literal,
                ),
                place,
            }),
        }
    }
    let unnamed_parameters = if parameters.vararg.is_some() {
        Some("variable (*args)")
    } else if parameters.kwarg.is_some() {
        Some("variable (**kwargs)")
    } else if !parameters.posonlyargs.is_empty() {
        Some("positional-only")
    } else {
        None
    };
    Node {
        name: function.name.as_str().to_owned(),
        phase,
        module: module.name.clone(),
        function: function.name.as_str().to_owned(),
        place: module.place(&function.name),
        inputs,
        settings,
        docstring: docstring(function),
        returns: function
            .returns
            .as_ref()
            .map(|returns| module.text(&**returns).to_owned()),
        is_async: function.is_async,
        unnamed_parameters,
    }
}

fn docstring(function: &StmtFunctionDef) -> Option<String> {
    let Some(Stmt::Expr(first)) = function.body.first() else {
        return None;
    };
    let Expr::StringLiteral(text) = &*first.value else {
        return None;
    };
    Some(text.value.to_str().trim().to_owned())
}

/// `@typing.overload` declares a signature; the function follows.
fn is_overload(function: &StmtFunctionDef) -> bool {
    function
        .decorator_list
        .iter()
        .any(|decorator| match &decorator.expression {
            Expr::Name(name) => name.id.as_str() == "overload",
            Expr::Attribute(attribute) => attribute.attr.as_str() == "overload",
            _ => false,
        })
}

/// Functions that project code uses, and that no parameter of a node names. A helper's own parameters name nothing.
fn helpers(sources: &Sources, graph: &Graph) -> BTreeSet<String> {
    let index = Index::new(sources);
    let mut used: BTreeSet<Unit> = BTreeSet::new();
    // Who asks each question: one statement, or several.
    let mut asked: BTreeMap<Question, Option<Unit>> = BTreeMap::new();
    for module in sources.iter() {
        for (at, statement) in module.body().iter().enumerate() {
            let own = Unit {
                module: module.name.clone(),
                index: at,
            };
            let mut add = |uses: &Uses<'_>| {
                for name in &uses.names {
                    let question = reach::question(&module.name, name);
                    let before = asked.get(&question);
                    let is_answered =
                        before.is_some_and(|asker| asker.as_ref().is_none_or(|asker| *asker == own));
                    if is_answered {
                        continue;
                    }
                    // A function that calls itself is no helper for it.
                    let units = index.targets(&module.name, name).units;
                    used.extend(units.into_iter().filter(|unit| *unit != own));
                    let is_first = before.is_none();
                    asked.insert(question, is_first.then(|| own.clone()));
                }
            };
            if let Some(uses) = index.uses(&own) {
                add(uses);
            }
            // What a module does when it is run as a script never happens here, and tells what its functions are for.
            if let Stmt::If(branches) = statement
                && names::never_runs(module.text(&*branches.test))
            {
                add(&names::script_uses(module, &branches.body));
            }
        }
    }
    let functions: BTreeSet<(&str, &str)> = graph
        .nodes
        .iter()
        .map(|node| (node.module.as_str(), node.function.as_str()))
        // One name may be defined thousands of times: it is looked up once.
        .collect::<BTreeSet<_>>()
        .into_iter()
        .filter(|(module, function)| {
            let units = index.definitions(module, function);
            units.iter().any(|unit| used.contains(unit))
        })
        .collect();
    let is_used = |node: &Node| functions.contains(&(node.module.as_str(), node.function.as_str()));
    let entry = graph.predict.map(|id| graph.node(id));
    let is_entry = |node: &Node| entry == Some(node);
    let candidates: Vec<&Node> = graph
        .nodes
        .iter()
        .filter(|node| node.phase != Phase::Sql && node.name != "predict" && !is_entry(node) && is_used(node))
        .collect();
    let mut helpers: BTreeSet<String> = BTreeSet::new();
    loop {
        let named: BTreeSet<&str> = graph
            .nodes
            .iter()
            .filter(|node| !helpers.contains(&node.name))
            .flat_map(|node| node.inputs.iter().map(|input| input.parameter.as_str()))
            .collect();
        let found: BTreeSet<String> = candidates
            .iter()
            .filter(|node| !named.contains(node.name.as_str()))
            .map(|node| node.name.clone())
            .collect();
        if found.len() == helpers.len() {
            return found;
        }
        helpers = found;
    }
}

/// `package.module:function` of `[serve] entry`, else `predict` of serve.py.
fn predict(graph: &Graph, entry: Option<&str>) -> Option<NodeId> {
    match entry {
        None => graph.serve_node("predict"),
        Some(entry) => {
            let (module, function) = entry.split_once(':')?;
            graph.ids().find(|id| {
                let node = graph.node(*id);
                node.module == module && node.function == function
            })
        }
    }
}

/// Two nodes of one name, but for a shadow, are an error; so is one called `request`. Helpers are no nodes.
fn names_are_unique(graph: &mut Graph, mistakes: &mut Vec<Mistake>) {
    let is_named = |name: &str| {
        graph
            .nodes
            .iter()
            .filter(|node| !graph.helpers.contains(&node.name))
            .any(|node| node.inputs.iter().any(|input| input.parameter == name))
    };
    for (name, ids) in &graph.by_name {
        if name == "request" {
            let place = graph.node(ids[0]).place.clone();
            mistakes.push(Mistake::new(Rule::RequestNode).at(place));
            continue;
        }
        let (serve, rest): (Vec<NodeId>, Vec<NodeId>) = ids
            .iter()
            .copied()
            .partition(|id| graph.node(*id).phase == Phase::Serve);
        for same in [serve, rest] {
            let (Some(first), Some(second)) = (same.first(), same.get(1)) else {
                continue;
            };
            let trained = same.iter().any(|id| graph.node(*id).phase == Phase::Train);
            let matters = is_named(name) || name == "predict" || (trained && !graph.helpers.contains(name));
            if matters {
                let rule = Rule::DuplicateNode { name: name.clone() };
                let mistake = Mistake::new(rule)
                    .at(graph.node(*second).place.clone())
                    .with(graph.node(*first).place.clone(), "the first is here");
                mistakes.push(mistake);
            }
        }
    }
}
