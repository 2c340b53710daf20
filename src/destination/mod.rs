//! Where an image can go. Knows images, not Python.
