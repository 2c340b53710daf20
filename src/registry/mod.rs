//! OCI registries.
