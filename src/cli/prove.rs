//! `mlrails lock --check --prove`: the lock is tried out in every environment that it is for.

use std::path::Path;

use serde_json::json;

use super::diagnostics::lock::unproven;
use super::{Exit, Failure, Session};
use crate::index::published::published;
use crate::index::{Network, config};
use crate::lock::Lock;
use crate::lock::prove::{Asked, Proof, Published, prove};
use crate::lock::reach::Scope;
use crate::project::uv::Conflict;
use crate::resolve::{Inputs, Options, ResolveError};

/// Proves that `lock` is what was asked for, or says what is wrong. What the index does not tell (offline, without the page in the
/// cache) is taken from the lock.
pub fn run(
    session: &Session,
    path: &Path,
    lock: &Lock,
    asked: &Asked,
    locations: config::Locations,
) -> Result<Exit, Failure> {
    let published = read(session, lock, locations)?;
    let proof = prove(lock, asked, &published);
    let facts = facts(path, lock, &proof, published.len());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if !proof.holds() {
        return Err(unproven(&name, &proof).details(facts));
    }
    let printer = session.printer();
    if session.is_json() {
        printer.json(&facts);
        return Ok(Exit::Done);
    }
    for note in &proof.notes {
        printer.detail(note);
    }
    printer.say(&format!(
        "{name} holds: {} packages in {} environments{}; what {} of them need was read from the index",
        lock.packages.len(),
        proof.environments,
        match proof.choices {
            1 => String::new(),
            choices => format!(" with {choices} choices of extras and groups"),
        },
        published.len()
    ));
    Ok(Exit::Done)
}

/// What a project asks for, as the proof takes it.
pub fn asked(
    inputs: &Inputs,
    options: &Options,
    lines: &[String],
    conflicts: &[Vec<Conflict>],
) -> Result<Asked, ResolveError> {
    Ok(Asked {
        wanted: inputs.wanted(options, lines)?,
        constraints: inputs.constraints.clone(),
        overrides: inputs.overrides.clone(),
        conflicts: conflicts
            .iter()
            .map(|set| set.iter().map(scope).collect())
            .collect(),
        required_environments: inputs.required_environments.clone(),
        platforms: options.platforms.clone(),
        python: options.python,
    })
}

pub fn scope(conflict: &Conflict) -> Scope {
    match conflict {
        Conflict::Extra(name) => Scope::Extra(name.clone()),
        Conflict::Group(name) => Scope::Group(name.clone()),
    }
}

fn read(session: &Session, lock: &Lock, locations: config::Locations) -> Result<Published, Failure> {
    let client = session.client(&[])?;
    let (store, reporter) = (session.store()?, session.reporter());
    let packages = lock.packages.clone();
    session.block_on(async {
        let network = Network::new(client, store, locations, reporter.clone());
        tokio::task::spawn_blocking(move || published(&network, &packages))
            .await
            .map_err(|error| Failure::new(format!("reading metadata stopped: {error}")))
    })?
}

fn facts(path: &Path, lock: &Lock, proof: &Proof, read: usize) -> serde_json::Value {
    let violations: Vec<serde_json::Value> = (proof.violations.iter())
        .map(|violation| {
            json!({
                "rule": violation.fault.rule(), "what": violation.fault.to_string(),
                "where": violation.place, "environments": violation.places,
            })
        })
        .collect();
    json!({
        "up_to_date": true, "path": path, "proven": proof.holds(), "packages": lock.packages.len(),
        "read_from_index": read, "environments": proof.environments, "choices": proof.choices,
        "violations": violations, "notes": proof.notes,
    })
}
