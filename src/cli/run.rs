//! `mlrails run`: train, prove, record.

use clap::Args as ClapArgs;

use super::{Exit, Failure, Session, check, signals};
use crate::layers::pipeline;
use crate::project::settings::Overrides;
use crate::project::{self, Mistakes, Project};
use crate::run::{self, Options, Outcome, Stop};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Runs data.py, features.py and train.py in .venv, saves what serving needs to artifacts/, and replays rows of the training data
through the serving half in a fresh process: an answer that differs from training fails the run, and artifacts/ stay as they were.

Examples:
  mlrails run                         train everything
  mlrails run -e development          with the settings of config/development.toml
  mlrails run --set model.C=0.1       with one setting changed; MLRAILS_SET_model__C=0.1 does the same
  mlrails run spend_stats             only this node and what it needs; artifacts/ stay as they are
  mlrails run --replay                train nothing: is what artifacts/ holds still answering the same here?"
)]
pub struct Args {
    /// Run only these nodes and what they need
    #[arg(value_name = "NODE")]
    nodes: Vec<String>,
    /// Use the settings of config/ENV.toml as well
    #[arg(short = 'e', long = "env", value_name = "ENV")]
    environment: Option<String>,
    /// Change a setting: `node.setting=value`, or `setting=value` for every node that has it
    #[arg(long = "set", value_name = "K=V", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Replay the recorded golden rows with the artifacts as they are
    #[arg(long, conflicts_with_all = ["nodes", "jobs"])]
    replay: bool,
    /// Nodes that run at the same time [default: the processors of this machine]
    #[arg(long, short, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    jobs: Option<u16>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => Ok((name.trim().to_owned(), value.to_owned())),
        _ => Err("expected name=value".to_owned()),
    }
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let project = project::load(session.project_folder())?;
    session.state_folder(&project.manifest, "run")?;
    let overrides = Overrides::from_process(args.environment, args.set);
    let stop = Stop::default();
    // Ctrl-C ends all workers; the run then fails with `RunError::Stopped`, having written nothing.
    let stopping = stop.clone();
    signals::answer(move || stopping.now());
    let reporter = session.reporter();
    if args.replay {
        // What is replayed is what was trained, and not what somebody put in its place.
        if let Some(files) = project.trained().map_err(Mistakes::from)? {
            let values: Vec<String> = files.values.keys().cloned().collect();
            pipeline::check_values(&project, &files, &values)?;
        }
        let replayed = run::replay(&project, &overrides, &*reporter, &stop)?;
        if session.is_json() {
            session.printer().json(&replayed);
        } else {
            session.printer().data(&format!(
                "{} golden rows answered as in training, one by one, together and shuffled, under Python {} ({:.1} s)",
                replayed.rows, replayed.python, replayed.seconds
            ));
        }
        return Ok(Exit::Done);
    }
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options {
        wanted: args.nodes,
        overrides,
        jobs: args.jobs.map_or(processors, usize::from),
    };
    let outcome = run::run(&project, &options, &*reporter, &stop)?;
    if session.is_json() {
        session.printer().json(&outcome);
    } else if let Some(model) = project.model() {
        if let Some(line) = check::model::warning(model) {
            session.printer().warn(&line);
        }
        session.printer().data(recorded(&project, &outcome).trim_end());
    } else {
        session.printer().data(summary(&project, &outcome).trim_end());
    }
    Ok(Exit::Done)
}

/// Of a model that MLflow saved.
fn recorded(project: &Project, outcome: &Outcome) -> String {
    let golden = &outcome.golden;
    let mut text = "nothing to train: the model is as MLflow saved it\n".to_owned();
    if golden.rows > 0 {
        text.push_str(&format!(
            "{} rows of {} answered alike one by one, together and shuffled; {} holds the answers ({:.1} s)\n",
            golden.rows,
            golden.source,
            project.run_file(),
            outcome.seconds
        ));
    } else {
        text.push_str(&format!(
            "the model was loaded ({:.1} s), and asked nothing\n",
            outcome.seconds
        ));
    }
    if !golden.modules.is_empty() {
        text.push_str(&format!(
            "serving also needs {}, which only the replay showed\n",
            golden.modules.join(", ")
        ));
    }
    text + "next: mlrails serve, or mlrails image\n"
}

fn summary(project: &Project, outcome: &Outcome) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    if outcome.partial {
        let names: Vec<&str> = outcome.nodes.iter().map(|node| node.name.as_str()).collect();
        let _ = writeln!(
            text,
            "ran {} ({:.1} s); artifacts/ stay as they were",
            names.join(", "),
            outcome.seconds
        );
        return text;
    }
    let width = outcome
        .values
        .values()
        .map(|value| value.file.len())
        .max()
        .unwrap_or(0);
    for value in outcome.values.values() {
        let size = indicatif::DecimalBytes(value.size).to_string();
        let _ = writeln!(text, "  artifacts/{:<width$}  {size:>10}", value.file);
    }
    let golden = &outcome.golden;
    if let Some(entry) = project.graph.plain() {
        let _ = writeln!(
            text,
            "nothing to train: `{}:{}` is a function",
            entry.module, entry.function
        );
        if golden.rows > 0 {
            let _ = writeln!(
                text,
                "{} rows of {} answered alike one by one, together and shuffled; {} holds the answers ({:.1} s)",
                golden.rows,
                golden.source,
                project.run_file(),
                outcome.seconds
            );
        } else {
            let _ = writeln!(
                text,
                "no golden rows: it was asked nothing (`def examples()` beside it returns records to ask it with)"
            );
        }
        return text + "next: mlrails serve, or mlrails image\n";
    }
    if golden.rows > 0 {
        let _ = writeln!(
            text,
            "{} golden rows from {} answered as in training: one by one, together and shuffled",
            golden.rows, golden.source
        );
    } else {
        let _ = writeln!(
            text,
            "no golden rows: predictions cannot be compared (serve.py may have `def examples()` that returns request records)"
        );
    }
    if !golden.modules.is_empty() {
        let _ = writeln!(
            text,
            "serving also needs {}, which only the replay showed",
            golden.modules.join(", ")
        );
    }
    let count = outcome.nodes.len();
    let _ = writeln!(
        text,
        "trained {} in {:.1} s: {count} nodes, {} values in artifacts/",
        project.manifest.pyproject.display_name,
        outcome.seconds,
        outcome.values.len()
    );
    let _ = writeln!(text, "next: mlrails serve, or mlrails image");
    text
}
