//! How an image is described: labels, its date, and the summary that closes the command.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::json;

use super::contents::{CONTENTS_LABEL, Contents};
use super::decide::{Freshness, Plan};
use super::publish::Written;
use super::{Args, Failure, Session};
use crate::digest::Digest;
use crate::image::Description;
use crate::layers::reuse::{self, LABEL, VERSION_LABEL};
use crate::layers::{MadeLayer, Origin, pipeline};
use crate::lock::base::Base;
use crate::oci::Platform;
use crate::oci::media::Family;
use crate::project::Project;

/// `SOURCE_DATE_EPOCH` in seconds, else 0: the project's layers and the image's date.
pub fn epoch() -> Result<u64, Failure> {
    match std::env::var("SOURCE_DATE_EPOCH") {
        Err(_) => Ok(0),
        Ok(text) => text.trim().parse().map_err(|_| {
            Failure::usage(format!(
                "SOURCE_DATE_EPOCH is `{}`, which is no number of seconds",
                text.escape_debug()
            ))
        }),
    }
}

/// Everything that is said of the image besides its layers.
pub fn description(
    project: &Project,
    plan: &Plan,
    (layers, family): (&[MadeLayer], Family),
    freshness: Freshness,
) -> Result<Description, Failure> {
    let created = i64::try_from(epoch()?)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .ok_or_else(|| Failure::usage("SOURCE_DATE_EPOCH lies outside of what can be written"))?;
    let pyproject = &project.manifest.pyproject;
    let mut labels = BTreeMap::from([
        (
            "org.opencontainers.image.title".to_owned(),
            pyproject.display_name.clone(),
        ),
        ("org.opencontainers.image.created".to_owned(), created.to_string()),
        (VERSION_LABEL.to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
        (LABEL.to_owned(), json!(reuse::claims(layers)).to_string()),
        (CONTENTS_LABEL.to_owned(), json!(Contents::of(plan)).to_string()),
    ]);
    if let Some(version) = &pyproject.version {
        labels.insert("org.opencontainers.image.version".to_owned(), version.to_string());
    }
    if let Some(description) = &pyproject.description {
        labels.insert(
            "org.opencontainers.image.description".to_owned(),
            description.clone(),
        );
    }
    let base = match &plan.base {
        Base::Debian(base) => format!("debian:{}", base.codename),
        Base::Registry(base) => {
            if let Some(digest) = base.digests.get(plan.platform.name()) {
                labels.insert(
                    "org.opencontainers.image.base.digest".to_owned(),
                    digest.to_string(),
                );
            }
            base.reference.clone()
        }
    };
    labels.insert("org.opencontainers.image.base.name".to_owned(), base);
    let run = pipeline::shipped_run(project)?;
    labels.insert("dev.mlrails.run".to_owned(), Digest::of(&run).to_string());
    if freshness == Freshness::Stale {
        labels.insert("dev.mlrails.stale".to_owned(), "true".to_owned());
    }
    let (os, architecture) = plan.platform.name().split_once('/').unwrap_or(("linux", "amd64"));
    let (architecture, variant) = match architecture.split_once('/') {
        Some((architecture, variant)) => (architecture, Some(variant.to_owned())),
        None => (architecture, None),
    };
    let platform = Platform {
        os: os.to_owned(),
        architecture: architecture.to_owned(),
        variant,
    };
    Ok(Description {
        platform,
        family,
        launch: plan.launch.clone(),
        labels,
        created,
    })
}

/// The closing lines: what it is called, how large it is, what was made, how long it took, and what to type next.
pub fn summary(args: &Args, written: &Written, made: &[MadeLayer], took: Duration, session: &Session) {
    let printer = session.printer();
    let size: u64 = made.iter().map(|made| made.layer.size).sum();
    let fresh = made.iter().filter(|made| made.origin == Origin::Made).count();
    if session.is_json() {
        printer.json(&json!({
            "digest": written.digest,
            "destinations": written.places.iter().map(|place| &place.done.location).collect::<Vec<_>>(),
            "size": size,
            "layers": made.iter().map(|made| json!({
                "title": made.title,
                "digest": made.layer.digest,
                "diff_id": made.layer.diff_id,
                "size": made.layer.size,
                "uncompressed_size": made.uncompressed_size,
                "made": made.origin == Origin::Made,
                "reused_from": match &made.origin {
                    Origin::Reused { from, .. } | Origin::Base { from } => Some(from),
                    _ => None,
                },
            })).collect::<Vec<_>>(),
            "seconds": took.as_secs_f64(),
        }));
        return;
    }
    for place in &written.places {
        printer.say(&format!("{:<10}{}", place.label, place.shown()));
    }
    printer.say(&format!(
        "size      {:.1} MB in {} layers ({fresh} made, {} reused)",
        size as f64 / 1e6,
        made.len(),
        made.len() - fresh
    ));
    printer.say(&format!("took      {:.2} s", took.as_secs_f64()));
    if let Some(next) = &written.next {
        printer.say(&format!("next      {next}"));
    }
    let _ = args;
    printer.data(&written.digest.to_string());
}
