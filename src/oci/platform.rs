//! Platforms by their OCI names, and which of an index's entries serves one.
//!
//! Source: OCI image-spec "Image Index", property `platform`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An OCI platform, for example `linux/arm64/v8`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Platform {
    pub architecture: String,
    pub os: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("`{0}` is not a platform: it is written os/architecture, like linux/amd64")]
pub struct InvalidPlatform(String);

impl Platform {
    /// The Linux platform of the machine this runs on.
    pub fn host() -> Self {
        let machine = std::env::consts::ARCH;
        Self {
            os: "linux".to_owned(),
            architecture: architecture(machine).to_owned(),
            variant: None,
        }
    }

    /// Whether what is made for `self` is what `wanted` asks for. A missing variant is the architecture's usual one.
    pub fn serves(&self, wanted: &Self) -> bool {
        self.os == wanted.os
            && self.architecture == wanted.architecture
            && (self.usual_variant() == wanted.usual_variant() || wanted.variant.is_none())
    }

    fn usual_variant(&self) -> Option<&str> {
        match (self.architecture.as_str(), self.variant.as_deref()) {
            ("arm64", None) => Some("v8"),
            ("arm", None) => Some("v7"),
            (_, variant) => variant,
        }
    }
}

/// The OCI (Go) name of an architecture, from the names that other tools have for it.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i686" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(formatter, "/{variant}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Platform {
    type Err = InvalidPlatform;

    fn from_str(text: &str) -> Result<Self, InvalidPlatform> {
        let invalid = || InvalidPlatform(text.chars().take(80).collect());
        let mut parts = text.split('/');
        let mut next = || parts.next().map(str::to_owned);
        let (os, arch, variant) = (next(), next(), next());
        let (Some(os), Some(arch), None) = (os, arch, next()) else {
            return Err(invalid());
        };
        let named = |part: &String| {
            part.starts_with(|first: char| first.is_ascii_alphanumeric())
                && part.len() <= 32
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte))
        };
        if ![Some(&os), Some(&arch), variant.as_ref()]
            .into_iter()
            .flatten()
            .all(named)
        {
            return Err(invalid());
        }
        Ok(Self {
            os,
            architecture: architecture(&arch).to_owned(),
            variant,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_variants_have_a_usual_one() {
        for name in ["linux/amd64", "linux/arm64/v8", "windows/amd64"] {
            assert_eq!(name.parse::<Platform>().unwrap().to_string(), name);
        }
        for wrong in [
            "linux",
            "",
            "linux/",
            "linux/amd64/v1/x",
            "Linux/amd64",
            "linux/../x",
        ] {
            assert!(wrong.parse::<Platform>().is_err(), "{wrong}");
        }
        let platform = |name: &str| name.parse::<Platform>().unwrap();
        assert_eq!(platform("linux/x86_64").to_string(), "linux/amd64");
        assert!(platform("linux/arm64/v8").serves(&platform("linux/arm64")));
        assert!(platform("linux/arm64").serves(&platform("linux/arm64/v8")));
        assert!(!platform("linux/arm/v6").serves(&platform("linux/arm/v7")));
    }
}
