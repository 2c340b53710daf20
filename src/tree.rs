//! A sorted file tree.
