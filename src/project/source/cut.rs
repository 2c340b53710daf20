//! The cut: what serving shares with training, found by walking back from `predict`; and the order in which training runs.
//!
//! A node of train.py is *frozen*, one of features.py or serve.py is *recomputed* on each request, one of data.py or sql/ must be
//! *supplied* by the request. Takes a [`Graph`]; notes what is wrong with what a target reaches, and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::graph::{Given, Graph, Half, NodeId, Phase};
use crate::project::mistake::{Mistake, NotSupplied, Rule};

/// What runs where, once the graph is cut at `predict`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Nodes of train.py whose trained values ship, by name.
    pub frozen: Vec<NodeId>,
    /// Nodes that run on each request, inputs before users; `predict` is the last.
    pub recomputed: Vec<NodeId>,
    pub request: Request,
    pub predict: NodeId,
}

/// What a request becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// mlrails makes a table of it, in place of this data node. Assumed to be one until a run has recorded it.
    Table(NodeId),
    /// These functions of serve.py take it as `request`, in the order in which they run.
    Functions(Vec<NodeId>),
}

/// The steps of a training run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrainingPlan {
    /// Inputs before users; among those that are ready, in the order of the files.
    pub steps: Vec<Step>,
    /// What was asked for: all of train.py, and `predict` where golden rows can come from the training pass.
    pub targets: Vec<NodeId>,
    /// `predict`, unless it needs a `request`, which training has none of.
    pub predict: Option<NodeId>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub node: NodeId,
    /// Each parameter without a default, and the node whose value it is given.
    pub inputs: Vec<(String, NodeId)>,
}

impl Graph {
    /// Walks back from `predict`. `table` is what a run recorded of the supplied node, if it did: whether it is a table.
    pub fn cut(&self, table: Option<bool>, mistakes: &mut Vec<Mistake>) -> Option<Cut> {
        let predict = self.predict?;
        let before = mistakes.len();
        let walk = self.walk(&[predict], Half::Serving, mistakes);
        let mut frozen = Vec::new();
        let mut recomputed = Vec::new();
        let mut data = Vec::new();
        for id in &walk.order {
            match self.node(*id).phase {
                Phase::Train => frozen.push(*id),
                Phase::Features | Phase::Serve => recomputed.push(*id),
                Phase::Data | Phase::Sql => data.push(*id),
            }
        }
        frozen.sort_by(|one, other| self.node(*one).name.cmp(&self.node(*other).name));
        let takers: Vec<NodeId> = recomputed
            .iter()
            .copied()
            .filter(|id| self.node(*id).inputs.iter().any(|input| input.is_request))
            .collect();
        self.supplied(&data, &takers, &walk, table, mistakes);
        let request = match data.first() {
            Some(node) => Request::Table(*node),
            None if takers.is_empty() => {
                if mistakes.len() == before {
                    let place = self.node(predict).place.clone();
                    mistakes.push(Mistake::new(Rule::NothingServed).at(place));
                }
                return None;
            }
            None => Request::Functions(takers),
        };
        (mistakes.len() == before).then_some(Cut {
            frozen,
            recomputed,
            request,
            predict,
        })
    }

    /// Notes each data node that serving reads and that the request cannot supply.
    fn supplied(
        &self,
        data: &[NodeId],
        takers: &[NodeId],
        walk: &Walk,
        table: Option<bool>,
        mistakes: &mut Vec<Mistake>,
    ) {
        for id in data {
            let node = self.node(*id);
            let others: Vec<String> = data
                .iter()
                .filter(|other| *other != id)
                .map(|other| self.node(*other).name.clone())
                .collect();
            let why = if !others.is_empty() {
                NotSupplied::Several { others }
            } else if let Some(taker) = takers.first() {
                NotSupplied::RequestTaken {
                    by: self.node(*taker).name.clone(),
                }
            } else if let Some(kind) = not_a_table(node.returns.as_deref()) {
                NotSupplied::NotATable { kind }
            } else if table == Some(false) {
                NotSupplied::NotATable {
                    kind: "no table when it was trained".to_owned(),
                }
            } else {
                continue;
            };
            let path = walk.path(*id);
            let mut names: Vec<String> = path.iter().map(|id| self.node(*id).name.clone()).collect();
            if let Some(last) = names.last_mut() {
                let _ = write!(last, " ({}:{})", node.place.file().display(), node.place.line());
            }
            let rule = Rule::NotSupplied {
                node: node.name.clone(),
                path: names,
                why,
            };
            let mut mistake = Mistake::new(rule);
            // The excerpt shows who asks for it; the node itself is the related place.
            let asker = path
                .len()
                .checked_sub(2)
                .and_then(|before_last| path.get(before_last));
            let asked = asker.and_then(|asker| {
                let inputs = &self.node(*asker).inputs;
                inputs.iter().find(|input| input.parameter == node.name)
            });
            mistake = match asked {
                Some(input) => mistake.at(input.place.clone()).with(
                    node.place.clone(),
                    format!("`{}` comes from here while training", node.name),
                ),
                None => mistake.at(node.place.clone()),
            };
            mistakes.push(mistake);
        }
    }

    /// Notes what is wrong with all that a target reaches, in both halves.
    pub fn check(&self, mistakes: &mut Vec<Mistake>) {
        self.training_plan(&[], mistakes);
    }

    /// What `run` does for `wanted` nodes, or for all targets if none are named: names must be those of nodes.
    pub fn training_plan(&self, wanted: &[NodeId], mistakes: &mut Vec<Mistake>) -> TrainingPlan {
        let mut targets: Vec<NodeId> = if wanted.is_empty() {
            let is_target = |id: &NodeId| {
                let node = self.node(*id);
                node.phase == Phase::Train && !self.helpers.contains(&node.name)
            };
            self.ids().filter(is_target).collect()
        } else {
            wanted.to_vec()
        };
        let predict = self
            .predict
            .filter(|predict| wanted.is_empty() || wanted.contains(predict))
            // A plain function's rows come from requests alone.
            .filter(|_| self.plain().is_none())
            .filter(|predict| {
                !self
                    .walk(&[*predict], Half::Training, &mut Vec::new())
                    .takes_request
            });
        if let Some(predict) = predict
            && !targets.contains(&predict)
        {
            targets.push(predict);
        }
        let walk = self.walk(&targets, Half::Training, mistakes);
        let steps = walk.order.iter().map(|id| Step {
            node: *id,
            inputs: self
                .node(*id)
                .inputs
                .iter()
                .filter_map(|input| match self.given(*id, &input.parameter, Half::Training)? {
                    Given::Node(node) => Some((input.parameter.clone(), node)),
                    Given::Request => None,
                })
                .collect(),
        });
        TrainingPlan {
            steps: steps.collect(),
            targets,
            predict,
        }
    }

    /// Depth first from `targets`, parameters in order. In the serving half, frozen and supplied nodes are leaves.
    fn walk(&self, targets: &[NodeId], half: Half, mistakes: &mut Vec<Mistake>) -> Walk {
        let mut walk = Walk::default();
        let mut done: BTreeSet<NodeId> = BTreeSet::new();
        for target in targets {
            // A chain of a million nodes must not meet the stack: the trail is a list.
            let mut trail: Vec<(NodeId, usize)> = Vec::new();
            if !done.contains(target) {
                self.enter(*target, mistakes);
                trail.push((*target, 0));
            }
            while let Some((id, at)) = trail.last_mut() {
                let id = *id;
                let node = self.node(id);
                let is_leaf = half == Half::Serving && !matches!(node.phase, Phase::Features | Phase::Serve);
                let Some(input) = node.inputs.get(*at).filter(|_| !is_leaf) else {
                    trail.pop();
                    if done.insert(id) {
                        walk.order.push(id);
                    }
                    continue;
                };
                *at += 1;
                let given = match self.given(id, &input.parameter, half) {
                    Some(Given::Node(given)) => given,
                    Some(Given::Request) => {
                        walk.takes_request = true;
                        if node.phase != Phase::Serve {
                            let rule = Rule::RequestOutsideServe {
                                node: node.name.clone(),
                            };
                            mistakes.push(Mistake::new(rule).at(input.place.clone()));
                        }
                        continue;
                    }
                    None => {
                        let rule = Rule::UnknownParameter {
                            node: node.name.clone(),
                            parameter: input.parameter.clone(),
                            known: self.names(),
                        };
                        mistakes.push(Mistake::new(rule).at(input.place.clone()));
                        continue;
                    }
                };
                if let Some(first) = trail.iter().position(|(on_trail, _)| *on_trail == given) {
                    self.cycle(&trail[first..], given, mistakes);
                    continue;
                }
                if !done.contains(&given) {
                    walk.reached_from.entry(given).or_insert(id);
                    self.enter(given, mistakes);
                    trail.push((given, 0));
                }
            }
        }
        walk
    }

    fn enter(&self, id: NodeId, mistakes: &mut Vec<Mistake>) {
        let node = self.node(id);
        if let Some(kind) = node.unnamed_parameters {
            let rule = Rule::VariableParameters {
                node: node.name.clone(),
                kind: kind.to_owned(),
            };
            mistakes.push(Mistake::new(rule).at(node.place.clone()));
        }
    }

    /// One cycle is noted once, from whichever of its nodes it is met: it is told from its first node in the files.
    fn cycle(&self, trail: &[(NodeId, usize)], closing: NodeId, mistakes: &mut Vec<Mistake>) {
        let mut ids: Vec<NodeId> = trail.iter().map(|(id, _)| *id).collect();
        let first = ids
            .iter()
            .enumerate()
            .min_by_key(|(_, id)| **id)
            .map_or(0, |(at, _)| at);
        ids.rotate_left(first);
        ids.push(ids.first().copied().unwrap_or(closing));
        let cycle = ids.iter().map(|id| self.node(*id).name.clone()).collect();
        let mut mistake = Mistake::new(Rule::Cycle { cycle });
        for pair in ids.windows(2) {
            let wanted = &self.node(pair[1]).name;
            let inputs = &self.node(pair[0]).inputs;
            let Some(input) = inputs.iter().find(|input| input.parameter == *wanted) else {
                continue;
            };
            mistake = if mistake.place.is_none() {
                mistake.at(input.place.clone())
            } else {
                mistake.with(
                    input.place.clone(),
                    format!("and `{}` needs `{wanted}`", self.node(pair[0]).name),
                )
            };
        }
        if !mistakes.contains(&mistake) {
            mistakes.push(mistake);
        }
    }
}

/// What a walk met.
#[derive(Debug, Default)]
struct Walk {
    /// Inputs before users.
    order: Vec<NodeId>,
    reached_from: BTreeMap<NodeId, NodeId>,
    takes_request: bool,
}

impl Walk {
    /// From the target to `id`.
    fn path(&self, id: NodeId) -> Vec<NodeId> {
        let mut path = vec![id];
        let mut at = id;
        while let Some(from) = self.reached_from.get(&at) {
            path.push(*from);
            at = *from;
        }
        path.reverse();
        path
    }
}

/// A return annotation that is certainly no table.
fn not_a_table(returns: Option<&str>) -> Option<String> {
    let returns = returns?.trim_matches(['"', '\'']);
    let head = returns.split('[').next().unwrap_or(returns).trim();
    let known = [
        "dict", "list", "tuple", "set", "str", "int", "float", "bool", "bytes", "None",
    ];
    known.contains(&head).then(|| format!("annotated `{returns}`"))
}
