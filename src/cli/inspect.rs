//! `mlrails inspect`: what is in an image, read from its manifest and config. Layers are never pulled.

use std::collections::BTreeMap;
use std::path::Path;

use clap::Args as ClapArgs;
use serde_json::json;

use super::image::contents::{CONTENTS_LABEL, Contents};
use super::image::explain::megabytes;
use super::{Exit, Failure, Session};
use crate::destination::{Output, archive, read};
use crate::layers::reuse::{self, Claim, VERSION_LABEL};
use crate::oci::{Image, Publishable, Reference};
use crate::registry::{Keychain, Registry};

#[derive(Debug, ClapArgs)]
#[command(
    after_help = "Of an image that mlrails made: every layer and distribution with its size, who needs it, and what was left out.
Of any other image: its layers. A registry is asked for the manifest and the config only.

Examples:
  mlrails inspect registry.example/churn:1          an image in a registry
  mlrails inspect dist/churn                        an OCI layout, as `mlrails image` writes it
  mlrails inspect churn.tar                         an OCI archive
  mlrails inspect churn.tar --format json           the same for programs"
)]
pub struct Args {
    /// A reference such as registry.example/churn:1, or the path of an OCI layout or archive
    #[arg(value_name = "REF|PATH")]
    pub image: String,
    /// A registry that is reached by plain http; may be given several times
    #[arg(long = "insecure-registry", value_name = "HOST")]
    pub insecure_registries: Vec<String>,
}

pub fn run(args: Args, session: &Session) -> Result<Exit, Failure> {
    let found = find(&args, session)?;
    let shown = found
        .images()
        .iter()
        .map(|image| Inspected::of(image, &args.image))
        .collect::<Result<Vec<_>, _>>()?;
    if session.is_json() {
        let images: Vec<_> = shown.iter().map(Inspected::json).collect();
        session.printer().json(&json!({
            "reference": args.image,
            "digest": found.digest(),
            "images": images,
        }));
        return Ok(Exit::Done);
    }
    session
        .printer()
        .data(&format!("{}  {}", args.image, found.digest()));
    for one in &shown {
        for line in one.lines() {
            session.printer().data(&line);
        }
    }
    Ok(Exit::Done)
}

/// What is at a path, if there is anything; else what a registry has under that name.
fn find(args: &Args, session: &Session) -> Result<Publishable, Failure> {
    let path = Path::new(&args.image);
    if path.exists() {
        return Ok(match Output::of_path(path) {
            Output::Archive(file, archive::Form::Oci) => archive::read(&file)?,
            Output::Archive(_, archive::Form::Docker) => {
                return Err(
                    Failure::new(format!("{} is a Docker archive, which is not read", args.image))
                        .hint("`mlrails image --output NAME.tar` writes an OCI archive"),
                );
            }
            Output::Layout(folder) => read::read(&folder)?,
        });
    }
    let reference: Reference = args.image.parse().map_err(|error| {
        Failure::usage(format!("{error}")).hint(format!("there is no file or folder `{}` either", args.image))
    })?;
    let client = session.client(&args.insecure_registries)?;
    let registry = Registry::new(client, Keychain::from_environment());
    Ok(session.block_on(registry.images(&reference))??)
}

/// One platform's image.
struct Inspected<'a> {
    image: &'a Image,
    labels: BTreeMap<String, String>,
    /// None where mlrails did not make it.
    ours: Option<Ours>,
}

struct Ours {
    layers: Vec<Claim>,
    contents: Contents,
}

impl<'a> Inspected<'a> {
    fn of(image: &'a Image, reference: &str) -> Result<Self, Failure> {
        let labels = image.labels();
        let ours = reuse::claimed(image, reference)?.map(|layers| Ours {
            layers,
            contents: Contents::said_of(image),
        });
        Ok(Self { image, labels, ours })
    }

    fn size(&self) -> u64 {
        self.image.layers.iter().map(|layer| layer.size).sum()
    }

    fn json(&self) -> serde_json::Value {
        let layers: Vec<_> = match &self.ours {
            Some(ours) => ours.layers.iter().map(|claim| json!(claim)).collect(),
            None => self
                .image
                .layers
                .iter()
                .map(|layer| {
                    json!({
                        "digest": layer.digest, "diff_id": layer.diff_id, "size": layer.size, "title": layer.created_by,
                    })
                })
                .collect(),
        };
        let contents = self.ours.as_ref().map(|ours| &ours.contents);
        json!({
            "digest": self.image.digest(),
            "platform": self.image.platform.to_string(),
            "made_by_mlrails": self.ours.is_some(),
            "labels": self.labels.iter().filter(|(name, _)| is_short(name)).collect::<BTreeMap<_, _>>(),
            "size": self.size(),
            "layers": layers,
            "distributions": contents.map(|contents| &contents.distributions),
            "left_out": contents.map(|contents| &contents.left_out),
        })
    }

    fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: {} in {} layers",
            clean(&self.image.platform.to_string()),
            megabytes(Some(self.size())),
            self.image.layers.len()
        )];
        let Some(ours) = &self.ours else {
            lines.push("mlrails did not make this image: what its layers hold is not known".to_owned());
            lines.push("layers, lowest first: compressed".to_owned());
            for layer in &self.image.layers {
                lines.push(format!(
                    "  {:>9}  {}",
                    megabytes(Some(layer.size)),
                    clean(&layer.title())
                ));
            }
            return lines;
        };
        let version = self.labels.get(VERSION_LABEL).map_or("?", String::as_str);
        lines.push(format!("made by mlrails {}", clean(version)));
        if self.labels.contains_key("dev.mlrails.stale") {
            lines.push("its trained values are older than its code (--allow-stale)".to_owned());
        }
        lines.push("layers, lowest first: compressed, unpacked".to_owned());
        for layer in &ours.layers {
            lines.push(format!(
                "  {:>9}  {:>9}  {}",
                megabytes(Some(layer.size)),
                megabytes((layer.uncompressed > 0).then_some(layer.uncompressed)),
                clean(&layer.title)
            ));
        }
        let contents = &ours.contents;
        let width = |names: &mut dyn Iterator<Item = usize>| names.max().unwrap_or_default();
        let label = |name: &str, version: &Option<String>| match version {
            Some(version) => format!("{} {}", clean(name), clean(version)),
            None => clean(name),
        };
        lines.push(format!(
            "{} distributions: compressed, needed by",
            contents.distributions.len()
        ));
        let most = width(
            &mut contents
                .distributions
                .iter()
                .map(|one| label(&one.name, &one.version).len()),
        );
        for one in &contents.distributions {
            lines.push(format!(
                "  {:most$}  {:>9}  {}",
                label(&one.name, &one.version),
                megabytes(one.size),
                clean(&one.needed)
            ));
        }
        if !contents.left_out.is_empty() {
            let saved: u64 = contents.left_out.iter().filter_map(|one| one.size).sum();
            lines.push(format!(
                "left out: declared, and not reached from predict; {} saved, and what only they require",
                megabytes(Some(saved))
            ));
            let most = width(&mut contents.left_out.iter().map(|one| clean(&one.name).len()));
            for one in &contents.left_out {
                lines.push(format!(
                    "  {:most$}  {:>9}",
                    clean(&one.name),
                    megabytes(one.size)
                ));
            }
        }
        lines
    }
}

/// Labels that are read by people; the long ones are shown as what they say.
fn is_short(name: &str) -> bool {
    name != CONTENTS_LABEL && name != reuse::LABEL
}

/// Somebody else's words must not move the cursor of whoever reads them.
fn clean(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { '\u{fffd}' } else { letter })
        .collect()
}
