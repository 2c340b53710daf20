//! Layers: bytes that are finished when made.

pub mod deflate;
pub mod sums;
pub mod unpack;
