//! Layers: bytes that are finished when made.

pub mod sums;
