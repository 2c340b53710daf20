//! OCI vocabulary: references, descriptors, manifests, layers, images. No I/O, and nothing of Python.
//!
//! The centre is [`Layer`] and [`Image`]: whatever makes layers (`layers/`, `debian/`, `registry/`) and whatever takes
//! images (`destination/`) meets here and knows nothing of the other side.
//!
//! The JSON is serde_json's own, with keys in a fixed order: oci-spec's types keep labels and annotations in hash maps,
//! whose order, and with it every digest, would differ from run to run.

pub mod image;
pub mod index;
pub mod manifest;
pub mod media;
pub mod platform;
pub mod reference;

pub use image::{Image, Layer, LayerBytes};
pub use index::{Index, Publishable};
pub use manifest::{Descriptor, Document};
pub use media::{Family, LayerType};
pub use platform::Platform;
pub use reference::Reference;
