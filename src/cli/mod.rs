//! The command line: global options, dispatch, exit codes. Each command is one short file of its own in this folder.
//!
//! Only this room prints. A command takes its own `Args` and the [`Session`], and answers with an [`Exit`] or a
//! [`Failure`], which `main` shows.

mod base;
mod build;
mod cache;
mod check;
mod cost;
pub mod diagnostics;
mod direct;
mod drawing;
mod fetch;
mod graph;
mod image;
mod indexes;
mod inspect;
mod interpreter;
pub mod lock;
mod printer;
mod progress;
mod prove;
mod run;
mod serve;
mod session;
mod signals;
mod sync;
mod wheel;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

pub use diagnostics::Failure;
pub use printer::Printer;
pub use session::Session;

/// How a command ended, when it did not fail. The numbers are the process's exit codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done.
    Done,
    /// 1: the answer is no (`lock --check`, mistakes that were already shown).
    Refused,
    /// 130: a server that was told to stop by Ctrl-C, and did.
    Interrupted,
}

/// From a conventional Python ML project to an image or a wheel that serves it.
#[derive(Debug, Parser)]
#[command(
    name = "mlrails",
    version,
    about = "From a conventional Python ML project to an image or a wheel that serves it.",
    long_about = None,
    max_term_width = 100,
    propagate_version = false,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Options that every command takes, before or after its name.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// The project's folder
    #[arg(long, global = true, value_name = "DIR", default_value = ".")]
    pub project: PathBuf,
    /// How results are printed on stdout
    #[arg(long, global = true, value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Use nothing but what this machine has
    #[arg(long, global = true, env = "MLRAILS_OFFLINE", value_parser = clap::builder::BoolishValueParser::new())]
    pub offline: bool,
    /// Say nothing on stderr but errors
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// Say more on stderr
    #[arg(long, short, global = true)]
    pub verbose: bool,
    /// Draw no progress bars, on a terminal either
    #[arg(long, global = true)]
    pub no_progress: bool,
    /// When to colour
    #[arg(long, global = true, value_enum, default_value_t = When::Auto)]
    pub color: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum When {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Read a project without running it: nodes, the cut, imports, and every mistake
    Check(check::Args),
    /// Show the pipeline: a tree, JSON, Mermaid, or an SVG drawing
    Graph(graph::Args),
    /// Exact versions for every platform and Python, into pylock.toml
    Lock(lock::Args),
    /// Install what the lock says into .venv
    Sync(sync::Args),
    /// Answer over HTTP on this machine, as the image will; starts again when files change
    Serve(serve::Args),
    /// Build the pipeline's image: a layout, an archive, a local engine, a registry; no Docker, no root
    Image(image::Args),
    /// Train in the project's environment, prove that serving answers alike, write artifacts/
    Run(run::Args),
    /// Build the pipeline as a wheel: `from churn import Model; Model().predict(rows)`
    Wheel(wheel::Args),
    /// What is in an image: layers, distributions, who needs them; from a registry without pulling it
    Inspect(inspect::Args),
    /// The cache shared by all of your projects: where, how large, verify, clean
    Cache(cache::Args),
}

/// Parses `arguments`, runs the command and answers with the process's exit code.
pub fn main(arguments: impl IntoIterator<Item = std::ffi::OsString>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are answers and go to stdout; everything else is a usage error.
            let _ = error.print();
            return if error.use_stderr() { 2 } else { 0 };
        }
    };
    let session = Session::new(cli.global);
    match run(cli.command, &session) {
        Ok(Exit::Done) => 0,
        Ok(Exit::Refused) => 1,
        Ok(Exit::Interrupted) => 130,
        Err(failure) => {
            session.printer().failure(&failure);
            failure.code()
        }
    }
}

fn run(command: Command, session: &Session) -> Result<Exit, Failure> {
    if matches!(
        command,
        Command::Lock(_)
            | Command::Sync(_)
            | Command::Serve(_)
            | Command::Image(_)
            | Command::Run(_)
            | Command::Wheel(_)
            | Command::Cache(_)
    ) {
        signals::listen();
    }
    match command {
        Command::Check(args) => check::run(args, session),
        Command::Graph(args) => graph::run(args, session),
        Command::Lock(args) => lock::run(args, session),
        Command::Sync(args) => sync::run(args, session),
        Command::Serve(args) => serve::run(args, session),
        Command::Image(args) => image::run(args, session),
        Command::Run(args) => run::run(args, session),
        Command::Wheel(args) => wheel::run(args, session),
        Command::Inspect(args) => inspect::run(args, session),
        Command::Cache(args) => cache::run(args, session),
    }
}
