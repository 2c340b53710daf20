//! Python package indexes.
