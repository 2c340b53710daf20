//! `[image] accelerator`: which of torch's builds a project locks, as an index for the packages that are built with it.
//!
//! torch is published once per accelerator, each build on an index of its own (`…/whl/cpu`, `…/whl/cu130`); the build that the
//! public index has brings gigabytes of CUDA libraries. It adds an index and pins to what the project declares, and chooses no
//! version. A project's own `[tool.uv.sources]` for a package stay as they are.

use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::config::{Declared, DeclaredIndex, Pin};

/// The environment variable with another folder of indexes: a mirror, or a test's.
pub const BASE_VARIABLE: &str = "MLRAILS_TORCH_INDEX";

/// Where torch's project publishes its builds.
const BASE: &str = "https://download.pytorch.org/whl";

/// The packages that are built against one accelerator and published with torch. Those that an index lacks come from the
/// usual ones.
const FAMILY: [&str; 10] = [
    "torch",
    "torchvision",
    "torchaudio",
    "torchtext",
    "torchcodec",
    "torchao",
    "fbgemm-gpu",
    "pytorch-triton",
    "pytorch-triton-rocm",
    "pytorch-triton-xpu",
];

/// Whether a package is one of torch's builds.
pub fn is_family(name: &PackageName) -> bool {
    FAMILY.contains(&name.as_str())
}

/// Pins torch and its family to the index of `accelerator`: one that the project names `pytorch-<accelerator>`, else the
/// folder of that name below `base`. Fails with the rule that the name breaks.
pub fn choose(accelerator: &str, base: Option<&str>, declared: &mut Declared) -> Result<(), String> {
    if !is_known(accelerator) {
        return Err("is no build of torch".to_owned());
    }
    let index = format!("pytorch-{accelerator}");
    let is_defined = |known: &DeclaredIndex| known.name.as_deref() == Some(index.as_str());
    if !declared.indexes.iter().any(is_defined) {
        let base = base.unwrap_or(BASE).trim_end_matches('/');
        declared.indexes.push(DeclaredIndex {
            name: Some(index.clone()),
            url: format!("{base}/{accelerator}"),
            explicit: true,
            ..DeclaredIndex::default()
        });
    }
    // Builds for macOS know no accelerator and stand on the public index.
    let marker: MarkerTree = "sys_platform != 'darwin'"
        .parse()
        .map_err(|error| format!("cannot be applied: {error}"))?;
    for name in FAMILY {
        let name: PackageName = name
            .parse()
            .map_err(|error| format!("cannot be applied: {error}"))?;
        declared.pins.entry(name).or_insert_with(|| {
            vec![Pin {
                index: index.clone(),
                marker,
                only: false,
            }]
        });
    }
    Ok(())
}

/// `cpu`, `xpu`, `cu130`, `rocm6.4`. Nothing else may become part of a URL.
fn is_known(accelerator: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match accelerator {
        "cpu" | "xpu" => true,
        other => match (other.strip_prefix("cu"), other.strip_prefix("rocm")) {
            (Some(version), _) => digits(version) && version.len() <= 4,
            (_, Some(version)) => version.len() <= 8 && version.split('.').all(digits),
            _ => false,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_builds() {
        for known in ["cpu", "xpu", "cu118", "cu130", "rocm6.4", "rocm6.2.4"] {
            assert!(is_known(known), "{known}");
        }
        for unknown in [
            "",
            "gpu",
            "cu",
            "cu12.8",
            "CPU",
            "cu130/../x",
            "rocm",
            "rocm6..4",
            "cu13000",
        ] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }

    #[test]
    fn a_project_of_its_own_mind_keeps_it() {
        let mut declared = Declared::default();
        let own = Pin {
            index: "mine".to_owned(),
            marker: MarkerTree::TRUE,
            only: true,
        };
        let torch: PackageName = "torch".parse().unwrap();
        declared.pins.insert(torch.clone(), vec![own.clone()]);
        declared.indexes.push(DeclaredIndex {
            name: Some("pytorch-cpu".to_owned()),
            url: "https://mirror.example/cpu".to_owned(),
            explicit: true,
            ..DeclaredIndex::default()
        });
        choose("cpu", None, &mut declared).unwrap();
        assert_eq!(declared.pins[&torch], [own]);
        assert_eq!(declared.indexes.len(), 1);
        assert!(is_family(&torch) && declared.pins.len() == FAMILY.len());
    }
}
