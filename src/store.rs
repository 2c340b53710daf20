//! The content-addressed cache.
