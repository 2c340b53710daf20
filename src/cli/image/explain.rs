//! `image --explain`: why each distribution is in, why each declared one is out, and what that costs or saves.

use super::decide::Plan;
use super::{Args, Session};
use crate::layers::{self, MadeLayer, Origin};
use crate::project::Project;

/// One line per distribution, by name: compressed, unpacked where this machine knows it, who needs it; on stderr, so that stdout
/// stays the digest.
pub fn production(project: &Project, plan: &Plan, session: &Session) {
    let printer = session.printer();
    let included = &plan.production.included;
    let total: u64 = included.iter().filter_map(|one| one.wheel.size).sum();
    printer.say(&format!(
        "{}: {} distributions, {}",
        plan.platform.name(),
        included.len(),
        megabytes(Some(total))
    ));
    let width = included
        .iter()
        .map(|one| one.package.label().len())
        .max()
        .unwrap_or_default();
    let store = session.store().ok();
    for one in included {
        let label = one.package.label();
        let known = store
            .as_deref()
            .and_then(|store| layers::known_wheel(store, &one.wheel.name, &one.wheel.digest));
        printer.say(&format!(
            "  {label:width$}  {:>9}  {:>9}  {}",
            megabytes(one.wheel.size),
            megabytes(known.map(|wheel| wheel.expanded_size())),
            one.reason
        ));
    }
    let left_out = &plan.production.left_out;
    if !left_out.is_empty() {
        let saved: u64 = left_out.iter().filter_map(|one| one.size).sum();
        printer.say(&format!(
            "left out: declared, and not reached from predict; {} saved, and what only they require",
            megabytes(Some(saved))
        ));
        for one in left_out {
            printer.say(&format!(
                "  {:width$}  {:>9}",
                one.name.to_string(),
                megabytes(one.size)
            ));
        }
    }
    if let Ok((_, left)) = project.shipped(&plan.closure)
        && !left.is_empty()
    {
        printer.say("files that do not ship");
        for file in left {
            printer.say(&format!("  {}  ({})", file.path.display(), file.reason));
        }
    }
}

/// One line per layer, lowest first: as it travels, unpacked, what it holds, where it came from.
pub fn layers(made: &[MadeLayer], args: &Args, session: &Session) {
    let printer = session.printer();
    printer.say("layers, lowest first: compressed, unpacked");
    let width = made
        .iter()
        .map(|layer| layer.title.len())
        .max()
        .unwrap_or_default();
    for layer in made {
        printer.say(&format!(
            "  {:width$}  {:>9}  {:>9}  {}",
            layer.title,
            megabytes(Some(layer.layer.size)),
            // Of a base's layers that are not here, nobody says it.
            megabytes((layer.uncompressed_size > 0).then_some(layer.uncompressed_size)),
            origin(layer, args)
        ));
    }
}

fn origin(layer: &MadeLayer, args: &Args) -> String {
    match &layer.origin {
        Origin::Base { from } => format!("of the base {from}, as the lock names it"),
        Origin::Stored => "from this machine's cache".to_owned(),
        Origin::Reused { from, vouched: true } => format!("reused from {from}, mlrails.sum vouches for it"),
        Origin::Reused { from, vouched: false } => format!("reused from {from}, unproven"),
        Origin::Made if layer.key.is_none() => "made: the project has changed".to_owned(),
        Origin::Made if args.no_reuse => {
            "made: this machine did not have it, and --no-reuse asks no other".to_owned()
        }
        Origin::Made if !args.push && args.cache_from.is_empty() => {
            "made: this machine did not have it".to_owned()
        }
        Origin::Made => "made: neither this machine nor an image that was asked had it".to_owned(),
    }
}

pub(in crate::cli) fn megabytes(bytes: Option<u64>) -> String {
    bytes.map_or("-".to_owned(), |bytes| format!("{:.1} MB", bytes as f64 / 1e6))
}
