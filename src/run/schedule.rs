//! Which node runs when and where: everything whose inputs are there, on as many workers as there may be.
//!
//! Takes a [`Plan`]; gives a report per node. Any worker can run any node, because values go through files.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::plan::Plan;
use super::python::Interpreter;
use super::worker::{Event, Failed, Stop, Worker};
use super::{NodeOutcome, RunError, Scratch};
use crate::reporter::{Reporter, TaskId, Unit};

/// What a worker tells of a node that ran.
#[derive(Debug, Clone, Deserialize)]
pub struct Report {
    pub seconds: f64,
    pub peak_mb: f64,
    pub value: String,
    /// Columns of the training data that it read by name; only known of nodes in train.py.
    read: Vec<String>,
    /// Top-level modules that its process has imported.
    modules: Vec<String>,
}

/// What all nodes came to.
#[derive(Debug, Default)]
pub struct Ran {
    /// By the node's number in the plan.
    pub reports: BTreeMap<usize, Report>,
    order: Vec<usize>,
    pub read_by_frozen: BTreeSet<String>,
    pub modules: BTreeSet<String>,
}

impl Ran {
    pub fn outcomes(&self, plan: &Plan) -> Vec<NodeOutcome> {
        let outcome = |number: &usize| {
            let (node, report) = (plan.nodes.get(*number)?, self.reports.get(number)?);
            Some(NodeOutcome {
                name: node.name.clone(),
                phase: node.phase.name().to_owned(),
                seconds: report.seconds,
                peak_mb: report.peak_mb,
                value: report.value.clone(),
            })
        };
        self.order.iter().filter_map(outcome).collect()
    }
}

/// One value as it was saved.
#[derive(Debug, Clone, Deserialize, serde::Serialize)]
pub struct Saved {
    pub file: String,
    pub format: String,
    pub sha256: String,
    pub size: u64,
    /// Modules that loading it imports, as far as its pickle names them.
    pub modules: Vec<String>,
}

/// Where golden rows come from.
#[derive(Debug, Clone, Deserialize)]
pub struct GoldenRows {
    pub source: String,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub struct Versions {
    pub python: String,
    pub distributions: BTreeMap<String, String>,
}

/// The workers of one run. They end with it.
pub struct Pool<'a> {
    python: &'a Interpreter,
    scratch: &'a Scratch,
    reporter: &'a dyn Reporter,
    stop: &'a Stop,
    workers: Vec<Worker>,
    sender: Sender<(usize, Event)>,
    events: Receiver<(usize, Event)>,
}

impl<'a> Pool<'a> {
    pub fn new(
        python: &'a Interpreter,
        scratch: &'a Scratch,
        reporter: &'a dyn Reporter,
        stop: &'a Stop,
    ) -> Self {
        let (sender, events) = channel();
        Self {
            python,
            scratch,
            reporter,
            stop,
            workers: Vec::new(),
            sender,
            events,
        }
    }

    /// Runs all nodes of `plan`, at most `jobs` at a time. The first failure ends it.
    pub fn run(&mut self, plan: &Plan, jobs: usize) -> Result<Ran, RunError> {
        let width = plan.nodes.iter().map(|node| node.name.len()).max().unwrap_or(0);
        let mut ran = Ran::default();
        let mut waiting: BTreeSet<usize> = (0..plan.nodes.len()).collect();
        let mut running: BTreeMap<usize, (usize, TaskId)> = BTreeMap::new();
        while ran.order.len() < plan.nodes.len() {
            // In the plan's order, so that with one job it is the order in which people read the graph.
            let ready: Vec<usize> = waiting
                .iter()
                .copied()
                .filter(|number| {
                    let inputs = &plan.nodes[*number].inputs;
                    inputs.iter().all(|(_, input)| ran.reports.contains_key(input))
                })
                .collect();
            for number in ready {
                let Some(worker) = self.idle(&running, jobs)? else {
                    break;
                };
                waiting.remove(&number);
                let task = self.reporter.start(&plan.nodes[number].name, Unit::Items, None);
                running.insert(worker, (number, task));
                self.tell(worker, &json!({ "do": "node", "node": number }));
            }
            let (worker, event) = self.next()?;
            let Some((number, task)) = running.remove(&worker) else {
                continue;
            };
            self.reporter.finish(task);
            let node = &plan.nodes[number];
            match event {
                Event::Done(value) => {
                    let report: Report = self.answer(value)?;
                    self.reporter.note(&format!(
                        "  {:<width$}  {:>8.2} s  {:>7.0} MB  {}",
                        node.name, report.seconds, report.peak_mb, report.value
                    ));
                    ran.read_by_frozen.extend(report.read.iter().cloned());
                    ran.modules.extend(report.modules.iter().cloned());
                    ran.reports.insert(number, report);
                    ran.order.push(number);
                }
                Event::Failed(failed) => {
                    let node = node.name.clone();
                    return Err(RunError::Node { node, failed });
                }
                Event::Ended | Event::Said(_) => return Err(self.died(worker, node.name.clone())),
            }
        }
        Ok(ran)
    }

    /// Saves the frozen values; by name.
    pub fn freeze(&mut self) -> Result<BTreeMap<String, Saved>, RunError> {
        let command = json!({ "do": "freeze" });
        self.ask(&command)?.map_err(|failed| RunError::Freeze { failed })
    }

    /// Picks golden rows.
    pub fn golden(&mut self, read_by_frozen: &BTreeSet<String>) -> Result<GoldenRows, RunError> {
        let command = json!({ "do": "golden", "read_by_frozen": read_by_frozen });
        self.ask(&command)?.map_err(|failed| RunError::Golden { failed })
    }

    pub fn versions(&mut self, modules: &BTreeSet<String>) -> Result<Versions, RunError> {
        let command = json!({ "do": "versions", "modules": modules });
        self.ask(&command)?.map_err(|failed| RunError::Golden { failed })
    }

    /// One command to one worker that has nothing else to do, and its answer.
    pub fn ask<T: DeserializeOwned>(&mut self, command: &Value) -> Result<Result<T, Box<Failed>>, RunError> {
        let Some(worker) = self.idle(&BTreeMap::new(), 1)? else {
            return Err(RunError::Stopped);
        };
        self.tell(worker, command);
        loop {
            let (from, event) = self.next()?;
            if from != worker {
                continue;
            }
            return match event {
                Event::Done(value) => Ok(Ok(self.answer(value)?)),
                Event::Failed(failed) => Ok(Err(failed)),
                Event::Ended | Event::Said(_) => {
                    let what = command.get("do").and_then(Value::as_str).unwrap_or_default();
                    Err(self.died(worker, what.to_owned()))
                }
            };
        }
    }

    /// A worker without work; a new one while there are fewer than `jobs`.
    fn idle(
        &mut self,
        running: &BTreeMap<usize, (usize, TaskId)>,
        jobs: usize,
    ) -> Result<Option<usize>, RunError> {
        let free = (0..self.workers.len()).find(|number| !running.contains_key(number));
        if free.is_some() || self.workers.len() >= jobs {
            return Ok(free);
        }
        let number = self.workers.len();
        let worker = Worker::start(self.python, number, &self.sender, self.stop)?;
        self.workers.push(worker);
        Ok(Some(number))
    }

    fn tell(&mut self, worker: usize, command: &Value) {
        if let Some(worker) = self.workers.get_mut(worker) {
            worker.tell(command);
        }
    }

    /// The next event that is not talk; talk is passed on.
    fn next(&mut self) -> Result<(usize, Event), RunError> {
        loop {
            let received = self.events.recv();
            if self.stop.is_set() {
                return Err(RunError::Stopped);
            }
            match received {
                Ok((_, Event::Said(line))) => self.reporter.note(&line),
                Ok(event) => return Ok(event),
                // This pool holds a sender, so there is always another event.
                Err(_) => return Err(RunError::Stopped),
            }
        }
    }

    fn died(&mut self, worker: usize, node: String) -> RunError {
        self.drain();
        let status = self.workers.get_mut(worker).map(Worker::status);
        RunError::Died {
            node,
            status: status.unwrap_or_default(),
        }
    }

    fn drain(&self) {
        while let Ok((_, event)) = self.events.try_recv() {
            if let Event::Said(line) = event {
                self.reporter.note(&line);
            }
        }
    }

    /// What a worker answered. One that does not fit is a bug of this program's, or a library that writes where it should not.
    fn answer<T: DeserializeOwned>(&self, value: Value) -> Result<T, RunError> {
        serde_json::from_value(value).map_err(|error| RunError::Files {
            action: "read the answer of a worker in",
            path: self.scratch.path().to_path_buf(),
            source: error.into(),
        })
    }
}

impl Drop for Pool<'_> {
    fn drop(&mut self) {
        self.workers.clear();
        self.drain();
    }
}
