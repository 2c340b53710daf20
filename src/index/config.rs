//! Where packages come from: the one place that decides which indexes are asked, in which order, with which credentials.
//!
//! Read in this order, the first that says something about the default index wins; further indexes are collected:
//!
//! 1. flags: `--index-url`, `--extra-index-url`, `--find-links`
//! 2. the environment: `UV_DEFAULT_INDEX`, `UV_INDEX_URL`, `PIP_INDEX_URL`; `UV_INDEX`, `UV_EXTRA_INDEX_URL`,
//!    `PIP_EXTRA_INDEX_URL`; `UV_FIND_LINKS`
//! 3. the project: `[tool.uv]` of pyproject.toml, or `uv.toml` beside it
//! 4. the user's and the machine's `uv.toml`
//! 5. `pip.conf` (`PIP_CONFIG_FILE`, the user's, the machine's)
//! 6. the public index
//!
//! A further index is asked before the default one, and the first index that has a project answers for it alone: a
//! name that a private index has is never taken from a public one.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use url::Url;
use uv_normalize::PackageName;

use super::IndexError;
use crate::http::{Credentials, Redacted, same_origin};
use crate::regular;

/// The largest file of configuration that is read, in bytes.
const LARGEST: u64 = 4 << 20;

/// The public index's short name; its address is made from it here and nowhere else.
const PUBLIC: &str = concat!("py", "pi");

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub index_url: Option<String>,
    pub extra_index_urls: Vec<String>,
    pub find_links: Vec<String>,
}

/// What a project says, in `[tool.uv]`.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub indexes: Vec<DeclaredIndex>,
    pub find_links: Vec<String>,
    /// Packages that come from one index, by its name (`[tool.uv.sources]`).
    pub pins: HashMap<PackageName, String>,
}

/// One `[[tool.uv.index]]`.
#[derive(Debug, Clone, Default)]
pub struct DeclaredIndex {
    pub name: Option<String>,
    pub url: String,
    pub default: bool,
    /// Only asked for the packages that are pinned to it.
    pub explicit: bool,
}

/// One index that is asked.
#[derive(Debug, Clone)]
pub struct Location {
    pub name: Option<String>,
    /// Without credentials, ending in a slash.
    pub url: Url,
    pub credentials: Option<Credentials>,
    pub explicit: bool,
}

impl Location {
    /// As a lock shows it: no credentials, no slash at the end.
    pub fn label(&self) -> String {
        self.url.as_str().trim_end_matches('/').to_owned()
    }
}

/// A folder or a flat page, as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindLinks {
    /// A URL, or a path.
    pub written: String,
    /// What a relative path is relative to: the project's folder for what stands in its files; empty for the current one.
    pub from: PathBuf,
}

/// Everything that is asked, in order.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    pub indexes: Vec<Location>,
    /// Folders and flat pages whose files are candidates beside the indexes'.
    pub find_links: Vec<FindLinks>,
    pub pins: HashMap<PackageName, String>,
    netrc: Vec<Machine>,
}

impl Locations {
    /// The indexes to ask for `name`, in order.
    pub fn for_package(&self, name: &PackageName) -> Result<Vec<&Location>, IndexError> {
        let Some(pin) = self.pins.get(name) else {
            return Ok(self
                .indexes
                .iter()
                .filter(|location| !location.explicit)
                .collect());
        };
        let found = self
            .indexes
            .iter()
            .find(|location| location.name.as_ref() == Some(pin))
            .ok_or_else(|| {
                IndexError::Config(format!(
                    "`{name}` is to come from the index `{pin}`, which is not defined"
                ))
            })?;
        Ok(vec![found])
    }

    /// What may be sent to `url`: credentials of an index on exactly its scheme, host and port, else the netrc's.
    pub fn credentials(&self, url: &Url) -> Option<Credentials> {
        self.indexes
            .iter()
            .find(|location| location.credentials.is_some() && same_origin(&location.url, url))
            .and_then(|location| location.credentials.clone())
            .or_else(|| {
                self.netrc
                    .iter()
                    .find(|machine| machine.is(url))
                    .map(|machine| machine.credentials.clone())
            })
    }

    /// What decides where packages come from, as lines for the lock: without credentials.
    pub fn lines(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .indexes
            .iter()
            .map(|location| match location.explicit {
                true => format!("explicit-index = {}", location.label()),
                false => format!("index = {}", location.label()),
            })
            .collect();
        let mut pins: Vec<String> = self
            .pins
            .iter()
            .map(|(name, index)| format!("source {name} = {index}"))
            .collect();
        pins.sort();
        lines.extend(pins);
        lines.extend(
            self.find_links
                .iter()
                .map(|link| match Url::parse(&link.written) {
                    Ok(url) => format!("find-links = {}", Redacted(&url)),
                    Err(_) => format!("find-links = {}", link.written),
                }),
        );
        lines
    }
}

/// Finds the indexes for the project in `folder`. `environment` looks a variable up; the rest is read from files.
pub fn locations(
    flags: &Flags,
    declared: &Declared,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Locations, IndexError> {
    let variable = |name: &str| environment(name).filter(|value| !value.trim().is_empty());
    let words = |name: &str| -> Vec<String> {
        variable(name)
            .map(|value| value.split_whitespace().map(str::to_owned).collect())
            .unwrap_or_default()
    };
    let uv = uv_files(folder, &variable)?;
    let pip = pip_files(&variable);

    let mut further: Vec<DeclaredIndex> = Vec::new();
    let mut plain = |urls: Vec<String>| {
        for url in urls {
            let (name, url) = named(&url);
            further.push(DeclaredIndex {
                name,
                url,
                ..DeclaredIndex::default()
            });
        }
    };
    plain(flags.extra_index_urls.clone());
    for name in ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"] {
        plain(words(name));
    }
    let mut default = flags.index_url.clone().map(|url| named(&url));
    for name in ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"] {
        default = default.or_else(|| variable(name).map(|url| named(&url)));
    }
    for index in declared.indexes.iter().chain(&uv.indexes) {
        if index.default {
            default = default.or_else(|| Some((index.name.clone(), index.url.clone())));
        } else {
            further.push(index.clone());
        }
    }
    default = default.or_else(|| pip.index_url.clone().map(|url| (None, url)));
    for url in &pip.extra_index_urls {
        further.push(DeclaredIndex {
            url: url.clone(),
            ..DeclaredIndex::default()
        });
    }
    let (name, url) = default.unwrap_or_else(|| (None, format!("https://{PUBLIC}.org/simple/")));
    further.push(DeclaredIndex {
        name,
        url,
        ..DeclaredIndex::default()
    });

    let mut indexes: Vec<Location> = Vec::new();
    for index in further {
        let location = location(&index, &variable)?;
        // The same address twice is asked once; a named entry is kept, since sources may speak of it.
        let known = indexes
            .iter_mut()
            .find(|known| known.url == location.url && known.explicit == location.explicit);
        match known {
            Some(known) => known.name = known.name.take().or(location.name),
            None => indexes.push(location),
        }
    }
    let mut find_links = flags.find_links.clone();
    find_links.extend(
        variable("UV_FIND_LINKS")
            .iter()
            .flat_map(|value| value.split(','))
            .map(str::to_owned),
    );
    let placed = |from: &Path, written: String| FindLinks {
        written,
        from: from.to_owned(),
    };
    let mut find_links: Vec<FindLinks> = find_links
        .into_iter()
        .map(|written| placed(Path::new(""), written))
        .collect();
    let files = declared.find_links.iter().chain(&uv.find_links);
    find_links.extend(files.map(|written| placed(folder, written.clone())));
    Ok(Locations {
        indexes,
        find_links,
        pins: declared.pins.clone(),
        netrc: netrc(&variable),
    })
}

/// `name=https://…`, as uv's variables and flags take it.
fn named(text: &str) -> (Option<String>, String) {
    match text.split_once('=') {
        Some((name, url)) if url.contains("://") && !name.contains([':', '/']) => {
            (Some(name.trim().to_owned()), url.trim().to_owned())
        }
        _ => (None, text.trim().to_owned()),
    }
}

fn location(
    index: &DeclaredIndex,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Location, IndexError> {
    let mut url = Url::parse(&index.url).map_err(|error| {
        // The text may hold a password: only what comes after an `@` is shown.
        let shown = index.url.rsplit('@').next().unwrap_or_default();
        IndexError::Config(format!("`{shown}` is not a URL: {error}"))
    })?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(IndexError::Config(format!(
            "{} is neither http nor https",
            Redacted(&url)
        )));
    }
    url.set_fragment(None);
    if !url.path().ends_with('/') {
        let path = format!("{}/", url.path());
        url.set_path(&path);
    }
    let (url, mut credentials) = Credentials::take_from(&url);
    if let Some(name) = &index.name {
        let name: String = name
            .chars()
            .map(|character| {
                if character.is_ascii_alphanumeric() {
                    character.to_ascii_uppercase()
                } else {
                    '_'
                }
            })
            .collect();
        let user = variable(&format!("UV_INDEX_{name}_USERNAME"));
        let password = variable(&format!("UV_INDEX_{name}_PASSWORD"));
        if user.is_some() || password.is_some() {
            credentials = Some(Credentials::Basic {
                user: user.unwrap_or_default(),
                password: password.unwrap_or_default(),
            });
        }
    }
    Ok(Location {
        name: index.name.clone(),
        url,
        credentials,
        explicit: index.explicit,
    })
}

/// The `uv.toml` beside the project (which replaces its `[tool.uv]` for uv, and adds to it here), the user's, the machine's.
fn uv_files(folder: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Declared, IndexError> {
    let mut all = Declared::default();
    let user = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config")));
    let machine = Some(PathBuf::from("/etc/uv/uv.toml"));
    let files = [
        Some(folder.join("uv.toml")),
        user.map(|folder| folder.join("uv/uv.toml")),
        machine,
    ];
    for path in files.into_iter().flatten() {
        let text = match path.parent() == Some(folder) {
            true => regular::text_beside(&path, LARGEST)
                .map_err(|irregular| IndexError::Config(format!("{}: {irregular}", path.display())))?,
            // What is the user's own may be a link to anywhere.
            false => regular::text(&path, LARGEST).ok(),
        };
        let Some(text) = text else { continue };
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            IndexError::Config(format!("{} is not TOML: {}", path.display(), error.message()))
        })?;
        let found = declared_in(&table);
        all.indexes.extend(found.indexes);
        all.find_links.extend(found.find_links);
    }
    Ok(all)
}

/// The index settings of a `uv.toml` or a `[tool.uv]` table.
pub fn declared_in(table: &toml::Table) -> Declared {
    let text =
        |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_str).map(str::to_owned);
    let flag =
        |table: &toml::Table, key: &str| table.get(key).and_then(toml::Value::as_bool).unwrap_or_default();
    let list = |key: &str| -> Vec<String> {
        let values = table.get(key).and_then(toml::Value::as_array);
        values
            .into_iter()
            .flatten()
            .filter_map(|value| value.as_str().map(str::to_owned))
            .collect()
    };
    let mut declared = Declared {
        find_links: list("find-links"),
        ..Declared::default()
    };
    for index in table
        .get("index")
        .and_then(toml::Value::as_array)
        .into_iter()
        .flatten()
    {
        let Some(index) = index.as_table() else { continue };
        if let Some(url) = text(index, "url") {
            declared.indexes.push(DeclaredIndex {
                name: text(index, "name"),
                url,
                default: flag(index, "default"),
                explicit: flag(index, "explicit"),
            });
        }
    }
    for url in list("extra-index-url") {
        declared.indexes.push(DeclaredIndex {
            url,
            ..DeclaredIndex::default()
        });
    }
    if let Some(url) = text(table, "index-url") {
        declared.indexes.push(DeclaredIndex {
            url,
            default: true,
            ..DeclaredIndex::default()
        });
    }
    declared
}

/// What pip.conf says: the user's file before the machine's.
fn pip_files(variable: &dyn Fn(&str) -> Option<String>) -> Flags {
    let home = variable("HOME").map(PathBuf::from);
    let config = variable("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .or_else(|| home.as_ref().map(|home| home.join(".config")));
    let files = match variable("PIP_CONFIG_FILE") {
        Some(path) => vec![Some(PathBuf::from(path))],
        None => vec![
            variable("VIRTUAL_ENV").map(|folder| Path::new(&folder).join("pip.conf")),
            config.map(|folder| folder.join("pip/pip.conf")),
            home.map(|folder| folder.join(".pip/pip.conf")),
            Some(PathBuf::from("/etc/pip.conf")),
        ],
    };
    let mut found = Flags::default();
    for path in files.into_iter().flatten() {
        if let Ok(text) = regular::text(&path, LARGEST) {
            let file = pip_file(&text);
            found.index_url = found.index_url.or(file.index_url);
            found.extra_index_urls.extend(file.extra_index_urls);
        }
    }
    found
}

/// One pip.conf: `key = value` below `[global]`, `[install]` or `[lock]`; an indented line goes on with the value above.
fn pip_file(text: &str) -> Flags {
    let mut found = Flags::default();
    let mut relevant = false;
    let mut key = String::new();
    for line in text.lines() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(section) = trimmed.strip_prefix('[') {
            let section = section.trim_end_matches(']').trim();
            relevant = matches!(section, "global" | "install" | "lock");
            key.clear();
            continue;
        }
        let value = if line.starts_with([' ', '\t']) && !key.is_empty() {
            trimmed
        } else {
            let Some((name, value)) = trimmed.split_once(['=', ':']) else {
                continue;
            };
            key = name.trim().to_ascii_lowercase().replace('_', "-");
            value.trim()
        };
        if !relevant || value.is_empty() {
            continue;
        }
        match key.as_str() {
            "index-url" => found.index_url = Some(value.to_owned()),
            "extra-index-url" => found
                .extra_index_urls
                .extend(value.split_whitespace().map(str::to_owned)),
            _ => {}
        }
    }
    found
}

#[derive(Debug, Clone)]
struct Machine {
    /// `host`, or `host:port`; `None` is netrc's `default`, which is never used: it would answer any host.
    host: Option<String>,
    credentials: Credentials,
}

impl Machine {
    /// A bare host stands for the scheme's own port; another port has to be written.
    fn is(&self, url: &Url) -> bool {
        let (Some(host), Some(wanted)) = (url.host_str(), &self.host) else {
            return false;
        };
        match url.port() {
            None => wanted == host,
            Some(port) => *wanted == format!("{host}:{port}"),
        }
    }
}

fn netrc(variable: &dyn Fn(&str) -> Option<String>) -> Vec<Machine> {
    let path = variable("NETRC")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| Path::new(&home).join(".netrc")));
    path.and_then(|path| regular::text(&path, LARGEST).ok())
        .map(|text| netrc_machines(&text))
        .unwrap_or_default()
}

fn netrc_machines(text: &str) -> Vec<Machine> {
    let mut machines: Vec<(Option<String>, String, String)> = Vec::new();
    let mut words = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .flat_map(str::split_whitespace);
    while let Some(word) = words.next() {
        match word {
            "machine" => machines.push((words.next().map(str::to_owned), String::new(), String::new())),
            "default" => machines.push((None, String::new(), String::new())),
            "login" | "password" | "account" => {
                let value = words.next().unwrap_or_default().trim_matches('"').to_owned();
                match (machines.last_mut(), word) {
                    (Some(machine), "login") => machine.1 = value,
                    (Some(machine), "password") => machine.2 = value,
                    _ => {}
                }
            }
            // A macro's body ends at an empty line, which is lost here; nobody puts one in a netrc for indexes.
            _ => {}
        }
    }
    machines
        .into_iter()
        .map(|(host, user, password)| Machine {
            host,
            credentials: Credentials::Basic { user, password },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(flags: Flags, declared: Declared, variables: &[(&str, &str)]) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let mut all: HashMap<String, String> = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        all.entry("PIP_CONFIG_FILE".into()).or_insert("/dev/null".into());
        locations(&flags, &declared, folder.path(), &|name| all.get(name).cloned())
            .unwrap()
            .indexes
            .iter()
            .map(Location::label)
            .collect()
    }

    #[test]
    fn the_first_that_says_something_wins() {
        let flag = Flags {
            index_url: Some("https://flag.example/simple".into()),
            extra_index_urls: vec!["https://extra.example/simple/".into()],
            ..Flags::default()
        };
        let variables = [
            ("UV_INDEX_URL", "https://uv.example/s"),
            ("PIP_INDEX_URL", "https://pip.example/s"),
        ];
        assert_eq!(
            check(flag, Declared::default(), &variables),
            ["https://extra.example/simple", "https://flag.example/simple"]
        );
        let project = Declared {
            indexes: vec![
                DeclaredIndex {
                    url: "https://project.example/s".into(),
                    default: true,
                    ..Default::default()
                },
                DeclaredIndex {
                    url: "https://more.example/s".into(),
                    ..Default::default()
                },
            ],
            ..Declared::default()
        };
        assert_eq!(
            check(Flags::default(), project.clone(), &variables),
            ["https://more.example/s", "https://uv.example/s"]
        );
        assert_eq!(
            check(Flags::default(), project, &[]),
            ["https://more.example/s", "https://project.example/s"]
        );
        assert_eq!(check(Flags::default(), Declared::default(), &[]).len(), 1);
    }

    #[test]
    fn pip_and_netrc_files() {
        let pip = pip_file(
            "[global]\nindex_url = https://a.example/s\nextra-index-url =\n    https://b.example/s\n    https://c.example/s\n[search]\nindex = x\n",
        );
        assert_eq!(pip.index_url.as_deref(), Some("https://a.example/s"));
        assert_eq!(
            pip.extra_index_urls,
            ["https://b.example/s", "https://c.example/s"]
        );
        let locations = Locations {
            netrc: netrc_machines(
                "machine a.example login me password secret\ndefault login x password y\nmachine b.example:8443\n login u\n password p",
            ),
            ..Locations::default()
        };
        let sent = |url: &str| locations.credentials(&Url::parse(url).unwrap()).is_some();
        assert!(sent("https://a.example/simple/"));
        assert!(
            !sent("https://a.example:8443/simple/"),
            "another port is another server"
        );
        assert!(!sent("https://a.example.evil/simple/") && !sent("https://evil-a.example/"));
        assert!(sent("https://b.example:8443/") && !sent("https://b.example/"));
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        let index = DeclaredIndex {
            name: Some("my-index".into()),
            url: "https://u:p@h.example/simple".into(),
            ..Default::default()
        };
        let found = location(&index, &|_| None).unwrap();
        assert_eq!(found.label(), "https://h.example/simple");
        let locations = Locations {
            indexes: vec![found],
            ..Locations::default()
        };
        let sent = |url: &str| locations.credentials(&Url::parse(url).unwrap()).is_some();
        assert!(sent("https://h.example/files/a.whl"));
        assert!(
            !sent("http://h.example/") && !sent("https://h.example:444/") && !sent("https://h.example.evil/")
        );
        assert!(locations.lines().iter().all(|line| !line.contains("u:p")));
    }
}
