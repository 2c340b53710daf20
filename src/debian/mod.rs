//! The base image from Debian's signed archive.
