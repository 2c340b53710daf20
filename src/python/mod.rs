//! Python packaging vocabulary. No I/O.
