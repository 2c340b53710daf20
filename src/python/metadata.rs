//! Core metadata: the headers of a METADATA or PKG-INFO file that dependencies and names are read from.
//!
//! Strict where a wrong reading would install the wrong thing (name, version), tolerant where published files are
//! known to be broken and the intent is clear: a bad Requires-Python is no bound, an unknown header is skipped.
//!
//! Source: the core metadata specification (PEP 241 to 794); the file is an e-mail header block (RFC 822).

use std::str::FromStr;

use uv_normalize::{ExtraName, PackageName};
use uv_pep440::{Version, VersionSpecifiers};

use super::requirement::{self, InvalidRequirement, Requirement};

/// The largest METADATA that is read; long descriptions make real ones up to 1 MB.
pub const LARGEST: u64 = 16 << 20;

/// What a distribution says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// `(2, 4)` for Metadata-Version 2.4.
    pub metadata_version: (u32, u32),
    pub name: PackageName,
    pub version: Version,
    pub requires_python: Option<VersionSpecifiers>,
    pub requires_dist: Vec<Requirement>,
    pub provides_extra: Vec<ExtraName>,
    /// Lower-case names of the headers that a build may still change (Metadata-Version 2.2 and later).
    pub dynamic: Vec<String>,
    /// Importable names (Metadata-Version 2.5, PEP 794); empty when the file does not say.
    pub import_names: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    #[error("it is not UTF-8")]
    NotUtf8,
    #[error("it has no {0}")]
    Missing(&'static str),
    #[error("{header} appears twice")]
    Twice { header: &'static str },
    #[error("{header} `{value}` is invalid: {reason}")]
    Invalid {
        header: &'static str,
        value: String,
        reason: String,
    },
    #[error(transparent)]
    Requirement(#[from] InvalidRequirement),
}

impl Metadata {
    /// Parses a METADATA or PKG-INFO file.
    pub fn parse(bytes: &[u8]) -> Result<Self, MetadataError> {
        // Descriptions of old packages are latin-1; the headers that matter are ASCII, and come first.
        let text = match std::str::from_utf8(headers(bytes)) {
            Ok(text) => std::borrow::Cow::Borrowed(text),
            Err(_) => String::from_utf8_lossy(headers(bytes)),
        };
        let mut found = Headers::default();
        for (name, value) in Lines::new(&text) {
            found.take(&name, value.trim())?;
        }
        let metadata_version = found
            .metadata_version
            .ok_or(MetadataError::Missing("Metadata-Version"))?;
        Ok(Self {
            metadata_version,
            name: found.name.ok_or(MetadataError::Missing("Name"))?,
            version: found.version.ok_or(MetadataError::Missing("Version"))?,
            requires_python: found.requires_python,
            requires_dist: found.requires_dist,
            provides_extra: found.provides_extra,
            dynamic: found.dynamic,
            import_names: found.import_names,
        })
    }

    /// Whether a source distribution's dependencies are what any wheel built from it will have (PEP 643).
    pub fn dependencies_are_static(&self) -> bool {
        self.metadata_version >= (2, 2)
            && !self.dynamic.iter().any(|name| {
                matches!(
                    name.as_str(),
                    "requires-dist" | "requires-python" | "provides-extra" | "version"
                )
            })
    }

    /// The headers kept here, as a METADATA file of its own: what caches hold instead of the description.
    pub fn to_headers(&self) -> String {
        use std::fmt::Write as _;
        let mut text = format!(
            "Metadata-Version: {}.{}\nName: {}\nVersion: {}\n",
            self.metadata_version.0, self.metadata_version.1, self.name, self.version
        );
        if let Some(specifiers) = &self.requires_python {
            let _ = writeln!(text, "Requires-Python: {specifiers}");
        }
        for extra in &self.provides_extra {
            let _ = writeln!(text, "Provides-Extra: {extra}");
        }
        for requirement in &self.requires_dist {
            let _ = writeln!(text, "Requires-Dist: {requirement}");
        }
        for name in &self.dynamic {
            let _ = writeln!(text, "Dynamic: {name}");
        }
        for name in &self.import_names {
            let _ = writeln!(text, "Import-Name: {name}");
        }
        text
    }
}

#[derive(Default)]
struct Headers {
    metadata_version: Option<(u32, u32)>,
    name: Option<PackageName>,
    version: Option<Version>,
    requires_python: Option<VersionSpecifiers>,
    requires_dist: Vec<Requirement>,
    provides_extra: Vec<ExtraName>,
    dynamic: Vec<String>,
    import_names: Vec<String>,
}

impl Headers {
    fn take(&mut self, name: &str, value: &str) -> Result<(), MetadataError> {
        match name {
            "metadata-version" => set(
                &mut self.metadata_version,
                "Metadata-Version",
                value,
                metadata_version,
            ),
            "name" => set(&mut self.name, "Name", value, parsed),
            "version" => set(&mut self.version, "Version", value, parsed),
            "requires-python" => {
                // `>=3.6.*` and `>=2.7,!=3.0*` are on the index for ever. Without a bound the distribution is tried,
                // as installers of the time did; the index's own requires-python usually says better.
                self.requires_python = python_specifiers(value);
                Ok(())
            }
            "requires-dist" => {
                self.requires_dist.push(requirement::parse(value)?);
                Ok(())
            }
            "provides-extra" => {
                // An extra whose name is invalid cannot be asked for either.
                self.provides_extra.extend(ExtraName::from_str(value));
                Ok(())
            }
            "dynamic" => {
                self.dynamic.push(value.to_ascii_lowercase());
                Ok(())
            }
            "import-name" => {
                // `name ; private` marks what others should not import (PEP 794).
                let name = value.split(';').next().unwrap_or_default().trim();
                if !name.is_empty() && !self.import_names.iter().any(|known| known == name) {
                    self.import_names.push(name.to_owned());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

fn set<T>(
    slot: &mut Option<T>,
    header: &'static str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<(), MetadataError> {
    if slot.is_some() {
        return Err(MetadataError::Twice { header });
    }
    *slot = Some(parse(value).map_err(|reason| MetadataError::Invalid {
        header,
        value: value.chars().take(80).collect(),
        reason,
    })?);
    Ok(())
}

fn parsed<T: FromStr<Err: std::fmt::Display>>(value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|error: T::Err| error.to_string().lines().next().unwrap_or_default().to_owned())
}

fn metadata_version(value: &str) -> Result<(u32, u32), String> {
    let (major, minor) = value.split_once('.').ok_or("it is not of the form 2.4")?;
    let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
    let version = (number(major)?, number(minor)?);
    if version.0 > 2 {
        return Err("this version is not known".to_owned());
    }
    Ok(version)
}

/// A Requires-Python as published: the spellings that older tools wrote are read as they were meant.
pub fn python_specifiers(value: &str) -> Option<VersionSpecifiers> {
    if let Ok(specifiers) = value.parse() {
        return Some(specifiers);
    }
    let parts: Vec<String> = value
        .split(',')
        .map(|part| {
            let part = part.trim().trim_matches(['\'', '"']).trim();
            let ordered = part.starts_with(">=") || part.starts_with("<=") || part.starts_with(['<', '>']);
            match (ordered, part.strip_suffix(".*")) {
                // `>=3.6.*` was meant as `>=3.6`.
                (true, Some(stripped)) => stripped.to_owned(),
                _ => part.to_owned(),
            }
        })
        .filter(|part| !part.is_empty())
        .collect();
    parts.join(",").parse().ok()
}

/// The header block: everything before the first empty line.
fn headers(bytes: &[u8]) -> &[u8] {
    let mut at = 0;
    while let Some(end) = bytes[at..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[at..at + end];
        if line.is_empty() || line == b"\r" {
            return &bytes[..at];
        }
        at += end + 1;
    }
    bytes
}

/// Unfolded headers: a line that starts with a space continues the one before it.
struct Lines<'a> {
    lines: std::iter::Peekable<std::str::Lines<'a>>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            lines: text.trim_start_matches('\u{feff}').lines().peekable(),
        }
    }
}

impl Iterator for Lines<'_> {
    type Item = (String, String);

    fn next(&mut self) -> Option<(String, String)> {
        loop {
            let line = self.lines.next()?;
            let Some((name, value)) = line.split_once(':') else {
                continue;
            };
            let mut value = value.to_owned();
            while let Some(more) = self.lines.next_if(|next| next.starts_with([' ', '\t'])) {
                value.push(' ');
                value.push_str(more.trim());
            }
            return Some((name.trim().to_ascii_lowercase(), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &str) -> Result<Metadata, MetadataError> {
        Metadata::parse(format!("Metadata-Version: 2.1\n{headers}\n\nbody: x\n").as_bytes())
    }

    #[test]
    fn reads_what_matters_and_round_trips() {
        let metadata = check(
            "Name: Foo.Bar\nVersion: 1.0\nRequires-Python: >=3.8\nRequires-Dist: a>=1 ; extra == 'x'\n\
             Requires-Dist: b (>=2)\nProvides-Extra: X_y\nDescription: first\n  Name: folded\nDynamic: Requires-Dist",
        )
        .unwrap();
        assert_eq!(metadata.name.as_str(), "foo-bar");
        assert_eq!(metadata.requires_dist.len(), 2);
        assert_eq!(metadata.provides_extra[0].as_str(), "x-y");
        assert!(!metadata.dependencies_are_static());
        assert_eq!(
            Metadata::parse(metadata.to_headers().as_bytes()).unwrap(),
            metadata
        );
    }

    #[test]
    fn refuses_what_would_install_the_wrong_thing() {
        assert_eq!(check("Version: 1").unwrap_err(), MetadataError::Missing("Name"));
        assert_eq!(
            check("Name: a\nName: b\nVersion: 1").unwrap_err(),
            MetadataError::Twice { header: "Name" }
        );
        assert!(check("Name: a\nVersion: one").is_err());
        assert!(check("Name: a\nVersion: 1\nRequires-Dist: >>").is_err());
        assert!(check("Name: ../a\nVersion: 1").is_err());
        assert!(check("Name: a\nVersion: 1.99999999999999999999").is_err());
    }

    #[test]
    fn old_spellings_are_read_as_meant() {
        assert_eq!(python_specifiers(">=3.6.*").unwrap().to_string(), ">=3.6");
        assert_eq!(python_specifiers("'>=3.7'").unwrap().to_string(), ">=3.7");
        assert!(python_specifiers("three").is_none());
        assert!(
            check("Name: a\nVersion: 1\nRequires-Python: three")
                .unwrap()
                .requires_python
                .is_none()
        );
    }
}
