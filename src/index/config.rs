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
//! Where `--no-index`, `UV_NO_INDEX`, `PIP_NO_INDEX`, `no-index` of one of the files says so, there is no index at all.
//!
//! A further index is asked before the default one, and the first index that has a project answers for it alone: a
//! name that a private index has is never taken from a public one. An index is a URL (`https`, `http`, `file`) or a
//! folder, relative to the file that names it.

mod files;
mod netrc;

use std::collections::BTreeMap;
use std::path::Path;

use url::Url;
use uv_normalize::PackageName;
use uv_pep508::MarkerTree;

use super::IndexError;
use crate::http::{Credentials, Redacted, same_origin};
use files::{pip_files, uv_files};
use netrc::{Machine, netrc};

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
    /// No index is asked: only what `find_links` lists is there.
    pub no_index: bool,
}

/// What a project says, in `[tool.uv]`.
#[derive(Debug, Clone, Default)]
pub struct Declared {
    pub indexes: Vec<DeclaredIndex>,
    pub find_links: Vec<String>,
    pub no_index: bool,
    /// Packages that come from one index, by its name (`[tool.uv.sources]`).
    pub pins: Pins,
}

/// Pins by package; of a package's pins the first whose marker holds counts.
pub type Pins = BTreeMap<PackageName, Vec<Pin>>;

/// A package comes from one index, where the marker holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// The index's name.
    pub index: String,
    pub marker: MarkerTree,
    /// No other index is asked if this one does not have the package.
    pub only: bool,
}

/// One `[[tool.uv.index]]`.
#[derive(Debug, Clone, Default)]
pub struct DeclaredIndex {
    pub name: Option<String>,
    pub url: String,
    pub default: bool,
    /// Only asked for the packages that are pinned to it.
    pub explicit: bool,
    /// One page or folder with the files of all projects, instead of a page for each.
    pub flat: bool,
}

/// One index that is asked.
#[derive(Debug, Clone)]
pub struct Location {
    pub name: Option<String>,
    /// Without credentials, ending in a slash.
    pub url: Url,
    pub credentials: Option<Credentials>,
    pub explicit: bool,
    pub flat: bool,
    /// How it was written, where that was a path: what is written may be committed, where it lies on a machine may not.
    written: Option<String>,
    /// It is this machine's own setting, of no meaning on another: a lock does not name it.
    of_machine: bool,
}

impl Location {
    /// As a lock shows it: no credentials, no slash at the end.
    pub fn label(&self) -> String {
        let shown = self.written.as_deref().unwrap_or(self.url.as_str());
        shown.trim_end_matches('/').to_owned()
    }
}

/// Everything that is asked, in order.
#[derive(Debug, Clone, Default)]
pub struct Locations {
    pub indexes: Vec<Location>,
    /// Folders and flat pages whose files are candidates beside the indexes'.
    pub find_links: Vec<Location>,
    pub pins: Pins,
    netrc: Vec<Machine>,
}

impl Locations {
    /// The indexes to ask for `name`, in order, where its pin is `pin`.
    pub fn for_package(&self, name: &PackageName, pin: Option<&str>) -> Result<Vec<&Location>, IndexError> {
        let usual = self.indexes.iter().filter(|location| !location.explicit);
        let Some(pin) = pin else {
            return Ok(usual.collect());
        };
        let found = self
            .indexes
            .iter()
            .find(|location| location.name.as_deref() == Some(pin))
            .ok_or_else(|| IndexError::UnknownIndex {
                name: name.clone(),
                index: pin.to_owned(),
                known: self
                    .indexes
                    .iter()
                    .filter_map(|location| location.name.clone())
                    .collect(),
            })?;
        let only = self
            .pins_of(name)
            .iter()
            .any(|known| known.index == pin && known.only);
        match only {
            true => Ok(vec![found]),
            false => Ok(std::iter::once(found).chain(usual).collect()),
        }
    }

    pub fn pins_of(&self, name: &PackageName) -> &[Pin] {
        self.pins.get(name).map_or(&[], Vec::as_slice)
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
        for (name, pins) in &self.pins {
            lines.extend(pins.iter().map(|pin| match pin.marker.try_to_string() {
                Some(marker) => format!("source {name} = {} ; {marker}", pin.index),
                None => format!("source {name} = {}", pin.index),
            }));
        }
        let own = self.find_links.iter().filter(|link| !link.of_machine);
        lines.extend(own.map(|link| match link.written {
            Some(_) => format!("find-links = {}", link.label()),
            None => format!("find-links = {}", Redacted(&link.url)),
        }));
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
    // What is typed is relative to where it is typed, what a file says to the file's folder.
    let here = std::env::current_dir().unwrap_or_default();

    let mut further: Vec<(DeclaredIndex, &Path)> = Vec::new();
    let mut plain = |urls: Vec<String>| {
        for url in urls {
            let (name, url) = named(&url);
            let index = DeclaredIndex {
                name,
                url,
                ..DeclaredIndex::default()
            };
            further.push((index, &here));
        }
    };
    plain(flags.extra_index_urls.clone());
    for name in ["UV_INDEX", "UV_EXTRA_INDEX_URL", "PIP_EXTRA_INDEX_URL"] {
        plain(words(name));
    }
    let mut default = flags.index_url.clone();
    for name in ["UV_DEFAULT_INDEX", "UV_INDEX_URL", "PIP_INDEX_URL"] {
        default = default.or_else(|| variable(name));
    }
    let mut default = default.map(|url| {
        let (name, url) = named(&url);
        let index = DeclaredIndex {
            name,
            url,
            ..DeclaredIndex::default()
        };
        (index, here.as_path())
    });
    for index in declared.indexes.iter().chain(&uv.indexes) {
        if index.default {
            default = default.or_else(|| Some((index.clone(), folder)));
        } else {
            further.push((index.clone(), folder));
        }
    }
    let pip_default = pip.index_url.clone().map(|url| DeclaredIndex {
        url,
        ..DeclaredIndex::default()
    });
    default = default.or_else(|| Some((pip_default?, here.as_path())));
    for url in &pip.extra_index_urls {
        let index = DeclaredIndex {
            url: url.clone(),
            ..DeclaredIndex::default()
        };
        further.push((index, &here));
    }
    let public = || DeclaredIndex {
        url: format!("https://{PUBLIC}.org/simple/"),
        ..DeclaredIndex::default()
    };
    further.push(default.unwrap_or_else(|| (public(), &here)));

    let no_index = flags.no_index
        || declared.no_index
        || uv.no_index
        || pip.no_index
        || ["UV_NO_INDEX", "PIP_NO_INDEX"]
            .map(variable)
            .into_iter()
            .flatten()
            .any(|value| is_yes(&value));
    if no_index {
        further.clear();
    }

    let mut indexes: Vec<Location> = Vec::new();
    for (index, base) in further {
        let location = location(&index, base, &variable)?;
        // The same address twice is asked once; a named entry is kept, since sources may speak of it.
        let known = indexes
            .iter_mut()
            .find(|known| known.url == location.url && known.explicit == location.explicit);
        match known {
            Some(known) if known.name.is_none() || location.name.is_none() => {
                known.name = known.name.take().or(location.name);
                known.credentials = known.credentials.take().or(location.credentials);
            }
            _ => indexes.push(location),
        }
    }
    let in_environment = variable("UV_FIND_LINKS");
    let commas = in_environment.iter().flat_map(|value| value.split(','));
    let spaces = variable("PIP_FIND_LINKS");
    let typed = flags
        .find_links
        .iter()
        .map(|text| (text.as_str(), here.as_path(), false));
    let set = commas
        .chain(spaces.iter().flat_map(|value| value.split_whitespace()))
        .map(|text| (text, here.as_path(), true));
    let written = declared.find_links.iter().chain(&uv.find_links);
    let find_links = typed
        .chain(set)
        .chain(written.map(|text| (text.as_str(), folder, false)))
        .chain(
            pip.find_links
                .iter()
                .map(|text| (text.as_str(), here.as_path(), true)),
        )
        .map(|(text, base, of_machine)| {
            let place = DeclaredIndex {
                url: text.trim().to_owned(),
                flat: true,
                ..DeclaredIndex::default()
            };
            Ok::<_, IndexError>(Location {
                of_machine,
                ..location(&place, base, &variable)?
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Locations {
        indexes,
        find_links,
        pins: if no_index {
            Pins::new()
        } else {
            declared.pins.clone()
        },
        netrc: netrc(&variable),
    })
}

/// As pip reads a setting that is on or off.
fn is_yes(text: &str) -> bool {
    matches!(
        text.trim().to_ascii_lowercase().as_str(),
        "1" | "y" | "yes" | "t" | "true" | "on"
    )
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
    base: &Path,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Location, IndexError> {
    let mut written = None;
    let mut url = if index.url.contains("://") {
        Url::parse(&index.url).map_err(|error| {
            // The text may hold a password: only what comes after an `@` is shown.
            let shown = index.url.rsplit('@').next().unwrap_or_default();
            IndexError::Config(format!("`{shown}` is not a URL: {error}"))
        })?
    } else {
        written = Some(index.url.clone());
        Url::from_file_path(base.join(&index.url))
            .map_err(|()| IndexError::Config(format!("`{}` is neither a URL nor a path", index.url)))?
    };
    if !matches!(url.scheme(), "http" | "https" | "file") {
        return Err(IndexError::Config(format!(
            "{} is none of http, https and file",
            Redacted(&url)
        )));
    }
    url.set_fragment(None);
    // A flat page is one document, whose name may end in anything.
    if !url.path().ends_with('/') && !index.flat {
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
        flat: index.flat,
        written,
        of_machine: false,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::files::pip_file;
    use super::netrc::netrc_machines;
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
        let found = location(&index, Path::new("/"), &|_| None).unwrap();
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
