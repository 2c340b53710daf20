//! Layers: bytes that are finished when made.

pub mod bytecode;
pub mod sums;
pub mod unpack;
