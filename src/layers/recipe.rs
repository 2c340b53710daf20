//! A recipe: all that a layer of wheels is made from, and nothing else. Its digest is the layer's key.
//!
//! Whoever knows the key knows the bytes: the store, `mlrails.sum` and a previous image find a layer by it. So whatever
//! changes a layer's bytes must change a recipe: a wheel, the prefix, or [`LAYOUT`] when this code makes other bytes from
//! the same wheels.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::python::target::PythonVersion;

/// The version of everything between a wheel and a layer's bytes: paths, modes, generated files, tar, splice, encoder.
pub const LAYOUT: u32 = 2;

/// What a layer of wheels is made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    pub layout: u32,
    pub form: Form,
    /// Where the environment is, without a leading slash: `opt/venv`.
    pub prefix: String,
    /// Major and minor: part of the path of site-packages.
    pub python: PythonVersion,
    /// The wheels' digests, in the order of the layer.
    pub wheels: Vec<Digest>,
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// One gzip member, the wheels' own deflate streams spliced.
    Gzip,
}

/// Where environments are in an image.
pub const PREFIX: &str = "opt/venv";

impl Recipe {
    /// The recipe of a layer with these wheels, in this order, for images.
    pub fn new(python: PythonVersion, wheels: impl IntoIterator<Item = Digest>) -> Self {
        Self {
            layout: LAYOUT,
            form: Form::Gzip,
            prefix: PREFIX.to_owned(),
            python: python.minor_only(),
            wheels: wheels.into_iter().collect(),
        }
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
    }
}
