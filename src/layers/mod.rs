//! Layers: bytes that are finished when made.
