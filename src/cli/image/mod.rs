//! `mlrails image`: the product on one screen.
//!
//! Project → Targets → Lock → Plan → Layers → Image → Destination. Each stage takes the last one's value and returns its own.

mod ahead;
mod bytecode;
pub(super) mod contents;
pub(super) mod decide;
mod describe;
pub(super) mod explain;
mod make;
mod previous;
mod publish;

use std::path::PathBuf;
use std::time::Instant;

use clap::Args as ClapArgs;

use ahead::Ahead;

use super::build::BuildArgs;
use super::{Exit, Failure, Session, base, cache};
use crate::image::assemble;
use crate::layers::sums::Sums;
use crate::project;
use crate::targets;
use crate::verify;

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "With no destination the image is written as an OCI layout to dist/<name> in the project.

Examples:
  mlrails image                                         an OCI layout in dist/<name>
  mlrails image --tag registry.example/churn:1 --push   build and push; no engine, no root
  mlrails image --load --tag churn:1                    into Docker or Podman
  mlrails image --output churn.tar                      an OCI archive (x.docker.tar: for old engines)
  mlrails image --explain                               why each distribution is in, what it weighs, what was left out

A machine with no cache (a fresh CI runner) downloads no wheel, base or trained value that the image at --tag, or at
--cache-from, has already, if mlrails.sum, which belongs in version control, vouches for the layer:
  mlrails image --tag registry.example/churn:$COMMIT --cache-from registry.example/churn:main --push"
)]
pub struct Args {
    /// A name for the image; may be given several times
    #[arg(long = "tag", short, value_name = "REF")]
    pub tags: Vec<String>,
    /// Push it to the registry that --tag names
    #[arg(long)]
    pub push: bool,
    /// Load it into Docker or Podman through its socket
    #[arg(long)]
    pub load: bool,
    /// Write it there: a folder becomes an OCI layout, x.tar an OCI archive, x.docker.tar a Docker archive
    #[arg(long, short, value_name = "PATH")]
    pub output: Option<PathBuf>,
    /// A platform such as linux/amd64; may be given several times
    #[arg(long = "platform", value_name = "P")]
    pub platforms: Vec<String>,
    /// How layers are compressed: gzip (no wheel is compressed again), zstd, or zstd:LEVEL
    #[arg(long, value_name = "FORM")]
    pub compression: Option<String>,
    /// Layers in eStargz, which a snapshotter mounts before they are there; anybody else reads them as gzip
    #[arg(long, conflicts_with = "compression")]
    pub lazy: bool,
    /// An image of a registry to stand on, instead of the base that the project asks for
    #[arg(long, value_name = "REF")]
    pub base: Option<String>,
    /// Refuse when the lock would have to change, or when a layer is not vouched for
    #[arg(long)]
    pub locked: bool,
    /// Say why each distribution is in, and why each declared one is out
    #[arg(long)]
    pub explain: bool,
    /// Replay the golden rows through the built image, on this machine, without an engine
    #[arg(long)]
    pub verify: bool,
    /// Leave the bytecode layer out: smaller, and slower to start
    #[arg(long)]
    pub no_bytecode: bool,
    /// Build although the artifacts are older than the code; the image's label says so
    #[arg(long)]
    pub allow_stale: bool,
    /// Another image in a registry whose layers may be reused; may be given several times
    #[arg(long = "cache-from", value_name = "REF")]
    pub cache_from: Vec<String>,
    /// Reuse no layer of an image in a registry: make all that this machine does not have
    #[arg(long, conflicts_with = "cache_from")]
    pub no_reuse: bool,
    /// A registry that is reached by plain http; may be given several times
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
    #[command(flatten)]
    pub build: BuildArgs,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let started = Instant::now();
    match build(&args, started, session) {
        Err(failure) if failure.is_of_cache() => {
            let why = failure.message().unwrap_or_default();
            session.printer().warn(&format!(
                "{why}: the cache is checked, and what is damaged in it is made again"
            ));
            cache::verify(&*session.store()?)?;
            build(&args, started, session)
        }
        outcome => outcome,
    }
}

fn build(args: &Args, started: Instant, session: &Session) -> Result<Exit, Failure> {
    let names = publish::names(args)?;
    let project = project::load(session.project_folder())?;
    let targets = targets::choose(&project.manifest, &decide::asked(args))?;
    let fresh = decide::freshness(&project, args.allow_stale, session)?;
    let lock = decide::locked(&project, &targets, args, session)?;
    let mut sums = Sums::read(project.root())?;
    let network = previous::Network::new(args, &names, session)?;
    let ahead = match args.push && !session.offline() {
        true => {
            // What a later platform, the golden rows or --locked may refuse does not leave before.
            let sends = targets.platforms.len() == 1 && !args.verify && !args.locked;
            Ahead::new(&names, sends, &network, session)?
        }
        false => Ahead::nowhere(session),
    };
    let mut images = Vec::new();
    let mut made = Vec::new();
    for platform in &targets.platforms {
        let plan = decide::plan(&project, &lock, *platform, args, session)?;
        decide::proven(&project, &plan, args.allow_stale, session)?;
        decide::named(&project, &lock, (&plan.production, &plan.closure), session);
        if args.explain {
            explain::production(&project, &plan, session);
        }
        let (layers, family) = make::layers(&project, &plan, (&network, &ahead), &sums, session)?;
        make::vouch(&layers, args.locked, &mut sums, session)?;
        if args.explain {
            explain::layers(&layers, args, session);
        }
        let description = describe::description(&project, &plan, (&layers, family), fresh)?;
        images.push(assemble(
            layers.iter().map(|made| made.layer.clone()).collect(),
            &description,
        )?);
        made.extend(layers);
    }
    if args.verify {
        for image in &images {
            let scratch = session.store()?.temporary_folder()?;
            let verified = verify::verify(image, scratch.path())?;
            session.printer().say(&match verified.compared {
                true => format!(
                    "{} golden rows are answered by the image as in training",
                    verified.rows
                ),
                false => format!(
                    "{} rows of the model's example are answered by the image, alike alone and together (`mlrails run` records what to compare with)",
                    verified.rows
                ),
            });
        }
    }
    let published = publish::publish(args, &names, &project, images, (&network, &ahead), session)?;
    sums.write()?;
    describe::summary(args, &published, &made, started.elapsed(), session);
    Ok(Exit::Done)
}
