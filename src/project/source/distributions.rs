//! Which distribution a module comes from: by the lock, by what is installed, else by a table of well-known names.
//!
//! Only the lock is certain: what is installed may be old, and the table is a guess. So only the lock makes an import a mistake.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;
use uv_normalize::PackageName;

use crate::regular;

/// The largest file of installed metadata that is read, in bytes: the longest RECORD in the wild has 3 MB.
const LARGEST: u64 = 32 << 20;

/// How a module's distribution is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Locked,
    Installed,
    Assumed,
}

/// Modules and the distributions that provide them.
#[derive(Debug, Clone, PartialEq)]
pub struct Distributions {
    pub source: Source,
    /// Top-level or dotted module names; a namespace (`google`) has several.
    providers: BTreeMap<String, Vec<PackageName>>,
    /// Whether every distribution's modules are known: only then is an absent one certainly absent.
    pub complete: bool,
}

impl Distributions {
    /// From a lock: each distribution with its import names. One without any makes the whole uncertain.
    pub fn locked<'a>(packages: impl IntoIterator<Item = (&'a PackageName, &'a [String])>) -> Self {
        let mut found = Self {
            source: Source::Locked,
            providers: BTreeMap::new(),
            complete: true,
        };
        for (name, imports) in packages {
            found.complete &= !imports.is_empty();
            found.add(name, imports.iter().cloned());
        }
        found
    }

    /// From the metadata in the project's `.venv`, if it has one.
    pub fn installed(root: &Path) -> Option<Self> {
        let lib = std::fs::read_dir(root.join(".venv/lib")).ok()?;
        let mut found = Self {
            source: Source::Installed,
            providers: BTreeMap::new(),
            complete: false,
        };
        for folder in lib.flatten() {
            let Ok(entries) = std::fs::read_dir(folder.path().join("site-packages")) else {
                continue;
            };
            for entry in entries.flatten() {
                let file_name = entry.file_name();
                let Some(stem) = file_name
                    .to_str()
                    .and_then(|name| name.strip_suffix(".dist-info"))
                else {
                    continue;
                };
                let name = stem.split('-').next().unwrap_or(stem);
                if let Ok(name) = name.parse::<PackageName>() {
                    found.add(&name, installed_modules(&entry.path()));
                }
            }
        }
        (!found.providers.is_empty()).then_some(found)
    }

    /// From the table, for the names that the project declares: a distribution that the table does not know is taken to provide a
    /// module of its own name.
    pub fn assumed<'a>(declared: impl IntoIterator<Item = &'a PackageName>) -> Self {
        let mut found = Self {
            source: Source::Assumed,
            providers: BTreeMap::new(),
            complete: false,
        };
        for name in declared {
            let own = std::iter::once(name.as_dist_info_name().into_owned());
            let known = KNOWN
                .iter()
                .filter(|(_, distribution)| *distribution == name.as_str());
            found.add(name, own.chain(known.map(|(module, _)| (*module).to_owned())));
        }
        found
    }

    fn add(&mut self, name: &PackageName, modules: impl IntoIterator<Item = String>) {
        for module in modules {
            let providers = self.providers.entry(module).or_default();
            if !providers.contains(name) {
                providers.push(name.clone());
            }
        }
    }

    /// The distributions that provide `module` (dotted), by the longest name that is known; empty if none does.
    pub fn of(&self, module: &str) -> &[PackageName] {
        let mut name = module;
        loop {
            // Import names differ in case from distributions only; `PIL` and `pil` are two modules.
            if let Some(found) = self.providers.get(name) {
                return found;
            }
            match name.rfind('.') {
                Some(dot) => name = &name[..dot],
                None => return &[],
            }
        }
    }

    /// What one would have to declare for `module`, by the table: `PIL` -> `pillow`.
    pub fn likely(module: &str) -> String {
        let top = module.split('.').next().unwrap_or(module);
        let known = KNOWN
            .iter()
            .find(|(name, _)| *name == module)
            .or_else(|| KNOWN.iter().find(|(name, _)| *name == top));
        known.map_or_else(
            || top.replace('_', "-"),
            |(_, distribution)| (*distribution).to_owned(),
        )
    }

    /// All modules that are provided, for suggestions.
    pub fn modules(&self) -> Vec<String> {
        self.providers.keys().cloned().collect()
    }
}

/// The top-level modules of one installed distribution: `top_level.txt`, else RECORD's first path segments.
fn installed_modules(folder: &Path) -> BTreeSet<String> {
    if let Ok(text) = regular::text(&folder.join("top_level.txt"), LARGEST) {
        let names: BTreeSet<String> = text
            .lines()
            .map(|line| line.trim().to_owned())
            .filter(|name| !name.is_empty())
            .collect();
        if !names.is_empty() {
            return names;
        }
    }
    let Ok(text) = regular::text(&folder.join("RECORD"), LARGEST) else {
        return BTreeSet::new();
    };
    let mut names = BTreeSet::new();
    for line in text.lines() {
        let path = line.split(',').next().unwrap_or_default();
        let (first, rest) = path.split_once('/').unwrap_or((path, ""));
        if first.ends_with(".dist-info")
            || first.ends_with(".data")
            || first == ".."
            || first == "__pycache__"
        {
            continue;
        }
        let module = match rest.is_empty() {
            false => first,
            // `six.py`, `_cffi_backend.cpython-311-x86_64-linux-gnu.so`
            true => match first.split_once('.') {
                Some((stem, "py")) => stem,
                Some((stem, rest)) if rest.ends_with("so") => stem,
                _ => continue,
            },
        };
        if super::is_identifier(module) {
            names.insert(module.to_owned());
        }
    }
    names
}

/// Modules whose distribution has another name. The common ones of data and web work; a guess, and shown as one.
const KNOWN: &[(&str, &str)] = &[
    ("sklearn", "scikit-learn"),
    ("skimage", "scikit-image"),
    ("PIL", "pillow"),
    ("cv2", "opencv-python"),
    ("cv2", "opencv-python-headless"),
    ("yaml", "pyyaml"),
    ("bs4", "beautifulsoup4"),
    ("dateutil", "python-dateutil"),
    ("dotenv", "python-dotenv"),
    ("jose", "python-jose"),
    ("jwt", "pyjwt"),
    ("magic", "python-magic"),
    ("docx", "python-docx"),
    ("pptx", "python-pptx"),
    ("multipart", "python-multipart"),
    ("slugify", "python-slugify"),
    ("attr", "attrs"),
    ("Crypto", "pycryptodome"),
    ("OpenSSL", "pyopenssl"),
    ("nacl", "pynacl"),
    ("serial", "pyserial"),
    ("usb", "pyusb"),
    ("git", "gitpython"),
    ("github", "pygithub"),
    ("gitlab", "python-gitlab"),
    ("MySQLdb", "mysqlclient"),
    ("mysql", "mysql-connector-python"),
    ("psycopg2", "psycopg2-binary"),
    ("psycopg2", "psycopg2"),
    ("pymysql", "pymysql"),
    ("ldap", "python-ldap"),
    ("zmq", "pyzmq"),
    ("redis", "redis"),
    ("kafka", "kafka-python"),
    ("confluent_kafka", "confluent-kafka"),
    ("elasticsearch_dsl", "elasticsearch-dsl"),
    ("google.cloud.storage", "google-cloud-storage"),
    ("google.cloud.bigquery", "google-cloud-bigquery"),
    ("google.protobuf", "protobuf"),
    ("google.auth", "google-auth"),
    ("googleapiclient", "google-api-python-client"),
    ("grpc", "grpcio"),
    ("azure.storage.blob", "azure-storage-blob"),
    ("azure.identity", "azure-identity"),
    ("snowflake.connector", "snowflake-connector-python"),
    ("databricks.sql", "databricks-sql-connector"),
    ("tensorflow", "tensorflow"),
    ("tensorflow", "tensorflow-cpu"),
    ("keras", "keras"),
    ("torch", "torch"),
    ("pl_bolts", "lightning-bolts"),
    ("pytorch_lightning", "pytorch-lightning"),
    ("lightning", "lightning"),
    ("faiss", "faiss-cpu"),
    ("umap", "umap-learn"),
    ("hdbscan", "hdbscan"),
    ("imblearn", "imbalanced-learn"),
    ("category_encoders", "category-encoders"),
    ("sentence_transformers", "sentence-transformers"),
    ("xgboost", "xgboost"),
    ("xgboost", "xgboost-cpu"),
    ("lightgbm", "lightgbm"),
    ("fitz", "pymupdf"),
    ("pkg_resources", "setuptools"),
    ("setuptools", "setuptools"),
    ("wx", "wxpython"),
    ("gi", "pygobject"),
    ("cairo", "pycairo"),
    ("Levenshtein", "levenshtein"),
    ("rapidfuzz", "rapidfuzz"),
    ("ruamel.yaml", "ruamel-yaml"),
    ("markdown", "markdown"),
    ("jinja2", "jinja2"),
    ("mpl_toolkits", "matplotlib"),
    ("pylab", "matplotlib"),
    ("IPython", "ipython"),
    ("nbformat", "nbformat"),
    ("sqlalchemy", "sqlalchemy"),
    ("flask", "flask"),
    ("werkzeug", "werkzeug"),
    ("osgeo", "gdal"),
    ("shapely", "shapely"),
    ("netCDF4", "netcdf4"),
    ("Bio", "biopython"),
    ("rdkit", "rdkit"),
    ("openai", "openai"),
    ("tiktoken", "tiktoken"),
    ("simplejson", "simplejson"),
    ("orjson", "orjson"),
    ("msgpack", "msgpack"),
    ("snappy", "python-snappy"),
    ("lz4", "lz4"),
    ("zstandard", "zstandard"),
    ("win32api", "pywin32"),
    ("telegram", "python-telegram-bot"),
    ("discord", "discord-py"),
    ("prophet", "prophet"),
    ("fbprophet", "fbprophet"),
    ("statsmodels", "statsmodels"),
    ("arch", "arch"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_wins() {
        let names: Vec<PackageName> = ["google-cloud-storage", "protobuf", "scikit-learn", "my-own"]
            .iter()
            .map(|name| name.parse().unwrap())
            .collect();
        let assumed = Distributions::assumed(&names);
        let of = |module: &str| -> Vec<String> {
            assumed.of(module).iter().map(|name| name.to_string()).collect()
        };
        assert_eq!(of("google.cloud.storage.blob"), ["google-cloud-storage"]);
        assert_eq!(of("google.protobuf"), ["protobuf"]);
        assert_eq!(of("sklearn.linear_model"), ["scikit-learn"]);
        assert_eq!(of("my_own"), ["my-own"]);
        assert_eq!(of("numpy"), Vec::<String>::new());
        assert_eq!(Distributions::likely("PIL.Image"), "pillow");
    }

    #[test]
    fn a_distribution_without_known_modules_makes_the_lock_uncertain() {
        let (one, other): (PackageName, PackageName) = ("one".parse().unwrap(), "other".parse().unwrap());
        let imports = ["one".to_owned()];
        assert!(Distributions::locked([(&one, imports.as_slice())]).complete);
        assert!(!Distributions::locked([(&one, imports.as_slice()), (&other, &[])]).complete);
    }
}
