//! Where a project's packages come from: its own lines, the command's flags and the environment, as `index` takes them.

use std::sync::Arc;

use clap::Args as ClapArgs;
use uv_pep508::MarkerTree;

use super::Failure;
use crate::index::{accelerator, config};
use crate::lock::reach::Scope;
use crate::project::Manifest;
use crate::project::uv::SourceKind;

/// Where packages come from, for every command that reaches an index.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct IndexArgs {
    /// The default index
    #[arg(long, value_name = "URL")]
    index_url: Option<String>,
    /// A further index, asked first; may be repeated
    #[arg(long, value_name = "URL")]
    extra_index_url: Vec<String>,
    /// A folder or page of files that are taken beside the index's; may be repeated
    #[arg(long, value_name = "PLACE")]
    find_links: Vec<String>,
    /// Ask no index: take only what --find-links has
    #[arg(long)]
    no_index: bool,
}

/// Which indexes are asked for this project.
pub fn locations(manifest: &Manifest, args: &IndexArgs) -> Result<config::Locations, Failure> {
    let uv = &manifest.pyproject.uv;
    let mut declared = config::Declared {
        find_links: uv.find_links.clone(),
        no_index: uv.no_index,
        ..config::Declared::default()
    };
    for one in &uv.indexes {
        declared.indexes.push(config::DeclaredIndex {
            name: one.name.clone(),
            url: one.url.clone(),
            default: one.default,
            explicit: one.explicit,
            flat: one.flat,
        });
    }
    let older = uv.extra_index_urls.iter().map(|url| (url, false));
    for (url, default) in older.chain(uv.index_url.iter().map(|url| (url, true))) {
        declared.indexes.push(config::DeclaredIndex {
            url: url.clone(),
            default,
            ..config::DeclaredIndex::default()
        });
    }
    for (name, sources) in &uv.sources {
        for source in sources {
            match &source.kind {
                SourceKind::Index(index) => {
                    let mut marker = source.marker.unwrap_or(MarkerTree::TRUE);
                    for scope in [
                        source.extra.clone().map(Scope::Extra),
                        source.group.clone().map(Scope::Group),
                    ]
                    .into_iter()
                    .flatten()
                    {
                        marker = marker.and(scope.marker());
                    }
                    declared.pins.entry(name.clone()).or_default().push(config::Pin {
                        index: index.clone(),
                        marker,
                        only: true,
                    });
                }
                // Places of their own, and no indexes: see `direct`.
                SourceKind::Url(_)
                | SourceKind::Path { .. }
                | SourceKind::Git { .. }
                | SourceKind::Workspace => {}
            }
        }
    }
    if let Some(chosen) = accelerator(manifest) {
        let base = std::env::var(accelerator::BASE_VARIABLE).ok();
        accelerator::choose(chosen, base.as_deref(), &mut declared).map_err(|rule| {
            Failure::new(format!(
                "[image] accelerator = \"{}\" {rule}",
                chosen.escape_debug()
            ))
            .hint("write \"cpu\", or the name of a build of torch: \"cu130\", \"rocm6.4\", \"xpu\"")
        })?;
    }
    let flags = config::Flags {
        index_url: args.index_url.clone(),
        extra_index_urls: args.extra_index_url.clone(),
        find_links: args.find_links.clone(),
        no_index: args.no_index,
    };
    let environment = |name: &str| std::env::var(name).ok();
    let found = config::locations(&flags, &declared, &manifest.root, &environment);
    found.map_err(|error| Arc::new(error).into())
}

/// What the project says that its image runs on.
pub fn accelerator(manifest: &Manifest) -> Option<&str> {
    let written = manifest.config.image.accelerator.as_ref();
    written.map(|placed| placed.value.as_str())
}
