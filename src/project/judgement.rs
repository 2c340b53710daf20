//! What a loaded project's imports and data come to, once it is known where modules come from: undeclared, unused, not shipped.
//!
//! Takes a [`Project`] and the [`Distributions`]; gives facts for `check`, and the mistakes that stop an image.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use uv_normalize::PackageName;

use super::files::{LeftOut, ShippedFile};
use super::mistake::{Mistake, Rule};
use super::place::Place;
use super::record::RunRecord;
use super::settings::{self, Overrides};
use super::source::cut::{Step, TrainingPlan};
use super::source::distributions::{Distributions, Source};
use super::source::graph::Half;
use super::source::imports::{self, Closure, ThirdParty};
use super::source::keys::{self, Stale};
use super::source::named::{self, Known, Unmet};
use super::source::reach::Index;
use super::{Mistakes, Project, mlflow};

/// One imported module, and whose it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Imported {
    /// The top-level module.
    pub module: String,
    pub distributions: Vec<String>,
    /// Reached by the serving half.
    pub serving: bool,
    /// The first place that imports it; of the serving half, if it does.
    pub place: Place,
    pub declared: bool,
}

/// What the imports come to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Judgement {
    pub known_by: Source,
    pub imports: Vec<Imported>,
    /// Declared in `[project] dependencies`, and imported nowhere in the package.
    pub unused: Vec<String>,
    /// Imported and provided by nothing that is known; a mistake only when the lock knows all modules.
    pub undeclared: Vec<String>,
}

impl Project {
    /// Python's minor, as far as the project fixes it.
    pub fn python_minor(&self) -> Option<u8> {
        let configured = self
            .manifest
            .config
            .image
            .python
            .as_ref()
            .map(|python| python.value.as_str());
        let version = self.manifest.python_version.as_deref().or(configured)?;
        version.split('.').nth(1)?.parse().ok()
    }

    /// What the serving half brings. `modules` are modules of the project that frozen values name (a pickle's classes).
    pub fn closure(&self, modules: &[String]) -> Closure {
        let index = Index::new(&self.sources);
        // What is wrong with settings is told by who checks them; here they only say where paths lead.
        let settings = self
            .resolve(Half::Serving, &self.run_overrides())
            .unwrap_or_default();
        // Whoever loads a model may import any module that was saved with it.
        let saved: Vec<String> = match self.model() {
            Some(_) => self.sources.iter().map(|module| module.name.clone()).collect(),
            None => modules.to_vec(),
        };
        imports::closure(
            &index,
            &self.graph,
            &self.cut.recomputed,
            &saved,
            self.python_minor(),
            &settings,
        )
    }

    /// The files that ship, sorted, and what is left out with reasons: every file of the package that is not Python, the modules in
    /// `closure`, and what `[image] include` names.
    pub fn shipped(&self, closure: &Closure) -> Result<(Vec<ShippedFile>, Vec<LeftOut>), Mistakes> {
        let mut shipped = Vec::new();
        let mut left_out = self.files.left_out.clone();
        for file in &self.files.found {
            match &file.module {
                Some(module) if !closure.modules.contains(module) => left_out.push(LeftOut {
                    path: self
                        .package
                        .join(file.path.strip_prefix(&self.module).unwrap_or(&file.path)),
                    reason: "serving does not import it".to_owned(),
                }),
                _ => shipped.push(file.clone()),
            }
        }
        let mut mistakes = Vec::new();
        for include in &self.manifest.config.image.include {
            let relative = std::path::Path::new(&include.value)
                .components()
                .collect::<std::path::PathBuf>();
            let relative = relative.strip_prefix(".").unwrap_or(&relative).to_path_buf();
            if self.root().join(&relative).is_dir() {
                let limits = super::files::Limits::default();
                let found =
                    super::files::list(self.root(), &relative, &relative, None, limits, &mut mistakes);
                shipped.extend(found.found);
                left_out.extend(found.left_out);
                continue;
            }
            match super::files::one(self.root(), &relative, &mut left_out) {
                Ok(Some(file)) => shipped.push(file),
                Ok(None) => {
                    let what = format!("[image] include names `{}`, which does not exist", include.value);
                    mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(include.place.clone()));
                }
                Err(mistake) => mistakes.push(mistake.at(include.place.clone())),
            }
        }
        Mistakes::check(mistakes)?;
        shipped.sort_by(|one, other| one.path.cmp(&other.path));
        shipped.dedup_by(|one, other| one.path == other.path);
        left_out.sort_by(|one, other| one.path.cmp(&other.path));
        Ok((shipped, left_out))
    }

    /// Where modules come from when there is no lock: what is installed, else a guess from what is declared.
    pub fn distributions(&self) -> Distributions {
        Distributions::installed(self.root()).unwrap_or_else(|| {
            let declared: Vec<&PackageName> = self
                .manifest
                .pyproject
                .all_declared()
                .map(|declared| &declared.requirement.name)
                .collect();
            Distributions::assumed(declared)
        })
    }

    /// Judges all imports of the package.
    pub fn judge(
        &self,
        closure: &Closure,
        distributions: &Distributions,
        mistakes: &mut Vec<Mistake>,
    ) -> Judgement {
        let minor = self.python_minor();
        let declared: BTreeSet<&PackageName> = self
            .manifest
            .pyproject
            .all_declared()
            .map(|declared| &declared.requirement.name)
            .collect();
        let all = imports::all(&self.sources, minor);
        // The serving half's places first: they are what an image needs.
        let mut by_name: BTreeMap<String, (bool, &ThirdParty)> = BTreeMap::new();
        for (serving, imports) in [(true, &closure.imports), (false, &all)] {
            for import in imports.iter() {
                by_name
                    .entry(provided_name(import, distributions))
                    .or_insert((serving, import));
            }
        }
        let mut judgement = Judgement {
            known_by: distributions.source,
            imports: Vec::new(),
            unused: Vec::new(),
            undeclared: Vec::new(),
        };
        let mut used: BTreeSet<&PackageName> = BTreeSet::new();
        for (module, (serving, import)) in &by_name {
            let providers = distributions.of(module);
            used.extend(providers);
            let is_declared = providers.iter().any(|provider| declared.contains(provider));
            if providers.is_empty() && !import.optional {
                judgement.undeclared.push(module.clone());
                if distributions.source == Source::Locked && distributions.complete {
                    let rule = Rule::UndeclaredImport {
                        module: module.clone(),
                        known: distributions.modules(),
                    };
                    mistakes.push(Mistake::new(rule).at(import.place.clone()));
                }
            }
            if providers.is_empty() && import.optional {
                continue;
            }
            judgement.imports.push(Imported {
                module: module.clone(),
                distributions: providers.iter().map(PackageName::to_string).collect(),
                serving: *serving,
                place: import.place.clone(),
                declared: is_declared,
            });
        }
        let kept = &self.manifest.config.dependencies.keep;
        for dependency in &self.manifest.pyproject.dependencies {
            let name = &dependency.requirement.name;
            if !used.contains(name) && !kept.iter().any(|kept| kept.value == name.as_str()) {
                judgement.unused.push(name.to_string());
            }
        }
        judgement
    }

    /// What serving names without importing it, and does not get. `included` tells whether a distribution is in.
    pub fn unmet(
        &self,
        closure: &Closure,
        distributions: &Distributions,
        included: &dyn Fn(&PackageName) -> bool,
    ) -> Vec<Unmet> {
        let pyproject = &self.manifest.pyproject;
        let known = Known {
            distributions,
            dependencies: pyproject
                .dependencies
                .iter()
                .map(|one| &one.requirement.name)
                .collect(),
            declared: pyproject
                .all_declared()
                .map(|one| &one.requirement.name)
                .collect(),
            included,
        };
        named::unmet(closure, &known)
    }

    /// Notes constant paths that serving opens and that do not ship.
    pub fn data_ships(&self, closure: &Closure, mistakes: &mut Vec<Mistake>) {
        let included = &self.manifest.config.image.include;
        for opened in &closure.opened {
            let path = std::path::Path::new(&opened.path);
            let ships = self
                .files
                .found
                .iter()
                .any(|file| file.path == path && file.module.is_none())
                || path.starts_with("artifacts")
                || included
                    .iter()
                    .any(|include| path.starts_with(include.value.trim_start_matches("./")));
            if !ships {
                let rule = Rule::DataNotShipped {
                    path: opened.path.clone(),
                };
                let mut mistake = Mistake::new(rule).at(opened.place.clone());
                if let Some(given) = &opened.given {
                    mistake = mistake.with(given.clone(), "the path comes from here");
                }
                mistakes.push(mistake);
            }
        }
    }

    /// Notes settings of shared nodes that differ between training, as it was last run, and serving.
    pub fn settings_agree(&self, mistakes: &mut Vec<Mistake>) {
        let overrides = self.run_overrides();
        match (
            self.resolve(Half::Training, &overrides),
            self.resolve(Half::Serving, &overrides),
        ) {
            (Ok(training), Ok(serving)) => {
                mistakes.extend(self.missing_settings(&training));
                mistakes.extend(settings::differences(
                    &self.graph,
                    &self.cut.recomputed,
                    &training,
                    &serving,
                ));
            }
            (Err(found), _) | (_, Err(found)) => mistakes.extend(found.iter().cloned()),
        }
    }

    /// The parameters of queries that a training run reaches and that nothing gives a value.
    pub fn missing_settings(&self, training: &super::settings::Resolved) -> Vec<Mistake> {
        let plan = self.graph.training_plan(&[], &mut Vec::new());
        let mut mistakes = Vec::new();
        for step in &plan.steps {
            let node = self.graph.node(step.node);
            for (name, given) in training.of(step.node) {
                if given.value == settings::SettingValue::Missing {
                    let rule = Rule::QueryParameter {
                        node: node.name.clone(),
                        parameter: name.clone(),
                    };
                    let setting = node.settings.iter().find(|setting| setting.name == *name);
                    let place = setting.map_or(&node.place, |setting| &setting.place);
                    mistakes.push(Mistake::new(rule).at(place.clone()));
                }
            }
        }
        mistakes
    }

    /// What the last run's settings were overridden with.
    pub fn run_overrides(&self) -> Overrides {
        let run = self.run.as_ref();
        Overrides {
            environment: run.and_then(|run| run.environment.clone()),
            set: run.map(|run| run.set.clone()).unwrap_or_default(),
            variables: Vec::new(),
        }
    }

    /// The frozen nodes, and what they are made from, that have changed since the last run. Empty before the first.
    pub fn stale(&self) -> Result<Vec<Stale>, Mistakes> {
        let Some(run) = &self.run else {
            return Ok(Vec::new());
        };
        if let Some(model) = self.model() {
            return Ok(self.model_changed(model, run)?.into_iter().collect());
        }
        let plan = self.training_plan(&[])?;
        let settings = self.resolve(Half::Training, &self.run_overrides())?;
        let keys = keys::keys(&Index::new(&self.sources), &self.graph, &plan, &settings);
        Ok(keys::stale(&self.graph, &self.cut, &plan, &keys, &settings, run))
    }

    /// A model whose answers were recorded, and that is not that model any more.
    fn model_changed(&self, model: &mlflow::Model, run: &RunRecord) -> Result<Option<Stale>, Mistakes> {
        if !mlflow::is_recorded(run) {
            return Ok(None);
        }
        let files = self.trained()?.unwrap_or_default();
        let now = mlflow::key(model, &files);
        let same = run.nodes.values().any(|node| node.key == now);
        Ok((!same).then(|| Stale {
            node: "model".to_owned(),
            why: format!("its files are not those whose answers {} holds", self.run_file()),
        }))
    }

    /// Whether the recorded golden rows speak of the code as it is: nothing that predictions depend on has changed.
    pub fn golden_is_current(&self) -> Result<bool, Mistakes> {
        let Some(run) = &self.run else {
            return Ok(false);
        };
        if self.model().is_some() {
            // What answers is the model, and a runtime that is proven by itself.
            return Ok(true);
        }
        let plan = self.recorded_plan()?;
        let settings = self.resolve(Half::Training, &self.run_overrides())?;
        let keys = keys::keys(&Index::new(&self.sources), &self.graph, &plan, &settings);
        Ok(keys::golden_is_current(&self.graph, &plan, &keys, run))
    }

    /// The steps whose keys a run records: those of training, or a plain function, which stands for all of them.
    fn recorded_plan(&self) -> Result<TrainingPlan, Mistakes> {
        let mut plan = self.training_plan(&[])?;
        if self.graph.plain().is_some() {
            plan.steps.push(Step {
                node: self.cut.predict,
                inputs: Vec::new(),
            });
        }
        Ok(plan)
    }

    /// The key of each node of a training run under `settings`, by name: what `run` records.
    pub fn keys(&self, settings: &super::settings::Resolved) -> Result<BTreeMap<String, String>, Mistakes> {
        let plan = self.recorded_plan()?;
        let keys = keys::keys(&Index::new(&self.sources), &self.graph, &plan, settings);
        Ok(keys
            .into_iter()
            .map(|(id, key)| (self.graph.node(id).name.clone(), key))
            .collect())
    }
}

/// The name that an import is listed under: the longest that a distribution provides, else its top level.
fn provided_name(import: &ThirdParty, distributions: &Distributions) -> String {
    let full = match &import.attribute {
        Some(attribute) => format!("{}.{attribute}", import.module),
        None => import.module.clone(),
    };
    let top = full.split('.').next().unwrap_or_default().to_owned();
    let mut name = full.as_str();
    // A namespace package's parts come from several distributions: `google.cloud.storage`, `google.protobuf`.
    while let Some(dot) = name.rfind('.') {
        if !distributions.of(name).is_empty() && distributions.of(name) != distributions.of(&name[..dot]) {
            return name.to_owned();
        }
        name = &name[..dot];
    }
    top
}
