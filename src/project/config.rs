//! mlrails.toml, or `[tool.mlrails]` in pyproject.toml; both are an error, and so is any key that is not here.
//!
//! docs/configuration.md explains each key; a test holds the two together.

use std::path::Path;

use super::document::{Placed, Table};
use super::mistake::{Mistake, Rule};
use super::pyproject::inside;
use crate::quantity;

/// What the project says about itself beyond pyproject.toml. Everything has a default.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    pub image: ImageConfig,
    pub dependencies: DependenciesConfig,
    pub golden: GoldenConfig,
    pub serve: ServeConfig,
    pub data: DataConfig,
}

/// `[image]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ImageConfig {
    /// A registry image to stand on, instead of the base assembled from Debian.
    pub base: Option<Placed<String>>,
    /// Where that image's interpreter is, and its C library, when they cannot be found out.
    pub base_python: Option<Placed<String>>,
    pub base_glibc: Option<Placed<String>>,
    /// Whether that image's interpreter may be run on this machine, to compile bytecode.
    pub base_bytecode: bool,
    /// Python's minor, when there is no .python-version.
    pub python: Option<Placed<String>>,
    /// OCI names: `linux/amd64`.
    pub platforms: Vec<Placed<String>>,
    /// Files and folders of the project that ship besides the package.
    pub include: Vec<Placed<String>>,
    /// `cpu`, `cu130` …
    pub accelerator: Option<Placed<String>>,
    /// A folder of buildpacks of the project's own.
    pub buildpacks: Option<Placed<String>>,
    /// Where Debian's archive is fetched from, instead of the machine's own mirror.
    pub debian_mirror: Option<Placed<String>>,
    /// How layers are compressed: `gzip`, `zstd`, `zstd:19`.
    pub compression: Option<Placed<String>>,
    /// From what size on a wheel is divided among several layers, in bytes.
    pub max_layer_size: Option<u64>,
    /// Debian packages that the base gets besides what every base has: `libgomp1`.
    pub packages: Vec<Placed<String>>,
}

/// `[dependencies]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DependenciesConfig {
    /// Distributions that ship although nothing that mlrails can see reaches them.
    pub keep: Vec<Placed<String>>,
}

/// `[golden]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GoldenConfig {
    pub rows: Option<GoldenRows>,
    /// The column whose rows belong together.
    pub group: Option<Placed<String>>,
    /// Columns whose values are not recorded.
    pub redact: Vec<Placed<String>>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GoldenRows {
    /// This many, picked from training.
    Count(u32),
    /// A file of records in the project.
    File(String),
}

/// `[serve]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ServeConfig {
    /// `package.module:function`, instead of `predict` in serve.py.
    pub entry: Option<Placed<String>>,
    /// Whether estimators may be answered by a proven fast path; unsaid, they may.
    pub accelerate: Option<bool>,
}

/// `[data]`
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DataConfig {
    /// The database of sql/*.sql; usually a reference (`env:DATABASE_URL`).
    pub url: Option<Placed<String>>,
}

/// Every key, as `table.key`, for docs and tests.
pub const KEYS: &[&str] = &[
    "image.base",
    "image.base-bytecode",
    "image.base-python",
    "image.base-glibc",
    "image.python",
    "image.platforms",
    "image.include",
    "image.accelerator",
    "image.buildpacks",
    "image.debian-mirror",
    "image.compression",
    "image.max-layer-size",
    "image.packages",
    "dependencies.keep",
    "golden.rows",
    "golden.group",
    "golden.redact",
    "serve.entry",
    "serve.accelerate",
    "data.url",
];

/// A number of bytes with its unit: `"500 MB"`, `"2 GiB"`. A megabyte at least.
fn size(table: &Table<'_>, key: &'static str, mistakes: &mut Vec<Mistake>) -> Option<u64> {
    let text = table.string(key, mistakes)?;
    let parsed = quantity::bytes(&text.value).filter(|size| *size >= 1_000_000);
    if parsed.is_none() {
        let what = format!("`{key}` must be a size of 1 MB or more, such as \"2 GiB\" or \"500 MB\"");
        mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(text.place.clone()));
    }
    parsed
}

/// The most golden rows: they are committed with the project.
const MOST_ROWS: i64 = 1000;

/// Reads the table that holds the configuration; `folder` is the project's.
pub fn read(root: &Table<'_>, prefix: &str, folder: &Path, mistakes: &mut Vec<Mistake>) -> Config {
    let mut config = Config::default();
    let section = |name: &str| format!("[{prefix}{name}]");
    if let Some(image) = root.table("image", &section("image"), mistakes) {
        config.image = ImageConfig {
            base: image.string("base", mistakes),
            base_python: image.string("base-python", mistakes),
            base_glibc: image.string("base-glibc", mistakes),
            base_bytecode: image.boolean("base-bytecode", mistakes).unwrap_or(false),
            python: image.string("python", mistakes),
            platforms: image.strings("platforms", mistakes),
            include: image.strings("include", mistakes),
            accelerator: image.string("accelerator", mistakes),
            buildpacks: image.string("buildpacks", mistakes),
            debian_mirror: image.string("debian-mirror", mistakes),
            compression: image.string("compression", mistakes),
            max_layer_size: size(&image, "max-layer-size", mistakes),
            packages: image.strings("packages", mistakes),
        };
        for path in config.image.include.iter().chain(&config.image.buildpacks) {
            inside(path, folder, mistakes);
        }
        image.finish(mistakes);
    }
    if let Some(dependencies) = root.table("dependencies", &section("dependencies"), mistakes) {
        config.dependencies.keep = dependencies.strings("keep", mistakes);
        dependencies.finish(mistakes);
    }
    if let Some(golden) = root.table("golden", &section("golden"), mistakes) {
        config.golden = GoldenConfig {
            rows: golden_rows(&golden, folder, mistakes),
            group: golden.string("group", mistakes),
            redact: golden.strings("redact", mistakes),
        };
        golden.finish(mistakes);
    }
    if let Some(serve) = root.table("serve", &section("serve"), mistakes) {
        config.serve.entry = serve.string("entry", mistakes);
        config.serve.accelerate = serve.boolean("accelerate", mistakes);
        if let Some(entry) = &config.serve.entry
            && !is_entry(&entry.value)
        {
            let what = "`entry` must be `package.module:function`".to_owned();
            mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(entry.place.clone()));
        }
        serve.finish(mistakes);
    }
    if let Some(data) = root.table("data", &section("data"), mistakes) {
        config.data.url = data.string("url", mistakes);
        data.finish(mistakes);
    }
    root.finish(mistakes);
    config
}

fn golden_rows(golden: &Table<'_>, folder: &Path, mistakes: &mut Vec<Mistake>) -> Option<GoldenRows> {
    let value = golden.value("rows")?;
    if value.get_ref().is_integer() {
        let count = super::document::json(value.get_ref()).and_then(|number| number.as_i64());
        return match count {
            Some(count) if (1..=MOST_ROWS).contains(&count) => Some(GoldenRows::Count(count as u32)),
            _ => {
                let what = format!("`rows` must be between 1 and {MOST_ROWS}");
                mistakes.push(Mistake::new(Rule::InvalidValue { what }).at(golden.place_of(value)));
                None
            }
        };
    }
    if !value.get_ref().is_str() {
        mistakes.push(golden.wrong_type("rows", "a number or a file's name", value));
        return None;
    }
    let path = golden.as_string("rows", value, mistakes)?;
    inside(&path, folder, mistakes);
    Some(GoldenRows::File(path.value))
}

fn is_entry(text: &str) -> bool {
    text.split_once(':').is_some_and(|(module, function)| {
        module.split('.').all(super::source::is_identifier) && super::source::is_identifier(function)
    })
}
