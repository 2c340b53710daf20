//! Where the image goes: a registry, an engine, an archive, a layout; the project's dist/ when nothing is said.

use std::path::PathBuf;

use super::{Args, Failure, Session};
use crate::destination::{Output, Published, archive, engine, layout};
use crate::digest::Digest;
use crate::oci::{Image, Publishable, Reference};
use crate::project::Project;

/// Where the image is now.
pub struct Written {
    pub digest: Digest,
    pub places: Vec<String>,
    /// The next command to type.
    pub next: Option<String>,
}

pub fn publish(
    args: &Args,
    project: &Project,
    images: Vec<Image>,
    session: &Session,
) -> Result<Written, Failure> {
    let image = Publishable::from_images(images)?;
    let reporter = session.reporter();
    let tags = args
        .tags
        .iter()
        .map(|tag| {
            tag.parse::<Reference>()
                .map_err(|error| Failure::usage(error.to_string()))
        })
        .collect::<Result<Vec<_>, _>>()?;
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
        places.push(shown(&done));
    }
    if let Some(path) = &args.output {
        let done = match Output::of_path(path) {
            Output::Layout(folder) => layout::publish(&folder, name, &image, &store, &*reporter)?,
            Output::Archive(file, form) => archive::publish(&file, form, &names, &image, &*reporter)?,
        };
        places.push(shown(&done));
    }
    if places.is_empty() {
        let folder: PathBuf = project
            .root()
            .join("dist")
            .join(project.manifest.pyproject.name.as_str());
        let done = layout::publish(&folder, name, &image, &store, &*reporter)?;
        next = Some(format!(
            "mlrails image --load --tag {}:latest   (or --tag REGISTRY/NAME --push)",
            project.manifest.pyproject.name
        ));
        places.push(shown(&done));
    }
    Ok(Written {
        digest: image.digest(),
        places,
        next,
    })
}

fn shown(done: &Published) -> String {
    if done.reused == 0 {
        return done.location.clone();
    }
    let megabytes = |bytes: u64| format!("{:.1} MB", bytes as f64 / 1e6);
    format!(
        "{}   ({} sent, {} already there)",
        done.location,
        megabytes(done.sent),
        megabytes(done.reused)
    )
}
