//! Requirements become pins: a universal resolver on pubgrub.
