//! A recipe: all that a layer of wheels is made from, and nothing else. Its digest is the layer's key.
//!
//! Whoever knows the key knows the bytes: the store, `mlrails.sum` and a previous image find a layer by it. So whatever
//! changes a layer's bytes must change a recipe: a wheel, the prefix, or [`LAYOUT`] when this code makes other bytes from
//! the same wheels.

use std::str::FromStr;

use serde::{Serialize, Serializer};

use crate::digest::Digest;
use crate::oci::image::LayerType;
use crate::python::target::PythonVersion;

/// The version of everything between a wheel and a layer's bytes: paths, modes, generated files, tar, splice, encoder.
pub const LAYOUT: u32 = 2;

/// What a layer of wheels is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Recipe {
    pub layout: u32,
    pub form: Form,
    /// Where the environment is, without a leading slash: `opt/venv`.
    pub prefix: String,
    /// Major and minor: part of the path of site-packages.
    pub python: PythonVersion,
    /// The wheels' digests, in the order of the layer.
    pub wheels: Vec<Digest>,
    /// Which part of them, where they are too large for one layer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// One of several layers that hold the files of one wheel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Part {
    /// From 0.
    pub index: u64,
    /// At least 2.
    pub of: u64,
}

impl Part {
    /// The parts of what weighs `size`, each of about `most` at most; none where one layer will do.
    pub fn all(size: u64, most: u64) -> Vec<Option<Self>> {
        match size.div_ceil(most.max(1)).min(MOST_PARTS) {
            0 | 1 => vec![None],
            of => (0..of).map(|index| Some(Self { index, of })).collect(),
        }
    }
}

/// Layers are counted: a wheel takes no more than these.
const MOST_PARTS: u64 = 16;

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Form {
    /// One gzip member, the wheels' own deflate streams spliced.
    #[default]
    Gzip,
    /// eStargz: each file a gzip member of its own, and a table of contents at the end.
    Lazy,
    /// One zstd frame: everything is compressed again, which takes longer and travels smaller.
    Zstd { level: i32 },
}

/// What zstd itself takes where nothing is said.
const ZSTD_LEVEL: i32 = 3;

impl Form {
    /// The media type of such layers.
    pub fn layer_type(self) -> LayerType {
        match self {
            Self::Gzip | Self::Lazy => LayerType::Gzip,
            Self::Zstd { .. } => LayerType::Zstd,
        }
    }

    /// The key of the layer that `key` names in the default form, in this one.
    pub fn key(self, key: Digest) -> Digest {
        match self {
            Self::Gzip => key,
            _ => Digest::of(format!("{} {key}\n", self.identity()).as_bytes()),
        }
    }

    /// All that a layer's bytes depend on. gzip is written by code of our own; zstd by a library that may write other bytes in
    /// its next version.
    fn identity(self) -> String {
        match self {
            Self::Gzip => "gzip".to_owned(),
            Self::Lazy => "estargz".to_owned(),
            Self::Zstd { level } => format!("zstd-{}:{level}", zstd::zstd_safe::version_string()),
        }
    }
}

/// No form that a layer could have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is no compression of layers: gzip, zstd, or zstd with a level from 1 to {} such as zstd:19",
    Form::highest()
)]
pub struct UnknownForm {
    text: String,
}

impl Form {
    fn highest() -> i32 {
        zstd::zstd_safe::max_c_level()
    }
}

impl FromStr for Form {
    type Err = UnknownForm;

    fn from_str(text: &str) -> Result<Self, UnknownForm> {
        let unknown = || UnknownForm {
            text: text.chars().take(40).flat_map(char::escape_debug).collect(),
        };
        match text.split_once(':') {
            None if text == "gzip" => Ok(Self::Gzip),
            None if text == "zstd" => Ok(Self::Zstd { level: ZSTD_LEVEL }),
            Some(("zstd", level)) => {
                let level: i32 = level.parse().map_err(|_| unknown())?;
                let is_level = (1..=Self::highest()).contains(&level);
                is_level.then_some(Self::Zstd { level }).ok_or_else(unknown)
            }
            _ => Err(unknown()),
        }
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.identity())
    }
}

/// Where environments are in an image.
pub const PREFIX: &str = "opt/venv";

impl Recipe {
    /// The recipe of a layer with these wheels, in this order, for images.
    pub fn new(python: PythonVersion, wheels: impl IntoIterator<Item = Digest>) -> Self {
        Self {
            layout: LAYOUT,
            form: Form::default(),
            prefix: PREFIX.to_owned(),
            python: python.minor_only(),
            wheels: wheels.into_iter().collect(),
            part: None,
        }
    }

    /// This recipe, for a layer of another form.
    pub fn in_form(self, form: Form) -> Self {
        Self { form, ..self }
    }

    /// This recipe, for one of several layers.
    pub fn in_part(self, part: Option<Part>) -> Self {
        Self { part, ..self }
    }

    /// The digest of the recipe's JSON, whose fields are written in the order above.
    pub fn key(&self) -> Digest {
        let json = serde_json::to_vec(self).unwrap_or_else(|error| unreachable!("plain data: {error}"));
        Digest::of(&json)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_stable_and_says_everything() {
        let one = Recipe::new(PythonVersion::new(3, 11), [Digest::of(b"a"), Digest::of(b"b")]);
        // Written down: another key would make every layer of every project again.
        assert_eq!(one.key().hex()[..16], *"3771f870cb40ec69");
        let other = Recipe::new(PythonVersion::new(3, 11), [Digest::of(b"b"), Digest::of(b"a")]);
        assert_ne!(one.key(), other.key());
        let later = Recipe::new(PythonVersion::new(3, 12), one.wheels.clone());
        assert_ne!(one.key(), later.key());
        let zstd = one.clone().in_form(Form::Zstd { level: 3 });
        assert_ne!(one.key(), zstd.key());
        assert_ne!(zstd.key(), one.clone().in_form(Form::Zstd { level: 4 }).key());
        let parts: Vec<Digest> = Part::all(5, 2)
            .into_iter()
            .map(|part| one.clone().in_part(part).key())
            .collect();
        assert_eq!(parts.len(), 3);
        assert_ne!(parts[0], parts[1]);
        assert_ne!(parts[0], one.key());
        assert_eq!(Part::all(2, 2), [None]);
        assert_eq!(Part::all(0, 0), [None]);
    }

    #[test]
    fn forms_are_named_as_on_the_command_line() {
        assert_eq!("gzip".parse(), Ok(Form::Gzip));
        assert_eq!("zstd".parse(), Ok(Form::Zstd { level: 3 }));
        assert_eq!("zstd:19".parse(), Ok(Form::Zstd { level: 19 }));
        for wrong in ["", "lz4", "zstd:", "zstd:0", "zstd:99", "gzip:9", "zstd:3:4"] {
            assert!(wrong.parse::<Form>().is_err(), "{wrong}");
        }
        let key = Digest::of(b"a");
        assert_eq!(Form::Gzip.key(key), key);
        assert_ne!(Form::Zstd { level: 3 }.key(key), key);
    }
}
