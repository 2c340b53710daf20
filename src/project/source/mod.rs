//! Facts read from Python source, never executed.
