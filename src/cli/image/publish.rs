//! Where the image goes: a registry, an engine, an archive, a layout; the project's dist/ when nothing is said.

use super::ahead::Ahead;
use super::previous::Network;
use super::{Args, Failure, Session};
use crate::destination::{Output, Published, archive, engine, is_here, layout, registry};
use crate::digest::Digest;
use crate::oci::reference::HUB;
use crate::oci::{Image, Publishable, Reference};
use crate::project::Project;

/// Where the image is now.
pub struct Written {
    pub digest: Digest,
    pub places: Vec<Place>,
    /// The next command to type.
    pub next: Option<String>,
}

/// One destination, and what went there.
pub struct Place {
    /// The word before it in the closing lines.
    pub label: &'static str,
    pub done: Published,
}

/// The image's names; an error before anything is built where they cannot be used.
pub fn names(args: &Args) -> Result<Vec<Reference>, Failure> {
    let mut names = Vec::new();
    for text in &args.tags {
        let name: Reference = text.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        if name.digest().is_some() {
            return Err(Failure::usage(format!(
                "`{text}` holds a digest: --tag gives a name, and the digest follows from the image"
            ))
            .hint(format!("--tag {}:{}", name.name(), name.tag_or_latest())));
        }
        if args.push && name.registry() == HUB && name.repository().starts_with("library/") {
            return Err(Failure::usage(format!(
                "`{text}` is among Docker Hub's official images, where nobody but Docker pushes"
            ))
            .hint(format!(
                "put a registry or a user before it: `--tag registry.example/{text} --push`"
            )));
        }
        names.push(name);
    }
    if args.push && names.is_empty() {
        return Err(Failure::usage("--push needs a --tag that says where to")
            .hint("`mlrails image --tag registry.example/churn:1 --push`"));
    }
    Ok(names)
}

pub fn publish(
    args: &Args,
    tags: &[Reference],
    project: &Project,
    images: Vec<Image>,
    (network, ahead): (&Network<'_>, &Ahead<'_>),
    session: &Session,
) -> Result<Written, Failure> {
    let mut image = Publishable::from_images(images)?;
    let reporter = session.reporter();
    // Without a tag, archives and engines still need a name that people recognise.
    let names: Vec<String> = match tags.is_empty() {
        true => vec![format!("{}:latest", project.manifest.pyproject.name)],
        false => tags.iter().map(ToString::to_string).collect(),
    };
    // What a layout calls its image; engines and skopeo take it as the tag.
    let name = tags.first().map_or("latest", |tag| tag.tag_or_latest());
    let store = session.store()?;
    let mut places = Vec::new();
    let mut next = None;
    let is_local = args.load || args.output.is_some() || !args.push;
    if args.push || !is_here(&image) {
        let registries = network.registry()?;
        if args.push {
            for (target, tags) in by_repository(tags) {
                let known = ahead.known(target)?;
                let pushed =
                    registry::publish(&registries, target, &tags, &image, &known, &store, &*reporter);
                let done = session.block_on(pushed)??;
                next = Some(format!("podman run -p 8080:8080 {}", done.location));
                places.push(Place {
                    label: "pushed",
                    done,
                });
            }
        }
        if is_local {
            image = session.block_on(registry::bring(&registries, image, &store, &*reporter))??;
        }
    }
    if args.load {
        let variable = |name: &str| std::env::var(name).ok();
        let host = engine::address(&variable, rustix::process::getuid().as_raw())?;
        let done = session.block_on(engine::publish(&host, &names, &image, &*reporter))??;
        let program = if host.contains("podman") {
            "podman"
        } else {
            "docker"
        };
        next = Some(format!("{program} run -p 8080:8080 {}", done.location));
        places.push(Place { label: "image", done });
    }
    if let Some(path) = &args.output {
        let done = match Output::of_path(path) {
            Output::Layout(folder) => layout::publish(&folder, name, &image, &store, &*reporter)?,
            Output::Archive(file, form) => archive::publish(&file, form, &names, &image, &*reporter)?,
        };
        places.push(Place { label: "image", done });
    }
    if places.is_empty() {
        let name_of_folder = format!("dist/{}", project.manifest.pyproject.name);
        let folder = project.manifest.folder(&name_of_folder)?;
        let done = layout::publish(&folder, name, &image, &store, &*reporter)?;
        next = Some(format!(
            "mlrails image --load --tag {}:latest   (or --tag REGISTRY/NAME --push)",
            project.manifest.pyproject.name
        ));
        places.push(Place { label: "image", done });
    }
    Ok(Written {
        digest: image.digest(),
        places,
        next,
    })
}

/// Each repository once, with its tags, in the order in which they were given.
fn by_repository(names: &[Reference]) -> Vec<(&Reference, Vec<&str>)> {
    let mut grouped: Vec<(&Reference, Vec<&str>)> = Vec::new();
    for name in names {
        let tag = name.tag_or_latest();
        match grouped.iter_mut().find(|(first, _)| first.name() == name.name()) {
            Some((_, tags)) if tags.contains(&tag) => {}
            Some((_, tags)) => tags.push(tag),
            None => grouped.push((name, vec![tag])),
        }
    }
    grouped
}

impl Place {
    /// Where it is, and what had to move.
    pub fn shown(&self) -> String {
        let done = &self.done;
        if done.reused_layers == 0 && self.label != "pushed" {
            return done.location.clone();
        }
        format!(
            "{}   ({} layers reused, {} sent: {:.1} MB)",
            done.location,
            done.reused_layers,
            done.sent_layers,
            done.sent as f64 / 1e6
        )
    }
}
