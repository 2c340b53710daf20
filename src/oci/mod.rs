//! OCI vocabulary: references, descriptors, layers, images. No I/O, and nothing of Python.
//!
//! The centre is [`Layer`] and [`Image`]: whatever makes layers (`layers/`, `debian/`, `registry/`) and whatever takes
//! images (`destination/`) meets here and knows nothing of the other side.

pub mod image;

pub use image::{Image, Layer, LayerBytes, Platform};
