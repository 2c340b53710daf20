//! SBOMs and provenance, from the lock.
