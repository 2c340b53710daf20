//! mlrails: from a conventional Python ML project to an image or a wheel that serves it.
//!
//! The data flow is one direction, `Project → Targets → Lock → Plan → Layers → Image → Destination`, and the modules
//! stand on floors: imports only point down. ARCHITECTURE.md draws the house; `tests/floors.rs` defends it.

// Floor 7, 6: the command line, and what it makes.
pub mod cli;
pub mod image;
pub mod verify;
pub mod wheel;
// Floor 5: bytes.
pub mod build;
pub mod layers;
pub mod plan;
// Floor 4: decisions and destinations.
pub mod base_image;
pub mod destination;
pub mod resolve;
pub mod serving;
// Floor 3: the outside world.
pub mod debian;
pub mod index;
pub mod registry;
pub mod run;
pub mod targets;
// Floor 2: data.
pub mod fetch;
pub mod lock;
pub mod oci;
pub mod project;
pub mod sdist;
pub mod store;
pub mod tree;
// Floor 1: vocabulary.
pub mod deflate;
pub mod digest;
pub mod http;
pub mod inflate;
pub mod interrupt;
pub mod python;
pub mod quantity;
pub mod regular;
pub mod reporter;
pub mod whole;
